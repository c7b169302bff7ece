//! Simulated clients, 3.1.1 and 5.0: they keep the rules of MQTT and are otherwise as bad as clients are.

mod incoming;
mod outgoing;
mod whims;

pub use incoming::{Acks, Manners};

use crate::clock::Millis;
use crate::random::Random;
use crate::wire::{Hello, Id, Message, Subscription, Wire};
use incoming::Incoming;
use larder_packet::{Qos, Version};
use outgoing::Outgoing;
use std::collections::{BTreeSet, VecDeque};

/// A client waits so long for a CONNACK or a PINGRESP.
const PATIENCE: Millis = 45_000;
const NEVER: Millis = Millis::MAX;

/// What a client wants done with its link, in this order.
pub enum Deed {
    /// A new connection. The one before is abandoned, not closed.
    Connect,
    Send(Wire),
    /// Ends the connection behind what was sent.
    Close,
    /// The connection breaks, with all that is on it.
    Cut,
    /// A new message was made, and is sent next.
    Made {
        id: Id,
        qos: Qos,
        expires: bool,
        len: usize,
    },
    /// The CONNACK has come: its session is there, or it has forgotten it.
    Told {
        present: bool,
    },
    /// A message for the application.
    Delivered {
        id: Id,
        qos: Qos,
    },
    /// A promise to this client was broken.
    Object(String),
}

/// What a client is like.
#[derive(Clone)]
pub struct Plan {
    pub client_id: String,
    pub index: u16,
    pub version: Version,
    /// Session Expiry Interval; 0: its session is volatile.
    pub expiry: u32,
    /// Seconds.
    pub keep_alive: u16,
    pub receive_maximum: u16,
    pub packet_max: u32,
    pub publishes: Option<Publishes>,
    pub subscribes: Vec<Subscription>,
    pub manners: Manners,
    /// When it comes first; `None`: within two seconds.
    pub comes: Option<Millis>,
    /// Mean time between whims (leaving, taking over, unsubscribing); 0: none.
    pub whims: Millis,
    /// How long it stays away at most.
    pub away: Millis,
    /// It watches that it is answered at once.
    pub probe: bool,
}

/// What a client publishes.
#[derive(Clone)]
pub struct Publishes {
    pub topics: Vec<String>,
    /// Mean time between messages.
    pub every: Millis,
    pub total: u32,
    /// One message in so many has QoS 0, or a Message Expiry Interval; of the others each so manieth has QoS 2; 0: none.
    pub at_most_once_in: u64,
    pub exactly_once_in: u64,
    pub expires_in: u64,
    pub payload_max: u64,
    /// Messages of QoS 1 and 2 that it sends before it waits for their acknowledgements.
    pub window: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Away { until: Millis },
    Connecting { since: Millis },
    Connected,
}

/// A client.
pub struct Client {
    pub plan: Plan,
    pub deeds: Vec<Deed>,
    random: Random,
    state: State,
    calm: bool,
    /// It begins anew, until it is told that it has.
    clean: bool,
    /// Whether its session ends with its present link.
    ends_with_link: bool,
    made: u32,
    next_message: Millis,
    next_whim: Millis,
    next_ping: Millis,
    /// When the oldest PINGREQ without answer was sent.
    pinged: Option<Millis>,
    last_pid: u16,
    outgoing: Outgoing,
    incoming: Incoming,
    /// QoS 0 messages to itself that have not come back (probe).
    echoes: VecDeque<(Id, Millis)>,
    /// Filters that stand, and those asked for.
    subscribed: BTreeSet<usize>,
    asked: VecDeque<(u16, Vec<usize>, bool)>,
    server_receive_maximum: usize,
}

impl Client {
    pub fn new(plan: Plan, mut random: Random) -> Client {
        let some_time = random.below(2000);
        let first = plan.comes.unwrap_or(some_time);
        Client {
            state: State::Away { until: first },
            deeds: Vec::new(),
            random,
            calm: false,
            clean: false,
            ends_with_link: false,
            made: 0,
            next_message: first,
            next_whim: if plan.whims == 0 { NEVER } else { plan.whims },
            next_ping: 0,
            pinged: None,
            last_pid: 0,
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            echoes: VecDeque::new(),
            subscribed: BTreeSet::new(),
            asked: VecDeque::new(),
            server_receive_maximum: 0,
            plan,
        }
    }

    /// No whims any more: it comes, acknowledges everything, and publishes nothing new.
    pub fn calm(&mut self, now: Millis) {
        self.calm = true;
        if let State::Away { until } = &mut self.state {
            *until = (*until).min(now + 500);
        }
        self.plan.manners.acks = Acks::Within(0);
        self.incoming.hurry(now);
    }

    /// Whether it is connected, and owes and is owed nothing.
    pub fn is_content(&self) -> bool {
        self.state == State::Connected
            && self.outgoing.is_empty()
            && self.incoming.owed() == 0
            && self.asked.is_empty()
    }

