//! A session as its client knows it, and which one a CONNACK gives it.

use super::Server;
use super::exactly_once::Holding;
use crate::clock::Millis;
use crate::net::Conn;
use crate::wire::{Id, Message, Subscription};
use larder::record::SessionKey;
use larder_packet::{Qos, topic};
use std::collections::{BTreeMap, BTreeSet};

/// A session, from the CONNACK that began it.
pub(super) struct Session {
    pub(super) stored: bool,
    /// Its name on disk, if it has one.
    pub(super) key: Option<SessionKey>,
    pub(super) expiry: u32,
    pub(super) packet_max: u32,
    pub(super) conn: Option<Conn>,
    /// Counts its links.
    pub(super) links: u32,
    /// The server's life in which it began.
    pub(super) began: u32,
    pub(super) left: Millis,
    /// Something was read that ends it, and nothing was written that says so.
    pub(super) ending: bool,
    pub(super) subscriptions: Vec<Subscribed>,
    /// What was sent under each Packet Identifier last.
    pub(super) sent: BTreeMap<u16, Sent>,
    /// The order in which messages were sent for the first time, and how many were.
    pub(super) ordinals: BTreeMap<(u16, Id), u64>,
    pub(super) first_sent: u64,
    /// The highest number first delivered, by publisher, topic, Quality of Service as published and as granted.
    pub(super) highest: BTreeMap<(u16, String, Qos, Qos), Id>,
    pub(super) seen: BTreeSet<Id>,
    /// Acknowledged by the client, of QoS 2 with PUBREC.
    pub(super) got: BTreeSet<Id>,
    /// The same, of QoS 2 with PUBCOMP, or refused.
    pub(super) completed: BTreeSet<Id>,
    pub(super) refused: BTreeSet<Id>,
    /// Sent with QoS 2.
    pub(super) exactly: BTreeSet<Id>,
    /// Packet Identifiers of the client's own messages of QoS 2 that it has not released.
    pub(super) holding: BTreeMap<u16, Holding>,
    /// The client has had a CONNACK of it.
    pub(super) is_known: bool,
    /// The client takes it for an earlier one.
    pub(super) is_mixed: bool,
    pub(super) owed: BTreeSet<Id>,
    pub(super) dropped: BTreeSet<Id>,
}

pub(super) struct Subscribed {
    pub(super) filter: String,
    pub(super) qos: Qos,
    pub(super) no_local: bool,
    /// When SUBSCRIBE was read, and SUBACK left.
    pub(super) asked: u64,
    pub(super) granted: Option<u64>,
    /// When UNSUBSCRIBE was read, and UNSUBACK left.
    pub(super) ending: Option<u64>,
    pub(super) ended: Option<u64>,
}

pub(super) struct Sent {
    pub(super) message: Message,
    pub(super) id: Id,
    pub(super) acknowledged: bool,
    /// QoS 2: a PUBREC was read, and a PUBREL has left.
    pub(super) received: bool,
    pub(super) released: bool,
    /// The server's life in which it was sent last.
    pub(super) life: u32,
}

