//! A damaged file is set aside, and what can be read of it goes into a new one.
//!
//! The new one is complete before it takes the place of the old, so that a power cut at any instant leaves one of them
//! there.

use super::super::blob::{MessageRecord, unseal, unseal_row};
use super::files::{remove, sync_directory, unless_missing, with_suffix};
use super::pages::row_columns;
use super::{
    Connection, Database, Fault, OpenFlags, OptionalExtension, Row, SEQ_BITS, ToSqlOutput, begin,
    blob, connect, integer, params,
};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Rows copied in one transaction.
const ROWS_PER_TRANSACTION: u64 = 1000;

/// Copies what can be read of the file at `path` into a new one, which takes its place; the old one (with its
/// write-ahead log) gets another name. Returns the new one, and what became of the old one in a sentence. There must be
/// no connection to the file.
pub(super) fn start_anew(path: &Path, disk_max: u64) -> Result<(Database, String), Fault> {
    let new_path = with_suffix(path, SALVAGED);
    remove(&new_path)?;
    let mut new = connect(&new_path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let (mut small, mut rows) = (Copied::default(), 0);
    if let Ok(old) = Connection::open_with_flags(path, flags) {
        small = copy_small_tables(&old, &mut new)?;
        rows = copy_queue(&old, &new)?;
    }
    new.close().map_err(|(_, error)| error)?;
    sync_directory(path)?;
    let aside = set_aside(path)?;
    finish(path)?;
    let report = format!(
        "the damaged database was set aside as {}; {} sessions, {rows} queued messages and {} retained messages were \
         read from it",
        aside.display(),
        small.sessions,
        small.retained
    );
    Ok((Database::open(path, disk_max)?, report))
}

/// Does what [`start_anew`] had left to do when the power went between its renames.
pub(super) fn finish(path: &Path) -> Result<(), Fault> {
    let salvaged = with_suffix(path, SALVAGED);
    if path.exists() || !salvaged.exists() {
        return Ok(());
    }
    if let Some(aside) = names_aside(path).take_while(|aside| aside.exists()).last() {
        set_logs_aside(path, &aside)?;
    }
    fs::rename(&salvaged, path)?;
    sync_directory(path)?;
    Ok(())
}

/// What the name of the new file ends in until it is complete.
const SALVAGED: &str = ".salvaged";

/// `larder.db.corrupt-1` and so on.
fn names_aside(path: &Path) -> impl Iterator<Item = PathBuf> {
    (1..u32::MAX).map(move |number| with_suffix(path, &format!(".corrupt-{number}")))
}

/// `larder.db` becomes `larder.db.corrupt-N`. Only once that is on disk does its write-ahead log follow: without it the
/// file would be taken for an earlier state of itself, if the power goes now.
fn set_aside(path: &Path) -> Result<PathBuf, Fault> {
    let aside = names_aside(path)
        .find(|aside| !aside.exists())
        .ok_or_else(|| Fault::Other("too many damaged databases beside it".to_owned()))?;
    fs::rename(path, &aside)?;
    sync_directory(path)?;
    set_logs_aside(path, &aside)?;
    Ok(aside)
}

/// The write-ahead log becomes `larder.db.corrupt-N-wal`, where SQLite finds it. On disk before the new file has the
/// name: it must not find the log of the old one.
fn set_logs_aside(path: &Path, aside: &Path) -> io::Result<()> {
    for log in ["-wal", "-journal"] {
        unless_missing(fs::rename(with_suffix(path, log), with_suffix(aside, log)))?;
    }
    unless_missing(fs::remove_file(with_suffix(path, "-shm")))?;
    sync_directory(path)
}

/// All tables but those that hold queues: their columns, and by which they are in order.
const SMALL_TABLES: [(&str, usize, &str); 7] = [
    ("session", 5, "key"),
    ("lane", 8, "key"),
    ("subscription", 3, "session"),
    ("held", 3, "session"),
    ("will", 2, "session"),
    ("retained", 2, "rowid"),
    ("service", 5, "id"),
];

/// How many rows of the small tables were read.
#[derive(Clone, Copy, Default)]
struct Copied {
    sessions: u64,
    retained: u64,
}

/// Copies [`SMALL_TABLES`] as they are; recovery checks them. A table is read from its first row up to where reading
/// fails, then from the last down.
fn copy_small_tables(old: &Connection, new: &mut Connection) -> Result<Copied, Fault> {
    let transaction = begin(new)?;
    let mut copied = Copied::default();
    for (table, columns, order) in SMALL_TABLES {
        let places = &"?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8"[..columns * 4 - 2];
        let mut insert =
            transaction.prepare(&format!("INSERT OR IGNORE INTO {table} VALUES ({places})"))?;
        let mut rows = 0;
        let mut copy = |row: &Row<'_>| {
            for column in 0..columns {
                insert
                    .raw_bind_parameter(column + 1, ToSqlOutput::Borrowed(row.get_ref(column)?))?;
            }
            rows += u64::try_from(insert.raw_execute()?).unwrap_or(0);
            Ok(())
        };
        let query = format!("SELECT * FROM {table} ORDER BY {order}");
        if !read_while_possible(old, &query, &mut copy)? {
            read_while_possible(old, &format!("{query} DESC"), &mut copy)?;
        }
        match table {
            "session" => copied.sessions = rows,
            "retained" => copied.retained = rows,
            _ => {}
        }
    }
    // Should all keys ever given be unknown, they are given again: to sessions that have nothing of others.
    for table in ["lane", "subscription", "held", "will"] {
        transaction.execute(
            &format!("DELETE FROM {table} WHERE session NOT IN (SELECT key FROM session)"),
            [],
        )?;
    }
    transaction.commit()?;
    Ok(copied)
}

