//! Retained messages.
//!
//! A message is replaced in its place, so that this writes one page, as long as it fits there; the index of topics is
//! not touched. A table WITHOUT ROWID, ordered by topic, would write up to five for a message above 200 bytes.

use super::super::blob::{RetainedRecord, seal, unseal};
use super::apply::{Application, text_of};
use super::{Connection, Fault, OptionalExtension, blob, params, text};
use crate::record::{RecoveredMessage, RecoveredRetained, Span};
use larder_packet::Qos;

impl Application<'_> {
    pub(super) fn retain(&mut self, message: u32, qos: Qos) -> Result<(), Fault> {
        let message = &self.batch.messages[message as usize];
        let record = RetainedRecord {
            qos: qos as u8,
            expires_at: message.expires_at,
            properties: message.properties.of(&self.batch.bytes),
            payload: message.payload.of(&self.batch.bytes),
        };
        let topic = text_of(message.topic, self.batch);
        save(self.connection, &topic, &record, &mut self.memo.record)
    }

    pub(super) fn unretain(&mut self, topic: Span) -> Result<(), Fault> {
        self.connection
            .prepare_cached("DELETE FROM retained WHERE topic = ?1")?
            .execute([text_of(topic, self.batch)])?;
        Ok(())
    }
}

fn save(
    connection: &Connection,
    topic: &str,
    record: &RetainedRecord<'_>,
    blob: &mut Vec<u8>,
) -> Result<(), Fault> {
    seal(&[], topic, record, blob)?;
    connection
        .prepare_cached(
            "INSERT INTO retained VALUES (?1, ?2)
             ON CONFLICT (topic) DO UPDATE SET record = excluded.record",
        )?
        .execute(params![topic, &*blob])?;
    Ok(())
}

/// Reads one retained message; `None` if there is none, or it fails its checksum.
pub(super) fn read(
    connection: &Connection,
    topic: &str,
) -> Result<Option<RecoveredRetained>, Fault> {
    let found = connection
        .prepare_cached("SELECT record FROM retained WHERE topic = ?1")?
        .query_row([topic], |row| {
            Ok(recovered(
                topic,
                row.get_ref(0)?.as_blob().unwrap_or_default(),
            ))
        })
        .optional()?;
    Ok(found.flatten())
}

/// Reads all retained messages, by topic, without what is not held in memory of them. If a record is bad, or the index does
/// not lead to it, the table is written anew from the good ones: SQLite can remove a row only if the index has it.
pub(super) fn recover(
    connection: &Connection,
    told: &mut Vec<String>,
) -> Result<Vec<RecoveredRetained>, Fault> {
    let found = read_all(connection, RecoveredRetained::without_large_parts)?;
    if found.bad > 0 {
        told.push(format!(
            "{} retained messages were bad and were removed",
            found.bad
        ));
    }
    if found.bad > 0 || found.misplaced > 0 {
        write_anew(connection, &read_all(connection, |whole| whole)?.good)?;
    }
    Ok(found.good)
}

struct Found {
    /// By topic.
    good: Vec<RecoveredRetained>,
    bad: u64,
    /// To which the index does not lead.
    misplaced: u64,
}

fn read_all(
    connection: &Connection,
    keep: impl Fn(RecoveredRetained) -> RecoveredRetained,
) -> Result<Found, Fault> {
    let mut by_topic = connection.prepare("SELECT rowid FROM retained WHERE topic = ?1")?;
    let mut statement = connection
        .prepare("SELECT rowid, topic, record FROM retained NOT INDEXED ORDER BY rowid")?;
    let mut rows = statement.query([])?;
    let (mut good, mut bad, mut misplaced) = (Vec::new(), 0, 0);
    while let Some(row) = rows.next()? {
        let (id, topic): (i64, _) = (row.get(0)?, text(row, 1)?);
        let Some(retained) = recovered(&topic, blob(row, 2)?) else {
            bad += 1;
            continue;
        };
        let led_to: Option<i64> = by_topic.query_row([&topic], |row| row.get(0)).optional()?;
        misplaced += u64::from(led_to != Some(id));
        good.push(keep(retained));
    }
    // Where the index led nowhere, a later message may stand beside the one that it was to replace.
    good.reverse();
    good.sort_by(|a, b| a.message.topic.cmp(&b.message.topic));
    good.dedup_by(|older, newer| older.message.topic == newer.message.topic);
    Ok(Found {
        good,
        bad,
        misplaced,
    })
}

fn write_anew(connection: &Connection, found: &[RecoveredRetained]) -> Result<(), Fault> {
    connection.execute("DELETE FROM retained", [])?;
    let mut blob = Vec::new();
    for RecoveredRetained { message, qos, .. } in found {
        let record = RetainedRecord {
            qos: *qos as u8,
            expires_at: message.expires_at,
            properties: &message.properties,
            payload: &message.payload,
        };
        save(connection, &message.topic, &record, &mut blob)?;
    }
    Ok(())
}

fn recovered(topic: &str, blob: &[u8]) -> Option<RecoveredRetained> {
    let record: RetainedRecord<'_> = unseal(&[], topic, blob)?;
    Some(RecoveredRetained {
        message: RecoveredMessage {
            topic: topic.to_owned(),
            properties: record.properties.to_vec(),
            payload: record.payload.to_vec(),
            expires_at: record.expires_at,
        },
        qos: Qos::from_u8(record.qos)?,
        left_out: None,
    })
}
