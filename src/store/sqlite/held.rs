//! Packet Identifiers of messages of QoS 2 that clients have sent and not released.

use super::super::blob::{seal, unseal};
use super::apply::Application;
use super::{Connection, Fault, blob, from_sql, integer, params, to_sql};
use crate::record::{RecoveredSession, SessionKey};
use larder_packet::PacketId;

impl Application<'_> {
    pub(super) fn hold(&mut self, session: SessionKey, packet_id: PacketId) -> Result<(), Fault> {
        if self.slot(session)?.is_some() {
            insert(self.connection, session, packet_id, &mut self.memo.record)?;
        }
        Ok(())
    }

    pub(super) fn release(
        &mut self,
        session: SessionKey,
        packet_id: PacketId,
    ) -> Result<(), Fault> {
        self.connection
            .prepare_cached("DELETE FROM held WHERE session = ?1 AND packet_id = ?2")?
            .execute([to_sql(session.0), i64::from(packet_id.get())])?;
        Ok(())
    }
}

fn insert(
    connection: &Connection,
    session: SessionKey,
    packet_id: PacketId,
    record: &mut Vec<u8>,
) -> Result<(), Fault> {
    let (session, packet_id) = (to_sql(session.0), i64::from(packet_id.get()));
    seal(&[session, packet_id], "", &(), record)?;
    connection
        .prepare_cached("INSERT OR REPLACE INTO held VALUES (?1, ?2, ?3)")?
        .execute(params![session, packet_id, &*record])?;
    Ok(())
}

/// Gives each of `sessions`, which are in the order of their keys, what it holds. If a record is bad, the table is
/// written anew from the good ones: the columns by which a bad one would be removed may be what is damaged.
pub(super) fn recover(
    connection: &Connection,
    sessions: &mut [RecoveredSession],
    told: &mut Vec<String>,
) -> Result<(), Fault> {
    let mut statement = connection
        .prepare("SELECT session, packet_id, record FROM held ORDER BY session, packet_id")?;
    let mut rows = statement.query([])?;
    let mut bad = 0;
    while let Some(row) = rows.next()? {
        let columns = [integer(row, 0)?.unwrap_or(0), integer(row, 1)?.unwrap_or(0)];
        let key = SessionKey(from_sql(columns[0]));
        let packet_id = u16::try_from(columns[1]).ok().and_then(PacketId::new);
        let good = unseal::<()>(&columns, "", blob(row, 2)?);
        let session = sessions.binary_search_by_key(&key, |session| session.key);
        match (packet_id, good, session) {
            (Some(packet_id), Some(()), Ok(session)) => sessions[session].held.push(packet_id),
            _ => bad += 1,
        }
    }
    drop(rows);
    if bad == 0 {
        return Ok(());
    }
    told.push(format!(
        "{bad} records of unreleased Packet Identifiers were bad and were removed"
    ));
    connection.execute("DELETE FROM held", [])?;
    let mut record = Vec::new();
    for session in sessions {
        for &packet_id in &session.held {
            insert(connection, session.key, packet_id, &mut record)?;
        }
    }
    Ok(())
}
