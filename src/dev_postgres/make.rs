//! Makes a cluster and writes its configuration.

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt, PermissionsExt, chown},
    path::Path,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

use super::{Error, Options, SUPERUSER, account::Account, binaries::Binaries, place::Place};

const INITDB_DEADLINE: Duration = Duration::from_secs(150);

/// Makes the cluster in a folder of its own and renames it when it is whole, so a half-made one is never found.
pub(super) async fn cluster(options: &Options, place: &Place, account: Option<&Account>, binaries: &Binaries) -> Result<(), Error> {
    tracing::info!(folder = %place.data_dir().display(), version = binaries.version, "make a private PostgreSQL cluster");
    sweep_unfinished(place);
    write_password(place, account)?;
    // A name of its own each time: an initdb orphaned by a killed command may still be writing into the last one.
    let name = format!("{}.making-{}", place.name(), random_hex(4)?);
    let making = place.parent().join(&name);
    make_dir(&making, account)?;
    let mut command = binaries.command("initdb", account, place.parent());
    command
        .arg("--pgdata")
        .arg(&making)
        .args(["--username", SUPERUSER, "--auth=scram-sha-256"])
        .arg("--pwfile")
        .arg(place.password())
        .args(["--encoding=UTF8", "--no-locale"])
        .kill_on_drop(true);
    if !options.fsync {
        command.arg("--no-sync");
    }
    let made = run("initdb", command, INITDB_DEADLINE).await;
    let finished = made.and_then(|()| {
        let include = format!("\ninclude '../{}.conf'\n", place.name());
        append(&making.join("postgresql.conf"), &include)?;
        fs::rename(&making, place.data_dir()).and_then(|()| File::open(place.parent())?.sync_all()).map_err(Error::io(format_args!(
            "rename {} to {}",
            making.display(),
            place.data_dir().display()
        )))
    });
    if finished.is_err() {
        sweep_unfinished(place);
    }
    finished
}

/// Removes what killed commands left half made. Best effort: a leftover only takes room.
fn sweep_unfinished(place: &Place) {
    let prefix = format!("{}.making-", place.name());
    for entry in fs::read_dir(place.parent()).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix)
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::debug!(%error, folder = %entry.path().display(), "leave an unfinished cluster behind");
        }
    }
}

/// The superuser's password. It is the whole protection against the other users of the machine.
pub(super) fn read_password(place: &Place) -> Result<String, Error> {
    let path = place.password();
    let password = match fs::read_to_string(&path) {
        Ok(text) => text.trim().to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Error::io(format_args!("read {}", path.display()))(error)),
    };
    if password.is_empty() {
        return Err(Error::PasswordMissing { path });
    }
    Ok(password)
}

fn write_password(place: &Place, account: Option<&Account>) -> Result<(), Error> {
    let (path, password) = (place.password(), random_hex(24)?);
    let write = || {
        // Made anew, so that it has this mode from its first byte on.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options.create_new(true).write(true).mode(0o600).open(&path)?;
        file.write_all(password.as_bytes())?;
        file.sync_all()?;
        // initdb reads it as the server's user.
        give_to(&path, account)
    };
    write().map_err(Error::io(format_args!("write {}", path.display())))
}

/// Writes the file that libpq takes the password from. libpq ignores one that others may read.
pub(super) fn passfile(place: &Place, port: u16, password: &str) -> Result<(), Error> {
    let path = place.passfile();
    let text = passfile_text(port, password);
    if fs::read_to_string(&path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    let write = || {
        // Renamed when it is whole: a psql that starts meanwhile reads the old one or the new one.
        let unfinished = place.beside(&format!("pgpass-{}", std::process::id()));
        let made = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&unfinished);
        let written = made.and_then(|mut file| file.write_all(text.as_bytes())).and_then(|()| fs::rename(&unfinished, &path));
        if written.is_err() {
            fs::remove_file(&unfinished).ok();
        }
        written
    };
    write().map_err(Error::io(format_args!("write {}", path.display())))
}

fn passfile_text(port: u16, password: &str) -> String {
    let password = password.replace('\\', "\\\\").replace(':', "\\:");
    format!("127.0.0.1:{port}:*:{SUPERUSER}:{password}\n")
}

