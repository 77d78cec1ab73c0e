//! Which installed Postgres is used.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use super::{Error, account::Account};

/// Oldest major version that we support.
pub const OLDEST: u32 = 15;
/// Newest major version that we support.
pub const NEWEST: u32 = 18;

/// A folder with `initdb`, `pg_ctl` and `postgres` of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// The folder.
    pub dir: PathBuf,
    /// Major version of the server in it.
    pub version: u32,
}

/// Finds the server binaries of one version, or of the first supported version that turns up.
///
/// Looked at in this order: `$HMS_PG_BIN`, the folders of `PATH`, Debian's, the PGDG packages' and Homebrew's folders, each
/// from the newest version to the oldest.
/// If `$HMS_PG_BIN` is set nothing else will do, except for a cluster that another version made.
///
/// # Errors
/// [`Error::NoBinaries`].
pub async fn find(version: Option<u32>) -> Result<Binaries, Error> {
    let chosen = env::var_os("HMS_PG_BIN").map(PathBuf::from);
    let mut searched: Vec<PathBuf> = chosen.iter().cloned().collect();
    if chosen.is_none() || version.is_some() {
        searched.extend(usual_folders());
    }
    for dir in &searched {
        if let Some(found) = version_in(dir).await
            && version.is_none_or(|wanted| wanted == found)
        {
            let (dir, version) = (dir.clone(), found);
            return Ok(Binaries { dir, version });
        }
    }
    Err(Error::NoBinaries { searched })
}

impl Binaries {
    /// One of the programs, to be run as `account` in `folder` and with nothing of our environment that could sway it.
    pub(super) fn command(&self, program: &'static str, account: Option<&Account>, folder: &Path) -> Command {
        let mut command = Command::new(self.dir.join(program));
        // The folder matters: these programs give up in a working folder that they may not read, such as root's home.
        command.current_dir(folder).stdin(Stdio::null()).env_clear().env("LC_ALL", "C");
        for name in ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"] {
            if let Some(value) = env::var_os(name) {
                command.env(name, value);
            }
        }
        if let Some(account) = account {
            // As root, std also drops the supplementary groups when a uid is given.
            command.uid(account.uid).gid(account.gid);
        }
        command
    }
}

fn usual_folders() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).filter(|folder| folder.is_absolute()).collect();
    for pattern in ["/usr/lib/postgresql/{}/bin", "/usr/pgsql-{}/bin", "/opt/homebrew/opt/postgresql@{}/bin", "/usr/local/opt/postgresql@{}/bin"] {
        for version in (OLDEST..=NEWEST).rev() {
            folders.push(PathBuf::from(pattern.replace("{}", &version.to_string())));
        }
    }
    folders
}

/// Version of a complete and supported set of binaries in this folder.
async fn version_in(dir: &Path) -> Option<u32> {
    let complete = ["pg_ctl", "initdb", "postgres"].iter().all(|program| dir.join(program).is_file());
    if !complete {
        return None;
    }
    let mut command = Command::new(dir.join("postgres"));
    let output = command.arg("--version").stdin(Stdio::null()).output();
    let output = output.await.ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout)).filter(|version| (OLDEST..=NEWEST).contains(version))
}

/// Major version in what `postgres --version` prints.
fn parse_version(text: &str) -> Option<u32> {
    let version = text.split_whitespace().nth(2)?;
    let end = version.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(version.len());
    version[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_version_is_read_from_releases_and_betas() {
        for (text, version) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some(15)),
            ("postgres (PostgreSQL) 17.2\n", Some(17)),
            ("postgres (PostgreSQL) 18beta1\n", Some(18)),
            ("postgres (PostgreSQL) 9.6.24\n", Some(9)),
            ("postgres (PostgreSQL) devel\n", None),
            ("bash: postgres: not found\n", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), version, "{text:?}");
        }
    }

    #[tokio::test]
    async fn folder_with_an_old_or_incomplete_server_is_passed_over() {
        use std::{fs, os::unix::fs::PermissionsExt};

        let dir = tempfile::tempdir().unwrap();
        let postgres = dir.path().join("postgres");
        fs::write(&postgres, "#!/bin/sh\necho 'postgres (PostgreSQL) 14.9'\n").unwrap();
        fs::set_permissions(&postgres, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(version_in(dir.path()).await, None, "incomplete");
        for program in ["pg_ctl", "initdb"] {
            fs::write(dir.path().join(program), "").unwrap();
        }
        assert_eq!(version_in(dir.path()).await, None, "too old");
    }
}
