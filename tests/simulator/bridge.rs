//! The bridge between the two servers: the relay and the redial of `larder-bridge`, driven over simulated links as its
//! own driver drives them over sockets.

use crate::client::Deed;
use crate::clock::Millis;
use crate::wire::{Hello, Message, Subscription, Wire};
use larder_bridge::Counters;
use larder_bridge::message::{Message as Crossing, Properties};
use larder_bridge::redial::Redial;
use larder_bridge::relay::{Action, Relay, Side, Terms};
use larder_bridge::rule::Rule;
use larder_packet::{Qos, Version};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub const LOCAL_ID: &str = "$larder/bridge/cloud";
pub const CLOUD_ID: &str = "site42";
pub const FORWARD: &str = "up/#";
const CONNECT_TIMEOUT: Millis = 20_000;
const DISCONNECT_GRACE: Millis = 200;
const KEEP_ALIVE: u16 = 30;
const RECONNECT_MIN: Duration = Duration::from_millis(500);
const RECONNECT_MAX: Duration = Duration::from_secs(20);

/// What crosses: `up/#` to the cloud below `site42/`, and what is there below `site42/down/` back.
pub fn rules() -> (Vec<Rule>, Vec<Rule>) {
    let forward = Rule {
        filter: FORWARD.into(),
        strip_prefix: String::new(),
        add_prefix: "site42/".into(),
        qos: Qos::AtLeastOnce,
    };
    let receive = Rule {
        filter: "site42/down/#".into(),
        strip_prefix: "site42/".into(),
        add_prefix: String::new(),
        qos: Qos::AtLeastOnce,
    };
    (vec![forward], vec![receive])
}

enum State {
    Waiting {
        until: Millis,
    },
    Connecting {
        since: Millis,
    },
    Linked {
        since: Millis,
    },
    /// DISCONNECT was sent.
    Ending {
        since: Millis,
    },
}

struct Link {
    redial: Redial,
    state: State,
    /// Packet identifier to the relay's id.
    ids: BTreeMap<u16, u64>,
    last_pid: u16,
    next_ping: Millis,
    pinged: Option<Millis>,
    /// What has come and is not read yet.
    unread: VecDeque<Wire>,
    unread_since: Option<Millis>,
}

/// The bridge.
pub struct Bridge {
    pub deeds: Vec<(Side, Deed)>,
    pub set_aside: u64,
    version: Version,
    window: u16,
    relay: Relay,
    local: Link,
    cloud: Link,
    subscribed: bool,
    counted: Counters,
}

impl Bridge {
    pub fn new(version: Version, window: u16, seed: u64, now: Millis) -> Bridge {
        let (forward, receive) = rules();
        let link = |max: Duration, salt| Link {
            redial: Redial::new(1, RECONNECT_MIN, max, seed ^ salt),
            state: State::Waiting { until: now },
            ids: BTreeMap::new(),
            last_pid: 0,
            next_ping: 0,
            pinged: None,
            unread: VecDeque::new(),
            unread_since: None,
        };
        Bridge {
            deeds: Vec::new(),
            set_aside: 0,
            version,
            window,
            relay: Relay::new(forward, receive, window, Counters::default()),
            local: link(Duration::from_secs(5), 1),
            cloud: link(RECONNECT_MAX, 2),
            subscribed: false,
            counted: Counters::default(),
        }
    }

    /// What the links are like, for a verdict.
    pub fn situation(&self) -> String {
        let state = |link: &Link| match link.state {
            State::Waiting { until } => format!("waiting until {until}"),
            State::Connecting { since } => format!("connecting since {since}"),
            State::Linked { since } => format!("linked since {since}"),
            State::Ending { since } => format!("ending since {since}"),
        };
        format!(
            "the bridge: local {}, cloud {}, {} unread, {:?}",
            state(&self.local),
            state(&self.cloud),
            self.cloud.unread.len(),
            self.relay.counters()
        )
    }

    /// Does what is due; gives back when something will be.
    pub fn wake(&mut self, now: Millis) -> Millis {
        for side in [Side::Local, Side::Cloud] {
            let link = self.link(side);
            match link.state {
                State::Waiting { until } if until <= now => self.connect(side, now),
                State::Connecting { since } if since + CONNECT_TIMEOUT <= now => {
                    self.end(side, false, now);
                }
                State::Ending { since } if since + DISCONNECT_GRACE <= now => {
                    self.end(side, false, now);
                }
                State::Linked { .. } => self.keep_alive(side, now),
                _ => {}
            }
        }
        self.pump(now);
        let next = [&self.local, &self.cloud].map(|link| match link.state {
            State::Waiting { until } => until,
            State::Connecting { since } => since + CONNECT_TIMEOUT,
            State::Ending { since } => since + DISCONNECT_GRACE,
            State::Linked { .. } => link.next_ping,
        });
        next[0].min(next[1]).max(now + 1)
    }

