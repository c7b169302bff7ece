//! Lives of groups that share subscriptions: members come, go, acknowledge or do not, and end their sessions; the disk
//! commits and answers when it likes; the power goes. In the calm everything has to come to somebody: of each message each
//! group gets a copy, of QoS 2 exactly one.
//!
//! The core is driven directly: sockets are the business of the other lives.

use crate::random::Random;
use larder::broker::Broker;
use larder::limits::Limits;
use larder::net::{LinkId, Origin};
use larder::record::{Event, Recovered, Store};
use larder::store::MemoryStore;
use larder::time::{Mono, Now, ServiceSeconds};
use larder_packet::{
    Ack, Connect, Disconnect, Filters, Frame, Packet, PacketId, Properties, Property, PropertyBuf,
    Publish, Qos, ReasonCode, Subscribe, SubscriptionOptions, Version, frame, packet,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The groups, by what their members subscribe to; every message matches all of them.
const GROUPS: [&str; 2] = ["$share/a/t/#", "$share/b/t/+"];
const TOPIC: &str = "t/x";
/// Session Expiry Intervals: of members, and of who stays.
const MINUTE: u32 = 60;
const MONTH: u32 = 30 * 86_400;
/// Turns without anything to deliver after which nothing more comes.
const QUIET: u32 = 12;

/// What may happen.
#[derive(Clone, Copy, Debug)]
struct Plan {
    seed: u64,
    members: usize,
    /// The power may go.
    crashes: bool,
    /// Sessions may end: by Clean Start, by DISCONNECT, by being away.
    ends: bool,
    /// Some members have no stored session.
    volatile: bool,
    messages: u32,
}

impl Plan {
    fn of_seed(seed: u64) -> Plan {
        let mut random = Random::new(seed);
        Plan {
            seed,
            members: random.between(2, 5) as usize,
            crashes: random.one_in(2),
            ends: random.one_in(2),
            volatile: random.one_in(4),
            messages: random.between(5, 120) as u32,
        }
    }
}

/// A client: the publisher, which stays as it is, or a member.
struct Client {
    name: String,
    /// Session Expiry Interval.
    expiry: u32,
    receive_maximum: u16,
    /// Which groups it is in.
    groups: Vec<usize>,
    link: Option<LinkId>,
    connected: bool,
    subscribed: bool,
    heard: Vec<u8>,
    /// What it has to answer, in its order.
    owes: VecDeque<(PacketId, Qos)>,
    /// Packet Identifiers of QoS 2 that it has received and that are not released.
    received: BTreeSet<PacketId>,
}

impl Client {
    fn new(name: String, expiry: u32, receive_maximum: u16, groups: Vec<usize>) -> Client {
        Client {
            name,
            expiry,
            receive_maximum,
            groups,
            link: None,
            connected: false,
            subscribed: false,
            heard: Vec::new(),
            owes: VecDeque::new(),
            received: BTreeSet::new(),
        }
    }

    fn lost(&mut self) {
        self.link = None;
        self.connected = false;
        self.heard.clear();
        self.owes.clear();
    }
}

/// How far the publisher has come with a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Publishing {
    Sent,
    /// QoS 2: PUBREC came.
    Received,
    Done,
}

struct Life {
    plan: Plan,
    random: Random,
    broker: Broker,
    store: MemoryStore,
    now: Now,
    generation: u32,
    /// The publisher comes first.
    clients: Vec<Client>,
    /// The messages, by their numbers from 1: those are their Packet Identifiers too.
    published: Vec<(Qos, Publishing)>,
    /// How often a message came to whom.
    delivered: BTreeMap<usize, Vec<usize>>,
    calm: bool,
}

fn limits() -> Limits {
    Limits {
        links: 8,
        sessions: 12,
        packet_max: 2048,
        window: 8,
        batch_bytes: 4096,
        ..Limits::default()
    }
}

fn boot(recovered: &Recovered, seed: u64, now: Now) -> Broker {
    let mut broker = Broker::new(limits(), seed, now);
    broker.recover(recovered, now);
    broker
}