    /// Whether it holds Packet Identifiers of messages that were not released.
    pub fn holds(&self) -> bool {
        self.incoming.held() > 0
    }

    /// What it is about, for a verdict.
    pub fn situation(&self) -> String {
        let state = match self.state {
            State::Away { until } => format!("away until {until}"),
            State::Connecting { since } => format!("connecting since {since}"),
            State::Connected => "connected".to_owned(),
        };
        format!(
            "{} is {state}, waits for the settlement of {}, owes {} acknowledgements, holds {} identifiers",
            self.plan.client_id,
            self.outgoing.len(),
            self.incoming.owed(),
            self.incoming.held()
        )
    }

    /// Does what is due; gives back when something will be.
    pub fn wake(&mut self, now: Millis) -> Millis {
        match self.state {
            State::Away { until } if until <= now => self.connect(now),
            State::Connecting { since } if since + PATIENCE <= now => self.cut(now),
            State::Connected => self.work(now),
            _ => {}
        }
        self.next_wake().max(now + 1)
    }

    fn next_wake(&self) -> Millis {
        match self.state {
            State::Away { until } => until,
            State::Connecting { since } => since + PATIENCE,
            State::Connected => {
                let ack = self.incoming.next();
                let message = self.may_publish().then_some(self.next_message);
                let patience = self.pinged.map(|since| since + self.patience());
                let whim = (!self.calm).then_some(self.next_whim);
                let next = [ack, message, patience, whim, Some(self.next_ping)];
                next.into_iter().flatten().min().unwrap_or(NEVER)
            }
        }
    }

    fn patience(&self) -> Millis {
        if self.plan.probe { 150 } else { PATIENCE }
    }

    fn connect(&mut self, now: Millis) {
        let clean = self.plan.expiry == 0 || self.clean;
        if clean {
            self.forget();
        }
        self.ends_with_link =
            self.plan.expiry == 0 || (clean && self.plan.version == Version::V311);
        self.state = State::Connecting { since: now };
        self.deeds.push(Deed::Connect);
        self.deeds.push(Deed::Send(Wire::Connect(Hello {
            client_id: self.plan.client_id.clone(),
            version: self.plan.version,
            clean,
            expiry: self.plan.expiry,
            keep_alive: self.plan.keep_alive,
            receive_maximum: self.plan.receive_maximum,
            packet_max: self.plan.packet_max,
        })));
    }

    fn cut(&mut self, now: Millis) {
        self.deeds.push(Deed::Cut);
        self.lost(now);
    }

    /// The link is gone.
    pub fn lost(&mut self, now: Millis) {
        let away = if self.calm || self.plan.probe {
            200
        } else {
            self.random.skewed(self.plan.away)
        };
        self.state = State::Away {
            until: now + 10 + away,
        };
        if self.ends_with_link {
            // Also where it is told of another session next, which one of its CONNECTs has made since.
            self.forget();
            self.subscribed.clear();
        }
        self.incoming.link_ended();
        self.asked.clear();
        self.echoes.clear();
        self.pinged = None;
    }

    fn work(&mut self, now: Millis) {
        if let Some(since) = self.pinged.filter(|since| since + self.patience() <= now) {
            if self.plan.probe {
                let text = format!("a PINGREQ was not answered for {} ms", now - since);
                self.deeds.push(Deed::Object(text));
                self.pinged = None;
            } else {
                return self.cut(now);
            }
        }
        if !self.calm && self.next_whim <= now {
            self.next_whim = now + 1 + self.random.below(2 * self.plan.whims);
            if self.whim(now) {
                return;
            }
        }
        self.acknowledge(now);
        while self.next_message <= now && self.may_publish() {
            self.publish(now);
        }
        if self.next_ping <= now {
            if self.plan.probe {
                self.check_echoes(now);
            }
            self.send(Wire::PingReq, now);
            self.pinged.get_or_insert(now);
        }
    }

    fn send(&mut self, wire: Wire, now: Millis) {
        self.deeds.push(Deed::Send(wire));
        let pause = match self.plan.keep_alive {
            _ if self.plan.probe => 250,
            0 => 60_000,
            seconds => u64::from(seconds) * 1000 * 3 / 4,
        };
        self.next_ping = now + pause;
    }

    fn acknowledge(&mut self, now: Millis) {
        while let Some(wire) = self.incoming.acknowledge(self.plan.manners.acks, now) {
            if self.random.one_in(self.plan.manners.twice_in) {
                self.send(wire.clone(), now);
            }
            self.send(wire, now);
        }
    }

    fn may_publish(&self) -> bool {
        let Some(publishes) = &self.plan.publishes else {
            return false;
        };
        !self.calm
            && self.made < publishes.total
            && self.outgoing.len() < publishes.window.min(self.server_receive_maximum)
    }

