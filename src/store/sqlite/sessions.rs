//! Sessions and their subscriptions become rows; the rows of what has ended go, piece by piece.

use super::super::Noted;
use super::super::blob::{seal, unseal};
use super::apply::{Application, WrittenDown, release_message, remove_rows, text_of};
use super::latest;
use super::recover::STAND_IN;
use super::{
    Connection, Fault, OptionalExtension, Row, SEQ_MAX, SLOTS, blob, integer, params, queue_key,
    size, text, to_sql,
};
use crate::record::{Seq, SessionKey, SessionRecord, Span, SubscriptionRecord};

/// Rows and bytes of an ended session that are removed in one transaction.
const PURGE_ROWS: u32 = 500;
const PURGE_BYTES: u64 = 256 << 10;

impl Application<'_> {
    pub(super) fn save_session(
        &mut self,
        session: SessionKey,
        client_id: Span,
        record: &SessionRecord,
    ) -> Result<(), Fault> {
        let key = to_sql(session.0);
        let client_id = text_of(client_id, self.batch);
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
        self.key_given(session)
    }

    /// Keys are never given again: the highest is written down.
    pub(super) fn key_given(&mut self, key: SessionKey) -> Result<(), Fault> {
        if key.0 > self.written_down.last_session {
            self.write_down(WrittenDown {
                noted: Noted::of(self.batch),
                last_session: key.0,
            })?;
        }
        Ok(())
    }

    /// A slot that nothing has, and no rows of what has ended: the key's low bits, or the next free.
    pub(super) fn free_slot(&self, key: SessionKey) -> Result<i64, Fault> {
        let mut taken = self.connection.prepare_cached(
            "SELECT 1 FROM session WHERE slot = ?1 UNION ALL SELECT 1 FROM lane WHERE slot = ?1
             UNION ALL SELECT 1 FROM ended WHERE slot = ?1",
        )?;
        let start = to_sql(key.0) & (SLOTS - 1);
        for slot in (start..SLOTS).chain(0..start) {
            if !taken.exists([slot])? {
                return Ok(slot);
            }
        }
        Err(Fault::Other(format!(
            "more than {SLOTS} sessions and lanes are stored"
        )))
    }

    pub(super) fn reserve(&mut self, session: SessionKey, seq_reserved: Seq) -> Result<(), Fault> {
        let key = to_sql(session.0);
        let found = self
            .connection
            .prepare_cached(
                "SELECT slot, client_id, seq_reserved, record FROM session WHERE key = ?1",
            )?
            .query_row([key], |row| Ok(read_session(key, row)))
            .optional()?
            .transpose()?;
        let Some((slot, client_id, record)) = found else {
            return self.reserve_of_lane(session, seq_reserved);
        };
        // A record that has gone bad since recovery is replaced by what recovery would make of it.
        let record = record.unwrap_or(STAND_IN);
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

    pub(super) fn drop_session(&mut self, session: SessionKey) -> Result<(), Fault> {
        let Some(slot) = self.slot(session)? else {
            return Ok(());
        };
        self.drop_lanes(session)?;
        let key = to_sql(session.0);
        let connection = self.connection;
        connection
            .prepare_cached("DELETE FROM session WHERE key = ?1")?
            .execute([key])?;
        connection
            .prepare_cached("DELETE FROM subscription WHERE session = ?1")?
            .execute([key])?;
        connection
            .prepare_cached("DELETE FROM held WHERE session = ?1")?
            .execute([key])?;
        connection
            .prepare_cached("DELETE FROM will WHERE session = ?1")?
            .execute([key])?;
        self.end_slot(slot)?;
        self.slot = (session, None);
        Ok(())
    }

    /// Lets the rows of a slot be purged.
    pub(super) fn end_slot(&mut self, slot: i64) -> Result<(), Fault> {
        self.memo.latest.ended(slot);
        self.connection
            .prepare_cached(
                "INSERT INTO ended SELECT ?1 WHERE EXISTS (SELECT 1 FROM queue WHERE key BETWEEN ?2 AND ?3)
                 OR EXISTS (SELECT 1 FROM latest WHERE slot = ?1)",
            )?
            .execute([slot, queue_key(slot, 0), queue_key(slot, SEQ_MAX)])?;
        Ok(())
    }

    pub(super) fn subscribe(
        &mut self,
        session: SessionKey,
        filter: Span,
        record: &SubscriptionRecord,
    ) -> Result<(), Fault> {
        if self.slot(session)?.is_none() {
            return Ok(());
        }
        let key = to_sql(session.0);
        let filter = text_of(filter, self.batch);
        seal(&[key], &filter, record, &mut self.memo.record)?;
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO subscription VALUES (?1, ?2, ?3)")?
            .execute(params![key, filter, self.memo.record])?;
        Ok(())
    }

    pub(super) fn unsubscribe(&mut self, session: SessionKey, filter: Span) -> Result<(), Fault> {
        self.connection
            .prepare_cached("DELETE FROM subscription WHERE session = ?1 AND filter = ?2")?
            .execute(params![to_sql(session.0), text_of(filter, self.batch)])?;
        Ok(())
    }
}

/// A slot whose rows are to be removed.
pub(super) fn ended_slot(connection: &Connection) -> Result<Option<i64>, Fault> {
    let mut statement = connection.prepare_cached("SELECT slot FROM ended LIMIT 1")?;
    Ok(statement.query_row([], |row| row.get(0)).optional()?)
}

/// Removes what is known of the topics of an ended session, then its first rows, and with the last of them its slot.
pub(super) fn purge(connection: &Connection, slot: i64) -> Result<(), Fault> {
    if latest::purge(connection, slot, PURGE_ROWS)? {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(
        "SELECT key, size, message FROM queue WHERE key BETWEEN ?1 AND ?2 ORDER BY key LIMIT ?3",
    )?;
    let (first, last) = (queue_key(slot, 0), queue_key(slot, SEQ_MAX));
    let (mut up_to, mut bytes, mut rows_left) = (None, 0, PURGE_ROWS);
    let mut messages = Vec::new();
    let mut rows = statement.query(params![first, last, PURGE_ROWS])?;
    while let Some(row) = rows.next()? {
        up_to = Some(row.get::<_, i64>(0)?);
        bytes += size(row, 1)?;
        messages.extend(integer(row, 2)?);
        rows_left -= 1;
        if bytes >= PURGE_BYTES {
            break;
        }
    }
    drop(rows);
    if let Some(up_to) = up_to {
        remove_rows(connection, first, up_to)?;
        for message in messages {
            release_message(connection, message)?;
        }
    }
    if rows_left > 0 && bytes < PURGE_BYTES {
        connection
            .prepare_cached("DELETE FROM ended WHERE slot = ?1")?
            .execute([slot])?;
    }
    Ok(())
}

/// Slot, Client Identifier and record, if that is good, of a row that begins with the first two and `seq_reserved`.
fn read_session(key: i64, row: &Row<'_>) -> Result<(i64, String, Option<SessionRecord>), Fault> {
    let slot = integer(row, 0)?.unwrap_or(0);
    let client_id = text(row, 1)?;
    let columns = [key, slot, integer(row, 2)?.unwrap_or(0)];
    let record = unseal(&columns, &client_id, blob(row, 3)?);
    Ok((slot, client_id, record))
}