impl Life {
    fn new(plan: Plan) -> Life {
        let mut random = Random::new(plan.seed ^ 0xA5A5);
        let mut clients = vec![Client::new("publisher".to_owned(), MONTH, 60, Vec::new())];
        for member in 0..plan.members {
            // The first stays a stored member of all groups, whatever happens.
            let volatile = plan.volatile && member > 0 && random.one_in(2);
            let groups = match random.below(3) {
                _ if member == 0 => vec![0, 1],
                0 => vec![0],
                1 => vec![1],
                _ => vec![0, 1],
            };
            let receive_maximum = random.between(1, 6) as u16;
            let expiry = match member {
                0 => MONTH,
                _ if volatile => 0,
                _ if plan.ends => MINUTE,
                _ => MONTH,
            };
            let name = format!("member-{member}");
            clients.push(Client::new(name, expiry, receive_maximum, groups));
        }
        let now = Now {
            mono: Mono(1000),
            service: ServiceSeconds(1),
            ..Now::default()
        };
        let (store, recovered) = MemoryStore::recover(larder::store::Disk::default());
        Life {
            broker: boot(&recovered, plan.seed, now),
            plan,
            random,
            store,
            now,
            generation: 0,
            clients,
            published: Vec::new(),
            delivered: BTreeMap::new(),
            calm: false,
        }
    }

    fn run(&mut self) {
        // Who stays is there from the beginning.
        while !self.clients[1].subscribed {
            if self.clients[1].link.is_none() {
                self.connect(1, false);
            }
            self.store.step();
            self.turn();
        }
        while self.published.len() < self.plan.messages as usize {
            self.step();
        }
        for _ in 0..self.random.below(60) {
            self.step();
        }
        self.calm_down();
        self.judge();
    }

    fn step(&mut self) {
        let client = self.random.below(self.clients.len() as u64) as usize;
        match self.random.below(100) {
            0..30 => self.publish(),
            30..50 => self.answer(client),
            50..62 if self.clients[client].link.is_none() => {
                let clean = self.plan.ends && client > 1 && self.random.one_in(4);
                self.connect(client, clean);
            }
            62..67 => self.leave(client),
            67 => {
                self.store.fail_next("cannot be written");
                self.store.step();
            }
            68..85 => self.store.step(),
            85..95 => self.store.step_reads(),
            95..97 => {
                let long = u64::from(self.random.one_in(3));
                self.pass(long * 5000 + 30);
            }
            97 if self.plan.crashes && self.random.one_in(2) => self.crash(),
            _ => {}
        }
        self.turn();
    }

    // --- What clients do ---

    fn say(&mut self, client: usize, packet: &Packet) {
        let mut bytes = Vec::new();
        packet.encode(Version::V5, &mut bytes);
        if let Some(link) = self.clients[client].link {
            if self.broker.wants(link) {
                self.broker.receive(link, &bytes, self.now);
            } else {
                // It waits in a socket that is not read: as good as a cut.
                self.cut(client);
            }
        }
    }

    fn connect(&mut self, client: usize, clean: bool) {
        self.generation += 1;
        let link = LinkId {
            index: client as u32,
            generation: self.generation,
        };
        let origin = Origin {
            listener: 0,
            private: false,
        };
        self.broker.link_opened(link, origin, self.now);
        self.clients[client].link = Some(link);
        let of = &self.clients[client];
        let mut properties = PropertyBuf::new();
        properties.push(Property::SessionExpiryInterval(of.expiry));
        properties.push(Property::ReceiveMaximum(of.receive_maximum));
        let name = of.name.clone();
        let connect = Connect {
            version: Version::V5,
            clean_start: clean,
            keep_alive: 0,
            properties: properties.as_properties(),
            client_id: &name,
            will: None,
            username: None,
            password: None,
        };
        self.say(client, &Packet::Connect(connect));
    }

    fn leave(&mut self, client: usize) {
        let ends = self.plan.ends && client > 1 && self.random.one_in(3);
        if self.clients[client].connected && self.random.one_in(2) {
            let mut properties = PropertyBuf::new();
            if ends && self.clients[client].expiry > 0 {
                properties.push(Property::SessionExpiryInterval(0));
            }
            let disconnect = Disconnect {
                reason: ReasonCode::Success,
                properties: properties.as_properties(),
            };
            self.say(client, &Packet::Disconnect(disconnect));
            self.clients[client].lost();
        } else {
            self.cut(client);
            if ends && self.random.one_in(3) {
                self.pass(u64::from(MINUTE) * 1000 + 1);
            }
        }
    }

    fn cut(&mut self, client: usize) {
        if let Some(link) = self.clients[client].link {
            self.clients[client].lost();
            self.broker.link_lost(link, self.now);
        }
    }

