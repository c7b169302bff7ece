//! Quality of Service 2 between a server and clients that keep their session: exactly once.
//!
//! - From a publisher: a message is taken once, however often its PUBLISH comes. PUBREC leaves when its Packet Identifier is
//!   held on disk, PUBCOMP when its release is.
//! - To a subscriber: a stored session is sent a message when its row is on disk, and its PUBREL when its PUBREC is; after
//!   that the PUBLISH never comes again [MQTT-4.3.3-6]. The application has a message once, and has all that its client has
//!   answered with PUBREC.
//! - A session that ended releases the promise. A client that was not told that its session is another one mixes the two up;
//!   MQTT does not help it, and nothing is asked of what it then does.

use super::session::Session;
use super::{NAMES, Oracle, Server};
use crate::disk::Committed;
use crate::net::Conn;
use crate::wire::{Id, Message, UNKNOWN};
use larder_packet::Qos;
use std::collections::{BTreeMap, BTreeSet};

/// What a server knows of messages of QoS 2.
#[derive(Default)]
pub(super) struct ExactlyOnce {
    /// Messages whose PUBLISH it has read with QoS 2, and who published them.
    publishers: BTreeMap<Id, String>,
    /// Clients that took one session for another.
    mixed: BTreeSet<String>,
    applications: BTreeMap<String, Application>,
}

/// What stands behind a client.
#[derive(Default)]
struct Application {
    /// It has had a session before.
    has_begun: bool,
    /// What it has had with QoS 2 in its present session.
    seen: BTreeSet<Id>,
}

/// The Packet Identifier of a message that was published and not released.
pub(super) struct Holding {
    pub(super) id: Id,
    /// When its first PUBLISH was read, and to whom it was owed then.
    pub(super) taken: u64,
    pub(super) owed: Vec<String>,
}

impl Oracle {
    // --- What the clients tell ---

    /// A client has got its CONNACK.
    pub fn told(&mut self, at: usize, client: &str, present: bool) {
        let server = &mut self.servers[at];
        let application = server
            .exactly_once
            .applications
            .entry(client.to_owned())
            .or_default();
        let had_another = std::mem::replace(&mut application.has_begun, true);
        if !present {
            application.seen.clear();
        }
        if let Some(session) = server.sessions.get_mut(client) {
            if !session.is_known && present && had_another {
                session.is_mixed = true;
                server.exactly_once.mixed.insert(client.to_owned());
            }
            session.is_known = true;
        }
    }

    /// An application has got a message.
    pub fn delivered(&mut self, at: usize, client: &str, id: Id, qos: Qos) {
        let server = &mut self.servers[at];
        let mixed = server.sessions.get(client).is_none_or(|of| of.is_mixed);
        if qos < Qos::ExactlyOnce || mixed || server.may_be_taken_again(id) {
            return;
        }
        let application = server.exactly_once.applications.get_mut(client);
        if application.is_some_and(|application| !application.seen.insert(id)) {
            self.object(format!("{client}: {id} came twice with QoS 2"));
        }
    }

    /// Whether a client mixes up its present session with another one.
    pub fn is_mixed(&self, at: usize, client: &str) -> bool {
        let session = self.servers[at].sessions.get(client);
        session.is_some_and(|session| session.is_mixed)
    }

    // --- What is on disk ---

    /// What the changes of a batch say of QoS 2.
    pub(super) fn committed_exactly_once(&mut self, at: usize, committed: &Committed) {
        let server = &mut self.servers[at];
        let mut objections = Vec::new();
        for (key, pid, held) in &committed.held {
            if *held {
                server.held.insert((*key, *pid));
            } else {
                server.held.remove(&(*key, *pid));
            }
        }
        for key in &committed.ended {
            server.held.retain(|(of, _)| of != key);
        }
        for (key, _, id) in &committed.received {
            server.received_ever.insert((*key, *id));
        }
        for (key, seq, id) in &committed.owed {
            let is_first = server.rows_ever.insert((*key, *id));
            let once = server.exactly_once.publishers.contains_key(id);
            if once && !is_first && !server.may_be_taken_again(*id) {
                let client = server.names.get(key).cloned().unwrap_or_default();
                objections.push(format!(
                    "{client}: {id} was published once with QoS 2, and row {seq} is its second"
                ));
            }
        }
        for objection in objections {
            self.object(format!("{}: {objection}", NAMES[at]));
        }
    }

    // --- What is read ---

