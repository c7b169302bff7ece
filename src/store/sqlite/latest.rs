//! The latest row of each topic of a queue, by the topic's hash.

use super::super::blob::{MessageRecord, unseal, unseal_row};
use super::super::latest::{LATEST_TOPICS, Sweep, hash};
use super::pages::row_columns;
use super::{
    Connection, Fault, OptionalExtension, blob, integer, params, queue_key, seq_of, to_sql,
};
use crate::record::{Recency, Seq};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// What a connection knows of the entries of each slot, so that their number is bounded without counting them.
#[derive(Default)]
pub(super) struct Counts {
    slots: BTreeMap<i64, Count>,
    /// Whether this is what is committed.
    is_kept: bool,
}

#[derive(Clone, Copy, Default)]
struct Count {
    entries: u32,
    sweep: Sweep,
}

impl Counts {
    /// A batch begins. What one that was not committed has changed is forgotten.
    pub(super) fn begin(&mut self) {
        if !self.is_kept {
            self.slots.clear();
        }
        self.is_kept = false;
    }

    /// The batch is committed.
    pub(super) fn keep(&mut self) {
        self.is_kept = true;
    }

    /// The slot is somebody else's from now on.
    pub(super) fn ended(&mut self, slot: i64) {
        self.slots.remove(&slot);
    }

    fn of(&mut self, connection: &Connection, slot: i64) -> Result<&mut Count, Fault> {
        match self.slots.entry(slot) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let entries = connection
                    .prepare_cached("SELECT count(*) FROM latest WHERE slot = ?1")?
                    .query_row([slot], |row| row.get(0))?;
                let sweep = Sweep::default();
                Ok(unknown.insert(Count { entries, sweep }))
            }
        }
    }
}

/// A row has been appended that is not remembered: so none is any more.
pub(super) fn forget(connection: &Connection, counts: &mut Counts, slot: i64) -> Result<(), Fault> {
    let count = counts.of(connection, slot)?;
    if count.entries > 0 {
        connection
            .prepare_cached("DELETE FROM latest WHERE slot = ?1")?
            .execute([slot])?;
        *count = Count::default();
    }
    Ok(())
}

/// The row that has just been appended is the latest of its topic from now on.
pub(super) fn note(
    connection: &Connection,
    counts: &mut Counts,
    slot: i64,
    topic: &[u8],
    seq: Seq,
) -> Result<(), Fault> {
    let entry = [slot, to_sql(hash(topic)), to_sql(seq)];
    let updated = connection
        .prepare_cached("UPDATE latest SET seq = ?3 WHERE slot = ?1 AND hash = ?2")?
        .execute(entry)?;
    if updated > 0 {
        return Ok(());
    }
    let count = counts.of(connection, slot)?;
    if count.entries >= LATEST_TOPICS {
        let head = first(connection, slot)?.unwrap_or(seq);
        if count.sweep.is_due(head) {
            let gone = connection
                .prepare_cached("DELETE FROM latest WHERE slot = ?1 AND seq < ?2")?
                .execute([slot, to_sql(head)])?;
            count.entries -= u32::try_from(gone).unwrap_or(u32::MAX).min(count.entries);
        }
    }
    if count.entries < LATEST_TOPICS {
        connection
            .prepare_cached("INSERT INTO latest VALUES (?1, ?2, ?3)")?
            .execute(entry)?;
        count.entries += 1;
    }
    Ok(())
}

/// The first row of a slot.
fn first(connection: &Connection, slot: i64) -> Result<Option<Seq>, Fault> {
    let first: Option<i64> = connection
        .prepare_cached("SELECT min(key) FROM queue WHERE key BETWEEN ?1 AND ?2")?
        .query_row([queue_key(slot, 0), queue_key(slot, u64::MAX)], |row| {
            row.get(0)
        })?;
    Ok(first.map(seq_of))
}

/// How recent a row with this topic is. What the index names as newer is looked at, and has to be good.
pub(super) fn recency(
    connection: &Connection,
    slot: i64,
    seq: Seq,
    topic: &[u8],
) -> Result<Recency, Fault> {
    let latest = connection
        .prepare_cached("SELECT seq FROM latest WHERE slot = ?1 AND hash = ?2")?
        .query_row([slot, to_sql(hash(topic))], |row| Ok(integer(row, 0)))
        .optional()?
        .transpose()?
        .flatten();
    let Some(latest) = latest.and_then(|latest| Seq::try_from(latest).ok()) else {
        return Ok(Recency::Unknown);
    };
    match latest.cmp(&seq) {
        Ordering::Less => return Ok(Recency::Unknown),
        Ordering::Equal => return Ok(Recency::Latest),
        Ordering::Greater => {}
    }
    let has_topic = is_of_topic(connection, queue_key(slot, latest), topic)?;
    Ok(match has_topic {
        true => Recency::Superseded,
        false => Recency::Unknown,
    })
}

/// Whether there is a good row with this key whose message is there and has this topic.
fn is_of_topic(connection: &Connection, key: i64, topic: &[u8]) -> Result<bool, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT key, size, messages_before, bytes_before, message, record FROM queue WHERE key = ?1",
    )?;
    let mut rows = statement.query([key])?;
    let Some(row) = rows.next()? else {
        return Ok(false);
    };
    let columns = row_columns(row)?;
    match unseal_row(&columns, blob(row, 5)?) {
        Some(record) if record.flags.qos().is_none() || record.flags.is_received() => Ok(false),
        Some(record) => match record.message {
            Some(message) => Ok(message.topic == topic),
            None => has_topic(connection, columns[4], topic),
        },
        None => Ok(false),
    }
}

/// Whether a message that stands beside the rows has this topic.
fn has_topic(connection: &Connection, id: i64, topic: &[u8]) -> Result<bool, Fault> {
    let has = connection
        .prepare_cached("SELECT record FROM message WHERE id = ?1")?
        .query_row([id], |row| {
            let blob = row.get_ref(0)?.as_blob().unwrap_or_default();
            let message = unseal::<MessageRecord<'_>>(&[id], "", blob);
            Ok(message.is_some_and(|message| message.topic == topic))
        })
        .optional()?;
    Ok(has.unwrap_or(false))
}

/// Removes some entries of a slot that has ended. Says whether there may be more.
pub(super) fn purge(connection: &Connection, slot: i64, entries: u32) -> Result<bool, Fault> {
    let up_to: Option<i64> = connection
        .prepare_cached(
            "SELECT max(hash) FROM (SELECT hash FROM latest WHERE slot = ?1 ORDER BY hash LIMIT ?2)",
        )?
        .query_row(params![slot, entries], |row| row.get(0))?;
    let Some(up_to) = up_to else {
        return Ok(false);
    };
    connection
        .prepare_cached("DELETE FROM latest WHERE slot = ?1 AND hash <= ?2")?
        .execute([slot, up_to])?;
    Ok(true)
}
