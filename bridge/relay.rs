//! The rules of the relay, without I/O: what crosses, when it is acknowledged, and what is done about a message that
//! does not get through.
//!
//! A [`Relay`] stands between two links. Whoever drives it reports what happens on them and carries out what
//! [`Relay::poll_action`] says, until it says nothing more. Time is an argument, so that one course of events has one
//! outcome.
//!
//! # What holds
//! - A QoS 1 message is acknowledged to its source only after the destination acknowledged it, or after it was set aside
//!   or expired, counted. The source's session is the queue; nothing here needs to survive.
//! - Acks go to a source in the order of its messages [MQTT-4.6.0-2].
//! - A link's end ends what belonged to it. Messages *from* it are forgotten, for its session brings them again, and an
//!   ack owed to it is never given to its successor. Messages *to* it wait for the next one, in their order.
//! - Everything is bounded by the window.

use crate::flow::{Acknowledged, Flow, Offer};
use crate::message::Message;
use crate::rule::Rule;
use larder_packet::{Qos, topic};
use std::collections::VecDeque;
use std::fmt;

/// Milliseconds of a clock that never goes back.
pub type Millis = u64;

/// The largest window.
pub const WINDOW_MAX: u16 = 1_024;

/// One of the two links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The broker on this machine.
    Local,
    /// The broker elsewhere.
    Cloud,
}

impl Side {
    /// The one across.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Local => Self::Cloud,
            Self::Cloud => Self::Local,
        }
    }
}

/// What a link's CONNACK said about it [MQTT 3.2.2.3]. For 3.1.1: the defaults, which are no limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Whether the server had our session.
    pub session_present: bool,
    /// Receive Maximum: QoS 1 messages that it takes without having acknowledged them.
    pub receive_maximum: u16,
    /// Maximum Packet Size in bytes.
    pub packet_size_max: Option<u32>,
    /// Maximum QoS.
    pub qos_max: Qos,
    /// Retain Available.
    pub retain_available: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            session_present: false,
            receive_maximum: u16::MAX,
            packet_size_max: None,
            qos_max: Qos::ExactlyOnce,
            retain_available: true,
        }
    }
}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a message. QoS 1: report its PUBACK with [`Relay::acknowledged`]. QoS 0 (id 0): report with
    /// [`Relay::written`] that it has left.
    Publish {
        /// On whose link.
        to: Side,
        /// Its name between driver and relay; not a packet identifier.
        id: u64,
        /// The message, as it is on that side.
        message: Message,
    },
    /// Send the PUBACK of the message that came with this packet identifier, and report with
    /// [`Relay::acknowledgement_written`] that it has left.
    Acknowledge {
        /// On whose link.
        to: Side,
        /// The packet identifier.
        tag: u16,
    },
    /// Tell the owner that a message will not cross. It was, or is about to be, acknowledged to its source.
    SetAside {
        /// The side that does not get it.
        to: Side,
        /// Which, and why.
        what: SetAside,
    },
    /// End a link, after what was asked of it before, and report that with [`Relay::unlinked`].
    Close {
        /// Whose.
        side: Side,
        /// Why.
        reason: CloseReason,
    },
}

/// A message that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Its topic at the destination.
    pub topic: String,
    /// Bytes of its payload.
    pub payload_len: usize,
    /// Why.
    pub reason: Reason,
}

impl SetAside {
    pub(crate) fn of(message: &Message, reason: Reason) -> Self {
        Self {
            topic: message.topic.clone(),
            payload_len: message.payload.len(),
            reason,
        }
    }
}

/// Why a message was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The destination's PUBACK carried this Reason Code, 0x80 or above.
    Refused(u8),
    /// Larger than the destination's Maximum Packet Size; it was not sent.
    TooLarge {
        /// Bytes of its packet.
        size: usize,
        /// Bytes that the destination takes.
        max: u32,
    },
    /// So many links in a row were closed by the destination while this was the first message on them.
    ClosesLinks(u8),
    /// The rule makes no Topic Name of its topic: empty, or longer than 65,535 bytes.
    InvalidTopic,
}

