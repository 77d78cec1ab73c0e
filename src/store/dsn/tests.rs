use std::time::Duration;

use tokio_postgres::config::{Host, SslMode as DriverSslMode, TargetSessionAttrs};

use super::*;

fn parse(url: &str) -> Result<Dsn, DsnError> {
    Dsn::parse_with(url, &|_| None)
}

fn with(url: &str, env: &[(&str, &str)]) -> Dsn {
    Dsn::parse_with(url, &|name| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())).unwrap()
}

fn places(dsn: &Dsn) -> Vec<(String, u16)> {
    dsn.hosts.iter().map(|host| (host.name.clone(), host.port)).collect()
}

#[test]
fn a_url_gives_every_part() {
    let dsn = parse("postgresql://me:p%40ss@db.example:6432/benefits?application_name=x&connect_timeout=3").unwrap();
    let config = dsn.pg_config();
    assert_eq!((dsn.user(), dsn.database(), places(&dsn)), ("me", "benefits", vec![("db.example".to_owned(), 6432)]));
    assert_eq!(config.get_password(), Some(b"p@ss".as_slice()));
    assert_eq!(config.get_application_name(), Some("x"));
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(3)));
    assert_eq!(config.get_ssl_mode(), DriverSslMode::Prefer);
    assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::Any);
}

#[test]
fn a_dead_peer_is_noticed_within_seconds_unless_told_otherwise() {
    let config = parse("postgres://h/d").unwrap().pg_config();
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(5)));
    assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_secs(10)));
    assert_eq!((config.get_keepalives_idle(), config.get_keepalives_interval()), (Duration::from_secs(5), Some(Duration::from_secs(2))));
    assert_eq!(config.get_keepalives_retries(), Some(2));
    let config = parse("postgres://h/d?connect_timeout=0&tcp_user_timeout=1500&keepalives_count=7").unwrap().pg_config();
    assert_eq!((config.get_connect_timeout(), config.get_keepalives_retries()), (None, Some(7)));
    assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_millis(1500)), "libpq counts it in milliseconds");
}

#[test]
fn key_value_pairs_are_read_with_their_quotes() {
    let dsn = parse(r"host = db port=5433  user='me and \'you\'' password='a\\b c' dbname=d sslmode=disable").unwrap();
    assert_eq!((dsn.user(), dsn.database(), places(&dsn)), ("me and 'you'", "d", vec![("db".to_owned(), 5433)]));
    assert_eq!(dsn.pg_config().get_password(), Some(br"a\b c".as_slice()));
    assert_eq!(dsn.pg_config().get_ssl_mode(), DriverSslMode::Disable);
}

#[test]
fn several_hosts_mean_the_one_that_can_be_written_to() {
    let dsn = parse("postgres://me@a,b:6000,[::1]:7000/d").unwrap();
    assert_eq!(places(&dsn), [("a".to_owned(), 5432), ("b".to_owned(), 6000), ("::1".to_owned(), 7000)]);
    assert_eq!(dsn.pg_config().get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    assert_eq!(dsn.display(), "postgres://me@a:5432,b:6000,[::1]:7000/d");
    let standby = parse("postgres://me@a,b/d?target_session_attrs=standby").unwrap();
    assert_eq!(standby.pg_config().get_target_session_attrs(), TargetSessionAttrs::ReadOnly);
    assert_eq!(places(&parse("host=a,b port=6000").unwrap()), [("a".to_owned(), 6000), ("b".to_owned(), 6000)]);
}

#[test]
fn a_socket_folder_is_a_host_and_has_no_tls() {
    for url in [
        "postgres://me@%2Frun%2Fpg:6000/d?sslmode=require",
        "postgres:///d?host=/run/pg&port=6000&user=me",
        "host=/run/pg port=6000 user=me dbname=d",
    ] {
        let dsn = parse(url).unwrap();
        assert_eq!(places(&dsn), [("/run/pg".to_owned(), 6000)], "{url}");
        assert_eq!(dsn.pg_config().get_hosts(), [Host::Unix("/run/pg".into())]);
        assert_eq!(dsn.pg_config().get_ssl_mode(), DriverSslMode::Disable);
        assert_eq!(dsn.sqlx_options().get_socket().map(|path| path.display().to_string()), Some("/run/pg".to_owned()));
        assert_eq!(dsn.display(), "postgres://me@%2Frun%2Fpg:6000/d");
    }
}

#[test]
fn the_environment_fills_what_is_missing_only() {
    let env = [
        ("PGHOST", "env"),
        ("PGPORT", "1"),
        ("PGUSER", "u"),
        ("PGPASSWORD", "p"),
        ("PGDATABASE", "e"),
        ("PGSSLMODE", "require"),
        ("PGCONNECT_TIMEOUT", "9"),
    ];
    let dsn = with("postgres://given/", &env);
    assert_eq!((dsn.user(), dsn.database(), places(&dsn)), ("u", "e", vec![("given".to_owned(), 1)]));
    assert_eq!(dsn.pg_config().get_ssl_mode(), DriverSslMode::Require);
    assert_eq!(dsn.pg_config().get_connect_timeout(), Some(&Duration::from_secs(9)));
    assert_eq!(with("", &[("USER", "login")]).database(), "login", "the database is named after the user, who is who is logged in");
}

#[test]
fn a_password_file_is_looked_into() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pgpass");
    std::fs::write(&file, "# mine\nother:*:*:*:no\ndb:5432:d:me:a\\:b:c\n*:*:*:*:last\n").unwrap();
    let url = format!("postgres://me@db/d?passfile={}", file.display());
    assert_eq!(parse(&url).unwrap().password.as_deref(), Some("a:b:c"));
    assert_eq!(parse(&url.replace("@db", "@elsewhere")).unwrap().password.as_deref(), Some("last"));
}

