//! Where a cluster lives, and the files beside it.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{
    Error,
    account::{self, Account},
    binaries::{NEWEST, OLDEST},
};

/// Longest folder that still leaves room for `/.s.PGSQL.65535` in a socket address of 107 bytes.
const SOCKET_DIR_BYTES_MAX: usize = 90;

/// The data folder of the one who runs this command.
pub(super) fn data_dir_of_user() -> Result<PathBuf, Error> {
    let root = match account::for_new()? {
        Some(account) => Some((account::root_home()?, account)),
        None => None,
    };
    data_dir_for(|name| env::var_os(name), root).ok_or(Error::NoHome)
}

/// As above; `root` is given where we are root, with root's home and the server's user.
fn data_dir_for(variable: impl Fn(&str) -> Option<OsString>, root: Option<(PathBuf, Account)>) -> Option<PathBuf> {
    let folder = |name| variable(name).filter(|value| !value.is_empty());
    if let Some(chosen) = folder("HMS_DATA_DIR") {
        return Some(PathBuf::from(chosen).join("postgres"));
    }
    let data_home = folder("XDG_DATA_HOME").map(PathBuf::from).or_else(|| folder("HOME").map(|home| PathBuf::from(home).join(".local/share")));
    let data_dir = data_home.map(|data_home| data_home.join("hms/postgres"));
    let Some((root_home, account)) = root else {
        return data_dir;
    };
    let reachable = data_dir.filter(|path| !path.starts_with(&root_home) && account::closed_folder(path, &account).is_none());
    Some(reachable.unwrap_or_else(|| PathBuf::from("/var/lib/hms/postgres")))
}

/// The data folder of a cluster and what is kept beside it under the same name.
///
/// What we write as root is kept out of the data folder: its owner could have put a link there.
#[derive(Clone, Debug)]
pub(super) struct Place {
    data_dir: PathBuf,
}

impl Place {
    pub(super) fn new(data_dir: &Path) -> Result<Self, Error> {
        let bad_path = || Error::BadPath { path: data_dir.to_owned() };
        let path = std::path::absolute(data_dir).map_err(|_| bad_path())?;
        let text = path.to_str().ok_or_else(bad_path)?;
        // pg_ctl puts it between double quotes in a shell command, and the configuration puts it between single ones.
        if path.file_name().is_none() || text.contains(['"', '\'', '$', '`', '\\', '\n', '\r']) {
            return Err(bad_path());
        }
        Ok(Self { data_dir: path })
    }

    pub(super) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub(super) fn parent(&self) -> &Path {
        self.data_dir.parent().unwrap_or(Path::new("/"))
    }

    pub(super) fn name(&self) -> String {
        let name = self.data_dir.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    pub(super) fn beside(&self, extension: &str) -> PathBuf {
        self.parent().join(format!("{}.{extension}", self.name()))
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.beside("lock")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.beside("log")
    }

    pub(super) fn password(&self) -> PathBuf {
        self.beside("password")
    }

    /// The password again, in the format of libpq.
    pub(super) fn passfile(&self) -> PathBuf {
        self.beside("pgpass")
    }

    /// Folder of the server's unix socket, unless its path would be too long for one.
    pub(super) fn socket_dir(&self) -> Option<PathBuf> {
        let path = self.beside("socket");
        (path.as_os_str().len() <= SOCKET_DIR_BYTES_MAX).then_some(path)
    }

    /// Major version of the cluster in the folder, if there is one.
    pub(super) fn version(&self) -> Result<Option<u32>, Error> {
        let data_dir = self.data_dir.clone();
        let entries = match fs::read_dir(&data_dir) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => {
                return Err(Error::io(format_args!("read {}", data_dir.display()))(error));
            }
        };
        if !entries {
            return Ok(None);
        }
        let Ok(text) = fs::read_to_string(data_dir.join("PG_VERSION")) else {
            return Err(Error::NotACluster { data_dir });
        };
        let version = text.trim();
        match version.parse() {
            Ok(number) if (OLDEST..=NEWEST).contains(&number) => Ok(Some(number)),
            _ => Err(Error::VersionUnknown { data_dir, version: version.to_owned() }),
        }
    }

