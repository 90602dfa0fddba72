//! Where the ledger is, as the command line says it.

use std::fs::File;
use std::path::PathBuf;

use dispatcher_core::redacted::Redacted;
use url::Url;

use super::Failure;
use crate::ledger::postgres::PostgresConfig;

/// Parameters of the database's URL that name files.
const DATABASE_FILES: [&str; 3] = ["sslrootcert", "sslcert", "sslkey"];

/// Where the ledger is.
#[derive(Clone)]
pub enum Database {
    /// In a PostgreSQL database.
    Postgres(Box<PostgresConfig>),
    /// In a file.
    Sqlite(PathBuf),
}

impl Database {
    /// Reads `--database`: `sqlite:FILE`, or the URL of a PostgreSQL database.
    ///
    /// # Errors
    /// If no file is named, or one that is named is not there.
    pub fn read(url: &Redacted<String>, connections_max: u32) -> Result<Self, Failure> {
        if let Some(path) = url.expose().strip_prefix("sqlite:") {
            // `sqlite://relative`, `sqlite:relative` and `sqlite:///absolute` are all usual.
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(Failure::Configuration("--database: sqlite: names no file; write sqlite:FILE".to_owned()));
            }
            return Ok(Self::Sqlite(PathBuf::from(path)));
        }
        check_files(url)?;
        Ok(Self::Postgres(Box::new(PostgresConfig {
            pool_connections_max: connections_max,
            ..PostgresConfig::new(url.expose())
        })))
    }
}

/// Whether the files are there that the database's URL names: they are read only when a server answers. Errors name the
/// parameter at fault, never a value, which may be a key that stands in the place of its file.
///
/// # Errors
/// If one is not.
pub fn check_files(url: &Redacted<String>) -> Result<(), Failure> {
    // What is no URL is told by the ledger.
    let Ok(url) = Url::parse(url.expose()) else { return Ok(()) };
    for (name, value) in url.query_pairs().filter(|(name, _)| DATABASE_FILES.contains(&&**name)) {
        let wrong = |what: &str| Failure::Configuration(format!("the database's URL is wrong: {name}: {what}"));
        if value.contains("-----BEGIN") {
            return Err(wrong("it is the PEM itself; write it into a file and name that"));
        }
        File::open(&*value).map_err(|error| wrong(&format!("{error}; it names a file in PEM")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_the_place_of_a_file_is_refused_without_a_word_of_it() {
        for (value, what) in [
            (
                "-----BEGIN%20PRIVATE%20KEY-----%0As3cret%0A-----END%20PRIVATE%20KEY-----",
                "sslkey: it is the PEM itself",
            ),
            ("/no/s3cret", "sslkey: No such file"),
        ] {
            let url = Redacted::new(format!("postgres://u@h/d?sslkey={value}"));
            let failure = check_files(&url).unwrap_err().to_string();
            assert!(failure.contains(what) && !failure.contains("s3cret"), "{failure}");
        }
    }
}
