//! What must hold, whatever happens: the contract, checked on what the servers read, wrote and committed.
//!
//! The oracle stands where a server meets its network and its disk. It sees the bytes that the server has read and
//! written (not those that are under way) and what each commit has changed, and knows nothing of the server's inside.
//!
//! - **Acknowledged is durable.** When a PUBACK or PUBREC leaves, each stored session that was subscribed when the PUBLISH was read
//!   (its SUBACK had left; it has not unsubscribed nor ended since) has the message in a committed row, or has
//!   acknowledged it. SUBACK, UNSUBACK and CONNACK are compared with the disk likewise.
//! - **What is owed stays.** From then on the message is owed: a row leaves the disk only when the session has acknowledged
//!   it, when its Message Expiry Interval allows, or under the policy of a full queue, and then it was not in flight and
//!   is counted; if the queue keeps the latest, a later one on its topic is there. At the end every message owed has been acknowledged by the session, or was dropped and counted.
//! - **Order.** The first deliveries of one publisher's messages to one session, of one topic and Quality of Service, come
//!   in their order; on each link what was sent before comes in the original order, before what is new [MQTT-4.6.0-1].
//!   PUBACKs and PUBRECs leave in the order of the PUBLISHes [MQTT-4.6.0-2, MQTT-4.6.0-3].
//! - **Exactly once** is in `oracle/exactly_once.rs`.
//! - **Packet Identifiers.** One is never used for two messages that are not acknowledged; a message that is sent again
//!   has DUP and the same identifier and content [MQTT-3.3.1-1, MQTT-4.4.0-1].
//! - **Nothing else.** Nothing is delivered that was not published while the session had (or may have had) a matching
//!   subscription. Receive Maximum is kept. A link is closed only for a reason that the world has given.
//! - **A relay** acknowledges to one side only what the other side has acknowledged, or what it set aside, counted.

mod delivery;
mod disk;
mod exactly_once;
mod read;
mod session;
mod written;

use crate::clock::Millis;
use crate::net::Conn;
use crate::wire::{Decoder, Hello, Id, Message, Subscription, TOPIC_ALIAS_MAXIMUM, Wire};
use exactly_once::ExactlyOnce;
use larder::record::SessionKey;
use larder_packet::{Qos, Version};
use session::{Session, Subscribed};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Lines of conversation that are kept for a failure.
const LINES: usize = 60;

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
    /// Subscribers' queues have classes.
    pub classes: bool,
    /// And keep the latest of every topic when they are full.
    pub keeps_latest: bool,
    /// Those of a topic may leave out of their order.
    pub reorders: bool,
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
    /// PUBACKs and PUBRECs with success, by the publisher's Client Identifier.
    acknowledged: BTreeSet<(String, Id)>,
    /// What is or was on its disk.
    names: BTreeMap<SessionKey, String>,
    keys: BTreeMap<String, SessionKey>,
    rows_ever: BTreeSet<(SessionKey, Id)>,
    subscriptions: BTreeSet<(SessionKey, String)>,
    /// Packet Identifiers of publishers that are held on its disk.
    held: BTreeSet<(SessionKey, u16)>,
    /// Messages of which it has written down that their receiver has them.
    received_ever: BTreeSet<(SessionKey, Id)>,
    exactly_once: ExactlyOnce,
    /// Client Identifiers for which a session may have been stored without anybody having been told.
    unannounced: BTreeSet<String>,
}

/// A PUBLISH that a server has read: it was published at some time between.
struct Transmission {
    conn: Conn,
    qos: Qos,
    from: u64,
    to: Option<u64>,
    refused: bool,
}

struct Link {
    up: Decoder,
    down: Decoder,
    hello: Option<Hello>,
    connected: bool,
    heard: Millis,
    /// Since when the beginning of a packet is there.
    begun: Option<Millis>,
    incoming: VecDeque<Incoming>,
    subscribing: VecDeque<(u16, Vec<Subscription>)>,
    unsubscribing: VecDeque<(u16, Vec<String>)>,
    in_flight: BTreeSet<u16>,
    /// PUBRECs that wait for their PUBREL, and PUBRELs that wait for their PUBCOMP.
    received: VecDeque<u16>,
    releasing: VecDeque<u16>,
    /// Of what was sent on it last, by lane: from [`Session::ordinals`].
    last_ordinals: BTreeMap<u16, u64>,
}

/// A PUBLISH that waits for its PUBACK or PUBREC.
struct Incoming {
    pid: u16,
    qos: Qos,
    id: Id,
    read: Millis,
    transmission: u64,
    /// When the first PUBLISH of the same message was read, if it is of QoS 2.
    taken: u64,
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
            classes: false,
            keeps_latest: false,
            reorders: false,
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

    pub fn opened(&mut self, at: usize, conn: Conn) {
        let link = Link {
            up: Decoder::new(Version::V311, u16::MAX),
            down: Decoder::new(Version::V311, TOPIC_ALIAS_MAXIMUM),
            hello: None,
            connected: false,
            heard: self.now,
            begun: None,
            incoming: VecDeque::new(),
            subscribing: VecDeque::new(),
            unsubscribing: VecDeque::new(),
            in_flight: BTreeSet::new(),
            received: VecDeque::new(),
            releasing: VecDeque::new(),
            last_ordinals: BTreeMap::new(),
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
                None => {
                    let since = link.begun.unwrap_or(self.now);
                    link.begun = link.up.has_begun().then_some(since);
                    return;
                }
                Some(Ok(wire)) => {
                    (link.heard, link.begun) = (self.now, None);
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
                    let id = incoming.id;
                    objections.push(format!("{name}: {id} waits for its acknowledgement"));
                }
            }
        }
        for (at, name) in NAMES.iter().enumerate() {
            let missing = self.finish_exactly_once(at);
            objections.extend(missing.iter().map(|missing| format!("{name}: {missing}")));
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

    fn line(&mut self, at: usize, conn: Conn, arrow: &str, wire: &Wire) {
        let link = self.servers[at].links.get(&conn);
        let client = link.and_then(Link::client).unwrap_or_default();
        if client.starts_with("probe") && !self.echo {
            return;
        }
        self.note(&format!("{} {arrow} {client}/{conn}  {wire}", NAMES[at]));
    }
}

impl Link {
    fn client(&self) -> Option<String> {
        Some(self.hello.as_ref()?.client_id.clone())
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
