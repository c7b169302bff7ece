//! A batch becomes rows.

use super::super::Noted;
use super::super::blob::{Flags, MessageRecord, RowRecord, seal, seal_row, unseal, unseal_row};
use super::latest::{self, Counts};
use super::pages::row_columns;
use super::{
    Connection, ErrorCode, Fault, OptionalExtension, Row, SEQ_MAX, blob, from_sql, integer, params,
    queue_key, seq_of, size, slot_of, to_sql,
};
use crate::record::{
    Batch, Change, DropOldest, Dropped, Message, Owe, Passed, Seq, SessionKey, Span,
};
use crate::time::ServiceSeconds;
use larder_packet::Qos;
use std::borrow::Cow;

/// Room for a record that is kept; what a larger message took is given back, in bytes.
const RECORD_BYTES_KEPT: usize = 16 << 10;

/// What a connection knows from one batch to the next, and the room in which it works.
pub(super) struct Memo {
    /// Above all identifiers of shared messages, live or not.
    next_message: i64,
    written_down: WrittenDown,
    /// Where a record is encoded.
    pub(super) record: Vec<u8>,
    pub(super) latest: Counts,
    shared: Vec<Shared>,
    removed: Vec<i64>,
    ranges: Vec<(i64, i64)>,
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
            latest: Counts::default(),
            shared: Vec::new(),
            removed: Vec::new(),
            ranges: Vec::new(),
        })
    }

    /// To be called once what [`apply`] returned is committed.
    pub(super) fn keep(&mut self, written_down: WrittenDown) {
        self.written_down = written_down;
        self.latest.keep();
        self.record.clear();
        self.record.shrink_to(RECORD_BYTES_KEPT);
    }
}

/// Applies `batch` inside the transaction that is open on `connection`.
pub(super) fn apply(
    connection: &Connection,
    memo: &mut Memo,
    batch: &Batch,
) -> Result<(Vec<Dropped>, WrittenDown), Fault> {
    memo.latest.begin();
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

/// The `service` row; `None` if it was never written or fails its checksum.
pub(super) fn read_service(connection: &Connection) -> Result<Option<WrittenDown>, Fault> {
    let mut statement =
        connection.prepare_cached("SELECT seconds, wall, last_session, record FROM service")?;
    let mut rows = statement.query([])?;
    rows.next()?.map_or(Ok(None), written_down)
}

fn written_down(row: &Row<'_>) -> Result<Option<WrittenDown>, Fault> {
    let seconds = integer(row, 0)?.unwrap_or(0);
    let wall = integer(row, 1)?;
    let last_session = integer(row, 2)?.unwrap_or(0);
    let columns = [seconds, wall.unwrap_or(0), last_session];
    let good = unseal::<()>(&columns, "", blob(row, 3)?);
    Ok(good.map(|()| WrittenDown {
        noted: Noted {
            service: ServiceSeconds(from_sql(seconds)),
            wall: wall.map(from_sql),
        },
        last_session: from_sql(last_session),
    }))
}

/// A batch while it is being applied.
pub(super) struct Application<'a> {
    pub(super) connection: &'a Connection,
    pub(super) memo: &'a mut Memo,
    pub(super) batch: &'a Batch,
    /// The session looked up last, and its slot: changes of one session tend to stand together.
    pub(super) slot: (SessionKey, Option<i64>),
    pub(super) written_down: WrittenDown,
    dropped: Vec<Dropped>,
}

