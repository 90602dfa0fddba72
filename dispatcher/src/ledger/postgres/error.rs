//! What an error of the database means: that its data is at fault, or that it may be tried again.

use sqlx::postgres::PgDatabaseError;

use super::LedgerError;

/// Reads an error of PostgreSQL by the class of its SQLSTATE (PostgreSQL manual, appendix A). Of data that was
/// refused only the place is told: the server's message may carry a value.
pub(in crate::ledger) fn classify(error: &PgDatabaseError) -> LedgerError {
    let code = error.code();
    if is_refusal(code) {
        let place = |name: Option<&str>| name.unwrap_or("unnamed").to_owned();
        return LedgerError::Refused(format!(
            "SQLSTATE {code}, table {}, constraint {}",
            place(error.table()),
            place(error.constraint())
        ));
    }
    LedgerError::Unavailable(match code {
        "25006" => "the server takes no writes: it is a standby, or read-only".to_owned(),
        _ => format!("SQLSTATE {code}: {}", error.message()),
    })
}

/// Cardinality violation (21), data exception (22), constraint violation (23, 44), program limit exceeded (54).
/// Everything else (connection, resources, operator, locks, rights, schema) says nothing about the data.
fn is_refusal(code: &str) -> bool {
    matches!(code.get(..2), Some("21" | "22" | "23" | "44" | "54"))
}

/// Whether a row was to be inserted that is there already.
pub(super) fn is_duplicate(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

/// Reads an error that ended an attempt to connect. Of what no waiting heals it says what to do.
pub(super) fn of_connecting(error: sqlx::Error) -> LedgerError {
    let wrong = |what: &str| LedgerError::Refused(format!("the database's configuration is wrong: {what}"));
    match &error {
        sqlx::Error::Configuration(_) => wrong(
            "the URL cannot be used; it is postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full, and \
                   the files that it names must be there",
        ),
        sqlx::Error::Tls(error) => wrong(&format!(
            "no trusted TLS connection ({error}); check sslmode, sslrootcert, sslcert and sslkey in the URL"
        )),
        // rustls reports a refused certificate as invalid data of the stream.
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => wrong(&format!(
            "no trusted TLS connection ({error}); check sslmode, sslrootcert, sslcert and sslkey in the URL"
        )),
        sqlx::Error::Database(database) => match database.code().as_deref() {
            Some("28P01" | "28000") => wrong("the server refuses the user; check user, password and certificate"),
            Some("3D000") => wrong("the database does not exist; create it, or name another one in the URL"),
            Some("42501") => wrong("the user may not use the database; grant it CONNECT and its schema"),
            _ => error.into(),
        },
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_classes_that_speak_of_the_data_refuse_it() {
        for code in ["22021", "23505", "23514", "54000", "21000"] {
            assert!(is_refusal(code), "{code}");
        }
        // Deadlock, serialisation, disk full, too many connections, shutdown, timeout, read-only, no such table.
        for code in ["40P01", "40001", "53100", "53300", "57P01", "57014", "25006", "42P01", "08006", "X", ""] {
            assert!(!is_refusal(code), "{code}");
        }
    }
}
