//! What is found at start: sessions and what is theirs, of each queue its first and last row, and retained messages.

use super::super::blob::{seal, unseal, unseal_row};
use super::apply::{self, WrittenDown};
use super::pages::row_columns;
use super::{
    Connection, Fault, SEQ_MAX, blob, from_sql, held, integer, lanes, params, queue_key, retained,
    seq_of, text, to_sql, wills,
};
use crate::record::{
    Extent, Recovered, RecoveredSession, Seq, SessionKey, SessionRecord, SubscriptionRecord,
};

/// Takes the place of a session record that failed its checksum: kept until the owner's limit ends the session.
pub(super) const STAND_IN: SessionRecord = SessionRecord {
    expiry_interval: u32::MAX,
    left_at: None,
    configured: false,
};
/// Sequence numbers skipped when it is not known how far they were reserved; far more than a reserved block.
pub(super) const SEQ_SKIP: Seq = 1 << 20;

/// Reads everything but the queues' rows. Bad session records are mended, other bad records removed; both are told in
/// [`Recovered::salvaged`].
pub(super) fn recover(connection: &Connection) -> Result<Recovered, Fault> {
    let WrittenDown {
        noted,
        last_session,
    } = apply::read_service(connection)?.unwrap_or_default();
    let mut told = Vec::new();
    let mut sessions = Vec::new();
    let mut statement = connection
        .prepare("SELECT key, slot, seq_reserved, client_id, record FROM session ORDER BY key")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let mut columns = [0; 3];
        for (index, column) in columns.iter_mut().enumerate() {
            *column = integer(row, index)?.unwrap_or(0);
        }
        let client_id = text(row, 3)?;
        let extent = extent(connection, columns[1])?;
        let (record, seq_reserved) = match unseal(&columns, &client_id, blob(row, 4)?) {
            Some(record) => (record, columns[2]),
            None => {
                told.push(format!(
                    "the record of session {client_id:?} was bad and was made anew"
                ));
                mend(connection, columns, &client_id, extent)?
            }
        };
        sessions.push(RecoveredSession {
            key: SessionKey(from_sql(columns[0])),
            record,
            seq_reserved: from_sql(seq_reserved),
            subscriptions: subscriptions(connection, columns[0], &client_id, &mut told)?,
            client_id,
            extent,
            lanes: Vec::new(),
            held: Vec::new(),
            will: None,
        });
    }
    lanes::recover(connection, &mut sessions, &mut told)?;
    held::recover(connection, &mut sessions, &mut told)?;
    wills::recover(connection, &mut sessions, &mut told)?;
    let retained = retained::recover(connection, &mut told)?;
    let lanes = sessions.iter().flat_map(|session| &session.lanes);
    let keys = lanes
        .map(|lane| lane.key.0)
        .chain(sessions.last().map(|session| session.key.0));
    let highest = keys.max().unwrap_or(0);
    Ok(Recovered {
        sessions,
        retained,
        last_session: SessionKey(last_session.max(highest)),
        service: noted.service,
        wall: noted.wall,
        disk_used: 0,
        salvaged: (!told.is_empty()).then(|| told.join("; ")),
    })
}

fn mend(
    connection: &Connection,
    [key, slot, seq_reserved]: [i64; 3],
    client_id: &str,
    extent: Option<Extent>,
) -> Result<(SessionRecord, i64), Fault> {
    let last = extent.map_or(0, |extent| extent.last);
    let known = if (0..1 << 42).contains(&seq_reserved) {
        from_sql(seq_reserved)
    } else {
        0
    };
    let seq_reserved = to_sql((known.max(last) + SEQ_SKIP).min(SEQ_MAX));
    let mut blob = Vec::new();
    seal(&[key, slot, seq_reserved], client_id, &STAND_IN, &mut blob)?;
    connection.execute(
        "UPDATE session SET seq_reserved = ?2, client_id = ?3, record = ?4 WHERE key = ?1",
        params![key, seq_reserved, client_id, blob],
    )?;
    Ok((STAND_IN, seq_reserved))
}

fn subscriptions(
    connection: &Connection,
    session: i64,
    client_id: &str,
    told: &mut Vec<String>,
) -> Result<Vec<(String, SubscriptionRecord)>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT filter, record FROM subscription WHERE session = ?1 ORDER BY filter",
    )?;
    let mut rows = statement.query([session])?;
    let (mut found, mut bad) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let filter = text(row, 0)?;
        match unseal(&[session], &filter, blob(row, 1)?) {
            Some(record) => found.push((filter, record)),
            None => bad.push(filter),
        }
    }
    for filter in bad {
        told.push(format!(
            "subscription {filter:?} of session {client_id:?} was bad and was removed"
        ));
        connection.execute(
            "DELETE FROM subscription WHERE session = ?1 AND filter = ?2",
            params![session, filter],
        )?;
    }
    Ok(found)
}

/// One end of a queue.
struct End {
    /// Its outermost row.
    seq: Seq,
    /// Bad rows outside the first good one, which the figures below belong to.
    bad: u64,
    /// `messages_before`, `bytes_before` and `size` of that row; `None` if there is no good row at all.
    figures: Option<(u64, u64, u64)>,
}

/// A queue's extent from its first and last row. Where these are bad the next good ones serve, and bad rows count as
/// messages without bytes.
pub(super) fn extent(connection: &Connection, slot: i64) -> Result<Option<Extent>, Fault> {
    let (Some(first), Some(last)) = (
        end(connection, slot, "ASC")?,
        end(connection, slot, "DESC")?,
    ) else {
        return Ok(None);
    };
    let (Some((messages_before, bytes_before, _)), Some((last_before, last_bytes, size))) =
        (first.figures, last.figures)
    else {
        return Ok(Some(Extent {
            first: first.seq,
            last: last.seq,
            messages: first.bad,
            bytes: 0,
            messages_ever: first.bad,
            bytes_ever: 0,
        }));
    };
    let messages_ever = last_before + 1 + last.bad;
    let bytes_ever = last_bytes + size;
    Ok(Some(Extent {
        first: first.seq,
        last: last.seq,
        messages: messages_ever.saturating_sub(messages_before.saturating_sub(first.bad)),
        bytes: bytes_ever.saturating_sub(bytes_before),
        messages_ever,
        bytes_ever,
    }))
}

fn end(connection: &Connection, slot: i64, order: &str) -> Result<Option<End>, Fault> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT key, size, messages_before, bytes_before, message, record FROM queue
         WHERE key BETWEEN ?1 AND ?2 ORDER BY key {order}"
    ))?;
    let mut rows = statement.query([queue_key(slot, 0), queue_key(slot, SEQ_MAX)])?;
    let mut outermost: Option<End> = None;
    while let Some(row) = rows.next()? {
        let columns = row_columns(row)?;
        let good = unseal_row(&columns, blob(row, 5)?).is_some();
        let end = outermost.get_or_insert(End {
            seq: seq_of(columns[0]),
            bad: 0,
            figures: None,
        });
        if good {
            let [_, size, messages_before, bytes_before, _] = columns.map(from_sql);
            end.figures = Some((messages_before, bytes_before, size));
            break;
        }
        end.bad += 1;
    }
    drop(rows);
    Ok(outermost)
}