    fn publish(&mut self) {
        let under_way = self.published.iter();
        let under_way = under_way.filter(|(_, publishing)| *publishing != Publishing::Done);
        if !self.clients[0].connected || under_way.count() >= 20 {
            return;
        }
        let qos = match self.random.below(2) {
            0 => Qos::AtLeastOnce,
            _ => Qos::ExactlyOnce,
        };
        self.published.push((qos, Publishing::Sent));
        self.publish_again(self.published.len(), false);
    }

    fn publish_again(&mut self, number: usize, dup: bool) {
        let (qos, publishing) = self.published[number - 1];
        let packet_id = PacketId::new(number as u16);
        let payload = format!("{number}");
        match publishing {
            Publishing::Sent => {
                let publish = Publish {
                    dup,
                    qos,
                    retain: false,
                    topic: TOPIC,
                    packet_id,
                    properties: Properties::EMPTY,
                    payload: payload.as_bytes(),
                };
                self.say(0, &Packet::Publish(publish));
            }
            Publishing::Received => self.say(0, &Packet::PubRel(ack(packet_id))),
            Publishing::Done => {}
        }
    }

    /// Answers the oldest that is not answered.
    fn answer(&mut self, client: usize) {
        let Some((packet_id, qos)) = self.clients[client].owes.pop_front() else {
            return;
        };
        let answer = match qos {
            Qos::AtLeastOnce => Packet::PubAck(ack(Some(packet_id))),
            _ => Packet::PubRec(ack(Some(packet_id))),
        };
        self.say(client, &answer);
    }

    // --- What clients hear ---

    fn hear(&mut self, client: usize) {
        loop {
            let heard = std::mem::take(&mut self.clients[client].heard);
            let Ok(Frame::Complete { len }) = frame(&heard, 1 << 20) else {
                self.clients[client].heard = heard;
                return;
            };
            let heard_packet = packet(Version::V5, &heard[..len]).expect("a packet");
            self.clients[client].heard = heard[len..].to_vec();
            self.heard(client, &heard_packet);
            if self.clients[client].link.is_none() {
                return;
            }
        }
    }

    fn heard(&mut self, client: usize, packet: &Packet) {
        match packet {
            Packet::ConnAck(ack) => {
                assert_eq!(ack.reason, ReasonCode::Success, "{}", self.plan.seed);
                self.clients[client].connected = true;
                if !ack.session_present {
                    self.clients[client].received.clear();
                    self.subscribe(client);
                }
                if client == 0 {
                    for number in 1..=self.published.len() {
                        self.publish_again(number, true);
                    }
                }
            }
            Packet::Publish(publish) => self.message(client, publish),
            Packet::PubRel(of) => {
                self.clients[client].received.remove(&of.packet_id);
                self.say(client, &Packet::PubComp(ack(Some(of.packet_id))));
            }
            Packet::PubAck(of) | Packet::PubComp(of) => {
                self.published[of.packet_id.get() as usize - 1].1 = Publishing::Done;
            }
            Packet::PubRec(of) => {
                let number = of.packet_id.get() as usize;
                self.published[number - 1].1 = Publishing::Received;
                self.publish_again(number, false);
            }
            Packet::SubAck(_) => self.clients[client].subscribed = true,
            other => panic!("seed {}: {other:?}", self.plan.seed),
        }
    }

    fn subscribe(&mut self, client: usize) {
        let mut encoded = Vec::new();
        for group in &self.clients[client].groups {
            let options = SubscriptionOptions {
                qos: Qos::ExactlyOnce,
                ..SubscriptionOptions::default()
            };
            Filters::encode(GROUPS[*group], options, &mut encoded);
        }
        if encoded.is_empty() {
            return;
        }
        let subscribe = Subscribe {
            packet_id: PacketId::MAX,
            properties: Properties::EMPTY,
            filters: Filters::from_encoded(Version::V5, &encoded).expect("filters"),
        };
        self.say(client, &Packet::Subscribe(subscribe));
    }

    fn message(&mut self, client: usize, publish: &Publish) {
        let text = std::str::from_utf8(publish.payload).expect("text");
        let number: usize = text.parse().expect("a number");
        let packet_id = publish.packet_id.expect("QoS 1 or 2");
        let of = &mut self.clients[client];
        of.owes.push_back((packet_id, publish.qos));
        let is_new = publish.qos == Qos::AtLeastOnce || of.received.insert(packet_id);
        assert!(
            publish.dup || is_new,
            "seed {}: Packet Identifier {packet_id} is in use by {}",
            self.plan.seed,
            of.name
        );
        if is_new {
            self.delivered.entry(number).or_default().push(client);
        }
    }

    // --- What happens to the server ---