/// Copies queue rows that pass their checksums: from the first up to where reading fails, then from the last down.
/// Returns how many.
fn copy_queue(old: &Connection, new: &Connection) -> Result<u64, Fault> {
    let mut copied = 0;
    let mut reached = i64::MIN;
    new.execute_batch("BEGIN")?;
    for order in ["ASC", "DESC"] {
        let above = reached;
        let query = format!(
            "SELECT key, size, messages_before, bytes_before, message, record FROM queue
             WHERE key > {above} ORDER BY key {order}"
        );
        read_while_possible(old, &query, |row| {
            reached = reached.max(integer(row, 0)?.unwrap_or(reached));
            if copy_row(old, new, row)? {
                copied += 1;
                if copied % ROWS_PER_TRANSACTION == 0 {
                    new.execute_batch("COMMIT; PRAGMA wal_checkpoint(PASSIVE); BEGIN")?;
                }
            }
            Ok(())
        })?;
    }
    new.execute_batch("COMMIT")?;
    Ok(copied)
}

/// Copies a row, and the shared message that it names, if both are good and its session is there.
fn copy_row(old: &Connection, new: &Connection, row: &Row<'_>) -> Result<bool, Fault> {
    let columns = row_columns(row)?;
    let record = blob(row, 5)?;
    if unseal_row(&columns, record).is_none() {
        return Ok(false);
    }
    let [key, size, messages_before, bytes_before, message] = columns;
    let mut session = new.prepare_cached(
        "SELECT 1 FROM session WHERE slot = ?1 UNION ALL SELECT 1 FROM lane WHERE slot = ?1",
    )?;
    if !session.exists([key >> SEQ_BITS])? {
        return Ok(false);
    }
    let shared = integer(row, 4)?;
    if shared.is_some() && !copy_message(old, new, message)? {
        return Ok(false);
    }
    new.prepare_cached("INSERT OR IGNORE INTO queue VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![
            key,
            size,
            messages_before,
            bytes_before,
            shared,
            record
        ])?;
    Ok(true)
}

/// Copies a shared message, or counts one more row that names it; `false` if it cannot be read.
fn copy_message(old: &Connection, new: &Connection, id: i64) -> Result<bool, Fault> {
    let mut count = new.prepare_cached("UPDATE message SET owed = owed + 1 WHERE id = ?1")?;
    if count.execute([id])? > 0 {
        return Ok(true);
    }
    let read = old
        .prepare_cached("SELECT record FROM message WHERE id = ?1")
        .and_then(|mut statement| {
            statement
                .query_row([id], |row| row.get::<_, Vec<u8>>(0))
                .optional()
        });
    let Ok(Some(record)) = read else {
        return Ok(false);
    };
    if unseal::<MessageRecord<'_>>(&[id], "", &record).is_none() {
        return Ok(false);
    }
    new.prepare_cached("INSERT INTO message VALUES (?1, 1, ?2)")?
        .execute(params![id, record])?;
    Ok(true)
}

/// Hands the rows of a query to `take` until it fails to read on. Says whether it read them all.
fn read_while_possible(
    old: &Connection,
    query: &str,
    mut take: impl FnMut(&Row<'_>) -> Result<(), Fault>,
) -> Result<bool, Fault> {
    let Ok(mut statement) = old.prepare(query) else {
        return Ok(false);
    };
    let Ok(mut rows) = statement.query([]) else {
        return Ok(false);
    };
    loop {
        match rows.next() {
            Ok(Some(row)) => take(row)?,
            Ok(None) => return Ok(true),
            Err(_) => return Ok(false),
        }
    }
}
