//! Where the resources come from.

use std::io;
use std::path::{Path, PathBuf};

use operator::world::files::{Loaded, STREAM, load_path, load_stream};

use super::samples::{self, Sample};
use crate::exit::Failure;

/// A folder, a file, or standard input.
pub(super) enum Source {
    /// A folder or a file: as it was named, and its canonical path.
    Path {
        /// As it was named, for people.
        named: PathBuf,
        /// The same wherever it is named from.
        canonical: PathBuf,
    },
    /// Standard input, which can be read once.
    Stream,
}

impl Source {
    /// The source that `PATH` names.
    pub(super) fn named(path: &Path) -> Result<Self, Failure> {
        if path == Path::new(STREAM) {
            return Ok(Self::Stream);
        }
        let canonical = path.canonicalize().map_err(|error| Failure::Local(format!("{}: {error}", path.display())))?;
        Ok(Self::Path { named: path.to_owned(), canonical })
    }

    /// What tells it from other sources: its canonical path, or `-`.
    pub(super) fn identity(&self) -> &Path {
        self.path().unwrap_or(Path::new(STREAM))
    }

    /// The canonical path, if it has one.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::Path { canonical, .. } => Some(canonical),
            Self::Stream => None,
        }
    }

    /// Reads the resources. Standard input has them only the first time.
    pub(super) async fn load(&self) -> Result<Loaded, Failure> {
        let named = match self {
            Self::Path { named, .. } => Some(named.clone()),
            Self::Stream => None,
        };
        let load = move || match named {
            Some(path) => load_path(&path),
            None => load_stream(&mut io::stdin().lock()),
        };
        tokio::task::spawn_blocking(load)
            .await
            .map_err(|_| Failure::Local("the resources could not be read".to_owned()))
    }

    /// The sample events beside the resources; only a folder has some.
    pub(super) fn samples(&self) -> Result<Vec<Sample>, Failure> {
        match self {
            Self::Path { named, canonical } if canonical.is_dir() => samples::read(named),
            Self::Path { .. } | Self::Stream => Ok(Vec::new()),
        }
    }
}
