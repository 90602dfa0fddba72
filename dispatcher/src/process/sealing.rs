//! The files of sealing keys.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use dispatcher_core::limits::SEALING_KEYS_MAX;
use dispatcher_core::redacted::Redacted;
use dispatcher_core::seal::SealingKey;

const KEY_BYTES: usize = 32;

/// Why sealing keys cannot be read. Holds nothing of a key.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", .path.display())]
pub struct SealingFileError {
    path: PathBuf,
    what: String,
}

fn failed(path: &Path, what: &impl ToString) -> SealingFileError {
    SealingFileError { path: path.to_owned(), what: what.to_string() }
}

/// Reads sealing keys from files of exactly 32 bytes each, or from folders of such files, in the order of their names:
/// `current` before `next` and `previous`. What begins with a dot is passed over; a mounted Secret has such entries. The
/// first key of all seals, and each opens.
///
/// # Errors
/// [`SealingFileError`] with the first file that is not a key.
pub fn read_sealing_keys(paths: &[PathBuf]) -> Result<SealingKey, SealingFileError> {
    let mut ring: Option<SealingKey> = None;
    let mut count = 0;
    for path in paths {
        for file in files(path)? {
            count += 1;
            if count > SEALING_KEYS_MAX {
                return Err(failed(path, &format!("there are more than {SEALING_KEYS_MAX} keys: take old ones away")));
            }
            let key = read_key(&file)?;
            ring = Some(match ring {
                None => SealingKey::from_bytes(key.expose()),
                Some(ring) => ring.opening_with(key.expose()),
            });
        }
    }
    let nowhere = paths.first().cloned().unwrap_or_default();
    ring.ok_or_else(|| failed(&nowhere, &"there is no key; `head -c 32 /dev/urandom` makes one"))
}

/// The file itself, or the files of a folder.
fn files(path: &Path) -> Result<Vec<PathBuf>, SealingFileError> {
    if !fs::metadata(path).map_err(|error| failed(path, &error))?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| failed(path, &error))? {
        let entry = entry.map_err(|error| failed(path, &error))?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            files.push(entry.path());
        }
        if files.len() > SEALING_KEYS_MAX {
            return Err(failed(
                path,
                &format!("the folder has more than {SEALING_KEYS_MAX} files: is it the right one?"),
            ));
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn read_key(path: &Path) -> Result<Redacted<[u8; KEY_BYTES]>, SealingFileError> {
    // With room for all of it, so that no copy is left behind by growing.
    let mut bytes = Vec::with_capacity(2 * KEY_BYTES);
    let file = File::open(path).map_err(|error| failed(path, &error))?;
    let read = file.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes);
    let bytes = Redacted::new(bytes);
    read.map_err(|error| failed(path, &error))?;
    let key: &[u8; KEY_BYTES] = bytes.expose().as_slice().try_into().map_err(|_| {
        failed(path, &"must have exactly 32 bytes, which are the key itself; `head -c 32 /dev/urandom` makes one")
    })?;
    Ok(Redacted::new(*key))
}

#[cfg(test)]
mod tests {
    use dispatcher_core::id::{EndpointId, TenantId};
    use dispatcher_core::table::EndpointSecrets;

    use super::*;

    #[test]
    fn a_key_file_is_exactly_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let read = || read_sealing_keys(std::slice::from_ref(&path)).map(drop);
        assert!(read().unwrap_err().to_string().contains("No such file"));
        for length in [0, 31, 33, 44, 64] {
            fs::write(&path, vec![7; length]).unwrap();
            assert!(read().unwrap_err().to_string().contains("exactly 32 bytes"), "{length}");
        }
        fs::write(&path, [7; 32]).unwrap();
        read().unwrap();
    }

    /// Which of some keys opens what the ring seals.
    fn sealed_by(ring: &SealingKey) -> Option<u8> {
        let endpoint = EndpointId::derive(TenantId::of_namespace_name("shop"), "billing");
        let url = "https://example.com".to_owned().into();
        let secrets = EndpointSecrets { url, keys: vec![], headers: vec![], tls: None, token: None };
        let sealed = ring.seal(endpoint, &secrets);
        (1..=9).find(|byte| SealingKey::from_bytes(&[*byte; 32]).open(endpoint, &sealed).is_ok())
    }

    #[test]
    fn the_first_key_of_all_files_and_folders_seals() {
        let folder = tempfile::tempdir().unwrap();
        let (mounted, single) = (folder.path().join("keys"), folder.path().join("single"));
        fs::create_dir_all(mounted.join("..2026_11_24")).unwrap();
        for (name, byte) in [("previous", 1), ("current", 2), ("next", 3)] {
            fs::write(mounted.join(name), [byte; 32]).unwrap();
        }
        fs::write(&single, [4; 32]).unwrap();
        for (paths, expected) in [
            (vec![mounted.clone()], 2),
            (vec![mounted.clone(), single.clone()], 2),
            (vec![single.clone(), mounted.clone()], 4),
        ] {
            assert_eq!(sealed_by(&read_sealing_keys(&paths).unwrap()), Some(expected), "{paths:?}");
        }
        fs::write(mounted.join("zip"), "not a key").unwrap();
        assert!(
            read_sealing_keys(std::slice::from_ref(&mounted)).unwrap_err().to_string().contains("keys/zip: must have")
        );
        let empty = folder.path().join("empty");
        fs::create_dir(&empty).unwrap();
        assert!(read_sealing_keys(&[empty]).unwrap_err().to_string().contains("there is no key"));
        assert!(read_sealing_keys(&[]).is_err());
        assert!(
            read_sealing_keys(&vec![single; SEALING_KEYS_MAX + 1]).unwrap_err().to_string().contains("more than 16")
        );
    }
}
