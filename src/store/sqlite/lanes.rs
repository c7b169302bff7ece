//! Lanes: queues that sessions have beside their own.

use super::super::blob::{seal, unseal};
use super::apply::{Application, text_of};
use super::recover::{SEQ_SKIP, extent};
use super::{
    Connection, Fault, OptionalExtension, Row, SEQ_MAX, blob, from_sql, integer, params, text,
    to_sql,
};
use crate::record::{LaneRecord, RecoveredLane, RecoveredSession, Seq, SessionKey, Span};

/// The integer columns of a lane, which its checksum covers: key, slot, session, number, start, seq_reserved.
type Columns = [i64; 6];

impl Application<'_> {
    pub(super) fn save_lane(
        &mut self,
        lane: SessionKey,
        session: SessionKey,
        record: LaneRecord,
        name: Span,
    ) -> Result<(), Fault> {
        if self.slot(session)?.is_none() {
            return Ok(());
        }
        let name = text_of(name, self.batch);
        let known = self.lane(lane)?;
        let is_new = known.is_none();
        let columns = match known {
            Some((columns, _)) => columns,
            None => [
                to_sql(lane.0),
                self.free_slot(lane)?,
                to_sql(session.0),
                i64::from(record.number),
                to_sql(record.start),
                0,
            ],
        };
        self.write_lane(columns, &name)?;
        if is_new {
            self.slot = (lane, Some(columns[1]));
            self.key_given(lane)?;
        }
        Ok(())
    }

    pub(super) fn reserve_of_lane(
        &mut self,
        lane: SessionKey,
        seq_reserved: Seq,
    ) -> Result<(), Fault> {
        let Some((mut columns, name)) = self.lane(lane)? else {
            return Ok(());
        };
        columns[5] = to_sql(seq_reserved);
        self.write_lane(columns, &name)
    }

    pub(super) fn drop_lane(&mut self, lane: SessionKey) -> Result<(), Fault> {
        let Some(([key, slot, ..], _)) = self.lane(lane)? else {
            return Ok(());
        };
        self.connection
            .prepare_cached("DELETE FROM lane WHERE key = ?1")?
            .execute([key])?;
        self.end_slot(slot)?;
        self.slot = (lane, None);
        Ok(())
    }

    /// All lanes of a session that ends.
    pub(super) fn drop_lanes(&mut self, session: SessionKey) -> Result<(), Fault> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT key FROM lane WHERE session = ?1")?;
        let keys: Vec<i64> = statement
            .query_map([to_sql(session.0)], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for key in keys {
            self.drop_lane(SessionKey(from_sql(key)))?;
        }
        Ok(())
    }

    fn lane(&self, lane: SessionKey) -> Result<Option<(Columns, String)>, Fault> {
        self.connection
            .prepare_cached(
                "SELECT key, slot, session, number, start, seq_reserved, name FROM lane WHERE key = ?1",
            )?
            .query_row([to_sql(lane.0)], |row| Ok(read_lane(row)))
            .optional()?
            .transpose()
    }

    fn write_lane(&mut self, columns: Columns, name: &str) -> Result<(), Fault> {
        write(self.connection, columns, name, &mut self.memo.record)
    }
}

fn write(
    connection: &Connection,
    columns: Columns,
    name: &str,
    record: &mut Vec<u8>,
) -> Result<(), Fault> {
    seal(&columns, name, &(), record)?;
    let [key, slot, session, number, start, seq_reserved] = columns;
    connection
        .prepare_cached("INSERT OR REPLACE INTO lane VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
        .execute(params![
            key,
            slot,
            session,
            number,
            start,
            seq_reserved,
            name,
            &*record
        ])?;
    Ok(())
}

fn read_lane(row: &Row<'_>) -> Result<(Columns, String), Fault> {
    let mut columns = [0; 6];
    for (index, column) in columns.iter_mut().enumerate() {
        *column = integer(row, index)?.unwrap_or(0);
    }
    Ok((columns, text(row, 6)?))
}

/// Gives each of `sessions`, which are in the order of their keys, its lanes. A bad record is mended if it can still be
/// told what it was, and else removed with its rows.
pub(super) fn recover(
    connection: &Connection,
    sessions: &mut [RecoveredSession],
    told: &mut Vec<String>,
) -> Result<(), Fault> {
    let mut statement = connection.prepare(
        "SELECT key, slot, session, number, start, seq_reserved, name, record FROM lane ORDER BY key",
    )?;
    let mut rows = statement.query([])?;
    let mut mended = Vec::new();
    let mut lost = Vec::new();
    while let Some(row) = rows.next()? {
        let (mut columns, name) = read_lane(row)?;
        let is_good = unseal::<()>(&columns, &name, blob(row, 7)?).is_some();
        let [key, slot, session, number, start, seq_reserved] = columns;
        let owner = sessions
            .binary_search_by_key(&SessionKey(from_sql(session)), |session| session.key)
            .ok()
            .and_then(|index| sessions.get_mut(index));
        let number = u8::try_from(number).ok().filter(|number| *number > 0);
        let (Some(owner), Some(number)) = (owner, number) else {
            lost.push((key, slot));
            continue;
        };
        if owner.lanes.iter().any(|lane| lane.record.number == number) {
            lost.push((key, slot));
            continue;
        }
        let extent = extent(connection, slot)?;
        if !is_good {
            let last = extent.map_or(0, |extent| extent.last);
            let known = from_sql(seq_reserved) & (SEQ_MAX >> 1);
            columns[5] = to_sql((known.max(last) + SEQ_SKIP).min(SEQ_MAX));
            told.push(format!(
                "the record of class {name:?} of session {:?} was bad and was made anew",
                owner.client_id
            ));
            mended.push((columns, name.clone()));
        }
        owner.lanes.push(RecoveredLane {
            key: SessionKey(from_sql(key)),
            name,
            record: LaneRecord {
                number,
                start: from_sql(start),
            },
            seq_reserved: from_sql(columns[5]),
            extent,
        });
    }
    drop(rows);
    let mut record = Vec::new();
    for (columns, name) in mended {
        write(connection, columns, &name, &mut record)?;
    }
    for (key, slot) in lost {
        told.push("a class of a session could not be told any more and was removed".to_owned());
        connection.execute("DELETE FROM lane WHERE key = ?1", [key])?;
        connection.execute("INSERT OR IGNORE INTO ended VALUES (?1)", [slot])?;
    }
    Ok(())
}
