//! What must survive a restart: the ledger, the sealing key, generated Secrets. One process at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use dispatcher_core::redacted::Redacted;
use uuid::Uuid;

use crate::exit::Failure;

const LEDGER_FILE: &str = "ledger.db";
const SEALING_KEY_FILE: &str = "sealing.key";
const GENERATED_SECRETS_FILE: &str = "generated-secrets.yaml";
const LOCK_FILE: &str = "lock";

const SEALING_KEY_BYTES: usize = 32;

/// What a mode allows the group and others.
const OTHERS_MODE: u32 = 0o077;

/// An opened data folder. It stays locked until it is dropped.
pub(super) struct DataFolder {
    path: PathBuf,
    sealing_key: Redacted<[u8; SEALING_KEY_BYTES]>,
    /// The lock ends with the file.
    _lock: File,
}

impl DataFolder {
    /// Opens the folder, making it and what it needs if they are not there. Only this user can read them: a folder that
    /// others may look into is made private if it is empty, and else refused.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::Local(format!("--data {}: {error}", path.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        make_folder_private(&path).map_err(failed)??;
        let lock = lock(&path)?;
        make_ledger_private(&path).map_err(failed)?;
        let sealing_key = sealing_key(&path.join(SEALING_KEY_FILE))?;
        Ok(Self { path, sealing_key, _lock: lock })
    }

    /// The folder itself, canonical.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// File of the ledger's database.
    pub(super) fn ledger_file(&self) -> PathBuf {
        self.path.join(LEDGER_FILE)
    }

    /// The key that seals what the ledger keeps of endpoints.
    pub(super) fn sealing_key(&self) -> &Redacted<[u8; SEALING_KEY_BYTES]> {
        &self.sealing_key
    }

    /// The generated Secrets as they were written last; empty if there are none.
    pub(super) fn generated_secrets(&self) -> Result<Redacted<String>, Failure> {
        let path = self.path.join(GENERATED_SECRETS_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Redacted::new(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Redacted::default()),
            Err(error) => Err(Failure::Local(format!("{}: {error}", path.display()))),
        }
    }

    /// Replaces the generated Secrets.
    pub(super) fn write_generated_secrets(&self, text: &Redacted<String>) -> Result<(), Failure> {
        write_private(&self.path.join(GENERATED_SECRETS_FILE), text.expose().as_bytes())
    }
}

/// The data folder of a source of resources when none is named: one for each, so that two never meet by accident.
/// `source` is the canonical path, or `-`.
pub(super) fn default_path(source: &Path, state_home: Option<&Path>, home: Option<&Path>) -> Option<PathBuf> {
    // The XDG base directory specification ignores relative paths.
    let state = match state_home.filter(|path| path.is_absolute()) {
        Some(path) => path.to_owned(),
        None => home?.join(".local/state"),
    };
    let name = Uuid::new_v5(&Uuid::NAMESPACE_URL, source.as_os_str().as_encoded_bytes());
    Some(state.join("harborhook/dev").join(name.simple().to_string()))
}

/// The path that a folder has or would have, canonical as far as it is there.
pub(super) fn resolve(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let (there, canonical) = path
        .ancestors()
        .find_map(|ancestor| Some((ancestor, ancestor.canonicalize().ok()?)))
        .ok_or(io::ErrorKind::NotFound)?;
    let rest = path.strip_prefix(there).unwrap_or(Path::new(""));
    let mut resolved = canonical;
    for component in rest.components() {
        match component {
            Component::ParentDir => drop(resolved.pop()),
            other => resolved.push(other),
        }
    }
    Ok(resolved)
}