/// Why a link has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// A QoS 2 message came, though nothing is subscribed with QoS 2.
    ExactlyOnce,
    /// More QoS 1 messages came than the window holds. Those beyond it were left alone, the others have now crossed; the
    /// session brings the rest on the next link.
    WindowExceeded,
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// QoS 1 messages that the cloud acknowledged, and QoS 0 messages sent to it.
    pub forwarded: u64,
    /// The same towards the local broker.
    pub received: u64,
    /// Set aside: refused in the destination's PUBACK.
    pub refused: u64,
    /// Set aside: larger than the destination takes.
    pub too_large: u64,
    /// Set aside: closed too many links.
    pub closes_links: u64,
    /// Set aside: no topic after the rule's prefixes.
    pub invalid_topic: u64,
    /// Message Expiry Interval passed inside the relay.
    pub expired: u64,
    /// Messages that may be at the destination twice, because a link ended before their ack had come. Acks that were
    /// given, and lost with the source's link, are not seen here.
    pub doubled_possible: u64,
    /// QoS 0 messages dropped: no link, or more at a time than it takes.
    pub dropped: u64,
    /// Messages that no rule matches, for instance of a subscription that the configuration has no more. They are
    /// acknowledged.
    pub unmatched: u64,
}

impl Counters {
    /// All that were set aside.
    #[must_use]
    pub fn set_aside(&self) -> u64 {
        self.refused + self.too_large + self.closes_links + self.invalid_topic
    }
}

/// The state between the two links of one bridge.
#[derive(Debug)]
pub struct Relay {
    forward: Direction,
    receive: Direction,
    /// The terms of the links that are.
    local: Option<Terms>,
    cloud: Option<Terms>,
    window: usize,
    notices: VecDeque<Action>,
    counters: Counters,
}

#[derive(Debug)]
struct Direction {
    rules: Vec<Rule>,
    flow: Flow,
    /// The source sent more than the window holds. For the sake of their order nothing more is taken from this link, and
    /// it ends when what was taken is acknowledged: ended at once, it could bring the same ones for ever.
    overrun: bool,
    /// Acks given to the source's link and not written there yet.
    acks_unwritten: usize,
}

impl Relay {
    /// Between no links yet. `window` is the most QoS 1 messages that each direction holds, 1 to [`WINDOW_MAX`];
    /// `counters` are where it goes on counting. The rules have been [checked](crate::rule::check).
    #[must_use]
    pub fn new(forward: Vec<Rule>, receive: Vec<Rule>, window: u16, counters: Counters) -> Self {
        let direction = |rules| Direction {
            rules,
            flow: Flow::default(),
            overrun: false,
            acks_unwritten: 0,
        };
        Self {
            forward: direction(forward),
            receive: direction(receive),
            local: None,
            cloud: None,
            window: usize::from(window.clamp(1, WINDOW_MAX)),
            notices: VecDeque::new(),
            counters,
        }
    }

    /// A link is there: its CONNACK, and the SUBACK if one was due, have come.
    pub fn linked(&mut self, side: Side, terms: Terms) {
        if self.terms(side).is_some() {
            self.unlinked(side, false);
        }
        *self.terms_mut(side) = Some(terms);
    }

    /// A link has ended; `closed_by_peer`: the other end did it, which puts the blame on what was sent.
    pub fn unlinked(&mut self, side: Side, closed_by_peer: bool) {
        *self.terms_mut(side) = None;
        self.notices.retain(
            |notice| !matches!(notice, Action::Close { side: closing, .. } if *closing == side),
        );
        let source = self.from(side);
        source.overrun = false;
        source.acks_unwritten = 0;
        self.counters.doubled_possible += self.from(side).flow.source_unlinked();
        let lost = self.to(side).flow.destination_unlinked(closed_by_peer);
        self.counters.dropped += lost.dropped;
        if let Some(what) = lost.set_aside {
            self.set_aside(side, what);
        }
    }

