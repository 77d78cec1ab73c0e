//! Which network addresses a call may go to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::core::service::Network;

/// Refuses addresses that are not on the public internet, unless a network in `allow` contains them.
///
/// An IPv6 address that carries an IPv4 address (mapped, compatible, NAT64, 6to4, Teredo, ISATAP) is also refused for what it carries.
///
/// # Errors
/// A sentence that names the address, why it is refused and what to write into the services file.
pub fn check(address: IpAddr, allow: &[Network]) -> Result<(), String> {
    if allow.iter().any(|network| network.contains(address)) {
        return Ok(());
    }
    match objection(address.to_canonical()) {
        None => Ok(()),
        Some(what) => Err(format!("the address {address} is {what}: if it is meant, add its network to `allow` of the service")),
    }
}

fn objection(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => objection_v4(address),
        IpAddr::V6(address) => objection_v6(address),
    }
}

fn objection_v4(address: Ipv4Addr) -> Option<&'static str> {
    Some(match address.octets() {
        [0, ..] => "unspecified",
        [127, ..] => "loopback",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "private",
        [100, 64..=127, ..] => "private (shared by a carrier)",
        [169, 254, ..] => "link-local, where clouds serve their metadata",
        [168, 63, 129, 16] => "the host agent of a cloud",
        [224..=239, ..] => "multicast",
        [255, 255, 255, 255] => "broadcast",
        [240..=255, ..] => "reserved",
        [192, 0, 0 | 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "reserved for documentation or protocols",
        [198, 18 | 19, ..] => "reserved for benchmarks",
        [192, 88, 99, _] => "a retired relay",
        _ => return None,
    })
}

fn objection_v6(address: Ipv6Addr) -> Option<&'static str> {
    let parts = address.segments();
    let v4_at = |index: usize| v4(parts[index], parts[index + 1]);
    Some(match parts {
        [0, 0, 0, 0, 0, 0, 0, 0] => "unspecified",
        [0, 0, 0, 0, 0, 0, 0, 1] => "loopback",
        // IPv4-compatible, translated, NAT64: they mean the IPv4 address at the end.
        [0, 0, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => return objection_v4(v4_at(6)),
        // Teredo: a server, and a client written inverted.
        [0x2001, 0, ..] => return objection_v4(v4_at(2)).or_else(|| objection_v4(v4(!parts[6], !parts[7]))),
        [0x2002, ..] => return objection_v4(v4_at(1)),
        // ISATAP puts an IPv4 address into the interface part of any prefix.
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] if objection_v4(v4_at(6)).is_some() => "a tunnel to an address that is not public",
        [0xfc00..=0xfdff, ..] => "private",
        [0xfe80..=0xfebf, ..] => "link-local",
        [0xfec0..=0xfeff, ..] => "private (site-local)",
        [0xff00..=0xffff, ..] => "multicast",
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => "reserved for documentation",
        [0x2001, 2..=0x1ff, ..] | [0x2001, 1, ..] => "reserved for protocols",
        [0x2000..=0x3fff, ..] => return None,
        // All public addresses of today lie in 2000::/3.
        _ => "reserved",
    })
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Option<String> {
        check(text.parse().expect(text), &[]).err()
    }

    #[test]
    fn addresses_that_are_not_public_are_refused() {
        let hostile = [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.255.254",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "169.254.0.1",
            "169.254.169.254",
            "168.63.129.16",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "198.51.100.7",
            "203.0.113.9",
            "198.18.0.1",
            "198.19.255.255",
            "192.88.99.1",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0:127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2001:0:7f00:1::",
            "2001:0:808:808::8000:fe",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "3fff::1",
            "100::1",
            "5f00::1",
            "2001:2::1",
            "2001:10::1",
            "2606:4700::5efe:10.0.0.1",
        ];
        for text in hostile {
            assert!(refused(text).is_some(), "{text} must be refused");
        }
    }

    #[test]
    fn public_addresses_are_open() {
        for text in [
            "8.8.8.8",
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "2a00:1450::1",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "::ffff:8.8.8.8",
        ] {
            assert_eq!(refused(text), None, "{text} is public");
        }
    }

    #[test]
    fn a_network_opens_what_it_contains_and_nothing_else() {
        let allow = ["127.0.0.0/8".parse().expect("network"), "fd00::/8".parse().expect("network")];
        let open = |text: &str| check(text.parse().expect(text), &allow).is_ok();
        assert!(open("127.0.0.1") && open("::ffff:127.0.0.1") && open("fd00::1"));
        assert!(!open("10.0.0.1") && !open("::1") && !open("64:ff9b::127.0.0.1") && !open("fc00::1"));
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let text = refused("169.254.169.254").expect("refused");
        assert!(text.contains("metadata") && text.contains("`allow`"), "{text}");
    }
}