impl Application<'_> {
    fn change(&mut self, change: &Change) -> Result<(), Fault> {
        match *change {
            Change::Cancelled => Ok(()),
            Change::Owe(ref owe) => self.owe(owe),
            Change::Settle { session, seq } => self.settle(session, seq),
            Change::Received { session, seq } => self.received(session, seq),
            Change::Hold { session, packet_id } => self.hold(session, packet_id),
            Change::Release { session, packet_id } => self.release(session, packet_id),
            Change::Retain { message, qos } => self.retain(message, qos),
            Change::Unretain { topic } => self.unretain(topic),
            Change::SaveWill { session, ref will } => self.save_will(session, will.as_ref()),
            Change::DropOldest(ref oldest) => {
                let dropped = self.drop_oldest(oldest)?;
                self.dropped.push(dropped);
                Ok(())
            }
            Change::SaveSession {
                session,
                client_id,
                ref record,
            } => self.save_session(session, client_id, record),
            Change::SaveLane {
                lane,
                session,
                record,
                name,
            } => self.save_lane(lane, session, record, name),
            Change::DropLane { lane } => self.drop_lane(lane),
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
            queued_at: owe.queued_at,
            subscription_ids: owe.subscription_ids.of(&batch.bytes),
            share: owe.share,
            message: shared.is_none().then(|| record_of(message, batch)),
        };
        let columns = [
            queue_key(slot, owe.seq),
            i64::from(message.len()),
            to_sql(owe.messages_before),
            to_sql(owe.bytes_before),
            shared.unwrap_or(0),
        ];
        seal_row(&columns, &row, &mut self.memo.record)?;
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
        if owe.indexed {
            let topic = message.topic.of(&batch.bytes);
            latest::note(self.connection, &mut self.memo.latest, slot, topic, owe.seq)?;
        } else {
            latest::forget(self.connection, &mut self.memo.latest, slot)?;
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
            Some(id) => release_message(self.connection, id),
            None => Ok(()),
        }
    }

    fn settle(&mut self, session: SessionKey, seq: Seq) -> Result<(), Fault> {
        match self.slot(session)? {
            Some(slot) if seq <= SEQ_MAX => self.remove(queue_key(slot, seq)),
            _ => Ok(()),
        }
    }

    /// The message goes; what stays is marked as received. A row that is bad stays so, and is named when it is read.
    fn received(&mut self, session: SessionKey, seq: Seq) -> Result<(), Fault> {
        let slot = match self.slot(session)? {
            Some(slot) if seq <= SEQ_MAX => slot,
            _ => return Ok(()),
        };
        let mut statement = self.connection.prepare_cached(
            "SELECT key, size, messages_before, bytes_before, message, record FROM queue
             WHERE key = ?1",
        )?;
        let mut rows = statement.query([queue_key(slot, seq)])?;
        let Some(found) = rows.next()? else {
            return Ok(());
        };
        let columns = row_columns(found)?;
        let row = match unseal_row(&columns, blob(found, 5)?) {
            Some(row) if !row.flags.is_received() => RowRecord {
                flags: row.flags.received(),
                queued_at: row.queued_at,
                subscription_ids: &[],
                share: None,
                message: None,
            },
            _ => return Ok(()),
        };
        let shared = integer(found, 4)?;
        let [key, size, messages_before, bytes_before, _] = columns;
        let columns = [key, size, messages_before, bytes_before, 0];
        seal_row(&columns, &row, &mut self.memo.record)?;
        drop(rows);
        self.connection
            .prepare_cached("UPDATE queue SET message = NULL, record = ?2 WHERE key = ?1")?
            .execute(params![key, self.memo.record])?;
        shared.map_or(Ok(()), |message| release_message(self.connection, message))
    }

    fn remove(&self, key: i64) -> Result<(), Fault> {
        let message = self
            .connection
            .prepare_cached("DELETE FROM queue WHERE key = ?1 RETURNING message")?
            .query_row([key], |row| Ok(integer(row, 0)))
            .optional()?
            .transpose()?
            .flatten();
        message.map_or(Ok(()), |message| release_message(self.connection, message))
    }

    fn drop_oldest(&mut self, oldest: &DropOldest) -> Result<Dropped, Fault> {
        let mut dropped = Dropped {
            session: oldest.session,
            aged: oldest.queued_before.is_some(),
            messages: 0,
            bytes: 0,
            kept: (0, 0),
            rest: None,
        };
        let Some(slot) = self.slot(oldest.session)? else {
            return Ok(dropped);
        };
        let key = |seq| queue_key(slot, seq);
        let mut statement = self.connection.prepare_cached(
            "SELECT key, size, messages_before, bytes_before, message, record FROM queue
             WHERE key > ?1 AND key <= ?2 ORDER BY key",
        )?;
        let mut rows = statement.query([key(oldest.after), key(oldest.up_to)])?;
        let mut passed = Passed::default();
        let mut follows = false;
        self.memo.removed.clear();
        self.memo.ranges.clear();
        while let Some(row) = rows.next()? {
            let at: i64 = row.get(0)?;
            if oldest.keeps(&mut passed, seq_of(at), || phase(row)) {
                dropped.kept.0 += 1;
                dropped.kept.1 += size(row, 1)?;
                follows = false;
                continue;
            }
            // A damaged figure lets its row go.
            let messages_before = integer(row, 2)?.map_or(0, from_sql);
            let bytes_before = integer(row, 3)?.map_or(0, from_sql);
            if oldest.stays(dropped.kept, messages_before, bytes_before)
                && !is_queued_before(row, oldest.queued_before)?
            {
                dropped.rest = Some((messages_before, bytes_before));
                break;
            }
            match self.memo.ranges.last_mut().filter(|_| follows) {
                Some((_, last)) => *last = at,
                None => self.memo.ranges.push((at, at)),
            }
            follows = true;
            dropped.messages += 1;
            dropped.bytes += size(row, 1)?;
            self.memo.removed.extend(integer(row, 4)?);
        }
        drop(rows);
        for &(first, last) in &self.memo.ranges {
            remove_rows(self.connection, first, last)?;
        }
        for &message in &self.memo.removed {
            release_message(self.connection, message)?;
        }
        Ok(dropped)
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

    pub(super) fn write_down(&mut self, now: WrittenDown) -> Result<(), Fault> {
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

    pub(super) fn slot(&mut self, session: SessionKey) -> Result<Option<i64>, Fault> {
        if self.slot.0 != session {
            self.slot = (session, slot_of(self.connection, session.0)?);
        }
        Ok(self.slot.1)
    }
}

/// Whether a row of the queue was queued before this time; one whose record is damaged was.
/// The QoS of a row, and whether it was received; `None`: it is bad.
fn phase(row: &Row<'_>) -> Option<(Qos, bool)> {
    let columns = row_columns(row).ok()?;
    let record = unseal_row(&columns, blob(row, 5).ok()?)?;
    Some((record.flags.qos()?, record.flags.is_received()))
}

fn is_queued_before(row: &Row<'_>, time: Option<ServiceSeconds>) -> Result<bool, Fault> {
    let Some(time) = time else { return Ok(false) };
    let record = unseal_row(&row_columns(row)?, blob(row, 5)?);
    Ok(record.is_none_or(|record| record.queued_at < time))
}

pub(super) fn record_of<'a>(message: &Message, batch: &'a Batch) -> MessageRecord<'a> {
    MessageRecord {
        expires_at: message.expires_at,
        topic: message.topic.of(&batch.bytes),
        properties: message.properties.of(&batch.bytes),
        payload: message.payload.of(&batch.bytes),
    }
}

/// Texts come checked; a stray byte must not keep a batch from being committed.
pub(super) fn text_of(span: Span, batch: &Batch) -> Cow<'_, str> {
    String::from_utf8_lossy(span.of(&batch.bytes))
}

/// One row less names a shared message; it goes with the last.
pub(super) fn release_message(connection: &Connection, message: i64) -> Result<(), Fault> {
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

pub(super) fn remove_rows(connection: &Connection, first: i64, last: i64) -> Result<(), Fault> {
    connection
        .prepare_cached("DELETE FROM queue WHERE key BETWEEN ?1 AND ?2")?
        .execute([first, last])?;
    Ok(())
}
