//! Rows are read back, a page at a time; and retained messages that are not held in memory, one at a time.

use super::super::READER_CACHE_BYTES;
use super::super::blob::{MessageRecord, unseal, unseal_row};
use super::{
    BUSY, Connection, Fault, OpenFlags, OptionalExtension, Row, blob, integer, latest, params,
    queue_key, retained, seq_of, slot_of,
};
use crate::record::{End, Message, Page, PageRequest, PageRow, Recency, RecoveredRetained, Span};
use std::path::Path;

/// The rows of a range, from its oldest on.
const FROM_OLDEST: &str =
    "SELECT key, size, messages_before, bytes_before, message, record FROM queue
     WHERE key > ?1 AND key <= ?2 ORDER BY key";
/// The same from its newest back.
const FROM_NEWEST: &str =
    "SELECT key, size, messages_before, bytes_before, message, record FROM queue
     WHERE key > ?1 AND key <= ?2 ORDER BY key DESC";

/// The reader's connection.
pub(in super::super) struct Reader {
    connection: Connection,
}

impl Reader {
    /// Opens the file, read-only.
    pub(in super::super) fn open(path: &Path) -> Result<Reader, Fault> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.execute_batch(&format!(
            "PRAGMA cache_size = -{}; PRAGMA mmap_size = 0;",
            READER_CACHE_BYTES >> 10
        ))?;
        Ok(Reader { connection })
    }

    /// Reads one page in a transaction of its own, so that it never keeps the write-ahead log from beginning anew.
    pub(in super::super) fn read(&mut self, request: &PageRequest) -> Result<Page, Fault> {
        let transaction = self.connection.transaction()?;
        let mut page = Page {
            read_up_to: request.last(),
            ..Page::default()
        };
        let Some(slot) = slot_of(&transaction, request.session.0)? else {
            return Ok(page);
        };
        let mut statement = transaction.prepare_cached(match request.from {
            End::Oldest => FROM_OLDEST,
            End::Newest => FROM_NEWEST,
        })?;
        let range = [
            queue_key(slot, request.after),
            queue_key(slot, request.up_to),
        ];
        let mut rows = statement.query(range)?;
        let (mut read, mut last) = (0, 0);
        while let Some(row) = rows.next()? {
            let full = read >= request.rows_max || page.bytes.len() >= request.bytes_max as usize;
            if full && read > 0 {
                page.read_up_to = last;
                break;
            }
            last = seq_of(row.get(0)?);
            read += 1;
            if !push_row(&transaction, row, &mut page)? {
                page.bad.push(last);
            }
        }
        if request.recency {
            for row in page.rows.iter_mut().filter(|row| !row.received) {
                let topic = row.message.topic.of(&page.bytes);
                row.recency = latest::recency(&transaction, slot, row.seq, topic)?;
            }
        }
        Ok(page)
    }

    /// Reads a topic's retained message; `None` if there is none, or it fails its checksum.
    pub(in super::super) fn read_retained(
        &mut self,
        topic: &str,
    ) -> Result<Option<RecoveredRetained>, Fault> {
        retained::read(&self.connection, topic)
    }
}

/// The columns of a queue row that its checksum covers; the row begins with them.
pub(super) fn row_columns(row: &Row<'_>) -> Result<[i64; 5], Fault> {
    let mut columns = [0; 5];
    for (index, column) in columns.iter_mut().enumerate() {
        *column = integer(row, index)?.unwrap_or(0);
    }
    Ok(columns)
}

/// Appends a row to `page`; `false` if it, or the shared message that it names, fails its checksum.
fn push_row(connection: &Connection, row: &Row<'_>, page: &mut Page) -> Result<bool, Fault> {
    let columns = row_columns(row)?;
    let Some(record) = unseal_row(&columns, blob(row, 5)?) else {
        return Ok(false);
    };
    let Some(qos) = record.flags.qos() else {
        return Ok(false);
    };
    let received = record.flags.is_received();
    let message = match record.message {
        Some(message) => Some(push_message(&message, page)),
        None if received => Some(Message::default()),
        None => push_shared(connection, columns[4], page)?,
    };
    let Some(message) = message else {
        return Ok(false);
    };
    let subscription_ids = push_bytes(record.subscription_ids, page);
    let retain = record.flags.retain();
    page.rows.push(PageRow {
        seq: seq_of(columns[0]),
        size: u32::try_from(columns[1]).unwrap_or(u32::MAX),
        message,
        received,
        queued_at: record.queued_at,
        qos,
        retain,
        subscription_ids,
        share: record.share,
        recency: Recency::Unknown,
    });
    Ok(true)
}

fn push_shared(
    connection: &Connection,
    id: i64,
    page: &mut Page,
) -> Result<Option<Message>, Fault> {
    let message = connection
        .prepare_cached("SELECT record FROM message WHERE id = ?1")?
        .query_row(params![id], |row| {
            let blob = row.get_ref(0)?.as_blob().unwrap_or_default();
            Ok(unseal::<MessageRecord<'_>>(&[id], "", blob)
                .map(|record| push_message(&record, page)))
        })
        .optional()?;
    Ok(message.flatten())
}

fn push_message(record: &MessageRecord<'_>, page: &mut Page) -> Message {
    Message {
        topic: push_bytes(record.topic, page),
        properties: push_bytes(record.properties, page),
        payload: push_bytes(record.payload, page),
        expires_at: record.expires_at,
    }
}

fn push_bytes(bytes: &[u8], page: &mut Page) -> Span {
    let span = Span {
        start: offset(page.bytes.len()),
        len: offset(bytes.len()),
    };
    page.bytes.extend_from_slice(bytes);
    span
}

/// A page holds a few rows, and a row no more than an MQTT packet, which is below 2^28 bytes [MQTT 2.1.4].
fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
