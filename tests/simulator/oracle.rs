//! What must hold, whatever happens: the contract, checked on what the servers read, wrote and committed.
//!
//! The oracle stands where a server meets its network and its disk. It sees the bytes that the server has read and
//! written (not those that are under way) and what each commit has changed, and knows nothing of the server's inside.
//!
//! - **Acknowledged is durable.** When a PUBACK leaves, each stored session that was subscribed when the PUBLISH was read
//!   (its SUBACK had left; it has not unsubscribed nor ended since) has the message in a committed row, or has
//!   acknowledged it. SUBACK, UNSUBACK and CONNACK are compared with the disk likewise.
//! - **What is owed stays.** From then on the message is owed: a row leaves the disk only when the session has acknowledged
//!   it, when its Message Expiry Interval allows, or under the policy of a full queue, and then it was not in flight and
//!   is counted. At the end every message owed has been acknowledged by the session, or was dropped and counted.
//! - **Order.** The first deliveries of one publisher's messages to one session, of one topic and Quality of Service, come
//!   in their order; on each link what was sent before comes in the original order, before what is new [MQTT-4.6.0-1].
//!   PUBACKs leave in the order of the PUBLISHes [MQTT-4.6.0-2].
//! - **Packet Identifiers.** One is never used for two messages that are not acknowledged; a message that is sent again
//!   has DUP and the same identifier and content [MQTT-3.3.1-1, MQTT-4.4.0-1].
//! - **Nothing else.** Nothing is delivered that was not published while the session had (or may have had) a matching
//!   subscription. Receive Maximum is kept. A link is closed only for a reason that the world has given.
//! - **A relay** acknowledges to one side only what the other side has acknowledged, or what it set aside, counted.

use crate::clock::Millis;
use crate::disk::{Committed, Rows};
use crate::net::Conn;
use crate::wire::{Decoder, Hello, Id, Message, Subscription, Wire};
use larder::record::SessionKey;
use larder_packet::{Qos, Version, topic};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Lines of conversation that are kept for a failure.
const LINES: usize = 60;
const PACKET_IDS: u64 = 65_535;

/// The servers of a world.
pub const GATEWAY: usize = 0;
pub const CLOUD: usize = 1;
pub const NAMES: [&str; 2] = ["gateway", "cloud"];

/// The judge.
pub struct Oracle {
    pub now: Millis,
    /// What was found wrong.
    pub verdict: Option<String>,
    pub lines: VecDeque<String>,
    echo: bool,
    /// Counts events: before and after, where milliseconds are too coarse.
    tick: u64,
    published: BTreeMap<Id, Published>,
    servers: [Server; 2],
    /// The bridge's Client Identifiers at the gateway and at the cloud.
    relay: Option<[String; 2]>,
    /// Messages that relays have set aside, or let expire.
    pub set_aside: u64,
    acknowledged_unrelayed: u64,
    pub acknowledged: u64,
    pub delivered: u64,
}

/// A message as its publisher made it.
struct Published {
    qos: Qos,
    expires: bool,
    len: usize,
}

/// What is known of a server.
#[derive(Default)]
struct Server {
    up: bool,
    /// Counts its starts.
    life: u32,
    park_max: Millis,
    sessions: BTreeMap<String, Session>,
    links: BTreeMap<Conn, Link>,
    transmissions: BTreeMap<Id, Vec<Transmission>>,
    /// PUBACKs with success, by the publisher's Client Identifier.
    acknowledged: BTreeSet<(String, Id)>,
    /// What is or was on its disk.
    names: BTreeMap<SessionKey, String>,
    keys: BTreeMap<String, SessionKey>,
    rows_ever: BTreeSet<(SessionKey, Id)>,
    subscriptions: BTreeSet<(SessionKey, String)>,
    /// Client Identifiers for which a session may have been stored without anybody having been told.
    unannounced: BTreeSet<String>,
}

