//! Which user of the system runs the server: we ourselves, unless we are root, whom Postgres refuses.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use super::Error;

/// A user that the server runs as in our place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    home: PathBuf,
}

/// Who runs the cluster in this folder; `None` means ourselves.
///
/// The owner of a cluster that exists stays its user: a `postgres` installed later does not take over from `nobody`.
pub(super) fn for_data_dir(data_dir: &Path) -> Result<Option<Account>, Error> {
    let owner = fs::metadata(data_dir).ok().filter(|found| found.uid() != 0);
    let Some(owner) = owner else {
        return for_new();
    };
    if !is_root()? {
        return Ok(None);
    }
    let known = users()?.into_iter().find(|user| user.uid == owner.uid());
    Ok(Some(known.unwrap_or_else(|| Account { name: owner.uid().to_string(), uid: owner.uid(), gid: owner.gid(), home: PathBuf::from("/") })))
}

/// Who is to run a cluster that is yet to be made; `None` means ourselves.
pub(super) fn for_new() -> Result<Option<Account>, Error> {
    if !is_root()? {
        return Ok(None);
    }
    let users = users()?;
    ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| users.iter().find(|user| user.name == name))
        .map(|user| Some(user.clone()))
        .ok_or(Error::NoAccount)
}

/// Home folder of root, which is closed to everybody else.
pub(super) fn root_home() -> Result<PathBuf, Error> {
    let root = users()?.into_iter().find(|user| user.uid == 0);
    Ok(root.map_or_else(|| PathBuf::from("/root"), |user| user.home))
}

/// The first folder on the way to `path` that this user may not enter. Folders that do not exist yet do not count.
pub(super) fn closed_folder(path: &Path, account: &Account) -> Option<PathBuf> {
    path.ancestors()
        .filter(|folder| {
            fs::metadata(folder).is_ok_and(|metadata| {
                let search_bit = if metadata.uid() == account.uid {
                    0o100
                } else if metadata.gid() == account.gid {
                    0o010
                } else {
                    0o001
                };
                metadata.mode() & search_bit == 0
            })
        })
        .last()
        .map(Path::to_owned)
}

fn is_root() -> Result<bool, Error> {
    if let Ok(status) = fs::read_to_string("/proc/self/status")
        && let Some(uid) = effective_uid(&status)
    {
        return Ok(uid == 0);
    }
    let output = Command::new("id").arg("-u").output().map_err(Error::io("run `id -u`"))?;
    Ok(output.stdout.trim_ascii() == b"0")
}

/// Second number of the line `Uid:` in `/proc/self/status`.
fn effective_uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn users() -> Result<Vec<Account>, Error> {
    let text = fs::read_to_string("/etc/passwd").map_err(Error::io("read /etc/passwd"))?;
    Ok(text.lines().filter_map(parse_user).collect())
}

/// A line of `/etc/passwd`; comments, NIS entries and negative ids are no users to us.
pub(super) fn parse_user(line: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let (uid, gid) = (fields.nth(1)?, fields.next()?);
    let home = fields.nth(1)?;
    Some(Account { name: name.to_owned(), uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: PathBuf::from(home) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwd_line_gives_name_ids_and_home() {
        let line = "postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash";
        let user = parse_user(line).unwrap();
        assert_eq!((user.name.as_str(), user.uid, user.gid), ("postgres", 101, 104));
        assert_eq!(user.home, Path::new("/var/lib/postgresql"));
    }

    #[test]
    fn passwd_lines_without_a_user_are_skipped() {
        for line in ["", "# a comment", "+", "+::::::", "nobody:*:-2:-2:Nobody:/:/usr/bin/false", "half:x:7", "bad:x:seven:7:::"] {
            assert_eq!(parse_user(line), None, "{line:?}");
        }
    }

    #[test]
    fn effective_uid_is_the_second_number() {
        let status = "Name:\thms\nUid:\t1000\t0\t0\t0\nGid:\t1\t1\t1\t1\n";
        assert_eq!(effective_uid(status), Some(0));
        assert_eq!(effective_uid("Name:\thms\n"), None);
    }

    #[test]
    fn closed_folder_is_the_outermost_one() {
        use std::os::unix::fs::PermissionsExt;

        let root = tempfile::tempdir().unwrap();
        let (outer, inner) = (root.path().join("a"), root.path().join("a/b"));
        fs::create_dir_all(&inner).unwrap();
        for (folder, mode) in [(root.path(), 0o755), (&outer, 0o700), (&inner, 0o700)] {
            fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
        }
        let stranger = Account { name: "stranger".into(), uid: u32::MAX - 7, gid: u32::MAX - 7, home: PathBuf::from("/") };
        let data_dir = inner.join("not/made/yet");
        assert_eq!(closed_folder(&data_dir, &stranger), Some(outer.clone()));
        fs::set_permissions(&outer, fs::Permissions::from_mode(0o711)).unwrap();
        assert_eq!(closed_folder(&data_dir, &stranger), Some(inner));
    }
}