impl Server {
    pub(super) fn connack(
        &mut self,
        conn: Conn,
        present: bool,
        reason: u8,
        now: Millis,
    ) -> Result<(), String> {
        let Some(link) = self.links.get_mut(&conn) else {
            return Ok(());
        };
        let Some(hello) = link.hello.clone() else {
            return Err("a CONNACK without a CONNECT".to_owned());
        };
        let client = hello.client_id.clone();
        if reason != 0 {
            return Err(format!("{client}: CONNECT refused: 0x{reason:02X}"));
        }
        link.connected = true;
        let key = self.keys.get(&client).copied();
        let known = self.sessions.get_mut(&client);
        if present {
            if hello.clean {
                return Err(format!("{client}: Session Present after a clean start"));
            }
            if known.is_none() && self.unannounced.contains(&client) {
                let session =
                    Session::new(true, hello.expiry, hello.packet_max, key, self.life, now);
                self.sessions.insert(client.clone(), session);
            }
            let known = self.sessions.get_mut(&client);
            let Some(session) = known.filter(|session| session.stored) else {
                return Err(format!("{client}: Session Present without a session"));
            };
            if session.key.is_some() && session.key != key {
                // It ended, and another began that nobody was told of.
                if !session.ending && !session.may_have_expired(now) {
                    return Err(format!("{client}: its session is another one"));
                }
                *session = Session::new(true, hello.expiry, hello.packet_max, key, self.life, now);
            }
            session.key = key;
            session.ending = false;
            session.expiry = hello.expiry;
            session.packet_max = hello.packet_max;
            session.conn = Some(conn);
            session.links += 1;
            return Ok(());
        }
        let must_be_there = known
            .as_ref()
            .is_some_and(|session| session.stored && !session.ending)
            && !hello.clean
            && known
                .as_ref()
                .is_some_and(|session| !session.may_have_expired(now));
        if must_be_there {
            return Err(format!("{client}: its session is forgotten"));
        }
        let stored = hello.expiry > 0;
        let previous = known.and_then(|session| session.key);
        if stored && (key.is_none() || key == previous) {
            return Err(format!(
                "{client}: the CONNACK left before its new session was committed"
            ));
        }
        let mut session = Session::new(stored, hello.expiry, hello.packet_max, key, self.life, now);
        (session.conn, session.links) = (Some(conn), 1);
        self.sessions.insert(client, session);
        Ok(())
    }
}

impl Session {
    /// Whether a message may be in flight in this life of its server, or its receiver holds its Packet Identifier.
    pub(super) fn is_in_flight(&self, pid: u16, id: Id, life: u32) -> bool {
        self.sent.get(&pid).is_some_and(|sent| {
            let exactly_once = sent.message.qos == Qos::ExactlyOnce;
            sent.id == id && (sent.life == life || exactly_once && !sent.acknowledged)
        })
    }

    pub(super) fn new(
        stored: bool,
        expiry: u32,
        packet_max: u32,
        key: Option<SessionKey>,
        began: u32,
        now: Millis,
    ) -> Session {
        Session {
            stored,
            key,
            expiry,
            packet_max,
            conn: None,
            links: 0,
            began,
            left: now,
            ending: false,
            subscriptions: Vec::new(),
            sent: BTreeMap::new(),
            ordinals: BTreeMap::new(),
            first_sent: 0,
            highest: BTreeMap::new(),
            seen: BTreeSet::new(),
            got: BTreeSet::new(),
            completed: BTreeSet::new(),
            refused: BTreeSet::new(),
            exactly: BTreeSet::new(),
            holding: BTreeMap::new(),
            is_known: false,
            is_mixed: false,
            owed: BTreeSet::new(),
            dropped: BTreeSet::new(),
        }
    }

    /// Whether a message of QoS 1 or 2 that was read at that time is owed to it.
    pub(super) fn is_owed(&self, topic_name: &str, own: bool, read: u64) -> bool {
        self.stored
            && !self.ending
            && self.subscriptions.iter().any(|of| {
                of.granted.is_some_and(|at| at < read)
                    && of.ending.is_none()
                    && of.qos > Qos::AtMostOnce
                    && !(of.no_local && own)
                    && topic::matches(&of.filter, topic_name)
            })
    }

    /// Whether it has been away for so long that it may have ended. Seconds of service are counted coarsely.
    pub(super) fn may_have_expired(&self, now: Millis) -> bool {
        self.expiry < u32::MAX
            && self.conn.is_none()
            && now - self.left + 2000 >= u64::from(self.expiry) * 1000
    }

    pub(super) fn subscribe(&mut self, filters: Vec<Subscription>, tick: u64) {
        for filter in filters {
            let known = self
                .subscriptions
                .iter()
                .any(|of| of.filter == filter.filter && of.ending.is_none());
            if !known {
                self.subscriptions.push(Subscribed {
                    filter: filter.filter,
                    qos: filter.qos,
                    no_local: filter.no_local,
                    asked: tick,
                    granted: None,
                    ending: None,
                    ended: None,
                });
            }
        }
    }
}