    fn pass(&mut self, milliseconds: u64) {
        self.now.mono.0 += milliseconds;
        self.now.service = ServiceSeconds(self.now.mono.0 / 1000);
    }

    fn crash(&mut self) {
        let store = std::mem::take(&mut self.store);
        let (store, recovered) = MemoryStore::recover(store.crash());
        self.store = store;
        self.broker = boot(&recovered, self.random.next(), self.now);
        self.clients.iter_mut().for_each(Client::lost);
    }

    fn turn(&mut self) {
        let now = self.now;
        while let Some(mut event) = self.store.poll_event() {
            if let Event::PageRead { page, .. } = &mut event {
                if !self.calm && self.random.one_in(20) {
                    *page = Err("cannot be read".to_owned());
                }
            }
            self.broker.handle_store(event, now);
        }
        self.broker.resume_parked(now);
        self.broker.handle_timeout(now);
        self.broker.deliver(now);
        while let Some(request) = self.broker.poll_read() {
            self.store.read(request);
        }
        if self.store.is_idle() {
            if let Some(batch) = self.broker.poll_batch(now) {
                self.store.submit(batch);
            }
        }
        while let Some(link) = self.broker.poll_send() {
            let bytes = self.broker.outbox(link).to_vec();
            self.broker.sent(link, bytes.len(), now);
            let client = link.index as usize;
            if self.clients[client].link == Some(link) {
                self.clients[client].heard.extend(bytes);
                self.hear(client);
            }
        }
        while let Some(link) = self.broker.poll_close() {
            let client = link.index as usize;
            if self.clients[client].link == Some(link) {
                self.clients[client].lost();
            }
            self.broker.link_lost(link, now);
        }
        while self.broker.poll_rearm().is_some() {}
    }

    /// Everybody comes and answers at once, and the disk does its work, until nothing more happens.
    fn calm_down(&mut self) {
        self.calm = true;
        let mut quiet = 0;
        let mut before = (0, 0);
        while quiet < QUIET {
            for client in 0..self.clients.len() {
                if self.clients[client].link.is_none() {
                    self.connect(client, false);
                }
                while !self.clients[client].owes.is_empty() && self.clients[client].link.is_some() {
                    self.answer(client);
                }
            }
            self.store.step();
            self.store.step_reads();
            self.pass(1100);
            self.turn();
            let counters = self.broker.counters();
            let after = (counters.publish_sent, counters.acknowledged);
            quiet = if after == before { quiet + 1 } else { 0 };
            before = after;
        }
    }

    fn judge(&self) {
        let plan = self.plan;
        let gauges = self.broker.gauges();
        assert_eq!(gauges.queued_messages, 0, "{plan:?}: nothing is owed");
        assert_eq!(
            gauges.sessions as usize,
            self.clients.len(),
            "{plan:?}: what ended is gone"
        );
        let drops = self.broker.counters().drops;
        assert!(
            plan.volatile || drops.sum() == 0,
            "{plan:?}: dropped: {drops:?}"
        );
        for (number, (qos, publishing)) in (1..).zip(&self.published) {
            assert!(*publishing == Publishing::Done, "{plan:?}: {number}");
            let none = Vec::new();
            let to = self.delivered.get(&number).unwrap_or(&none);
            // A volatile member takes along what was in flight to it; so does, with QoS 2, a session that ends, to which
            // after a crash everything may have been in flight.
            let may_be_lost =
                plan.volatile || (*qos == Qos::ExactlyOnce && plan.ends && plan.crashes);
            assert!(
                to.len() >= GROUPS.len() || may_be_lost,
                "{plan:?}: message {number} of {qos:?} came to {to:?}"
            );
            assert!(
                to.len() <= GROUPS.len() || *qos < Qos::ExactlyOnce,
                "{plan:?}: message {number} of {qos:?} came to {to:?}"
            );
        }
    }
}

fn ack(packet_id: Option<PacketId>) -> Ack<'static> {
    Ack {
        packet_id: packet_id.expect("not zero"),
        reason: ReasonCode::Success,
        properties: Properties::EMPTY,
    }
}

#[test]
fn lives_of_groups() {
    let seeds = match crate::number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..crate::number("SIM_SEEDS").unwrap_or(6000) / 10,
    };
    let mut delivered = 0;
    for seed in seeds {
        let mut life = Life::new(Plan::of_seed(seed));
        life.run();
        delivered += life.delivered.values().map(Vec::len).sum::<usize>();
    }
    println!("{delivered} messages were delivered");
}