    fn publish(&mut self, now: Millis) {
        let Some(publishes) = self.plan.publishes.clone() else {
            return;
        };
        self.made += 1;
        self.next_message = now + self.random.below(2 * publishes.every + 1);
        let id = Id {
            publisher: self.plan.index,
            number: self.made,
        };
        let qos = if self.random.one_in(publishes.at_most_once_in) {
            Qos::AtMostOnce
        } else if every(publishes.exactly_once_in, self.made) {
            Qos::ExactlyOnce
        } else {
            Qos::AtLeastOnce
        };
        let expires = self.plan.version == Version::V5 && self.random.one_in(publishes.expires_in);
        let payload = id.payload(self.random.skewed(publishes.payload_max) as usize);
        self.deeds.push(Deed::Made {
            id,
            qos,
            expires,
            len: payload.len(),
        });
        let message = Message {
            dup: false,
            qos,
            topic: self.random.pick(&publishes.topics).clone(),
            alias: None,
            pid: if qos == Qos::AtMostOnce {
                0
            } else {
                self.next_pid()
            },
            expiry: expires.then(|| self.random.between(1, 60) as u32),
            payload,
        };
        if qos > Qos::AtMostOnce {
            self.outgoing.published(message.clone());
        } else if self.plan.probe {
            self.echoes.push_back((id, now));
        }
        self.send(Wire::Publish(message), now);
    }

    fn check_echoes(&mut self, now: Millis) {
        let late = self.echoes.front().filter(|(_, since)| since + 150 <= now);
        if let Some((id, since)) = late {
            let text = format!(
                "{id} of QoS 0 to a volatile session was not delivered for {} ms",
                now - since
            );
            self.deeds.push(Deed::Object(text));
        }
        self.echoes.retain(|(_, since)| since + 150 > now);
    }

    fn next_pid(&mut self) -> u16 {
        loop {
            self.last_pid = self.last_pid.checked_add(1).unwrap_or(1);
            let pid = self.last_pid;
            let in_use =
                self.outgoing.has(pid) || self.asked.iter().any(|(asked, ..)| *asked == pid);
            if !in_use {
                return pid;
            }
        }
    }

    /// A packet has come.
    pub fn receive(&mut self, wire: Wire, now: Millis) {
        match wire {
            Wire::ConnAck {
                present,
                reason: 0,
                receive_maximum,
                ..
            } => self.connected(present, receive_maximum, now),
            Wire::Publish(message) => {
                if let Some(id) = Id::of(&message.payload) {
                    self.echoes.retain(|(echo, _)| *echo != id);
                }
                let (manners, version) = (self.plan.manners, self.plan.version);
                let new = self
                    .incoming
                    .publish(&message, manners, version, now, &mut self.random);
                if let Some(id) = new {
                    let qos = message.qos;
                    self.deeds.push(Deed::Delivered { id, qos });
                }
            }
            Wire::PubAck { pid, .. } => self.outgoing.puback(pid),
            Wire::PubRec { pid, reason } => {
                if let Some(release) = self.outgoing.pubrec(pid, reason) {
                    self.send(release, now);
                }
            }
            Wire::PubComp { pid, .. } => self.outgoing.pubcomp(pid),
            Wire::PubRel { pid, .. } => {
                let manners = self.plan.manners;
                self.incoming.pubrel(pid, manners, now, &mut self.random);
            }
            Wire::SubAck { pid, .. } | Wire::UnsubAck { pid } => {
                if let Some((_, indices, makes)) =
                    self.asked.pop_front().filter(|(of, ..)| *of == pid)
                {
                    for index in indices {
                        if makes {
                            self.subscribed.insert(index);
                        } else {
                            self.subscribed.remove(&index);
                        }
                    }
                }
            }
            Wire::PingResp => self.pinged = None,
            _ => {}
        }
    }

    fn connected(&mut self, present: bool, receive_maximum: u16, now: Millis) {
        self.state = State::Connected;
        self.server_receive_maximum = usize::from(receive_maximum);
        self.next_ping = now;
        self.next_message = self.next_message.max(now);
        self.clean = false;
        if !present {
            self.forget();
            self.subscribed.clear();
        }
        self.deeds.push(Deed::Told { present });
        let missing: Vec<usize> = (0..self.plan.subscribes.len())
            .filter(|index| !self.subscribed.contains(index))
            .collect();
        if !missing.is_empty() && (!present || self.random.one_in(2)) {
            let pid = self.next_pid();
            let filters = missing
                .iter()
                .map(|index| self.plan.subscribes[*index].clone())
                .collect();
            self.asked.push_back((pid, missing, true));
            self.send(Wire::Subscribe { pid, filters }, now);
        }
        for wire in self.outgoing.resend() {
            self.send(wire, now);
        }
    }

    /// Its session is over.
    fn forget(&mut self) {
        self.outgoing.forget();
        self.incoming.forget();
    }
}

/// Whether `number` is a multiple of `of`; never for 0.
fn every(of: u64, number: u32) -> bool {
    of > 0 && u64::from(number) % of == 0
}
