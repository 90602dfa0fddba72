//! Reads resources from a file, a folder or a stream.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use dispatcher_core::limits::{
    RESOURCE_BYTES_MAX, RESOURCE_FILE_BYTES_MAX, RESOURCE_FILES_MAX, RESOURCE_FOLDER_DEPTH_MAX,
    RESOURCE_FOLDER_ENTRIES_MAX,
};

use super::problem::FileProblem;
use super::resource::{LoadedFile, read_text};

/// Name of standard input among files.
pub const STREAM: &str = "-";

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Files, in the order of their paths.
    pub files: Vec<LoadedFile>,
    /// What is wrong with no file in particular.
    pub problems: Vec<FileProblem>,
    /// Whether all files were found. If not, a file that is missing here may still be there.
    pub complete: bool,
}

/// Reads a file, or the files of a folder and of the folders below: `*.yaml`, `*.yml`, `*.json`. Hidden files and folders
/// are skipped. Never fails: what cannot be read is a problem.
pub fn load_path(path: &Path) -> Loaded {
    let mut walk = Walk::default();
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => walk.folder(path, 0),
        Ok(_) => walk.files.push(path.to_owned()),
        Err(error) => walk.fail(path, &format!("cannot be read: {error}")),
    }
    let mut loaded = Loaded { files: Vec::new(), complete: walk.problems.is_empty(), problems: walk.problems };
    let mut bytes_left = RESOURCE_BYTES_MAX;
    for path in walk.files {
        let file = path.display().to_string();
        let read = fs::File::open(&path)
            .and_then(|mut reader| read_bounded(&mut reader, RESOURCE_FILE_BYTES_MAX.min(bytes_left)));
        if let Ok(Some(text)) = &read {
            bytes_left -= text.len();
        }
        loaded.files.push(file_of(&file, read));
    }
    loaded
}

/// Reads a stream to its end, as the file `-`.
pub fn load_stream(stream: &mut dyn Read) -> Loaded {
    let file = file_of(STREAM, read_bounded(stream, RESOURCE_FILE_BYTES_MAX));
    Loaded { files: vec![file], problems: Vec::new(), complete: true }
}

/// The text; `None` if it is longer than it may be.
fn read_bounded(reader: &mut dyn Read, bytes_max: usize) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    reader.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        return Ok(None);
    }
    String::from_utf8(bytes).map(Some).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

fn file_of(file: &str, read: io::Result<Option<String>>) -> LoadedFile {
    let message = match read {
        Ok(Some(text)) => return read_text(file, &text),
        Ok(None) => format!(
            "is too large: a file has at most {RESOURCE_FILE_BYTES_MAX} bytes, all files together {RESOURCE_BYTES_MAX}"
        ),
        Err(error) => format!("cannot be read: {error}"),
    };
    LoadedFile { problems: vec![FileProblem::of_file(file, message)], file: file.to_owned(), ..LoadedFile::default() }
}

#[derive(Default)]
struct Walk {
    files: Vec<PathBuf>,
    problems: Vec<FileProblem>,
    /// Folders by their real paths: links may lead in circles.
    visited: BTreeSet<PathBuf>,
    entries: usize,
    is_full: bool,
}

impl Walk {
    fn folder(&mut self, folder: &Path, depth: usize) {
        if depth > RESOURCE_FOLDER_DEPTH_MAX {
            let message = format!("is deeper than {RESOURCE_FOLDER_DEPTH_MAX} folders; name a folder further down");
            return self.fail(folder, &message);
        }
        match fs::canonicalize(folder) {
            Ok(real) => {
                if !self.visited.insert(real) {
                    return;
                }
            }
            Err(error) => return self.fail(folder, &format!("cannot be read: {error}")),
        }
        let entries = match fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            Err(error) => return self.fail(folder, &format!("cannot be read: {error}")),
        };
        self.entries += entries.len();
        if self.entries > RESOURCE_FOLDER_ENTRIES_MAX {
            let message = format!(
                "more than {RESOURCE_FOLDER_ENTRIES_MAX} entries were found here and before; name a smaller folder"
            );
            return self.fail(folder, &message);
        }
        let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            self.entry(path, depth);
        }
    }

    fn entry(&mut self, path: PathBuf, depth: usize) {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
            return;
        }
        let is_resource =
            path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known));
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => self.folder(&path, depth + 1),
            Ok(metadata) if metadata.is_file() && is_resource => {
                if self.files.len() < RESOURCE_FILES_MAX {
                    self.files.push(path);
                } else if !std::mem::replace(&mut self.is_full, true) {
                    self.fail(&path, &format!("is one file too many: at most {RESOURCE_FILES_MAX} are read"));
                }
            }
            // A file that goes away while the folder is read, a link to nowhere, a pipe.
            Ok(_) | Err(_) => {}
        }
    }

    fn fail(&mut self, path: &Path, message: &str) {
        self.problems.push(FileProblem::of_file(&path.display().to_string(), message));
    }
}