    /// A PUBLISH of QoS 2 was read: since when it may be taken, and to whom it was owed then.
    pub(super) fn publish_read(
        &mut self,
        at: usize,
        client: &str,
        pid: u16,
        id: Id,
        owed: Vec<String>,
    ) -> (u64, Vec<String>) {
        let taken = self.tick;
        let server = &mut self.servers[at];
        let publishers = &mut server.exactly_once.publishers;
        publishers.entry(id).or_insert_with(|| client.to_owned());
        let Some(session) = server.sessions.get_mut(client) else {
            return (taken, owed);
        };
        let holding = session
            .holding
            .entry(pid)
            .or_insert(Holding { id, taken, owed });
        let (taken, owed, held) = (holding.taken, holding.owed.clone(), holding.id);
        if held != id {
            self.object(format!("{client} uses #{pid} of {held} for {id}"));
        }
        (taken, owed)
    }

    /// A subscriber's PUBREC was read.
    pub(super) fn pubrec_read(&mut self, at: usize, conn: Conn, pid: u16, reason: u8) {
        let server = &mut self.servers[at];
        let Some((link, session)) = server.of_conn(conn) else {
            return;
        };
        let Some(sent) = session.sent.get_mut(&pid) else {
            return;
        };
        let id = sent.id;
        if reason < 0x80 {
            sent.received = true;
            session.got.insert(id);
            link.received.push_back(pid);
        } else if !sent.received {
            sent.acknowledged = true;
            session.got.insert(id);
            session.completed.insert(id);
            session.refused.insert(id);
            link.in_flight.remove(&pid);
        }
    }

    /// A subscriber's PUBCOMP was read.
    pub(super) fn pubcomp_read(&mut self, at: usize, conn: Conn, pid: u16) {
        let server = &mut self.servers[at];
        let Some((link, session)) = server.of_conn(conn) else {
            return;
        };
        link.in_flight.remove(&pid);
        if let Some(sent) = session.sent.get_mut(&pid) {
            sent.acknowledged = true;
            session.completed.insert(sent.id);
        }
    }

    /// A publisher's PUBREL was read.
    pub(super) fn pubrel_read(&mut self, at: usize, conn: Conn, pid: u16) {
        let server = &mut self.servers[at];
        if let Some((link, session)) = server.of_conn(conn) {
            link.releasing.push_back(pid);
            session.holding.remove(&pid);
        }
    }

    // --- What is written ---

    /// A PUBREL leaves.
    pub(super) fn pubrel(
        &mut self,
        at: usize,
        conn: Conn,
        pid: u16,
        reason: u8,
    ) -> Result<(), String> {
        let server = &mut self.servers[at];
        let Some(link) = server.links.get_mut(&conn) else {
            return Ok(());
        };
        let client = link.client().unwrap_or_default();
        let answers = link.received.front() == Some(&pid);
        if answers {
            link.received.pop_front();
        } else if link.received.contains(&pid) {
            return Err(format!(
                "{client}: PUBREL #{pid} is not for the oldest PUBREC [MQTT-4.6.0-4]"
            ));
        }
        let key = server.keys.get(&client).copied();
        let Some(session) = server
            .sessions
            .get_mut(&client)
            .filter(|session| session.stored || session.conn == Some(conn))
        else {
            return Ok(());
        };
        let Some(sent) = session
            .sent
            .get_mut(&pid)
            .filter(|sent| answers || sent.received)
        else {
            return Err(format!("{client}: PUBREL #{pid}, and no PUBREC has come"));
        };
        let id = sent.id;
        if reason == UNKNOWN {
            return if sent.acknowledged {
                Ok(())
            } else {
                Err(format!("{client}: the PUBREC of {id} was for nothing"))
            };
        }
        let on_disk = key.is_some_and(|key| server.received_ever.contains(&(key, id)));
        if session.stored && !on_disk {
            return Err(format!(
                "{client}: the PUBREL of {id} left before its PUBREC was on disk"
            ));
        }
        sent.released = true;
        Ok(())
    }

    /// A PUBREC leaves that says that a message was taken.
    pub(super) fn pubrec(
        &self,
        at: usize,
        publisher: &str,
        pid: u16,
        id: Id,
    ) -> Result<(), String> {
        let server = &self.servers[at];
        // One that answers a PUBLISH that came again may leave when the message is released already.
        let session = server.sessions.get(publisher);
        let is_released = session.is_none_or(|session| !session.holding.contains_key(&pid));
        if !is_released && server.is_held(publisher, pid) == Some(false) {
            return Err(format!(
                "the PUBREC of {id} left before its Packet Identifier was held on disk"
            ));
        }
        Ok(())
    }