    /// From now on it does not wait for long.
    pub fn calm(&mut self, now: Millis) {
        for link in [&mut self.local, &mut self.cloud] {
            link.redial.proved();
            if let State::Waiting { until } = &mut link.state {
                *until = (*until).min(now + 500);
            }
        }
    }

    fn connect(&mut self, side: Side, now: Millis) {
        let version = self.version_of(side);
        let client_id = match side {
            Side::Local => LOCAL_ID,
            Side::Cloud => CLOUD_ID,
        };
        self.link(side).state = State::Connecting { since: now };
        self.deeds.push((side, Deed::Connect));
        let hello = Hello {
            client_id: client_id.to_owned(),
            version,
            clean: false,
            expiry: u32::MAX,
            keep_alive: KEEP_ALIVE,
            receive_maximum: if version == Version::V5 {
                self.window
            } else {
                u16::MAX
            },
            packet_max: 256 * 1024,
        };
        self.send(side, Wire::Connect(hello));
    }

    pub fn version_of(&self, side: Side) -> Version {
        match side {
            Side::Local => Version::V5,
            Side::Cloud => self.version,
        }
    }

    fn keep_alive(&mut self, side: Side, now: Millis) {
        let keep_alive = u64::from(KEEP_ALIVE) * 1000;
        let link = self.link(side);
        let stuck = link
            .unread_since
            .is_some_and(|since| since + keep_alive <= now);
        if stuck || link.pinged.is_some_and(|since| since + keep_alive <= now) {
            return self.end(side, false, now);
        }
        if link.next_ping <= now {
            link.pinged.get_or_insert(now);
            link.next_ping = now + keep_alive / 2;
            self.send(side, Wire::PingReq);
        }
    }

    fn send(&mut self, side: Side, wire: Wire) {
        self.deeds.push((side, Deed::Send(wire)));
    }

    /// The peer has closed the link, or it broke.
    pub fn lost(&mut self, side: Side, closed_by_peer: bool, now: Millis) {
        if !matches!(self.link(side).state, State::Waiting { .. }) {
            // What has come before is still read.
            if side == Side::Cloud {
                while let Some(wire) = self.cloud.unread.pop_front() {
                    if let Wire::PubAck { .. } = wire {
                        self.handle(side, wire, now);
                    }
                }
            }
            self.end(side, closed_by_peer, now);
        }
    }

    fn end(&mut self, side: Side, closed_by_peer: bool, now: Millis) {
        self.deeds.push((side, Deed::Cut));
        let link = self.link(side);
        let delay = match link.state {
            State::Connecting { .. } => link.redial.failed(),
            State::Linked { since } => {
                if Duration::from_millis(now - since) >= RECONNECT_MAX {
                    link.redial.proved();
                }
                link.redial.lost()
            }
            _ => link.redial.lost(),
        };
        let was_linked = matches!(link.state, State::Linked { .. } | State::Ending { .. });
        link.state = State::Waiting {
            until: now + delay.as_millis() as Millis,
        };
        link.ids.clear();
        link.pinged = None;
        link.unread.clear();
        link.unread_since = None;
        if was_linked {
            self.relay.unlinked(side, closed_by_peer);
        }
        self.pump(now);
    }

    /// A packet has come.
    pub fn receive(&mut self, side: Side, wire: Wire, now: Millis) {
        if side == Side::Local {
            self.handle(side, wire, now);
        } else {
            self.cloud.unread.push_back(wire);
        }
        self.read_cloud(now);
    }

    /// The cloud's link is read as long as its messages find room.
    fn read_cloud(&mut self, now: Millis) {
        loop {
            let full = matches!(self.cloud.state, State::Linked { .. })
                && !self.relay.accepts(Side::Cloud);
            if full {
                if !self.cloud.unread.is_empty() {
                    self.cloud.unread_since.get_or_insert(now);
                }
                return;
            }
            self.cloud.unread_since = None;
            let Some(wire) = self.cloud.unread.pop_front() else {
                return;
            };
            self.handle(Side::Cloud, wire, now);
        }
    }

