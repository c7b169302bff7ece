//! The database: its connections, its schema, and transactions. This file, those below it and `schema.sql` are the
//! only ones that know SQLite.

mod apply;
mod files;
mod held;
mod lanes;
mod latest;
mod pages;
mod recover;
mod retained;
mod salvage;
mod schema;
mod sessions;
mod wills;

pub(super) use pages::Reader;

use super::{DISK_RESERVE_BYTES, OpenError, SQLITE_HEAP_BYTES, WRITER_CACHE_BYTES};
use crate::record::{Batch, Change, Dropped, Recovered};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior,
    params,
};
use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of a page. Measured against 2048 and 4096: fewest bytes written for batches of 1 and 10 messages.
const PAGE_BYTES: u64 = 1024;
/// Bytes that a page costs in the write-ahead log.
const WAL_FRAME_BYTES: u64 = PAGE_BYTES + 24;
/// The write-ahead log is copied into the database once it has so many pages.
const WAL_PAGES_MAX: u32 = 512;
/// Free pages that are kept for later; what is above, if it is also a quarter of the file, is given back.
const FREE_PAGES_KEPT: u64 = 4096;
/// Pages given back at a time.
const VACUUM_PAGES: u64 = 256;
/// How long SQLite itself waits for a lock that somebody's sqlite3 shell holds; then the commit is tried again.
const BUSY: Duration = Duration::from_secs(1);
/// What SQLite can count.
const PAGES_POSSIBLE: u64 = 0xffff_fffe;

thread_local! {
    /// Pages in the write-ahead log after this thread's last commit, as SQLite's hook told.
    static WAL_PAGES: Cell<u32> = const { Cell::new(0) };
}

/// Why something could not be done. A transaction that was open has been rolled back.
#[derive(Debug)]
pub(super) enum Fault {
    /// The file itself is damaged.
    Corrupt(String),
    /// Anything else: full, locked, an input/output error.
    Other(String),
}

impl Fault {
    /// What SQLite, or the system, said.
    pub(super) fn text(&self) -> &str {
        match self {
            Fault::Corrupt(text) | Fault::Other(text) => text,
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Fault::Corrupt(error.to_string())
            }
            _ => Fault::Other(error.to_string()),
        }
    }
}

impl From<postcard::Error> for Fault {
    fn from(error: postcard::Error) -> Fault {
        Fault::Other(error.to_string())
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Other(error.to_string())
    }
}

/// Opens or creates the database at `path` and reads what recovery needs. A corrupt file is set aside and salvaged.
pub(super) fn open(path: &Path, disk_max: u64) -> Result<(Database, Recovered), OpenError> {
    let failed = |fault: Fault| OpenError::Database {
        path: path.to_owned(),
        error: fault.text().to_owned(),
    };
    salvage::finish(path).map_err(failed)?;
    schema::refuse_others(path)?;
    files::create_if_missing(path).map_err(failed)?;
    let opened = Database::open(path, disk_max).and_then(|mut database| {
        let recovered = database.recover()?;
        Ok((database, recovered))
    });
    match opened {
        Ok(opened) => Ok(opened),
        Err(Fault::Corrupt(error)) => {
            let (mut database, report) = salvage::start_anew(path, disk_max).map_err(failed)?;
            let mut recovered = database.recover().map_err(failed)?;
            let found = recovered.salvaged.take().map(|more| format!("; {more}"));
            recovered.salvaged = Some(format!(
                "{}: {error}; {report}{}",
                path.display(),
                found.unwrap_or_default()
            ));
            Ok((database, recovered))
        }
        Err(fault) => Err(failed(fault)),
    }
}

/// The writer's connection.
pub(super) struct Database {
    connection: Connection,
    path: PathBuf,
    disk_max: u64,
    /// The limit that the connection has now, in pages.
    pages_limit: u64,
    /// Whether a commit waits for its fsync.
    synchronised: bool,
    memo: apply::Memo,
    /// Pages in the write-ahead log.
    wal_pages: u32,
    written: u64,
}

impl Database {
    /// Opens or creates the file, without reading more than its schema.
    fn open(path: &Path, disk_max: u64) -> Result<Database, Fault> {
        let connection = connect(path)?;
        let memo = apply::Memo::read(&connection)?;
        WAL_PAGES.set(0);
        Ok(Database {
            connection,
            path: path.to_owned(),
            disk_max,
            pages_limit: 0,
            synchronised: true,
            memo,
            wal_pages: 0,
            written: 0,
        })
    }

