//! The hosts of a connection string, with their ports.

use std::net::IpAddr;
use std::path::Path;

use super::DsnError;
use super::parameters::Parameters;

/// One of the hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// A name, an address, or the folder of a Unix socket.
    pub(super) name: String,
    pub(super) addr: Option<IpAddr>,
    pub(super) port: u16,
}

/// Hosts with their ports; one port serves all, as in libpq.
pub(super) fn hosts(parameters: &Parameters) -> Result<Vec<Host>, DsnError> {
    let list = |name: &str| parameters.get(name).map(|text| text.split(',').map(str::to_owned).collect::<Vec<_>>()).unwrap_or_default();
    let (mut names, addrs, ports) = (list("host"), list("hostaddr"), list("port"));
    if names.is_empty() {
        names = if addrs.is_empty() { vec![String::new()] } else { addrs.clone() };
    }
    if !addrs.is_empty() && addrs.len() != names.len() {
        return Err(DsnError::Malformed("there are not as many hostaddr as host".to_owned()));
    }
    if ports.len() > 1 && ports.len() != names.len() {
        return Err(DsnError::Malformed("there are not as many ports as hosts".to_owned()));
    }
    let mut hosts = Vec::new();
    for (index, name) in names.into_iter().enumerate() {
        let port = match ports.get(index).or_else(|| ports.first()).map(String::as_str) {
            None | Some("") => 5432,
            Some(text) => text.parse().map_err(|_| DsnError::invalid("port", text, "a number from 1 to 65535"))?,
        };
        let addr = match addrs.get(index).filter(|text| !text.is_empty()) {
            Some(text) => Some(text.parse().map_err(|_| DsnError::invalid("hostaddr", text, "an IP address"))?),
            None => None,
        };
        hosts.push(Host { name: if name.is_empty() { default_host(port) } else { name }, addr, port });
    }
    Ok(hosts)
}

/// Where Postgres usually puts its socket; without one, this machine.
fn default_host(port: u16) -> String {
    let folder = ["/var/run/postgresql", "/tmp"].into_iter().find(|folder| Path::new(folder).join(format!(".s.PGSQL.{port}")).exists());
    folder.unwrap_or("localhost").to_owned()
}
