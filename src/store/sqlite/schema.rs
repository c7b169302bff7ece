//! The schema and its version, and the marks by which a file is known as Larder's.

use super::{Connection, Fault, begin};
use crate::store::OpenError;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The application_id of Larder's databases.
const APPLICATION_ID: u32 = u32::from_be_bytes(*b"LRDR");
/// The user_version of `schema.sql`.
const SCHEMA_VERSION: u32 = 3;
const SCHEMA: &str = include_str!("../schema.sql");

/// What stands in a database's first bytes.
struct Marks {
    application_id: u32,
    user_version: u32,
}

/// Reads the marks without SQLite, because opening a file may already change it. `None`: there is no file, or it is no
/// database.
fn read_marks(path: &Path) -> io::Result<Option<Marks>> {
    let mut header = [0; 72];
    match File::open(path).and_then(|mut file| file.read_exact(&mut header)) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof
            ) =>
        {
            return Ok(None);
        }
        read => read?,
    }
    if !header.starts_with(b"SQLite format 3\0") {
        return Ok(None);
    }
    let field = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    Ok(Some(Marks {
        application_id: field(68),
        user_version: field(60),
    }))
}

/// Refuses the databases of others and of newer Larders, and leaves them alone. What is no database at all passes:
/// opening it will call it corrupt.
pub(super) fn refuse_others(path: &Path) -> Result<(), OpenError> {
    let marks = read_marks(path).map_err(|error| OpenError::Database {
        path: path.to_owned(),
        error: error.to_string(),
    })?;
    match marks {
        Some(marks) if marks.application_id != APPLICATION_ID => Err(OpenError::Foreign {
            path: path.to_owned(),
        }),
        Some(marks) if marks.user_version > SCHEMA_VERSION => Err(OpenError::Newer {
            path: path.to_owned(),
            found: marks.user_version,
            known: SCHEMA_VERSION,
        }),
        _ => Ok(()),
    }
}

/// Creates the schema while the file still has a rollback journal: so the marks by which [`refuse_others`] knows the
/// file are in it from the first moment, not only in a write-ahead log.
pub(super) fn create_if_empty(connection: &mut Connection) -> Result<(), Fault> {
    let objects: u32 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if objects > 0 {
        return Ok(());
    }
    let transaction = begin(connection)?;
    transaction.execute_batch(SCHEMA)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()?;
    Ok(())
}

/// Makes a database of an earlier version one of this version, in one transaction. Records stay as they are: every
/// format is read for ever, so this takes no longer for a long backlog.
pub(super) fn migrate_if_old(connection: &mut Connection, path: &Path) -> Result<(), Fault> {
    match read_marks(path)? {
        Some(marks) if marks.user_version < SCHEMA_VERSION => {}
        _ => return Ok(()),
    }
    let transaction = begin(connection)?;
    let version: u32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version < SCHEMA_VERSION {
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    transaction.commit()?;
    // An earlier Larder looks for the version in the file, not in its log. A shell that reads just now may delay this;
    // it is then done by a later checkpoint, or at the next start.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}
