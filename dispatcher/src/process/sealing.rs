//! The file with the sealing key.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use dispatcher_core::redacted::Redacted;
use dispatcher_core::seal::SealingKey;

use super::Failure;

const SEALING_KEY_BYTES: usize = 32;

/// Reads the key that seals and opens the secrets of the routing table.
///
/// # Errors
/// If the file cannot be read, or is not exactly the key.
pub fn read_sealing_key(path: &Path) -> Result<SealingKey, Failure> {
    let failed = |what: String| Failure::Configuration(format!("--sealing-key-file {}: {what}", path.display()));
    // With room for all of it, so that no copy is left behind by growing.
    let mut bytes = Vec::with_capacity(2 * SEALING_KEY_BYTES);
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let read = file.take(SEALING_KEY_BYTES as u64 + 1).read_to_end(&mut bytes);
    let bytes = Redacted::new(bytes);
    read.map_err(|error| failed(error.to_string()))?;
    let key: &[u8; SEALING_KEY_BYTES] = bytes.expose().as_slice().try_into().map_err(|_| {
        failed("must have exactly 32 bytes, which are the key itself; `head -c 32 /dev/urandom` makes one".to_owned())
    })?;
    Ok(SealingKey::from_bytes(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_exactly_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(read_sealing_key(&path).unwrap_err().to_string().contains("No such file"));
        for length in [0, 31, 33, 44, 64] {
            std::fs::write(&path, vec![7; length]).unwrap();
            assert!(read_sealing_key(&path).unwrap_err().to_string().contains("exactly 32 bytes"), "{length}");
        }
        std::fs::write(&path, [7; 32]).unwrap();
        read_sealing_key(&path).unwrap();
    }
}