/// Writes the configuration for the next start, with the socket's folder and the log that it needs.
pub(super) fn configuration(options: &Options, place: &Place, account: Option<&Account>, port: u16) -> Result<(), Error> {
    let socket_dir = place.socket_dir();
    if let Some(folder) = &socket_dir
        && !folder.exists()
    {
        make_dir(folder, account)?;
    }
    let log = place.log();
    if !log.exists() {
        let mut options = OpenOptions::new();
        let made = options.create(true).append(true).mode(0o600).open(&log);
        made.and_then(|_| give_to(&log, account)).map_err(Error::io(format_args!("make {}", log.display())))?;
    }
    let socket_dir = socket_dir.map_or_else(String::new, |path| path.display().to_string());
    let text = configuration_text(options, port, &socket_dir);
    let path = place.beside("conf");
    fs::write(&path, text)
        // The server's user reads it, and there is no secret in it.
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)))
        .map_err(Error::io(format_args!("write {}", path.display())))
}

fn configuration_text(options: &Options, port: u16, socket_dir: &str) -> String {
    let port = port.to_string();
    let mut lines = vec![
        ("listen_addresses", "127.0.0.1"),
        ("port", &port),
        ("unix_socket_directories", socket_dir),
        ("password_encryption", "scram-sha-256"),
        ("max_connections", "200"),
        ("shared_buffers", "128MB"),
        ("wal_level", "replica"),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        // pg_ctl sends stderr to the log file.
        ("logging_collector", "off"),
        ("log_destination", "stderr"),
        ("lc_messages", "C"),
        ("fsync", if options.fsync { "on" } else { "off" }),
    ];
    if !options.fsync {
        lines.extend([("synchronous_commit", "off"), ("full_page_writes", "off")]);
    }
    let further = options.settings.iter();
    lines.extend(further.map(|(name, value)| (name.as_str(), value.as_str())));
    let mut text = String::from("# Written anew at each start.\n");
    for (name, value) in lines {
        let value = value.replace('\\', "\\\\").replace('\'', "''").replace('\n', "\\n");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name} = '{value}'");
    }
    text
}

/// Runs a program to its end and turns a failure into what it said.
pub(super) async fn run(program: &'static str, mut command: Command, deadline: Duration) -> Result<(), Error> {
    let output = match timeout(deadline, command.output()).await {
        Ok(output) => output.map_err(Error::io(format_args!("run {program}")))?,
        Err(_) => {
            let output = format!("it did not end within {} seconds", deadline.as_secs());
            return Err(Error::Program { program, output });
        }
    };
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stderr, output.stdout].concat();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    let output = format!("{}, {said}", output.status);
    Err(Error::Program { program, output })
}

fn make_dir(folder: &Path, account: Option<&Account>) -> Result<(), Error> {
    fs::create_dir(folder)
        .and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(0o700)))
        .and_then(|()| give_to(folder, account))
        .map_err(Error::io(format_args!("make {}", folder.display())))
}

fn give_to(path: &Path, account: Option<&Account>) -> io::Result<()> {
    account.map_or(Ok(()), |account| chown(path, Some(account.uid), Some(account.gid)))
}

fn append(path: &Path, text: &str) -> Result<(), Error> {
    let file = OpenOptions::new().append(true).open(path);
    file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    })
    .map_err(Error::io(format_args!("write {}", path.display())))
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes)).map_err(Error::io("read /dev/urandom"))?;
    Ok(bytes)
}

fn random_hex(bytes: usize) -> Result<String, Error> {
    let random: [u8; 32] = random()?;
    Ok(random[..bytes].iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libpq_reads_the_password_whole() {
        assert_eq!(passfile_text(20_001, "ab12"), "127.0.0.1:20001:*:hms:ab12\n");
        assert_eq!(passfile_text(1, r"a:b\c"), "127.0.0.1:1:*:hms:a\\:b\\\\c\n");
    }

    #[test]
    fn values_cannot_leave_their_quotes_and_further_settings_come_last() {
        let options = Options {
            data_dir: "/srv/hms/postgres".into(),
            fsync: false,
            port: None,
            settings: vec![("max_connections".into(), "it's\\a\nport = 1".into())],
        };
        let text = configuration_text(&options, 20_001, "");
        assert!(text.contains("\nport = '20001'\n"), "{text}");
        assert!(text.contains("\nfull_page_writes = 'off'\n"), "{text}");
        assert!(text.ends_with("\nmax_connections = 'it''s\\\\a\\nport = 1'\n"), "{text}");
    }
}