    fn recover(&mut self) -> Result<Recovered, Fault> {
        let transaction = begin(&mut self.connection)?;
        let mut recovered = recover::recover(&transaction)?;
        recovered.disk_used = disk_used(&transaction)?;
        transaction.commit()?;
        Ok(recovered)
    }

    /// Makes a batch durable, as one transaction. Returns what its `DropOldest` changes removed, and the bytes in use.
    pub(super) fn commit(&mut self, batch: &Batch) -> Result<(Vec<Dropped>, u64), Fault> {
        self.limit_pages(batch.changes.iter().any(adds_message))?;
        self.synchronise(true)?;
        let transaction = begin(&mut self.connection)?;
        let (dropped, written_down) = apply::apply(&transaction, &mut self.memo, batch)?;
        let used = disk_used(&transaction)?;
        transaction.commit()?;
        self.memo.keep(written_down);
        self.count_wal();
        Ok((dropped, used))
    }

    /// Removes some rows of an ended session. Says whether there may be more to remove.
    ///
    /// Nobody waits for this, so it is not synchronised: if it is lost, it is done again.
    pub(super) fn purge(&mut self) -> Result<bool, Fault> {
        let Some(slot) = sessions::ended_slot(&self.connection)? else {
            return Ok(false);
        };
        self.limit_pages(false)?;
        self.synchronise(false)?;
        let transaction = begin(&mut self.connection)?;
        sessions::purge(&transaction, slot)?;
        transaction.commit()?;
        self.count_wal();
        Ok(true)
    }

    /// Copies the write-ahead log into the database if it is long; the next commit then begins it anew.
    pub(super) fn checkpoint_if_long(&mut self) -> Result<(), Fault> {
        if self.wal_pages < WAL_PAGES_MAX {
            return Ok(());
        }
        let pages: u32 =
            self.connection
                .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(2))?;
        let file_pages = count(&self.connection, "page_count")?;
        self.written += u64::from(pages).min(file_pages) * PAGE_BYTES;
        Ok(())
    }

    /// Gives some free pages back to the file system if there are very many. Says whether it did.
    pub(super) fn vacuum_if_large(&mut self) -> Result<bool, Fault> {
        let free = count(&self.connection, "freelist_count")?;
        if free <= FREE_PAGES_KEPT || free < count(&self.connection, "page_count")? / 4 {
            return Ok(false);
        }
        self.synchronise(false)?;
        let mut statement = self
            .connection
            .prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
        // One page goes with every step.
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        drop(rows);
        drop(statement);
        self.count_wal();
        Ok(true)
    }

    /// Replaces the connection by a new one to the same file.
    ///
    /// The new one is opened before the old one is closed: closing the last connection would replay the write-ahead
    /// log, and with it a commit that failed in its fsync, which is then made twice.
    pub(super) fn reopen(&mut self) -> Result<(), Fault> {
        salvage::finish(&self.path)?;
        self.connection = connect(&self.path)?;
        self.pages_limit = 0;
        self.synchronised = true;
        Ok(())
    }

    /// Sets the damaged file aside and goes on with a new one that holds what could be read. Says so in a sentence.
    /// There must be no other connection: a connection removes its log by name when it closes, even if another file
    /// has that name by then.
    pub(super) fn start_anew(&mut self) -> Result<String, Fault> {
        self.connection = Connection::open_in_memory()?;
        let (database, report) = salvage::start_anew(&self.path, self.disk_max)?;
        *self = Database {
            written: self.written,
            ..database
        };
        Ok(report)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes written so far: exactly those of the write-ahead log, at most those of the database itself.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Settlements may use the reserve that new messages may not: they must never lack a page.
    fn limit_pages(&mut self, adds_messages: bool) -> Result<(), Fault> {
        let reserves = if adds_messages { 1 } else { 2 };
        let limit = self.disk_max.saturating_add(reserves * DISK_RESERVE_BYTES) / PAGE_BYTES;
        let limit = limit.min(PAGES_POSSIBLE);
        if limit != self.pages_limit {
            self.connection
                .query_row(&format!("PRAGMA max_page_count = {limit}"), [], |_| Ok(()))?;
            self.pages_limit = limit;
        }
        Ok(())
    }

    /// A batch waits for its fsync (`FULL`); what can be done again does not (`NORMAL`).
    fn synchronise(&mut self, wanted: bool) -> Result<(), Fault> {
        if wanted != self.synchronised {
            let level = if wanted { "FULL" } else { "NORMAL" };
            self.connection.pragma_update(None, "synchronous", level)?;
            self.synchronised = wanted;
        }
        Ok(())
    }

    fn count_wal(&mut self) {
        let pages = WAL_PAGES.get();
        // Once all of it is in the database, the log starts again from its beginning.
        let new = if pages >= self.wal_pages {
            pages - self.wal_pages
        } else {
            pages
        };
        self.written += u64::from(new) * WAL_FRAME_BYTES;
        self.wal_pages = pages;
    }
}

