//! The services registry: the only places a call can go.

use std::net::IpAddr;

/// One deployed services file.
#[derive(Debug)]
pub struct ServiceRegistry {
    /// The file's `id`, else its stem.
    pub id: String,
    /// SHA-256 of the file's meaning, lower-case hex.
    pub revision: String,
    /// Its services.
    pub services: Vec<Service>,
    /// The functions of the database that `sql` steps may name, as `schema.name`.
    pub functions: Vec<String>,
}

/// A place that calls can go to.
#[derive(Clone, Debug)]
pub struct Service {
    /// Name used in saga files: `payment-svc`.
    pub name: String,
    /// Base address, `http` or `https`, without a trailing slash.
    pub url: String,
    /// Who the step tokens are for; the name unless said.
    pub audience: String,
    /// Networks that may be reached although they are loopback, private or link-local.
    pub allow: Vec<Network>,
    /// Headers sent with every call; the values are references, never secrets.
    pub headers: Vec<(String, HeaderSource)>,
}

/// Where a header's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderSource {
    /// The value itself.
    Plain(String),
    /// `secret://env/NAME`: read from the worker's environment.
    Env(String),
    /// `secret://file/PATH`: read from a file of the worker's host.
    File(String),
}

/// An address range in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// First address.
    pub base: IpAddr,
    /// Leading bits that must agree.
    pub prefix: u8,
}

impl std::str::FromStr for Network {
    type Err = String;

    /// Reads `10.0.0.0/8`, `::1/128` or a single address.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (base, prefix) = text.split_once('/').map_or((text, None), |(base, prefix)| (base, Some(prefix)));
        let base: IpAddr = base.parse().map_err(|_| format!("`{text}` is no network: write 10.0.0.0/8 or ::1/128"))?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            Some(digits) => digits.parse().ok().filter(|bits| *bits <= most).ok_or_else(|| format!("`{text}`: the prefix goes from 0 to {most}"))?,
        };
        Ok(Self { base, prefix })
    }
}

impl Network {
    /// Whether the address lies in the range. An IPv4-mapped IPv6 address counts as the IPv4 address that it means.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                same_prefix(u128::from(base.to_bits()), u128::from(address.to_bits()), 32 - self.prefix.min(32))
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => same_prefix(base.to_bits(), address.to_bits(), 128 - self.prefix.min(128)),
            _ => false,
        }
    }
}

fn same_prefix(left: u128, right: u128, free_bits: u8) -> bool {
    // A shift by all 128 bits would overflow: it leaves nothing to compare.
    (left ^ right).checked_shr(u32::from(free_bits)).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        let check = |network: &str, address: &str| network.parse::<Network>().expect(network).contains(address.parse().expect(address));
        assert!(check("127.0.0.0/8", "127.9.9.9"));
        assert!(check("127.0.0.0/8", "::ffff:127.0.0.1"));
        assert!(!check("127.0.0.0/8", "128.0.0.1"));
        assert!(check("::1", "::1"));
        assert!(check("0.0.0.0/0", "8.8.8.8"));
        assert!(!check("0.0.0.0/0", "::1"));
        assert!("10.0.0.0/33".parse::<Network>().is_err());
        assert!("payments".parse::<Network>().is_err());
    }
}
