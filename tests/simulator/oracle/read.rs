//! What a server reads: what is published, acknowledged, and asked of it.

use super::{Incoming, NAMES, Oracle, Transmission};
use crate::net::Conn;
use crate::wire::{Id, Wire};
use larder_packet::Qos;

impl Oracle {
    pub(super) fn packet_read(&mut self, at: usize, conn: Conn, wire: Wire) {
        let (now, tick) = (self.now, self.tick);
        let server = &mut self.servers[at];
        let Some(link) = server.links.get_mut(&conn) else {
            return;
        };
        if let Wire::Connect(hello) = wire {
            link.down.version = hello.version;
            if let Some(session) = server.sessions.get_mut(&hello.client_id) {
                session.ending |= hello.clean;
                if session.ending {
                    session.owed.clear();
                }
            }
            if hello.expiry > 0 {
                server.unannounced.insert(hello.client_id.clone());
            }
            link.hello = Some(hello);
            return;
        }
        let Some(client) = link.client() else { return };
        match wire {
            Wire::Publish(message) => {
                let Some(id) = Id::of(&message.payload) else {
                    return;
                };
                let transmission = Transmission {
                    conn,
                    qos: message.qos,
                    from: tick,
                    to: None,
                    refused: false,
                };
                server
                    .transmissions
                    .entry(id)
                    .or_default()
                    .push(transmission);
                if message.qos == Qos::AtMostOnce {
                    return;
                }
                let owed: Vec<String> = server
                    .sessions
                    .iter()
                    .filter(|(name, session)| {
                        session.is_owed(&message.topic, **name == client, tick)
                    })
                    .filter(|(_, session)| !session.may_have_expired(now))
                    .map(|(name, _)| name.clone())
                    .collect();
                let (taken, owed) = if message.qos == Qos::ExactlyOnce {
                    self.publish_read(at, &client, message.pid, id, owed)
                } else {
                    (tick, owed)
                };
                let incoming = Incoming {
                    pid: message.pid,
                    qos: message.qos,
                    id,
                    read: now,
                    transmission: tick,
                    taken,
                    topic: message.topic,
                    owed,
                };
                if let Some(link) = self.servers[at].links.get_mut(&conn) {
                    link.incoming.push_back(incoming);
                }
            }
            Wire::PubAck { pid, .. } => {
                link.in_flight.remove(&pid);
                let Some(session) = server
                    .sessions
                    .get_mut(&client)
                    .filter(|session| session.conn == Some(conn))
                else {
                    return;
                };
                let Some(sent) = session.sent.get_mut(&pid) else {
                    return;
                };
                sent.acknowledged = true;
                let id = sent.id;
                session.got.insert(id);
                session.completed.insert(id);
                self.relay_has_acknowledged(at, &client, id);
            }
            Wire::PubRec { pid, reason } => self.pubrec_read(at, conn, pid, reason),
            Wire::PubRel { pid, .. } => self.pubrel_read(at, conn, pid),
            Wire::PubComp { pid, .. } => self.pubcomp_read(at, conn, pid),
            Wire::Subscribe { pid, filters } => {
                link.subscribing.push_back((pid, filters.clone()));
                if let Some(session) = server.sessions.get_mut(&client) {
                    session.subscribe(filters, tick);
                }
            }
            Wire::Unsubscribe { pid, filters } => {
                link.unsubscribing.push_back((pid, filters.clone()));
                if let Some(session) = server.sessions.get_mut(&client) {
                    for subscribed in &mut session.subscriptions {
                        if filters.contains(&subscribed.filter) {
                            subscribed.ending.get_or_insert(tick);
                        }
                    }
                }
            }
            Wire::Disconnect { expiry, .. } => {
                if let Some(session) = server.sessions.get_mut(&client) {
                    let expiry = expiry.unwrap_or(session.expiry);
                    session.expiry = session.expiry.min(expiry);
                    if session.expiry == 0 {
                        session.ending = true;
                        session.owed.clear();
                    }
                }
            }
            _ => {}
        }
    }

    /// A relay acknowledges to one side: the other must have acknowledged before.
    fn relay_has_acknowledged(&mut self, at: usize, client: &str, id: Id) {
        let Some(ids) = &self.relay else { return };
        if ids[at] != client {
            return;
        }
        let across = 1 - at;
        let by = (ids[across].clone(), id);
        if self.servers[across].acknowledged.contains(&by) {
            return;
        }
        self.acknowledged_unrelayed += 1;
        if self.acknowledged_unrelayed > self.set_aside {
            self.object(format!(
                "the bridge acknowledged {id} to the {}, and the {} has not acknowledged it",
                NAMES[at], NAMES[across]
            ));
        }
    }
}