fn adds_message(change: &Change) -> bool {
    matches!(
        change,
        Change::Owe(_) | Change::Retain { .. } | Change::SaveWill { will: Some(_), .. }
    )
}

/// Opens or creates the file, for writing.
fn connect(path: &Path) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(48);
    connection.execute_batch(&format!(
        "PRAGMA page_size = {PAGE_BYTES};
         PRAGMA auto_vacuum = INCREMENTAL;
         PRAGMA cache_size = -{};
         PRAGMA soft_heap_limit = {SQLITE_HEAP_BYTES};
         PRAGMA temp_store = MEMORY;
         PRAGMA mmap_size = 0;",
        WRITER_CACHE_BYTES >> 10,
    ))?;
    schema::create_if_empty(&mut connection)?;
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA journal_size_limit = {};",
        2 * u64::from(WAL_PAGES_MAX) * WAL_FRAME_BYTES,
    ))?;
    schema::migrate_if_old(&mut connection, path)?;
    // Also takes the place of SQLite's own checkpoints, which would make the commit wait.
    connection.wal_hook(Some(|_, pages| {
        WAL_PAGES.set(u32::try_from(pages).unwrap_or(0));
        Ok(())
    }));
    Ok(connection)
}

fn begin(connection: &mut Connection) -> Result<Transaction<'_>, rusqlite::Error> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// Bytes in use, free pages not counted.
fn disk_used(connection: &Connection) -> Result<u64, Fault> {
    let pages = count(connection, "page_count")?;
    Ok((pages - count(connection, "freelist_count")?.min(pages)) * PAGE_BYTES)
}

/// A pragma that counts pages.
fn count(connection: &Connection, pragma: &str) -> Result<u64, Fault> {
    let mut statement = connection.prepare_cached(&format!("PRAGMA {pragma}"))?;
    Ok(statement.query_row([], |row| row.get(0))?)
}

/// Bits of a queue key that hold the sequence number; those above hold the session's slot.
const SEQ_BITS: u32 = 43;
/// The highest sequence number.
const SEQ_MAX: u64 = (1 << SEQ_BITS) - 1;
/// How many slots there are: as many sessions and lanes can be stored at a time.
const SLOTS: i64 = 1 << (63 - SEQ_BITS);

/// The key of a queue row. Numbers above [`SEQ_MAX`] stand for it.
fn queue_key(slot: i64, seq: u64) -> i64 {
    slot << SEQ_BITS | to_sql(seq.min(SEQ_MAX))
}

/// The sequence number in a queue key.
fn seq_of(key: i64) -> u64 {
    from_sql(key) & SEQ_MAX
}

/// The slot of a session or a lane, `None` if it is not stored.
fn slot_of(connection: &Connection, key: u64) -> Result<Option<i64>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT slot FROM session WHERE key = ?1 UNION ALL SELECT slot FROM lane WHERE key = ?1",
    )?;
    Ok(statement
        .query_row([to_sql(key)], |row| row.get(0))
        .optional()?)
}

/// An integer column; `None` if it is NULL, or damaged into another type: a damaged row must not fail a batch.
fn integer(row: &Row<'_>, column: usize) -> Result<Option<i64>, Fault> {
    match row.get_ref(column)? {
        ValueRef::Integer(number) => Ok(Some(number)),
        _ => Ok(None),
    }
}

/// A size column, 0 if it is damaged beyond what a size can be.
fn size(row: &Row<'_>, column: usize) -> Result<u64, Fault> {
    let size = integer(row, column)?.and_then(|size| u32::try_from(size).ok());
    Ok(u64::from(size.unwrap_or(0)))
}

/// A text column, however damaged.
fn text(row: &Row<'_>, column: usize) -> Result<String, Fault> {
    let bytes = row.get_ref(column)?.as_bytes().unwrap_or_default();
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// A BLOB column, empty if it is damaged into another type.
fn blob<'a>(row: &'a Row<'_>, column: usize) -> Result<&'a [u8], Fault> {
    Ok(row.get_ref(column)?.as_blob().unwrap_or_default())
}

/// SQLite's integers are signed: the bits stay.
const fn to_sql(number: u64) -> i64 {
    number as i64
}

/// What [`to_sql`] was given.
const fn from_sql(number: i64) -> u64 {
    number as u64
}