/// A PUBLISH that a server has read: it was published at some time between.
struct Transmission {
    conn: Conn,
    from: u64,
    to: Option<u64>,
    refused: bool,
}

/// A session, from the CONNACK that began it.
struct Session {
    stored: bool,
    /// Its name on disk, if it has one.
    key: Option<SessionKey>,
    expiry: u32,
    packet_max: u32,
    conn: Option<Conn>,
    /// Counts its links.
    links: u32,
    /// The server's life in which it began.
    began: u32,
    left: Millis,
    /// Something was read that ends it, and nothing was written that says so.
    ending: bool,
    subscriptions: Vec<Subscribed>,
    /// What was sent under each Packet Identifier last.
    sent: BTreeMap<u16, Sent>,
    /// The order in which messages were sent for the first time.
    ordinals: BTreeMap<(u16, Id), u64>,
    /// The highest number first delivered, by publisher, topic, Quality of Service as published and as granted.
    highest: BTreeMap<(u16, String, Qos, Qos), Id>,
    seen: BTreeSet<Id>,
    /// Acknowledged by the client.
    got: BTreeSet<Id>,
    owed: BTreeSet<Id>,
    dropped: BTreeSet<Id>,
}

struct Subscribed {
    filter: String,
    qos: Qos,
    no_local: bool,
    /// When SUBSCRIBE was read, and SUBACK left.
    asked: u64,
    granted: Option<u64>,
    /// When UNSUBSCRIBE was read, and UNSUBACK left.
    ending: Option<u64>,
    ended: Option<u64>,
}

struct Sent {
    message: Message,
    id: Id,
    acknowledged: bool,
    /// The server's life in which it was sent last.
    life: u32,
}

struct Link {
    up: Decoder,
    down: Decoder,
    hello: Option<Hello>,
    connected: bool,
    heard: Millis,
    incoming: VecDeque<Incoming>,
    subscribing: VecDeque<(u16, Vec<Subscription>)>,
    unsubscribing: VecDeque<(u16, Vec<String>)>,
    in_flight: BTreeSet<u16>,
    /// Of what was sent on it last: from [`Session::ordinals`].
    last_ordinal: u64,
}

/// A QoS 1 PUBLISH that waits for its PUBACK.
struct Incoming {
    pid: u16,
    id: Id,
    read: Millis,
    transmission: u64,
    topic: String,
    owed: Vec<String>,
}

impl Oracle {
    pub fn new(echo: bool) -> Oracle {
        Oracle {
            now: 0,
            verdict: None,
            lines: VecDeque::new(),
            echo,
            tick: 0,
            published: BTreeMap::new(),
            servers: Default::default(),
            relay: None,
            set_aside: 0,
            acknowledged_unrelayed: 0,
            acknowledged: 0,
            delivered: 0,
        }
    }