    fn handle(&mut self, side: Side, wire: Wire, now: Millis) {
        match wire {
            Wire::ConnAck {
                present,
                reason: 0,
                receive_maximum,
                ..
            } => self.linked(side, present, receive_maximum, now),
            Wire::SubAck { .. } => self.subscribed = true,
            Wire::Publish(message) => {
                self.link(side).redial.proved();
                let tag = message.pid;
                self.relay.message(side, tag, crossing(message), now);
            }
            Wire::PubAck { pid, reason } => {
                let link = self.link(side);
                link.redial.proved();
                if let Some(id) = link.ids.remove(&pid) {
                    self.relay.acknowledged(side, id, reason);
                }
            }
            Wire::PingResp => self.link(side).pinged = None,
            _ => {}
        }
        self.pump(now);
    }

    fn linked(&mut self, side: Side, present: bool, receive_maximum: u16, now: Millis) {
        let window = self.window;
        let link = self.link(side);
        link.state = State::Linked { since: now };
        link.next_ping = now + u64::from(KEEP_ALIVE) * 500;
        let version = self.version_of(side);
        let subscribed_before = present && self.subscribed && version == Version::V311;
        if side == Side::Cloud && !subscribed_before {
            let filters = rules().1.into_iter().map(|rule| Subscription {
                filter: rule.filter,
                qos: rule.qos,
                no_local: version == Version::V5,
            });
            let pid = self.next_pid(side);
            let filters = filters.collect();
            self.send(side, Wire::Subscribe { pid, filters });
        }
        // As the adapter has it: one less than may be unacknowledged, so that acknowledgements always go out.
        let receive_maximum = (receive_maximum.min(window + 1) - 1).max(1);
        self.relay.linked(
            side,
            Terms {
                session_present: present,
                receive_maximum,
                qos_max: if version == Version::V5 {
                    Qos::AtLeastOnce
                } else {
                    Qos::ExactlyOnce
                },
                ..Terms::default()
            },
        );
    }

    /// Carries out what the relay says.
    fn pump(&mut self, now: Millis) {
        while let Some(action) = self.relay.poll_action(now) {
            match action {
                Action::Publish { to, id, message } => {
                    let at_most_once = message.qos == Qos::AtMostOnce;
                    let pid = if at_most_once { 0 } else { self.next_pid(to) };
                    self.send(
                        to,
                        Wire::Publish(Message {
                            dup: false,
                            qos: message.qos,
                            topic: message.topic,
                            alias: None,
                            pid,
                            expiry: message.properties.message_expiry,
                            payload: message.payload.to_vec(),
                        }),
                    );
                    if at_most_once {
                        self.relay.written(to);
                    } else {
                        self.link(to).ids.insert(pid, id);
                    }
                }
                Action::Acknowledge { to, tag } => {
                    self.count();
                    self.send(
                        to,
                        Wire::PubAck {
                            pid: tag,
                            reason: 0,
                        },
                    );
                    self.relay.acknowledgement_written(to);
                }
                Action::SetAside { .. } => {}
                Action::Close { side, .. } => {
                    self.send(
                        side,
                        Wire::Disconnect {
                            reason: 0,
                            expiry: None,
                        },
                    );
                    self.link(side).state = State::Ending { since: now };
                }
            }
        }
        self.count();
    }

    fn count(&mut self) {
        let counters = self.relay.counters();
        let given_up = |of: Counters| of.set_aside() + of.expired + of.unmatched;
        self.set_aside += given_up(counters) - given_up(self.counted);
        self.counted = counters;
    }

    fn next_pid(&mut self, side: Side) -> u16 {
        let link = self.link(side);
        loop {
            link.last_pid = link.last_pid.checked_add(1).unwrap_or(1);
            if !link.ids.contains_key(&link.last_pid) {
                return link.last_pid;
            }
        }
    }

    fn link(&mut self, side: Side) -> &mut Link {
        match side {
            Side::Local => &mut self.local,
            Side::Cloud => &mut self.cloud,
        }
    }
}

fn crossing(message: Message) -> Crossing {
    Crossing {
        topic: message.topic,
        qos: message.qos,
        retain: false,
        properties: Properties {
            message_expiry: message.expiry,
            ..Properties::default()
        },
        payload: message.payload.into(),
    }
}
