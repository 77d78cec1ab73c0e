//! Hostile addresses in a services file, and secrets that are not there.

use super::*;

fn service(url: &str) -> Service {
    Service { name: "svc".into(), url: url.into(), audience: "svc".into(), allow: vec![], headers: vec![] }
}

fn resolve(service: Service) -> Result<Arc<Target>, String> {
    Registry::resolve(vec![service], &Err("no TLS in this test".into()), &Registry::default()).get("svc")
}

#[test]
fn hostile_urls_are_refused_without_repeating_them() {
    let hostile = [
        "",
        "http",
        "http:/",
        "http://",
        "http:///x",
        "//host",
        "host",
        "ftp://host",
        "file:///etc/passwd",
        "HTTP://host",
        "gopher://h",
        "javascript://x",
        "http://127.0.0.1",
        "http://127.0.0.1:80",
        "http://0.0.0.0",
        "http://10.0.0.1",
        "http://169.254.169.254",
        "http://192.168.1.1:8080/x",
        "http://[::1]",
        "http://[::]",
        "http://[::ffff:127.0.0.1]",
        "http://[::ffff:7f00:1]",
        "http://[fd00:ec2::254]",
        "http://[64:ff9b::a9fe:a9fe]",
        "http://[2002:7f00:1::]",
        "http://[fe80::1%25eth0]",
        "http://[::1",
        "http://::1",
        "http://[127.0.0.1]",
        "http://[::1]x",
        "http://[::1]]",
        "http://2130706433",
        "http://0x7f000001",
        "http://0x7f.1",
        "http://127.1",
        "http://0177.0.0.1",
        "http://017700000001",
        "http://1.2.3.4.5",
        "http://127.0.0.1.",
        "http://user:canary@host",
        "http://canary@127.0.0.1",
        "http://host@evil",
        "http://host:0",
        "http://host:99999",
        "http://host:",
        "http://host:80:80",
        "http://host:+80",
        "http://host:8 0",
        "http://ho st",
        "http://host\\@evil",
        "http://host\\x",
        "http://host#x",
        "http://host?x",
        "http://host/?x=1",
        "http://host/#x",
        "http://host/../x",
        "http://host/%2e%2e/x",
        "http://host/..;/x",
        "http://höst",
        "http://hos%74",
        "http://.host",
        "http://a..b",
        "http://host..",
        "http://host\r\nX: y",
        "http://host\t",
        "http://host\0",
        " http://host",
        "http://host ",
        "http://*",
        "http://a,b",
        "http://①②⑦.0.0.1",
    ];
    for url in hostile {
        let error = resolve(service(url)).err().unwrap_or_else(|| panic!("{url:?} must be refused"));
        assert!(!error.contains("canary"), "{error}");
    }
}

#[test]
fn plain_urls_are_taken() {
    for (url, host, path) in [
        ("http://payments.example", "payments.example", ""),
        ("http://payments.example:80/", "payments.example", ""),
        ("http://payments_1:9001/api/v1/", "payments_1:9001", "/api/v1"),
        ("http://8.8.8.8:1", "8.8.8.8:1", ""),
        ("http://[2606:4700::1111]:81/x", "[2606:4700::1111]:81", "/x"),
        ("http://localhost.", "localhost.", ""),
    ] {
        let target = resolve(service(url)).unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!((target.host.to_str().expect("host"), target.base_path.as_str()), (host, path), "{url}");
    }
    let open = Service { allow: vec!["127.0.0.0/8".parse().expect("network")], ..service("http://127.0.0.1:9001") };
    assert!(resolve(open).is_ok());
}

#[test]
fn https_without_root_certificates_says_so() {
    let error = resolve(service("https://payments.example")).err().expect("unusable");
    assert!(error.contains("no TLS in this test"), "{error}");
    assert!(native_tls().is_ok() || native_tls().is_err_and(|text| text.contains("SSL_CERT_FILE")));
}

#[test]
fn a_missing_secret_names_its_variable() {
    let with = |source| Service { headers: vec![("X-Api-Key".into(), source)], ..service("http://payments.example") };
    let error = resolve(with(HeaderSource::Env("HMS_TEST_UNSET".into()))).err().expect("unusable");
    assert!(error.contains("set the environment variable HMS_TEST_UNSET"), "{error}");
    let error = resolve(with(HeaderSource::File("/nonexistent/key".into()))).err().expect("unusable");
    assert!(error.contains("/nonexistent/key"), "{error}");
}

#[test]
fn secrets_are_read_marked_and_never_shown() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("key");
    let with =
        || Service { headers: vec![("X-Api-Key".into(), HeaderSource::File(path.display().to_string()))], ..service("http://payments.example") };
    std::fs::write(&path, "canary-3f9\n").expect("write");
    let target = resolve(with()).expect("usable");
    let (_, value) = &target.headers[0];
    assert_eq!(value, "canary-3f9");
    assert!(value.is_sensitive() && !format!("{value:?}").contains("canary"));
    std::fs::write(&path, "canary-3f9\r\nX-Evil: 1").expect("write");
    let error = resolve(with()).err().expect("unusable");
    assert!(!error.contains("canary"), "{error}");
}

#[test]
fn the_registry_cannot_replace_what_identifies_a_call() {
    for header in ["Authorization", "Hms-Fence", "Host", "Idempotency-Key"] {
        let bad = Service { headers: vec![(header.into(), HeaderSource::Plain("x".into()))], ..service("http://payments.example") };
        assert!(resolve(bad).is_err(), "{header}");
    }
}

#[test]
fn connections_survive_a_deploy_only_where_address_and_networks_stay() {
    let tls: Tls = Err("none".into());
    let first = Registry::resolve(vec![service("http://payments.example")], &tls, &Registry::default());
    let pool = |registry: &Registry| registry.get("svc").expect("usable").pool.clone();
    let same = Registry::resolve(vec![Service { audience: "other".into(), ..service("http://payments.example") }], &tls, &first);
    assert!(Arc::ptr_eq(&pool(&first), &pool(&same)));
    let moved = Registry::resolve(vec![service("http://payments.example:81")], &tls, &first);
    assert!(!Arc::ptr_eq(&pool(&first), &pool(&moved)));
    let opened =
        Registry::resolve(vec![Service { allow: vec!["10.0.0.0/8".parse().expect("network")], ..service("http://payments.example") }], &tls, &first);
    assert!(!Arc::ptr_eq(&pool(&first), &pool(&opened)));
}
