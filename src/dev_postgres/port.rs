//! Which loopback port the server listens on.

use std::{fs, net::TcpListener};

use super::{Error, Options, make, place::Place};

/// Below the ports that systems hand out for outgoing connections, so that none of those takes it while we are down.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// The port to start on: the wanted one, else the remembered one while it is free, else a new one.
pub(super) fn choose(options: &Options, place: &Place) -> Result<u16, Error> {
    if let Some(port) = options.port {
        return if is_free(port) { Ok(port) } else { Err(Error::PortTaken { port }) };
    }
    let file = place.beside("port");
    let remembered = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
    if let Some(port) = remembered.filter(|port| is_free(*port)) {
        return Ok(port);
    }
    let port = find()?;
    if let Some(taken) = remembered {
        tracing::info!(taken, port, "choose a new port, somebody else listens on the old one");
    }
    fs::write(&file, format!("{port}\n")).map_err(Error::io(format_args!("write {}", file.display())))?;
    Ok(port)
}

fn find() -> Result<u16, Error> {
    for _ in 0..100 {
        let [high, low] = make::random()?;
        let port = PORTS.start + u16::from_be_bytes([high, low]) % (PORTS.end - PORTS.start);
        if is_free(port) {
            return Ok(port);
        }
    }
    // Crowded: take whatever the system has.
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(Error::io("find a free port"))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_port_is_replaced_when_remembered_and_refused_when_wanted() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::new(&root.path().join("postgres")).unwrap();
        let options = |port| Options { data_dir: place.data_dir().to_owned(), fsync: false, port, settings: Vec::new() };
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        fs::write(place.beside("port"), port.to_string()).unwrap();
        let chosen = choose(&options(None), &place).unwrap();
        assert_ne!(chosen, port);
        assert_eq!(choose(&options(None), &place).unwrap(), chosen, "remembered");
        let refused = choose(&options(Some(port)), &place);
        assert!(matches!(refused, Err(Error::PortTaken { port: taken }) if taken == port));
    }
}