#[test]
fn each_sslmode_means_what_libpq_means() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root.crt");
    std::fs::write(&root, ROOT).unwrap();
    for (mode, driver, verifies_without, verifies_with) in [
        ("disable", DriverSslMode::Disable, None, None),
        ("allow", DriverSslMode::Prefer, None, Some(SslMode::VerifyCa)),
        ("prefer", DriverSslMode::Prefer, None, Some(SslMode::VerifyCa)),
        ("require", DriverSslMode::Require, None, Some(SslMode::VerifyCa)),
        ("verify-ca", DriverSslMode::Require, Some(SslMode::VerifyCa), Some(SslMode::VerifyCa)),
        ("verify-full", DriverSslMode::Require, Some(SslMode::VerifyFull), Some(SslMode::VerifyFull)),
    ] {
        let dsn = parse(&format!("postgres://h/d?sslmode={mode}&sslrootcert={}", root.display())).unwrap();
        assert_eq!((dsn.pg_config().get_ssl_mode(), dsn.ssl.verifies()), (driver, verifies_with), "{mode} with a root");
        let parameters = parameters::read(&format!("sslmode={mode}"), &|_| None).unwrap();
        assert_eq!(Ssl::new(&parameters, None).unwrap().verifies(), verifies_without, "{mode} without a root");
    }
    let system = parameters::read("sslrootcert=system", &|_| None).unwrap();
    assert_eq!(Ssl::new(&system, None).unwrap().verifies(), Some(SslMode::VerifyFull));
}

#[test]
fn what_cannot_be_obeyed_is_refused_and_never_shows_the_password() {
    for (url, text) in [
        ("mysql://me:secret@h/d", "the database URL cannot be read: the scheme mysql:// is not postgres:// or postgresql://"),
        ("postgres://me:secret@h/d?sslcrl=x", "the database URL asks for sslcrl, which is not supported"),
        ("postgres://me:secret@h/d?gssencmode=require", "the database URL asks for gssencmode=require, which is not supported"),
        (
            "postgres://me:secret@h/d?sslmode=on",
            "the database URL says sslmode=on; it must be disable, allow, prefer, require, verify-ca or verify-full",
        ),
        ("postgres://me:secret@h:x/d", "the database URL says port=x; it must be a number from 1 to 65535"),
        ("postgres://me:secret@a:1,b:2,c/d?port=1,2", "the database URL cannot be read: there are not as many ports as hosts"),
        ("postgres://me:secret@h/d?connect_timeout=soon", "the database URL says connect_timeout=soon; it must be a whole number"),
        ("postgres://me:secret@h/%zz", "the database URL cannot be read: a % is not followed by two hexadecimal digits of UTF-8 text"),
        ("secret", "the database URL cannot be read: a word is not followed by =; give a postgres:// URL or key=value pairs"),
        ("host='h", "the database URL cannot be read: the value of host has no closing quote"),
    ] {
        assert_eq!(parse(url).unwrap_err().to_string(), text);
    }
    let missing = parse("postgres://h/d?sslmode=verify-full&sslrootcert=/nowhere/root.crt").unwrap_err().to_string();
    assert!(missing.starts_with("the certificate /nowhere/root.crt cannot be used"), "{missing}");
    assert!(parse("postgres://h/d?client_encoding=UTF8&gssencmode=prefer&sslsni=1").is_ok(), "harmless ones are skipped");
}

#[test]
fn neither_debug_nor_display_shows_the_password() {
    let dsn = parse("postgres://me:secret@h/d").unwrap();
    assert_eq!(format!("{dsn}"), "postgres://me@h:5432/d");
    assert_eq!(format!("{dsn:?}"), r#"Dsn("postgres://me@h:5432/d")"#);
}

#[test]
fn sqlx_goes_to_the_same_place() {
    let dsn = parse("postgres://me:p@a,b:6000/d?application_name=x&sslmode=require&options=-c%20geqo%3Doff").unwrap();
    let options = dsn.sqlx_options();
    assert_eq!((options.get_host(), options.get_port(), options.get_username(), options.get_database()), ("a", 5432, "me", Some("d")));
    assert_eq!((options.get_application_name(), options.get_options()), (Some("x"), Some("-c geqo=off")));
    assert!(matches!(options.get_ssl_mode(), PgSslMode::Require));
}

/// A certificate of nobody.
const ROOT: &str = "-----BEGIN CERTIFICATE-----\n\
    MIIBejCCAR+gAwIBAgIUHP9Z5/hC6F/8oLF43WI0pmgXm2cwCgYIKoZIzj0EAwIw\n\
    ETEPMA0GA1UEAwwGbm9ib2R5MCAXDTI2MTEyMjE0MTUyMloYDzIxMjYxMDI5MTQx\n\
    NTIyWjARMQ8wDQYDVQQDDAZub2JvZHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC\n\
    AAQHxz8opPjWLjS3PGA9n95uTChqRhL3XPYAUCnxYP8RM+lpIdoRGShEokx2ooNY\n\
    C6qpdBf1jBaKar+Rs0kgCNwmo1MwUTAdBgNVHQ4EFgQU3rRP2HoG+tnGeYBbanP9\n\
    mC5c/nYwHwYDVR0jBBgwFoAU3rRP2HoG+tnGeYBbanP9mC5c/nYwDwYDVR0TAQH/\n\
    BAUwAwEB/zAKBggqhkjOPQQDAgNJADBGAiEAg8RYjDuXnaF+C92mVtAeTt28O0ai\n\
    dfPBiQgay+8Wn4gCIQDm3SzcMHpYyCchSHXTp+TzytaEYSLVt6PIjdz1rAK7vQ==\n\
    -----END CERTIFICATE-----\n";
