//! What is on disk: what each commit changed, and what a crash leaves.

use super::session::Session;
use super::{GATEWAY, NAMES, Oracle, Server};
use crate::disk::{Committed, Rows, packet_id};
use crate::plan::CLASSED;
use crate::wire::Id;
use larder::record::SessionKey;
use std::collections::BTreeSet;

impl Oracle {
    /// A server is gone: process and links. `rows` is what its disk holds.
    pub fn crashed(&mut self, at: usize, rows: &Rows) {
        self.tick += 1;
        let (now, tick) = (self.now, self.tick);
        let server = &mut self.servers[at];
        server.up = false;
        server.links.clear();
        server.sessions.retain(|_, session| session.stored);
        let on_disk: BTreeSet<(SessionKey, u16, Id)> = rows
            .iter()
            .map(|((key, seq), row)| (*key, packet_id(*seq), row.id))
            .collect();
        for (client, session) in &mut server.sessions {
            if session.conn.take().is_some() {
                session.left = now;
            }
            // What was sent and never written is forgotten, and nobody was told that it was taken.
            let key = server.keys.get(client).copied();
            let is_held = |pid| key.is_some_and(|key| server.held.contains(&(key, pid)));
            session.holding.retain(|pid, _| is_held(*pid));
            for (pid, sent) in &mut session.sent {
                sent.acknowledged |=
                    !key.is_some_and(|key| on_disk.contains(&(key, *pid, sent.id)));
            }
            if session.expiry == 0 {
                session.ending = true;
                session.owed.clear();
            }
        }
        let open = server.transmissions.values_mut().flatten();
        open.filter(|transmission| transmission.to.is_none())
            .for_each(|transmission| transmission.to = Some(tick));
        self.note(&format!("{} is killed", NAMES[at]));
    }

    /// A batch is durable.
    pub fn committed(&mut self, at: usize, committed: &Committed) {
        self.tick += 1;
        let tick = self.tick;
        self.note(&format!(
            "{} has committed {} rows, {} settlements, {} drops",
            NAMES[at],
            committed.owed.len(),
            committed.settled.len(),
            committed.dropped.len()
        ));
        let mut objections = Vec::new();
        let (published, server) = (&self.published, &mut self.servers[at]);
        for (key, client_id) in &committed.sessions {
            server.names.insert(*key, client_id.clone());
            server.keys.insert(client_id.clone(), *key);
        }
        for (key, filter, made) in &committed.subscriptions {
            if *made {
                server.subscriptions.insert((*key, filter.clone()));
            } else {
                server.subscriptions.remove(&(*key, filter.clone()));
            }
        }
        for key in &committed.ended {
            server.subscriptions.retain(|(of, _)| of != key);
        }
        let life = server.life;
        for (key, seq, id) in &committed.settled {
            let exempt = |session: &Session| {
                published
                    .get(id)
                    .is_none_or(|published| published.is_exempt(session))
            };
            if let Some((client, session)) = server.session_of(*key) {
                let is_gone = !session.completed.contains(id) && !session.ending;
                let may_be_superseded = self.keeps_latest && client.starts_with(CLASSED);
                if is_gone && may_be_superseded && committed.superseded.contains(&(*key, *seq, *id))
                {
                    if session.is_in_flight(packet_id(*seq), *id, life) {
                        objections.push(format!(
                            "{client}: row {seq} ({id}) was superseded though it was in flight"
                        ));
                    }
                    session.dropped.insert(*id);
                } else if is_gone && !exempt(session) {
                    objections.push(format!(
                        "{client}: row {seq} ({id}) was removed, and nobody has acknowledged it"
                    ));
                }
            }
        }
        for (key, seq, id) in &committed.moved {
            if let Some((client, session)) = server.session_of(*key) {
                // What is published again looks the same when its first copy is settled just then.
                let is_settled = session.completed.contains(id);
                if !is_settled && session.is_in_flight(packet_id(*seq), *id, life) {
                    objections.push(format!(
                        "{client}: row {seq} ({id}) was moved though it was in flight"
                    ));
                }
            }
        }
        for (key, seq, id) in &committed.dropped {
            if let Some((client, session)) = server.session_of(*key) {
                if session.is_in_flight(packet_id(*seq), *id, life) {
                    objections.push(format!(
                        "{client}: row {seq} ({id}) was dropped though it was in flight"
                    ));
                }
                session.dropped.insert(*id);
            }
        }
        // What the configuration names has its subscriptions from the commit on.
        if let Some([local, _]) = &self.relay {
            let key = server.keys.get(local).copied();
            if let (GATEWAY, Some(key), Some(session)) = (at, key, server.sessions.get_mut(local)) {
                for subscribed in &mut session.subscriptions {
                    if server
                        .subscriptions
                        .contains(&(key, subscribed.filter.clone()))
                    {
                        subscribed.granted.get_or_insert(tick);
                    }
                }
            }
        }
        for objection in objections {
            self.object(format!("{}: {objection}", NAMES[at]));
        }
        self.committed_exactly_once(at, committed);
    }
}

impl Server {
    /// The session that has this key on disk, if it is the present one of its name.
    fn session_of(&mut self, key: SessionKey) -> Option<(String, &mut Session)> {
        let client = self.names.get(&key)?;
        if self.keys.get(client) != Some(&key) {
            return None;
        }
        let session = self.sessions.get_mut(client)?;
        Some((client.clone(), session))
    }
}
