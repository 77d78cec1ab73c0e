//! The file that a worker's private signing key lives in.
//!
//! Invariant: the file is readable by its owner alone, and two starts at once end up with the same key.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;

use super::token::Error;

/// Reads the PKCS#8 key of `path`, or makes it with `generate`.
pub(super) fn read_or_create(path: &Path, generate: impl FnOnce() -> Result<Vec<u8>, Error>) -> Result<Vec<u8>, Error> {
    match read(path) {
        Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            create(path, &generate()?)?;
            // Read what is there now: if another start was faster, its key is the key.
            read(path)
        }
        other => other,
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let mut file = fs::File::open(path).map_err(failed)?;
    // Asked of the open file, so that nobody can swap it between the question and the reading.
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Error::NoKey { path: path.to_owned() });
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(Error::Exposed { path: path.to_owned(), mode: metadata.mode() & 0o777 });
    }
    let mut pem = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(&mut file, 64 * 1024), &mut pem).map_err(failed)?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|_| Error::NoKey { path: path.to_owned() })?;
    Ok(key.secret_pkcs8_der().to_vec())
}

fn create(path: &Path, der: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.draft", uuid::Uuid::new_v4().simple()));
    let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).and_then(|mut file| {
        file.write_all(pem(der).as_bytes())?;
        file.sync_all()?;
        // A link appears whole or not at all, and never replaces: of two starts at once one makes the key, the other takes it.
        match fs::hard_link(&draft, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    });
    let removed = fs::remove_file(&draft);
    written.and(removed).map_err(failed)
}

fn pem(der: &[u8]) -> String {
    let mut text = String::from("-----BEGIN PRIVATE KEY-----\n");
    let encoded = STANDARD.encode(der);
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str("-----END PRIVATE KEY-----\n");
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::token::{Algorithm, Signer};
    use super::*;

    #[test]
    fn the_key_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("deep/keys/signing.pem");
        let first = Signer::load_or_create(&path, Algorithm::EdDsa).expect("made");
        let second = Signer::load_or_create(&path, Algorithm::EdDsa).expect("read");
        assert_eq!(first.key_id(), second.key_id());
        assert_eq!(fs::metadata(&path).expect("file").mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().expect("folder")).expect("folder").mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(path.parent().expect("folder")).expect("folder").count(), 1, "no draft stays behind");
    }

    #[test]
    fn starts_at_once_agree_on_one_key() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("signing.pem");
        let ids: Vec<String> = std::thread::scope(|scope| {
            let starts: Vec<_> =
                (0..8).map(|_| scope.spawn(|| Signer::load_or_create(&path, Algorithm::Es256).expect("key").key_id().to_owned())).collect();
            starts.into_iter().map(|start| start.join().expect("thread")).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("signing.pem");
        Signer::load_or_create(&path, Algorithm::EdDsa).expect("made");
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
            let error = Signer::load_or_create(&path, Algorithm::EdDsa).expect_err("exposed").to_string();
            assert!(error.contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn a_key_of_the_other_algorithm_or_no_key_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("signing.pem");
        Signer::load_or_create(&path, Algorithm::EdDsa).expect("made");
        let error = Signer::load_or_create(&path, Algorithm::Es256).expect_err("other algorithm").to_string();
        assert!(error.contains("EdDSA") && error.contains("HMS_JWT_ALG"), "{error}");
        fs::write(&path, "not a key").expect("write");
        let error = Signer::load_or_create(&path, Algorithm::EdDsa).expect_err("garbage").to_string();
        assert!(error.contains("PKCS#8"), "{error}");
    }
}