fn lock(folder: &Path) -> Result<File, Failure> {
    let path = folder.join(LOCK_FILE);
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.map_err(|error| Failure::Local(format!("{}: {error}", path.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::Local(format!(
            "{} is in use by another `harborctl dev`: stop that one, or add --data DIR with another folder",
            folder.display()
        ))),
        Err(TryLockError::Error(error)) => Err(Failure::Local(format!("{}: {error}", path.display()))),
    }
}

/// Makes an empty folder private; one with something in it is its owner's to change.
fn make_folder_private(folder: &Path) -> io::Result<Result<(), Failure>> {
    if fs::metadata(folder)?.permissions().mode() & OTHERS_MODE == 0 {
        return Ok(Ok(()));
    }
    if fs::read_dir(folder)?.next().is_none() {
        return fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map(Ok);
    }
    let folder = folder.display();
    let message = format!("--data {folder}: others may look into the folder: run chmod 700 {folder}");
    Ok(Err(Failure::Local(message)))
}

/// Makes the ledger's files private. SQLite gives the files beside a database the mode of the database, and makes one of
/// an empty file.
fn make_ledger_private(folder: &Path) -> io::Result<()> {
    let ledger = folder.join(LEDGER_FILE);
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&ledger)?;
    for suffix in ["", "-wal", "-shm"] {
        let file = folder.join(format!("{LEDGER_FILE}{suffix}"));
        match fs::metadata(&file) {
            Ok(metadata) if metadata.permissions().mode() & OTHERS_MODE != 0 => {
                fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn sealing_key(path: &Path) -> Result<Redacted<[u8; SEALING_KEY_BYTES]>, Failure> {
    match fs::read(path).map(Redacted::new) {
        Ok(bytes) => bytes.expose().as_slice().try_into().map(Redacted::new).map_err(|_| {
            let message = "must have 32 bytes: put the right file back, or remove it to have a new one made";
            Failure::Local(format!("{}: {message}", path.display()))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = Redacted::new(rand::random::<[u8; SEALING_KEY_BYTES]>());
            write_private(path, key.expose())?;
            Ok(key)
        }
        Err(error) => Err(Failure::Local(format!("{}: {error}", path.display()))),
    }
}

/// Writes a file that only this user can read; it is there whole or not at all.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let fresh = path.with_extension("new");
    let write = || {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(|error| Failure::Local(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_folder_is_private_and_keeps_its_key() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let key = DataFolder::open(&path).unwrap().sealing_key().clone();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join(SEALING_KEY_FILE)), 0o600);

        let again = DataFolder::open(&path).unwrap();
        assert!(again.sealing_key() == &key);
        again.write_generated_secrets(&Redacted::new("kind: List".to_owned())).unwrap();
        assert_eq!(mode(&path.join(GENERATED_SECRETS_FILE)), 0o600);
        assert_eq!(again.generated_secrets().unwrap().expose(), "kind: List");
    }

    #[test]
    fn a_folder_that_others_may_look_into_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("foreign"), "").unwrap();
        for others in [0o750, 0o701, 0o720] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(others)).unwrap();
            let failure = DataFolder::open(folder.path()).err().unwrap();
            assert!(failure.to_string().contains("chmod 700"), "{failure}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
            assert_eq!(mode(folder.path()), others);
        }
    }

    #[test]
    fn an_empty_folder_becomes_private() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        DataFolder::open(folder.path()).unwrap();
        assert_eq!(mode(folder.path()), 0o700);
    }

    #[test]
    fn the_files_of_a_ledger_become_private() {
        let folder = tempfile::tempdir().unwrap();
        drop(DataFolder::open(folder.path()).unwrap());
        for file in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
            let path = folder.path().join(file);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        }
        drop(DataFolder::open(folder.path()).unwrap());
        for file in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
            assert_eq!(mode(&folder.path().join(file)), 0o600, "{file}");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_resolved_through_links() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        fs::create_dir(real.join("a")).unwrap();
        std::os::unix::fs::symlink(real.join("a"), real.join("link")).unwrap();
        for (path, expected) in [("link/b/c", "a/b/c"), ("a", "a"), ("b/../a/c", "a/c"), ("link/../b", "b")] {
            assert_eq!(resolve(&real.join(path)).unwrap(), real.join(expected), "{path}");
        }
    }

    #[test]
    fn two_never_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataFolder::open(folder.path()).unwrap();
        let failure = DataFolder::open(folder.path()).err().unwrap();
        assert!(failure.to_string().contains("--data"), "{failure}");
        drop(first);
        DataFolder::open(folder.path()).unwrap();
    }

    #[test]
    fn a_damaged_key_is_not_replaced_silently() {
        let folder = tempfile::tempdir().unwrap();
        drop(DataFolder::open(folder.path()).unwrap());
        fs::write(folder.path().join(SEALING_KEY_FILE), b"short").unwrap();
        let failure = DataFolder::open(folder.path()).err().unwrap();
        assert!(failure.to_string().contains("must have 32 bytes"), "{failure}");
    }

    #[test]
    fn every_source_has_its_own_folder_under_the_state_folder() {
        let (state, home) = (Path::new("/state"), Path::new("/home/me"));
        let path = |source: &str, state_home: Option<&Path>| default_path(Path::new(source), state_home, Some(home));
        assert_ne!(path("/a", None), path("/b", None));
        assert!(path("/a", Some(state)).unwrap().starts_with("/state/harborhook/dev"));
        assert!(path("/a", Some(Path::new("relative"))).unwrap().starts_with("/home/me/.local/state/harborhook/dev"));
        assert_eq!(default_path(Path::new("/a"), None, None), None);
    }
}