    /// A line for the reader of the conversation.
    pub fn note(&mut self, text: &str) {
        let line = format!("{:>9}.{:03}  {text}", self.now / 1000, self.now % 1000);
        if self.echo {
            println!("{line}");
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Something does not hold. The first finding counts.
    pub fn object(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.note(&format!("!!! {text}"));
        self.verdict.get_or_insert(text);
    }

    // --- What the world tells ---

    /// A publisher has made a message.
    pub fn published(&mut self, id: Id, qos: Qos, expires: bool, len: usize) {
        let published = Published { qos, expires, len };
        self.published.insert(id, published);
    }

    /// A server starts, or starts again.
    pub fn started(&mut self, at: usize, park_max: Millis) {
        let server = &mut self.servers[at];
        server.up = true;
        server.life += 1;
        server.park_max = park_max;
        self.note(&format!("{} starts", NAMES[at]));
    }

    /// The gateway's configuration names a bridge, with these Client Identifiers at the gateway and the cloud.
    pub fn configured(&mut self, local: &str, cloud: &str, filters: &[String]) {
        self.relay = Some([local.to_owned(), cloud.to_owned()]);
        let tick = self.tick;
        let server = &mut self.servers[GATEWAY];
        let life = server.life;
        let session = server
            .sessions
            .entry(local.to_owned())
            .or_insert_with(|| Session::new(true, u32::MAX, u32::MAX, None, life, 0));
        if session.subscriptions.is_empty() {
            // Granted by the first commit, which nobody hears of: owed only once it is on disk.
            session.subscriptions = filters
                .iter()
                .map(|filter| Subscribed {
                    filter: filter.clone(),
                    qos: Qos::AtLeastOnce,
                    no_local: true,
                    asked: tick,
                    granted: None,
                    ending: None,
                    ended: None,
                })
                .collect();
        }
    }

    /// A server is gone: process and links. `rows` is what its disk holds.
    pub fn crashed(&mut self, at: usize, rows: &Rows) {
        self.tick += 1;
        let (now, tick) = (self.now, self.tick);
        let server = &mut self.servers[at];
        server.up = false;
        server.links.clear();
        server.sessions.retain(|_, session| session.stored);
        let on_disk: BTreeSet<(SessionKey, Id)> =
            rows.iter().map(|((key, _), id)| (*key, *id)).collect();
        for (client, session) in &mut server.sessions {
            if session.conn.take().is_some() {
                session.left = now;
            }
            // What was sent and never written is forgotten, and nobody was told that it was taken.
            let key = server.keys.get(client).copied();
            for sent in session.sent.values_mut() {
                sent.acknowledged |= !key.is_some_and(|key| on_disk.contains(&(key, sent.id)));
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
        for (key, _, id) in &committed.owed {
            server.rows_ever.insert((*key, *id));
        }
        for (key, seq, id) in &committed.settled {
            let exempt = |session: &Session| {
                published
                    .get(id)
                    .is_none_or(|published| published.is_exempt(session))
            };
            if let Some((client, session)) = server.session_of(*key) {
                if !session.got.contains(id) && !session.ending && !exempt(session) {
                    objections.push(format!(
                        "{client}: row {seq} ({id}) was removed, and nobody has acknowledged it"
                    ));
                }
            }
        }
        let life = server.life;
        for (key, seq, id) in &committed.dropped {
            if let Some((client, session)) = server.session_of(*key) {
                let sent = session.sent.get(&packet_id(*seq));
                if sent.is_some_and(|sent| sent.id == *id && sent.life == life) {
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
    }

    pub fn opened(&mut self, at: usize, conn: Conn) {
        let link = Link {
            up: Decoder::new(Version::V311),
            down: Decoder::new(Version::V311),
            hello: None,
            connected: false,
            heard: self.now,
            incoming: VecDeque::new(),
            subscribing: VecDeque::new(),
            unsubscribing: VecDeque::new(),
            in_flight: BTreeSet::new(),
            last_ordinal: 0,
        };
        self.servers[at].links.insert(conn, link);
    }

    /// The link is over as far as the server is concerned.
    pub fn closed(&mut self, at: usize, conn: Conn) {
        self.tick += 1;
        let (now, tick) = (self.now, self.tick);
        let server = &mut self.servers[at];
        let Some(link) = server.links.remove(&conn) else {
            return;
        };
        let open = server.transmissions.values_mut().flatten();
        open.filter(|transmission| transmission.conn == conn && transmission.to.is_none())
            .for_each(|transmission| transmission.to = Some(tick));
        let Some(client) = link.hello.map(|hello| hello.client_id) else {
            self.note(&format!("{} <> /{conn} closed", NAMES[at]));
            return;
        };
        if let Some(session) = server
            .sessions
            .get_mut(&client)
            .filter(|session| session.conn == Some(conn))
        {
            session.conn = None;
            session.left = now;
            if session.expiry == 0 {
                session.ending = true;
                session.owed.clear();
            }
            if !session.stored {
                server.sessions.remove(&client);
            }
        }
        self.note(&format!("{} <> {client}/{conn} closed", NAMES[at]));
    }

    /// A server has read bytes.
    pub fn read(&mut self, at: usize, conn: Conn, bytes: &[u8]) {
        let Some(link) = self.servers[at].links.get_mut(&conn) else {
            return;
        };
        link.up.feed(bytes);
        while let Some(link) = self.servers[at].links.get_mut(&conn) {
            match link.up.next() {
                None => return,
                Some(Ok(wire)) => {
                    link.heard = self.now;
                    self.line(at, conn, "<-", &wire);
                    self.tick += 1;
                    self.packet_read(at, conn, wire);
                }
                Some(Err(malformed)) => {
                    return self.object(format!("a client sent no packet: {malformed}"));
                }
            }
        }
    }

    /// A server has written bytes.
    pub fn wrote(&mut self, at: usize, conn: Conn, bytes: &[u8]) {
        let Some(link) = self.servers[at].links.get_mut(&conn) else {
            return;
        };
        link.down.feed(bytes);
        while let Some(link) = self.servers[at].links.get_mut(&conn) {
            match link.down.next() {
                None => return,
                Some(Ok(wire)) => {
                    self.line(at, conn, "->", &wire);
                    self.tick += 1;
                    if let Err(objection) = self.packet_written(at, conn, wire) {
                        self.object(format!("{}: {objection}", NAMES[at]));
                    }
                }
                Some(Err(malformed)) => {
                    return self.object(format!("{} sent no packet: {malformed}", NAMES[at]));
                }
            }
        }
    }

    /// The world has come to rest, with every link up and everything acknowledged.
    pub fn finish(&mut self) {
        let mut objections = Vec::new();
        for (server, name) in self.servers.iter().zip(NAMES) {
            for (client, session) in &server.sessions {
                for id in &session.owed {
                    if !session.got.contains(id) && !session.dropped.contains(id) {
                        objections.push(format!(
                            "{name}: {id} was acknowledged to its publisher, and {client} never got it"
                        ));
                    }
                }
            }
            for link in server.links.values() {
                if let Some(incoming) = link.incoming.front() {
                    objections.push(format!("{name}: {} waits for its PUBACK", incoming.id));
                }
            }
        }
        for objection in objections {
            self.object(objection);
        }
    }

    /// How many sessions a server may have lost by their expiry, and the like, is not known; how many it must have is.
    pub fn owes_nothing(&self, at: usize) -> bool {
        self.servers[at].sessions.values().all(|session| {
            let done = |id| session.got.contains(id) || session.dropped.contains(id);
            session.owed.iter().all(done)
        })
    }

    // --- What is read ---

    fn packet_read(&mut self, at: usize, conn: Conn, wire: Wire) {
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
                let owed = server
                    .sessions
                    .iter()
                    .filter(|(name, session)| {
                        session.is_owed(&message.topic, **name == client, tick)
                    })
                    .filter(|(_, session)| !session.may_have_expired(now))
                    .map(|(name, _)| name.clone())
                    .collect();
                let incoming = Incoming {
                    pid: message.pid,
                    id,
                    read: now,
                    transmission: tick,
                    topic: message.topic,
                    owed,
                };
                if let Some(link) = server.links.get_mut(&conn) {
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
                self.relay_has_acknowledged(at, &client, id);
            }
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

    // --- What is written ---

    fn packet_written(&mut self, at: usize, conn: Conn, wire: Wire) -> Result<(), String> {
        let (now, tick) = (self.now, self.tick);
        let server = &mut self.servers[at];
        let Some(link) = server.links.get_mut(&conn) else {
            return Ok(());
        };
        if !link.connected && !matches!(wire, Wire::ConnAck { .. } | Wire::Disconnect { .. }) {
            return Err(format!("{wire} left before the CONNACK [MQTT-3.2.0-1]"));
        }
        match wire {
            Wire::ConnAck {
                present, reason, ..
            } => server.connack(conn, present, reason, now),
            Wire::Publish(message) => {
                self.delivered += 1;
                self.delivery(at, conn, message)
            }
            Wire::PubAck { pid, reason } => {
                self.acknowledged += u64::from(reason < 0x80);
                self.puback(at, conn, pid, reason)
            }
            Wire::SubAck { pid, reasons } => {
                let Some((_, filters)) = link.subscribing.pop_front().filter(|(of, _)| *of == pid)
                else {
                    return Err(format!("SUBACK #{pid} out of order"));
                };
                let client = link.client().unwrap_or_default();
                let key = server.keys.get(&client).copied();
                let Some(session) = server.sessions.get_mut(&client) else {
                    return Ok(());
                };
                for (filter, reason) in filters.iter().zip(reasons) {
                    if reason >= 0x80 {
                        return Err(format!(
                            "{client}: {} refused: 0x{reason:02X}",
                            filter.filter
                        ));
                    }
                    let on_disk = key.is_some_and(|key| {
                        server.subscriptions.contains(&(key, filter.filter.clone()))
                    });
                    for subscribed in &mut session.subscriptions {
                        if subscribed.filter == filter.filter && subscribed.ending.is_none() {
                            subscribed.granted.get_or_insert(tick);
                            if session.stored && !on_disk {
                                return Err(format!(
                                    "{client}: SUBACK of {} left before it was committed",
                                    filter.filter
                                ));
                            }
                        }
                    }
                }
                Ok(())
            }
            Wire::UnsubAck { pid } => {
                let Some((_, filters)) =
                    link.unsubscribing.pop_front().filter(|(of, _)| *of == pid)
                else {
                    return Err(format!("UNSUBACK #{pid} out of order"));
                };
                let client = link.client().unwrap_or_default();
                let Some(session) = server.sessions.get_mut(&client) else {
                    return Ok(());
                };
                for filter in filters {
                    let ending = session
                        .subscriptions
                        .iter_mut()
                        .filter(|of| of.filter == filter && of.ending.is_some());
                    ending.for_each(|of| of.ended = of.ended.or(Some(tick)));
                    // Subscribed again behind it: then it stands there, rightly.
                    let again = session
                        .subscriptions
                        .iter()
                        .any(|of| of.filter == filter && of.ending.is_none());
                    let key = server.keys.get(&client).copied();
                    let on_disk = key
                        .is_some_and(|key| server.subscriptions.contains(&(key, filter.clone())));
                    if session.stored && on_disk && !again {
                        return Err(format!(
                            "{client}: UNSUBACK of {filter} left before it was committed"
                        ));
                    }
                }
                Ok(())
            }
            Wire::Disconnect { reason, .. } => {
                let silence = now - link.heard;
                let keep_alive = link.hello.as_ref().map_or(0, |hello| hello.keep_alive);
                match reason {
                    0x8E | 0x97 => Ok(()),
                    0x8D if silence >= u64::from(keep_alive) * 1500 && keep_alive > 0 => Ok(()),
                    0x8D => Err(format!(
                        "a link was closed after {silence} ms of silence, its keep alive is {keep_alive} s"
                    )),
                    _ => Err(format!(
                        "a client that kept the rules was sent DISCONNECT 0x{reason:02X}"
                    )),
                }
            }
            _ => Ok(()),
        }
    }

    fn puback(&mut self, at: usize, conn: Conn, pid: u16, reason: u8) -> Result<(), String> {
        let (now, tick) = (self.now, self.tick);
        let server = &mut self.servers[at];
        let Some(link) = server.links.get_mut(&conn) else {
            return Ok(());
        };
        let publisher = link.client().unwrap_or_default();
        let Some(incoming) = link.incoming.pop_front().filter(|of| of.pid == pid) else {
            return Err(format!(
                "{publisher}: PUBACK #{pid} is not for the oldest PUBLISH [MQTT-4.6.0-2]"
            ));
        };
        let id = incoming.id;
        let transmission = server.transmissions.get_mut(&id).and_then(|all| {
            all.iter_mut()
                .find(|one| one.conn == conn && one.from == incoming.transmission)
        });
        if let Some(transmission) = transmission {
            transmission.to = Some(tick);
            transmission.refused = reason >= 0x80;
        }
        if reason >= 0x80 {
            let waited = now - incoming.read;
            return if reason != 0x97 {
                Err(format!("{id} was refused: 0x{reason:02X}"))
            } else if waited < server.park_max {
                Err(format!(
                    "{id} was refused after {waited} ms: only lasting fullness is final"
                ))
            } else {
                Ok(())
            };
        }
        server.acknowledged.insert((publisher.clone(), id));
        for client in &incoming.owed {
            let key = server.keys.get(client).copied();
            let Some(session) = server.sessions.get_mut(client) else {
                continue;
            };
            // Still subscribed, in the same session, since the PUBLISH was read?
            let own = *client == publisher;
            if !session.is_owed(&incoming.topic, own, incoming.transmission) {
                continue;
            }
            let exempt = self
                .published
                .get(&id)
                .is_none_or(|published| published.is_exempt(session));
            if exempt || session.may_have_expired(now) {
                continue;
            }
            let on_disk = key.is_some_and(|key| server.rows_ever.contains(&(key, id)));
            if !on_disk && !session.got.contains(&id) {
                return Err(format!(
                    "the PUBACK of {id} left, and for {client} it is neither on disk nor acknowledged"
                ));
            }
            if reason == 0x10 {
                return Err(format!(
                    "{id} matches {client}, and was told to match nobody"
                ));
            }
            session.owed.insert(id);
        }
        Ok(())
    }

    fn delivery(&mut self, at: usize, conn: Conn, message: Message) -> Result<(), String> {
        let server = &mut self.servers[at];
        let life = server.life;
        let Some(link) = server.links.get_mut(&conn) else {
            return Ok(());
        };
        let client = link.client().unwrap_or_default();
        // On a link that was taken over, what was in the outbox may still leave; a volatile session ended with it.
        let Some(session) = server
            .sessions
            .get_mut(&client)
            .filter(|session| session.stored || session.conn == Some(conn))
        else {
            return Ok(());
        };
        let Some(id) = Id::of(&message.payload) else {
            return Err(format!("{client}: a payload that nobody has published"));
        };
        let (Some(published), Some(transmissions)) =
            (self.published.get(&id), server.transmissions.get(&id))
        else {
            return Err(format!("{client}: {id} was never published here"));
        };
        if message.payload != id.payload(published.len) {
            return Err(format!("{client}: {id} came with another payload"));
        }
        if message.qos > published.qos {
            return Err(format!(
                "{client}: {id} came with a higher Quality of Service"
            ));
        }
        // Somebody published it while there was a subscription for it.
        let matching = session
            .subscriptions
            .iter()
            .filter(|of| topic::matches(&of.filter, &message.topic));
        let wanted = matching.into_iter().any(|of| {
            transmissions.iter().any(|one| {
                let before_its_end = of.ended.is_none_or(|ended| one.from < ended);
                let after_its_begin = one.to.is_none_or(|to| of.asked < to);
                !one.refused && before_its_end && after_its_begin
            })
        });
        if !wanted {
            return Err(format!(
                "{client}: {id} on {} came without a subscription that it was published under",
                message.topic
            ));
        }
        let key = (
            id.publisher,
            message.topic.clone(),
            published.qos,
            message.qos,
        );
        if session.seen.insert(id) {
            let highest = session.highest.entry(key).or_insert(id);
            // One that had expired may come after all behind the others when the server has started since: the time since
            // it was last written down is forgotten.
            if id.number < highest.number && !published.expires {
                // Unless it was published again behind the other.
                let again = transmissions.last().map(|one| one.from);
                let first = server.transmissions[highest].first().map(|one| one.from);
                if again < first {
                    return Err(format!(
                        "{client}: {id} came for the first time after {highest} of the same topic"
                    ));
                }
            } else if id.number > highest.number {
                *highest = id;
            }
        }
        if message.qos == Qos::AtMostOnce {
            return Ok(());
        }
        // Packet Identifiers.
        let pid = message.pid;
        let receive_maximum = link
            .hello
            .as_ref()
            .map_or(u16::MAX, |hello| hello.receive_maximum);
        link.in_flight.insert(pid);
        if link.in_flight.len() > usize::from(receive_maximum) {
            return Err(format!(
                "{client}: more than its Receive Maximum of {receive_maximum} in flight [MQTT-3.3.4-9]"
            ));
        }
        let before = session.sent.get(&pid);
        let same = |sent: &Sent| sent.message.is_same(&message);
        // Each start leaves out a block of numbers: after so many they come round.
        let no_wrap = life < session.began + 6;
        let verdict = match (message.dup, before) {
            (true, Some(sent)) if !sent.acknowledged && !same(sent) => Err(format!(
                "{client}: #{pid} is sent again with another content: {} was {}",
                id, sent.id
            )),
            (false, Some(sent)) if !sent.acknowledged => Err(format!(
                "{client}: #{pid} without DUP, though {} was sent under it and is not acknowledged",
                sent.id
            )),
            (false, Some(sent)) if same(sent) && no_wrap => Err(format!(
                "{client}: #{pid} ({id}) is sent again without DUP [MQTT-3.3.1-1]"
            )),
            (_, Some(sent)) if !same(sent) && no_wrap => Err(format!(
                "{client}: #{pid} is used for {id} and was used for {}",
                sent.id
            )),
            _ => Ok(()),
        };
        let next = session.ordinals.len() as u64 + 1;
        let ordinal = *session.ordinals.entry((pid, id)).or_insert(next);
        let sent = Sent {
            message,
            id,
            acknowledged: false,
            life,
        };
        session.sent.insert(pid, sent);
        if published.expires {
            return verdict;
        }
        if ordinal <= link.last_ordinal {
            return Err(format!(
                "{client}: #{pid} ({id}) is not sent in the original order [MQTT-4.6.0-1]"
            ));
        }
        link.last_ordinal = ordinal;
        verdict
    }

    fn line(&mut self, at: usize, conn: Conn, arrow: &str, wire: &Wire) {
        let link = self.servers[at].links.get(&conn);
        let client = link.and_then(Link::client).unwrap_or_default();
        if client.starts_with("probe") && !self.echo {
            return;
        }
        self.note(&format!("{} {arrow} {client}/{conn}  {wire}", NAMES[at]));
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

    fn connack(
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

impl Link {
    fn client(&self) -> Option<String> {
        Some(self.hello.as_ref()?.client_id.clone())
    }
}

impl Session {
    fn new(
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
            highest: BTreeMap::new(),
            seen: BTreeSet::new(),
            got: BTreeSet::new(),
            owed: BTreeSet::new(),
            dropped: BTreeSet::new(),
        }
    }

    /// Whether a message of QoS 1 that was read at that time is owed to it.
    fn is_owed(&self, topic_name: &str, own: bool, read: u64) -> bool {
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
    fn may_have_expired(&self, now: Millis) -> bool {
        self.expiry < u32::MAX
            && self.conn.is_none()
            && now - self.left + 2000 >= u64::from(self.expiry) * 1000
    }

    fn subscribe(&mut self, filters: Vec<Subscription>, tick: u64) {
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

impl Published {
    /// Whether it may be given up without a word: it can expire, or is larger than the client takes.
    fn is_exempt(&self, session: &Session) -> bool {
        self.expires || self.len + 64 > session.packet_max as usize
    }
}

impl Message {
    fn is_same(&self, other: &Message) -> bool {
        (&self.topic, self.qos, &self.payload) == (&other.topic, other.qos, &other.payload)
    }
}

fn packet_id(seq: u64) -> u16 {
    ((seq - 1) % PACKET_IDS + 1) as u16
}