    /// A PUBCOMP leaves.
    pub(super) fn pubcomp(&mut self, at: usize, conn: Conn, pid: u16) -> Result<(), String> {
        let server = &mut self.servers[at];
        let Some(link) = server.links.get_mut(&conn) else {
            return Ok(());
        };
        let publisher = link.client().unwrap_or_default();
        if link.releasing.pop_front() != Some(pid) {
            return Err(format!("{publisher}: PUBCOMP #{pid} out of order"));
        }
        if server.is_held(&publisher, pid) == Some(true) {
            return Err(format!(
                "{publisher}: PUBCOMP #{pid} left before its release was on disk"
            ));
        }
        Ok(())
    }

    /// A message leaves with QoS 2.
    pub(super) fn exactly_once_delivery(
        &self,
        at: usize,
        client: &str,
        id: Id,
        message: &Message,
    ) -> Result<(), String> {
        let server = &self.servers[at];
        let Some(session) = server.sessions.get(client) else {
            return Ok(());
        };
        let key = server.keys.get(client).copied();
        let on_disk = key.is_some_and(|key| server.rows_ever.contains(&(key, id)));
        if session.stored && !on_disk {
            return Err(format!("{client}: {id} left before its row was on disk"));
        }
        // What its publisher may send again must not be taken again once somebody has it.
        let publisher = server.exactly_once.publishers.get(&id);
        let publisher = publisher.filter(|_| !server.may_be_taken_again(id));
        let held = publisher.and_then(|publisher| {
            let session = server.sessions.get(publisher)?;
            let stands = !session.ending && !session.may_have_expired(self.now);
            let mut holding = session.holding.iter().filter(|_| stands);
            let (pid, _) = holding.find(|(_, holding)| holding.id == id)?;
            server.is_held(publisher, *pid)
        });
        if held == Some(false) {
            return Err(format!("{client}: {id} left before it was taken for good"));
        }
        let before = session.sent.get(&message.pid);
        if before.is_some_and(|sent| sent.id == id && sent.released) {
            return Err(format!(
                "{client}: {id} is sent again after its PUBREL [MQTT-4.3.3-6]"
            ));
        }
        Ok(())
    }

    /// What is missing at the end.
    pub(super) fn finish_exactly_once(&self, at: usize) -> Vec<String> {
        let server = &self.servers[at];
        let mut objections = Vec::new();
        for link in server.links.values() {
            let client = link.client().unwrap_or_default();
            if let Some(pid) = link.received.front() {
                objections.push(format!("{client}: PUBREC #{pid} waits for its PUBREL"));
            }
            if let Some(pid) = link.releasing.front() {
                objections.push(format!("{client}: PUBREL #{pid} waits for its PUBCOMP"));
            }
        }
        for (client, session) in server.sessions.iter().filter(|(_, of)| !of.is_mixed) {
            let Some(application) = server.exactly_once.applications.get(client) else {
                continue;
            };
            for id in session.exactly.intersection(&session.got) {
                let is_there = application.seen.contains(id)
                    || session.refused.contains(id)
                    || server.may_be_taken_again(*id);
                if !is_there {
                    objections.push(format!(
                        "{client}: the PUBREC of {id} was read, and the application never had it"
                    ));
                }
            }
        }
        objections
    }
}

impl Server {
    /// Whether a message may be taken more than once: not one of QoS 2, unless its publisher has mixed up its sessions.
    fn may_be_taken_again(&self, id: Id) -> bool {
        let publisher = self.exactly_once.publishers.get(&id);
        publisher.is_none_or(|publisher| self.exactly_once.mixed.contains(publisher))
    }

    /// Whether a Packet Identifier of a client is held on disk; `None`: it has no stored session.
    pub(super) fn is_held(&self, client: &str, pid: u16) -> Option<bool> {
        let stored = self.sessions.get(client).is_some_and(|of| of.stored);
        let key = self.keys.get(client).filter(|_| stored)?;
        Some(self.held.contains(&(*key, pid)))
    }

    /// A link, and the session that it has.
    fn of_conn(&mut self, conn: Conn) -> Option<(&mut super::Link, &mut Session)> {
        let link = self.links.get_mut(&conn)?;
        let session = self.sessions.get_mut(&link.client()?)?;
        (session.conn == Some(conn)).then_some((link, session))
    }
}
