//! A batch becomes rows.

use super::super::Noted;
use super::super::blob::{Flags, MessageRecord, RowRecord, seal, unseal};
use super::{
    Connection, ErrorCode, Fault, OptionalExtension, SEQ_MAX, SLOTS, from_sql, params, queue_key,
    slot_of, to_sql,
};
use crate::record::{
    Batch, Change, Dropped, Message, Owe, Seq, SessionKey, SessionRecord, Span, SubscriptionRecord,
};
use crate::time::ServiceSeconds;
use std::borrow::Cow;

/// Rows and bytes of an ended session that are removed in one transaction.
const PURGE_ROWS: u32 = 500;
const PURGE_BYTES: i64 = 256 << 10;

/// What a connection knows from one batch to the next, and the room in which it works.
pub(super) struct Memo {
    /// Above all identifiers of shared messages, live or not.
    next_message: i64,
    written_down: WrittenDown,
    record: Vec<u8>,
    shared: Vec<Shared>,
    removed: Vec<i64>,
}

/// The `service` row.
#[derive(Clone, Copy, Default)]
pub(super) struct WrittenDown {
    pub(super) noted: Noted,
    pub(super) last_session: u64,
}

/// Where a batch's message is written.
#[derive(Clone, Copy, Default)]
struct Shared {
    /// Rows that this batch still owes it to, those already written included.
    owed: u32,
    /// Its identifier once it is written beside the rows.
    id: Option<i64>,
}

impl Memo {
    pub(super) fn read(connection: &Connection) -> Result<Memo, Fault> {
        let next_message =
            connection.query_row("SELECT ifnull(max(id), 0) + 1 FROM message", [], |row| {
                row.get(0)
            })?;
        Ok(Memo {
            next_message,
            written_down: read_service(connection)?.unwrap_or_default(),
            record: Vec::new(),
            shared: Vec::new(),
            removed: Vec::new(),
        })
    }

    /// To be called once what [`apply`] returned is committed.
    pub(super) fn keep(&mut self, written_down: WrittenDown) {
        self.written_down = written_down;
    }
}

/// Applies `batch` inside the transaction that is open on `connection`.
pub(super) fn apply(
    connection: &Connection,
    memo: &mut Memo,
    batch: &Batch,
) -> Result<(Vec<Dropped>, WrittenDown), Fault> {
    memo.shared.clear();
    memo.shared.resize(batch.messages.len(), Shared::default());
    for change in &batch.changes {
        if let Change::Owe(owe) = change {
            memo.shared[owe.message as usize].owed += 1;
        }
    }
    let mut application = Application {
        connection,
        written_down: memo.written_down,
        memo,
        batch,
        slot: (SessionKey(0), None),
        dropped: Vec::new(),
    };
    for change in &batch.changes {
        application.change(change)?;
    }
    application.note()?;
    Ok((application.dropped, application.written_down))
}

/// A slot whose rows are to be removed.
pub(super) fn ended_slot(connection: &Connection) -> Result<Option<i64>, Fault> {
    let mut statement = connection.prepare_cached("SELECT slot FROM ended LIMIT 1")?;
    Ok(statement.query_row([], |row| row.get(0)).optional()?)
}

/// Removes the first rows of an ended session, and with the last of them its slot.
pub(super) fn purge(connection: &Connection, slot: i64) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT key, size, message FROM queue WHERE key BETWEEN ?1 AND ?2 ORDER BY key LIMIT ?3",
    )?;
    let (first, last) = (queue_key(slot, 0), queue_key(slot, SEQ_MAX));
    let (mut up_to, mut bytes, mut rows_left) = (None, 0, PURGE_ROWS);
    let mut messages = Vec::new();
    let mut rows = statement.query(params![first, last, PURGE_ROWS])?;
    while let Some(row) = rows.next()? {
        up_to = Some(row.get::<_, i64>(0)?);
        bytes += row.get::<_, i64>(1)?;
        messages.extend(row.get::<_, Option<i64>>(2)?);
        rows_left -= 1;
        if bytes >= PURGE_BYTES {
            break;
        }
    }
    drop(rows);
    if let Some(up_to) = up_to {
        remove_rows(connection, first, up_to)?;
        for message in messages {
            release(connection, message)?;
        }
    }
    if rows_left > 0 && bytes < PURGE_BYTES {
        connection
            .prepare_cached("DELETE FROM ended WHERE slot = ?1")?
            .execute([slot])?;
    }
    Ok(())
}

