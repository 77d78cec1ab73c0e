//! Reads a connection string into libpq's parameters: a URL or `key=value` pairs, then the `PG*` environment.
//!
//! Neither driver does this whole: tokio-postgres refuses `sslrootcert` and `verify-full`, sqlx ignores all hosts but one.
//! Invariant: what libpq would obey and we cannot is refused, never dropped in silence.

use std::collections::BTreeMap;

use super::DsnError;

/// Parameters by libpq's names.
pub(super) type Parameters = BTreeMap<String, String>;

/// libpq's name and the environment variable that stands in for it.
const KNOWN: [(&str, &str); 24] = [
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("dbname", "PGDATABASE"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("passfile", "PGPASSFILE"),
    ("application_name", "PGAPPNAME"),
    ("options", "PGOPTIONS"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS"),
    ("sslmode", "PGSSLMODE"),
    ("sslnegotiation", "PGSSLNEGOTIATION"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("keepalives", ""),
    ("keepalives_idle", ""),
    ("keepalives_interval", ""),
    ("keepalives_count", ""),
    ("tcp_user_timeout", ""),
    ("service", "PGSERVICE"),
];

/// Harmless to leave out: they tune what we do not have, or ask for less than we do.
const IGNORED: [&str; 10] = [
    "client_encoding",
    "fallback_application_name",
    "gsslib",
    "gssdelegation",
    "krbsrvname",
    "sslcertmode",
    "sslcompression",
    "sslsni",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
];

/// The parameters of `text`, completed from the environment.
pub(super) fn read(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Parameters, DsnError> {
    let text = text.trim();
    let url = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
    let given = match url {
        Some(rest) => from_url(rest)?,
        None => {
            if let Some((scheme, _)) = text.split_once("://") {
                return Err(DsnError::Malformed(format!("the scheme {scheme}:// is not postgres:// or postgresql://")));
            }
            from_pairs(text)?
        }
    };
    let mut parameters = Parameters::new();
    for (name, value) in given {
        let name = if name == "keepalives_retries" { "keepalives_count".to_owned() } else { name };
        if KNOWN.iter().any(|(known, _)| *known == name) {
            // Empty means unset, as in libpq.
            if !value.is_empty() {
                parameters.insert(name, value);
            }
        } else if name == "gssencmode" && value == "require" {
            return Err(DsnError::Unsupported("gssencmode=require".to_owned()));
        } else if name != "gssencmode" && !IGNORED.contains(&name.as_str()) {
            return Err(DsnError::Unsupported(name));
        }
    }
    for (name, variable) in KNOWN {
        if !variable.is_empty()
            && !parameters.contains_key(name)
            && let Some(value) = env(variable).filter(|value| !value.is_empty())
        {
            // An address in the environment belongs to the host in the environment, not to one that was named here.
            if name == "hostaddr" && parameters.contains_key("host") && env("PGHOST") != parameters.get("host").cloned() {
                continue;
            }
            parameters.insert(name.to_owned(), value);
        }
    }
    if parameters.contains_key("service") {
        return Err(DsnError::Unsupported("service".to_owned()));
    }
    Ok(parameters)
}

/// `user:password@host:port,host:port/database?name=value`, without the scheme.
fn from_url(rest: &str) -> Result<Vec<(String, String)>, DsnError> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    // The last @: people forget to encode it in passwords.
    let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));

    let mut names = Vec::new();
    let mut ports = Vec::new();
    for host in hosts.split(',') {
        let (name, port) = if let Some(bracketed) = host.strip_prefix('[') {
            let (name, after) = bracketed.split_once(']').ok_or_else(|| DsnError::Malformed("the address after [ has no matching ]".to_owned()))?;
            (name, after.strip_prefix(':').unwrap_or(after))
        } else {
            host.split_once(':').unwrap_or((host, ""))
        };
        names.push(decode(name)?);
        ports.push(port);
    }
    let ports = if ports.iter().all(|port| port.is_empty()) { String::new() } else { ports.join(",") };
    let hosts = if names.iter().all(String::is_empty) { String::new() } else { names.join(",") };

    let mut given = vec![
        ("user".to_owned(), decode(user)?),
        ("password".to_owned(), decode(password)?),
        ("host".to_owned(), hosts),
        ("port".to_owned(), ports),
        ("dbname".to_owned(), decode(database)?),
    ];
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| DsnError::Malformed(format!("{pair} has no value")))?;
        let (name, value) = (decode(name)?, decode(value)?);
        match (name.as_str(), value.as_str()) {
            ("ssl", "true") => given.push(("sslmode".to_owned(), "require".to_owned())),
            _ => given.push((name, value)),
        }
    }
    Ok(given)
}

/// `host=db user='me and you'`.
fn from_pairs(text: &str) -> Result<Vec<(String, String)>, DsnError> {
    let mut given = Vec::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        if rest.peek().is_none() {
            return Ok(given);
        }
        let mut name = String::new();
        while let Some(c) = rest.next_if(|c| *c != '=' && !c.is_whitespace()) {
            name.push(c);
        }
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        if rest.next() != Some('=') {
            // Never repeated in full: it may be a password that went astray.
            return Err(DsnError::Malformed("a word is not followed by =; give a postgres:// URL or key=value pairs".to_owned()));
        }
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        let quoted = rest.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match rest.next() {
                Some('\\') => value.extend(rest.next()),
                Some('\'') if quoted => break,
                Some(c) if !quoted && c.is_whitespace() => break,
                Some(c) => value.push(c),
                None if quoted => return Err(DsnError::Malformed(format!("the value of {name} has no closing quote"))),
                None => break,
            }
        }
        given.push((name, value));
    }
}

/// Undoes percent-encoding; a plus stays a plus, as in libpq.
fn decode(text: &str) -> Result<String, DsnError> {
    let wrong = || DsnError::Malformed("a % is not followed by two hexadecimal digits of UTF-8 text".to_owned());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(wrong);
            let value = digit(rest.next())? * 16 + digit(rest.next())?;
            bytes.push(u8::try_from(value).map_err(|_| wrong())?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

/// The settings in `-c name=value --name=value`, which is how `options` gives them.
pub(super) fn settings(options: &str) -> Vec<(String, String)> {
    let words = options.split_whitespace().map(|word| word.strip_prefix("--").or_else(|| word.strip_prefix("-c")).unwrap_or(word));
    words.filter_map(|word| word.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The password that a `.pgpass` file has for a place; lines are `host:port:database:user:password`, `*` matches all.
pub(super) fn password_from(file: &str, place: [&str; 4]) -> Option<String> {
    file.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let (mut fields, mut field) = (Vec::new(), String::new());
        let mut rest = line.chars();
        while let Some(c) = rest.next() {
            match c {
                '\\' => field.extend(rest.next()),
                ':' if fields.len() < 4 => fields.push(std::mem::take(&mut field)),
                c => field.push(c),
            }
        }
        let matches = fields.len() == 4 && fields.iter().zip(place).all(|(field, value)| field == "*" || field == value);
        matches.then_some(field)
    })
}