    /// A message came on a link, with this packet identifier (0 if QoS 0).
    pub fn message(&mut self, from: Side, tag: u16, message: Message, now: Millis) {
        if self.terms(from).is_none() {
            return;
        }
        match message.qos {
            Qos::AtMostOnce => self.message_at_most_once(from, message),
            Qos::AtLeastOnce => self.message_at_least_once(from, tag, message, now),
            Qos::ExactlyOnce => {
                self.notices.push_back(Action::Close {
                    side: from,
                    reason: CloseReason::ExactlyOnce,
                });
            }
        }
    }

    /// A PUBACK came for an [`Action::Publish`] with this id, with this Reason Code (3.1.1: 0).
    pub fn acknowledged(&mut self, side: Side, id: u64, reason: u8) {
        match self.to(side).flow.acknowledged(id, reason) {
            Acknowledged::Delivered => *self.crossed(side) += 1,
            Acknowledged::Refused(what) => self.set_aside(side, what),
            Acknowledged::Unknown => {}
        }
    }

    /// A QoS 0 message has been written to this link.
    pub fn written(&mut self, side: Side) {
        self.to(side).flow.written();
        *self.crossed(side) += 1;
    }

    /// An [`Action::Acknowledge`] has been written to this link.
    pub fn acknowledgement_written(&mut self, side: Side) {
        let source = self.from(side);
        source.acks_unwritten = source.acks_unwritten.saturating_sub(1);
    }

    /// Whether a QoS 1 message from this side would find room.
    ///
    /// A 3.1.1 cloud knows no Receive Maximum, and some 5.0 brokers exceed it (mosquitto 2.0.11), so the cloud's link is
    /// better not read while this is false. The local link must always be read: with both unread, each would wait for
    /// acks that are unread on the other. What comes without room costs its link in the end, not its message.
    #[must_use]
    pub fn accepts(&self, from: Side) -> bool {
        let direction = match from {
            Side::Local => &self.forward,
            Side::Cloud => &self.receive,
        };
        direction.flow.len() < self.window
    }