/// The `service` row; `None` if it was never written or fails its checksum.
pub(super) fn read_service(connection: &Connection) -> Result<Option<WrittenDown>, Fault> {
    let mut statement =
        connection.prepare_cached("SELECT seconds, wall, last_session, record FROM service")?;
    let row = statement
        .query_row([], |row| {
            let (seconds, wall, last_session): (i64, Option<i64>, i64) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            let columns = [seconds, wall.unwrap_or(0), last_session];
            Ok(
                unseal::<()>(&columns, "", row.get_ref(3)?.as_blob()?).map(|()| WrittenDown {
                    noted: Noted {
                        service: ServiceSeconds(from_sql(seconds)),
                        wall: wall.map(from_sql),
                    },
                    last_session: from_sql(last_session),
                }),
            )
        })
        .optional()?;
    Ok(row.flatten())
}

/// A batch while it is being applied.
struct Application<'a> {
    connection: &'a Connection,
    memo: &'a mut Memo,
    batch: &'a Batch,
    /// The session looked up last, and its slot: changes of one session tend to stand together.
    slot: (SessionKey, Option<i64>),
    written_down: WrittenDown,
    dropped: Vec<Dropped>,
}

impl Application<'_> {
    fn change(&mut self, change: &Change) -> Result<(), Fault> {
        match *change {
            Change::Cancelled => Ok(()),
            Change::Owe(ref owe) => self.owe(owe),
            Change::Settle { session, seq } => self.settle(session, seq),
            Change::DropOldest {
                session,
                after,
                up_to,
                messages,
                bytes,
            } => {
                let dropped = self.drop_oldest(session, after, up_to, messages, bytes)?;
                self.dropped.push(dropped);
                Ok(())
            }
            Change::SaveSession {
                session,
                client_id,
                ref record,
            } => self.save_session(session, client_id, record),
            Change::Reserve {
                session,
                seq_reserved,
            } => self.reserve(session, seq_reserved),
            Change::DropSession { session } => self.drop_session(session),
            Change::Subscribe {
                session,
                filter,
                ref record,
            } => self.subscribe(session, filter, record),
            Change::Unsubscribe { session, filter } => self.unsubscribe(session, filter),
        }
    }

    fn owe(&mut self, owe: &Owe) -> Result<(), Fault> {
        let Some(slot) = self.slot(owe.session)? else {
            return self.owe_to_nobody(owe.message);
        };
        if owe.seq > SEQ_MAX {
            return Err(Fault::Other(format!(
                "sequence number {} is above 2^43",
                owe.seq
            )));
        }
        let batch = self.batch;
        let message = &batch.messages[owe.message as usize];
        let shared = self.share(owe.message)?;
        let row = RowRecord {
            flags: Flags::new(owe.qos, owe.retain),
            subscription_ids: owe.subscription_ids.of(&batch.bytes),
            message: shared.is_none().then(|| record_of(message, batch)),
        };
        let columns = [
            queue_key(slot, owe.seq),
            i64::from(message.len()),
            to_sql(owe.messages_before),
            to_sql(owe.bytes_before),
            shared.unwrap_or(0),
        ];
        seal(&columns, "", &row, &mut self.memo.record)?;
        let [key, size, messages_before, bytes_before, _] = columns;
        let insert = || {
            self.connection
                .prepare_cached("INSERT INTO queue VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                .execute(params![
                    key,
                    size,
                    messages_before,
                    bytes_before,
                    shared,
                    self.memo.record
                ])
        };
        match insert() {
            // A number stands for one message: the later row is the valid one.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                self.remove(key)?;
                insert()?;
            }
            inserted => {
                inserted?;
            }
        }
        Ok(())
    }

    /// The identifier under which the message stands beside the rows; `None` if it belongs into its only row.
    fn share(&mut self, index: u32) -> Result<Option<i64>, Fault> {
        let Shared { owed, id } = self.memo.shared[index as usize];
        if id.is_some() || owed < 2 {
            return Ok(id);
        }
        let id = self.memo.next_message;
        self.memo.next_message += 1;
        let record = record_of(&self.batch.messages[index as usize], self.batch);
        seal(&[id], "", &record, &mut self.memo.record)?;
        self.connection
            .prepare_cached("INSERT INTO message VALUES (?1, ?2, ?3)")?
            .execute(params![id, owed, self.memo.record])?;
        self.memo.shared[index as usize].id = Some(id);
        Ok(Some(id))
    }

    /// The session that it was to be owed to is not stored.
    fn owe_to_nobody(&mut self, index: u32) -> Result<(), Fault> {
        let shared = &mut self.memo.shared[index as usize];
        shared.owed -= 1;
        match shared.id {
            Some(id) => release(self.connection, id),
            None => Ok(()),
        }
    }

    fn settle(&mut self, session: SessionKey, seq: Seq) -> Result<(), Fault> {
        match self.slot(session)? {
            Some(slot) if seq <= SEQ_MAX => self.remove(queue_key(slot, seq)),
            _ => Ok(()),
        }
    }

    fn remove(&self, key: i64) -> Result<(), Fault> {
        let message = self
            .connection
            .prepare_cached("DELETE FROM queue WHERE key = ?1 RETURNING message")?
            .query_row([key], |row| row.get::<_, Option<i64>>(0))
            .optional()?
            .flatten();
        message.map_or(Ok(()), |message| release(self.connection, message))
    }

    fn drop_oldest(
        &mut self,
        session: SessionKey,
        after: Seq,
        up_to: Seq,
        messages: u64,
        bytes: u64,
    ) -> Result<Dropped, Fault> {
        let mut dropped = Dropped {
            session,
            messages: 0,
            bytes: 0,
        };
        let Some(slot) = self.slot(session)? else {
            return Ok(dropped);
        };
        let (after, up_to) = (queue_key(slot, after), queue_key(slot, up_to));
        let mut statement = self.connection.prepare_cached(
            "SELECT key, size, message FROM queue WHERE key > ?1 AND key <= ?2 ORDER BY key",
        )?;
        let mut rows = statement.query([after, up_to])?;
        let mut last = after;
        self.memo.removed.clear();
        while dropped.messages < messages || dropped.bytes < bytes {
            let Some(row) = rows.next()? else { break };
            last = row.get(0)?;
            dropped.messages += 1;
            dropped.bytes += from_sql(row.get(1)?);
            self.memo.removed.extend(row.get::<_, Option<i64>>(2)?);
        }
        drop(rows);
        remove_rows(self.connection, after + 1, last)?;
        for &message in &self.memo.removed {
            release(self.connection, message)?;
        }
        Ok(dropped)
    }

    fn save_session(
        &mut self,
        session: SessionKey,
        client_id: Span,
        record: &SessionRecord,
    ) -> Result<(), Fault> {
        let key = to_sql(session.0);
        let client_id = text(client_id, self.batch);
        let known = self
            .connection
            .prepare_cached("SELECT slot, seq_reserved FROM session WHERE key = ?1")?
            .query_row([key], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let (slot, seq_reserved) = match known {
            Some(known) => known,
            None => (self.free_slot(session)?, 0),
        };
        seal(
            &[key, slot, seq_reserved],
            &client_id,
            record,
            &mut self.memo.record,
        )?;
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO session VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![
                key,
                slot,
                client_id,
                seq_reserved,
                self.memo.record
            ])?;
        self.slot = (session, Some(slot));
        if session.0 > self.written_down.last_session {
            self.write_down(WrittenDown {
                noted: Noted::of(self.batch),
                last_session: session.0,
            })?;
        }
        Ok(())
    }

    /// A slot that neither a session nor the rows of an ended one have: the key's low bits, or the next free.
    fn free_slot(&self, session: SessionKey) -> Result<i64, Fault> {
        let mut taken = self.connection.prepare_cached(
            "SELECT 1 FROM session WHERE slot = ?1 UNION ALL SELECT 1 FROM ended WHERE slot = ?1",
        )?;
        let start = to_sql(session.0) & (SLOTS - 1);
        for slot in (start..SLOTS).chain(0..start) {
            if !taken.exists([slot])? {
                return Ok(slot);
            }
        }
        Err(Fault::Other(format!(
            "more than {SLOTS} sessions are stored"
        )))
    }

    fn reserve(&mut self, session: SessionKey, seq_reserved: Seq) -> Result<(), Fault> {
        let key = to_sql(session.0);
        let found = self
            .connection
            .prepare_cached(
                "SELECT slot, client_id, seq_reserved, record FROM session WHERE key = ?1",
            )?
            .query_row([key], |row| {
                let (slot, client_id): (i64, String) = (row.get(0)?, row.get(1)?);
                let columns = [key, slot, row.get(2)?];
                let record =
                    unseal::<SessionRecord>(&columns, &client_id, row.get_ref(3)?.as_blob()?);
                Ok((slot, client_id, record))
            })
            .optional()?;
        let Some((slot, client_id, record)) = found else {
            return Ok(());
        };
        // A record that has gone bad since recovery is replaced by what recovery would make of it.
        let record = record.unwrap_or(super::recover::STAND_IN);
        let seq_reserved = to_sql(seq_reserved);
        seal(
            &[key, slot, seq_reserved],
            &client_id,
            &record,
            &mut self.memo.record,
        )?;
        self.connection
            .prepare_cached("UPDATE session SET seq_reserved = ?2, record = ?3 WHERE key = ?1")?
            .execute(params![key, seq_reserved, self.memo.record])?;
        Ok(())
    }

    fn drop_session(&mut self, session: SessionKey) -> Result<(), Fault> {
        let Some(slot) = self.slot(session)? else {
            return Ok(());
        };
        let key = to_sql(session.0);
        let connection = self.connection;
        connection
            .prepare_cached("DELETE FROM session WHERE key = ?1")?
            .execute([key])?;
        connection
            .prepare_cached("DELETE FROM subscription WHERE session = ?1")?
            .execute([key])?;
        connection
            .prepare_cached(
                "INSERT INTO ended SELECT ?1 WHERE EXISTS (SELECT 1 FROM queue WHERE key BETWEEN ?2 AND ?3)",
            )?
            .execute([slot, queue_key(slot, 0), queue_key(slot, SEQ_MAX)])?;
        self.slot = (session, None);
        Ok(())
    }

    fn subscribe(
        &mut self,
        session: SessionKey,
        filter: Span,
        record: &SubscriptionRecord,
    ) -> Result<(), Fault> {
        if self.slot(session)?.is_none() {
            return Ok(());
        }
        let key = to_sql(session.0);
        let filter = text(filter, self.batch);
        seal(&[key], &filter, record, &mut self.memo.record)?;
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO subscription VALUES (?1, ?2, ?3)")?
            .execute(params![key, filter, self.memo.record])?;
        Ok(())
    }

    fn unsubscribe(&mut self, session: SessionKey, filter: Span) -> Result<(), Fault> {
        self.connection
            .prepare_cached("DELETE FROM subscription WHERE session = ?1 AND filter = ?2")?
            .execute(params![to_sql(session.0), text(filter, self.batch)])?;
        Ok(())
    }

    fn note(&mut self) -> Result<(), Fault> {
        if self.written_down.noted.is_due(self.batch) {
            let last_session = self.written_down.last_session;
            self.write_down(WrittenDown {
                noted: Noted::of(self.batch),
                last_session,
            })?;
        }
        Ok(())
    }

    fn write_down(&mut self, now: WrittenDown) -> Result<(), Fault> {
        let seconds = to_sql(now.noted.service.0);
        let wall = now.noted.wall.map(to_sql);
        let last_session = to_sql(now.last_session);
        seal(
            &[seconds, wall.unwrap_or(0), last_session],
            "",
            &(),
            &mut self.memo.record,
        )?;
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO service VALUES (1, ?1, ?2, ?3, ?4)")?
            .execute(params![seconds, wall, last_session, self.memo.record])?;
        self.written_down = now;
        Ok(())
    }

    fn slot(&mut self, session: SessionKey) -> Result<Option<i64>, Fault> {
        if self.slot.0 != session {
            self.slot = (session, slot_of(self.connection, session.0)?);
        }
        Ok(self.slot.1)
    }
}

fn record_of<'a>(message: &Message, batch: &'a Batch) -> MessageRecord<'a> {
    MessageRecord {
        expires_at: message.expires_at,
        topic: message.topic.of(&batch.bytes),
        properties: message.properties.of(&batch.bytes),
        payload: message.payload.of(&batch.bytes),
    }
}

/// Texts come checked; a stray byte must not keep a batch from being committed.
fn text(span: Span, batch: &Batch) -> Cow<'_, str> {
    String::from_utf8_lossy(span.of(&batch.bytes))
}

/// One row less names a shared message; it goes with the last.
fn release(connection: &Connection, message: i64) -> Result<(), Fault> {
    let still_owed = connection
        .prepare_cached("UPDATE message SET owed = owed - 1 WHERE id = ?1 AND owed > 1")?
        .execute([message])?;
    if still_owed == 0 {
        connection
            .prepare_cached("DELETE FROM message WHERE id = ?1")?
            .execute([message])?;
    }
    Ok(())
}

fn remove_rows(connection: &Connection, first: i64, last: i64) -> Result<(), Fault> {
    connection
        .prepare_cached("DELETE FROM queue WHERE key BETWEEN ?1 AND ?2")?
        .execute([first, last])?;
    Ok(())
}
