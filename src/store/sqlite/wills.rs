//! Wills of stored sessions.

use super::super::blob::{MessageRecord, WillWithMessage, seal, unseal};
use super::apply::{Application, record_of};
use super::{Connection, Fault, blob, from_sql, integer, params, to_sql};
use crate::record::{RecoveredMessage, RecoveredSession, RecoveredWill, SessionKey, Will};

impl Application<'_> {
    pub(super) fn save_will(
        &mut self,
        session: SessionKey,
        will: Option<&Will>,
    ) -> Result<(), Fault> {
        let key = to_sql(session.0);
        let Some(will) = will else {
            self.connection
                .prepare_cached("DELETE FROM will WHERE session = ?1")?
                .execute([key])?;
            return Ok(());
        };
        if self.slot(session)?.is_none() {
            return Ok(());
        }
        let message = &self.batch.messages[will.message as usize];
        let stored = WillWithMessage {
            will: will.record,
            message: record_of(message, self.batch),
        };
        seal(&[key], "", &stored, &mut self.memo.record)?;
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO will VALUES (?1, ?2)")?
            .execute(params![key, self.memo.record])?;
        Ok(())
    }
}

/// Gives each of `sessions`, which are in the order of their keys, its Will.
pub(super) fn recover(
    connection: &Connection,
    sessions: &mut [RecoveredSession],
    told: &mut Vec<String>,
) -> Result<(), Fault> {
    let mut statement = connection.prepare("SELECT session, record FROM will")?;
    let mut rows = statement.query([])?;
    let mut bad = Vec::new();
    while let Some(row) = rows.next()? {
        let key = integer(row, 0)?.unwrap_or(0);
        let session = sessions
            .binary_search_by_key(&SessionKey(from_sql(key)), |session| session.key)
            .ok()
            .and_then(|index| sessions.get_mut(index));
        match (session, unseal(&[key], "", blob(row, 1)?)) {
            (Some(session), Some(stored)) => session.will = Some(recovered(&stored)),
            (session, _) => {
                let whose = session.map_or("", |session| &session.client_id);
                told.push(format!(
                    "the Will of session {whose:?} was bad and was removed"
                ));
                bad.push(key);
            }
        }
    }
    drop(rows);
    for key in bad {
        connection.execute("DELETE FROM will WHERE session = ?1", [key])?;
    }
    Ok(())
}

fn recovered(stored: &WillWithMessage<'_>) -> RecoveredWill {
    let MessageRecord {
        expires_at,
        topic,
        properties,
        payload,
    } = stored.message;
    RecoveredWill {
        message: RecoveredMessage {
            topic: String::from_utf8_lossy(topic).into_owned(),
            properties: properties.to_vec(),
            payload: payload.to_vec(),
            expires_at,
        },
        record: stored.will,
    }
}