    /// What to do next; `None`: nothing until something happens.
    pub fn poll_action(&mut self, now: Millis) -> Option<Action> {
        // Acks last: looking for something to send finds what has expired, and that may be acknowledged.
        self.publish(Side::Local, now)
            .or_else(|| self.publish(Side::Cloud, now))
            .or_else(|| self.acknowledge(Side::Local))
            .or_else(|| self.acknowledge(Side::Cloud))
            .or_else(|| self.notices.pop_front())
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn message_at_most_once(&mut self, from: Side, message: Message) {
        match self.translate(from, message) {
            Translated::Message(message) => self.push_volatile(from, message),
            Translated::SetAside(what) => self.set_aside(from.other(), what),
            Translated::NoRule => self.counters.unmatched += 1,
        }
    }

    fn message_at_least_once(&mut self, from: Side, tag: u16, message: Message, now: Millis) {
        let window = self.window;
        let source = self.from(from);
        let held = source.flow.len();
        // A client that reads faster than it writes would collect acks; a source within its window cannot cause that.
        if !source.overrun && (held >= window || held + source.acks_unwritten >= 2 * window) {
            source.overrun = true;
            if held == 0 {
                self.notices.push_back(Action::Close {
                    side: from,
                    reason: CloseReason::WindowExceeded,
                });
            }
        }
        if self.from(from).overrun {
            return;
        }
        match self.translate(from, message) {
            Translated::Message(message) if message.qos == Qos::AtMostOnce => {
                self.push_volatile(from, message);
                self.from(from).flow.push_done(tag, now);
            }
            Translated::Message(message) => self.from(from).flow.push(tag, message, now),
            Translated::SetAside(what) => {
                self.set_aside(from.other(), what);
                self.from(from).flow.push_done(tag, now);
            }
            Translated::NoRule => {
                self.counters.unmatched += 1;
                self.from(from).flow.push_done(tag, now);
            }
        }
    }

    /// QoS 0 crosses at once or not at all.
    fn push_volatile(&mut self, from: Side, message: Message) {
        let room = if self.terms(from.other()).is_some() {
            self.window
        } else {
            0
        };
        if !self.from(from).flow.push_volatile(message, room) {
            self.counters.dropped += 1;
        }
    }

    fn translate(&mut self, from: Side, mut message: Message) -> Translated {
        let rules = &self.from(from).rules;
        let Some(rule) = rules
            .iter()
            .find(|rule| topic::matches(&rule.filter, &message.topic))
        else {
            return Translated::NoRule;
        };
        message.topic = rule.translate(&message.topic);
        message.qos = message.qos.min(rule.qos);
        if topic::name_is_valid(&message.topic) {
            Translated::Message(message)
        } else {
            Translated::SetAside(SetAside::of(&message, Reason::InvalidTopic))
        }
    }

    fn acknowledge(&mut self, to: Side) -> Option<Action> {
        self.terms(to)?;
        let source = self.from(to);
        let tag = source.flow.pop_done()?;
        source.acks_unwritten += 1;
        if source.overrun && source.flow.len() == 0 {
            self.notices.push_back(Action::Close {
                side: to,
                reason: CloseReason::WindowExceeded,
            });
        }
        Some(Action::Acknowledge { to, tag })
    }

    fn publish(&mut self, to: Side, now: Millis) -> Option<Action> {
        let terms = self.terms(to)?;
        let window = self.window;
        loop {
            match self.to(to).flow.next_offer(&terms, window, now)? {
                Offer::Publish {
                    id,
                    message,
                    resent,
                } => {
                    self.counters.doubled_possible += u64::from(resent);
                    return Some(Action::Publish { to, id, message });
                }
                Offer::SetAside(what) => self.set_aside(to, what),
                Offer::Expired => self.counters.expired += 1,
            }
        }
    }

    fn set_aside(&mut self, to: Side, what: SetAside) {
        *match what.reason {
            Reason::Refused(_) => &mut self.counters.refused,
            Reason::TooLarge { .. } => &mut self.counters.too_large,
            Reason::ClosesLinks(_) => &mut self.counters.closes_links,
            Reason::InvalidTopic => &mut self.counters.invalid_topic,
        } += 1;
        self.notices.push_back(Action::SetAside { to, what });
    }

    fn crossed(&mut self, to: Side) -> &mut u64 {
        match to {
            Side::Cloud => &mut self.counters.forwarded,
            Side::Local => &mut self.counters.received,
        }
    }

    fn from(&mut self, side: Side) -> &mut Direction {
        match side {
            Side::Local => &mut self.forward,
            Side::Cloud => &mut self.receive,
        }
    }

    fn to(&mut self, side: Side) -> &mut Direction {
        self.from(side.other())
    }

    fn terms(&self, side: Side) -> Option<Terms> {
        match side {
            Side::Local => self.local,
            Side::Cloud => self.cloud,
        }
    }

    fn terms_mut(&mut self, side: Side) -> &mut Option<Terms> {
        match side {
            Side::Local => &mut self.local,
            Side::Cloud => &mut self.cloud,
        }
    }
}

enum Translated {
    Message(Message),
    SetAside(SetAside),
    NoRule,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local broker",
            Self::Cloud => "cloud",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(code) => write!(f, "refused with reason code 0x{code:02X}"),
            Self::TooLarge { size, max } => {
                write!(
                    f,
                    "its packet of {size} bytes is larger than the {max} that are taken"
                )
            }
            Self::ClosesLinks(links) => {
                write!(f, "{links} links in a row were closed when it was sent")
            }
            Self::InvalidTopic => write!(f, "the rule's prefixes leave no valid topic"),
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ExactlyOnce => "it sent a QoS 2 message, though subscribed with QoS 1 at most",
            Self::WindowExceeded => {
                "it sent more unacknowledged messages than the bridge announced as its Receive Maximum"
            }
        })
    }
}