    /// Makes the folders above the data folder, and sees to it that the server's user can pass through them.
    pub(super) fn open_parent(&self, account: Option<&Account>) -> Result<(), Error> {
        // Ours alone, unless the server runs as somebody else; never mind the umask.
        let mode = if account.is_some() { 0o755 } else { 0o700 };
        let missing: Vec<&Path> = self.parent().ancestors().take_while(|folder| !folder.exists()).collect();
        for folder in missing.into_iter().rev() {
            let made = match fs::create_dir(folder) {
                // Another command was faster.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
                Err(error) => Err(error),
                Ok(()) => fs::set_permissions(folder, fs::Permissions::from_mode(mode)),
            };
            made.map_err(Error::io(format_args!("make {}", folder.display())))?;
        }
        let Some(account) = account else {
            return Ok(());
        };
        match account::closed_folder(self.parent(), account) {
            None => Ok(()),
            Some(folder) => Err(Error::Unreachable { folder, user: account.name.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_dir_with(set: &[(&str, &str)], root: Option<(PathBuf, Account)>) -> Option<PathBuf> {
        let value = |name: &str| set.iter().find(|(key, _)| *key == name);
        data_dir_for(|name| value(name).map(|(_, value)| value.into()), root)
    }

    #[test]
    fn data_folder_is_where_the_first_variable_says() {
        let set = [("HMS_DATA_DIR", "/a"), ("XDG_DATA_HOME", "/b"), ("HOME", "/c")];
        for (first, folder) in ["/a/postgres", "/b/hms/postgres", "/c/.local/share/hms/postgres"].into_iter().enumerate() {
            let found = data_dir_with(&set[first..], None);
            assert_eq!(found.as_deref(), Some(Path::new(folder)));
        }
        assert_eq!(data_dir_with(&[("HOME", "")], None), None);
    }

    #[test]
    fn root_gets_a_folder_that_the_servers_user_can_reach() {
        let nobody = account::parse_user("nobody:x:65534:65534::/:/bin/false").unwrap();
        let root = Some((PathBuf::from("/root"), nobody));
        for (set, folder) in [
            (("HOME", "/root"), "/var/lib/hms/postgres"),
            (("XDG_DATA_HOME", "/srv"), "/srv/hms/postgres"),
            (("HMS_DATA_DIR", "/root/mine"), "/root/mine/postgres"),
        ] {
            let found = data_dir_with(&[set], root.clone());
            assert_eq!(found.as_deref(), Some(Path::new(folder)));
        }
    }

    #[test]
    fn files_beside_the_folder_carry_its_name() {
        let place = Place::new(Path::new("/srv/hms/postgres")).unwrap();
        assert_eq!(place.log(), Path::new("/srv/hms/postgres.log"));
        assert_eq!(place.parent(), Path::new("/srv/hms"));
    }

    #[test]
    fn long_path_gets_no_socket() {
        let place = |length: usize| Place::new(Path::new(&format!("/{}", "x".repeat(length))));
        assert!(place(82).unwrap().socket_dir().is_some());
        assert_eq!(place(83).unwrap().socket_dir(), None);
    }

    #[test]
    fn paths_that_a_shell_would_change_are_refused() {
        for path in ["/srv/$HOME", "/srv/a\"b", "/srv/a'b", "/srv/a`b", "/"] {
            let refused = Place::new(Path::new(path));
            assert!(matches!(refused, Err(Error::BadPath { .. })), "{path}");
        }
    }

    #[test]
    fn version_of_a_folder_is_told_from_its_content() {
        let root = tempfile::tempdir().unwrap();
        let data_dir = root.path().join("postgres");
        let place = Place::new(&data_dir).unwrap();
        assert_eq!(place.version().unwrap(), None, "missing");
        fs::create_dir(&data_dir).unwrap();
        assert_eq!(place.version().unwrap(), None, "empty");
        fs::write(data_dir.join("letters"), "").unwrap();
        assert!(matches!(place.version(), Err(Error::NotACluster { .. })));
        fs::write(data_dir.join("PG_VERSION"), "16\n").unwrap();
        assert_eq!(place.version().unwrap(), Some(16));
        for unknown in ["14\n", "19\n", "9.6\n", "\n"] {
            fs::write(data_dir.join("PG_VERSION"), unknown).unwrap();
            assert!(matches!(place.version(), Err(Error::VersionUnknown { .. })));
        }
    }
}
