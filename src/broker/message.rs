//! A message inside the core: as it comes from its publisher, and as it waits in memory.

use crate::limits::{KEPT_MESSAGE_BYTES, KEPT_MESSAGES, TRANSIENT_BYTES};
use crate::record::{Message, ShareKey};
use crate::time::ServiceSeconds;
use larder_packet::Qos;
use std::rc::Rc;

/// What a message is made of.
#[derive(Clone, Copy, Default)]
pub(super) struct Content<'a> {
    pub(super) topic: &'a str,
    /// Encoded, without Message Expiry Interval, Topic Alias and Subscription Identifier.
    pub(super) properties: &'a [u8],
    pub(super) payload: &'a [u8],
    pub(super) expires_at: Option<ServiceSeconds>,
}

impl<'a> Content<'a> {
    /// A message of the journal or of a page, whose spans are into these bytes.
    pub(super) fn of(message: &Message, bytes: &'a [u8]) -> Content<'a> {
        Content {
            topic: text(message.topic.of(bytes)),
            properties: message.properties.of(bytes),
            payload: message.payload.of(bytes),
            expires_at: message.expires_at,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.topic.len() + self.properties.len() + self.payload.len()
    }
}

/// A Topic Name: it was one when it was taken.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// A message that waits in memory, once for all sessions that wait for it; or a Will.
#[derive(PartialEq, Eq)]
pub(super) struct Kept {
    /// Topic, properties, payload.
    bytes: Vec<u8>,
    topic: usize,
    properties: usize,
    pub(super) expires_at: Option<ServiceSeconds>,
}

impl Kept {
    pub(super) fn new(content: &Content) -> Kept {
        let mut kept = Kept {
            bytes: Vec::with_capacity(content.len()),
            topic: 0,
            properties: 0,
            expires_at: None,
        };
        kept.set(content);
        kept
    }

    fn set(&mut self, content: &Content) {
        self.bytes.clear();
        self.bytes.extend_from_slice(content.topic.as_bytes());
        self.bytes.extend_from_slice(content.properties);
        self.bytes.extend_from_slice(content.payload);
        self.topic = content.topic.len();
        self.properties = content.properties.len();
        self.expires_at = content.expires_at;
    }

    pub(super) fn content(&self) -> Content<'_> {
        Content {
            topic: self.topic(),
            properties: self.properties(),
            payload: self.payload(),
            expires_at: self.expires_at,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn topic(&self) -> &str {
        text(&self.bytes[..self.topic])
    }

    fn properties(&self) -> &[u8] {
        &self.bytes[self.topic..self.topic + self.properties]
    }

    fn payload(&self) -> &[u8] {
        &self.bytes[self.topic + self.properties..]
    }
}

/// A held message as one session is to get it.
pub(super) struct Transient {
    pub(super) message: Rc<Kept>,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) subscription_ids: Identifiers,
    /// The Shared Subscription by which it is on its way.
    pub(super) share: Option<ShareKey>,
}

impl Transient {
    /// Bytes that it takes in memory; the message is counted for each session that waits for it.
    pub(super) fn cost(&self) -> usize {
        self.message.len() + self.subscription_ids.as_bytes().len() + TRANSIENT_BYTES
    }
}

/// Subscription Identifiers, as properties. Seldom is there more than one, and a few take no memory of their own.
pub(super) enum Identifiers {
    Few(heapless::Vec<u8, 15>),
    Many(Box<[u8]>),
}

impl Identifiers {
    pub(super) fn new(encoded: &[u8]) -> Identifiers {
        heapless::Vec::from_slice(encoded)
            .map_or_else(|()| Identifiers::Many(encoded.into()), Identifiers::Few)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Identifiers::Few(encoded) => encoded,
            Identifiers::Many(encoded) => encoded,
        }
    }
}

/// Memory of messages that have waited, for those that will: as long as few wait at a time, none is asked of the system.
#[derive(Default)]
pub(super) struct Spare(heapless::Vec<Rc<Kept>, KEPT_MESSAGES>);

impl Spare {
    pub(super) fn keep(&mut self, content: &Content) -> Rc<Kept> {
        let mut kept = self.0.pop();
        match kept.as_mut().and_then(Rc::get_mut) {
            Some(empty) => empty.set(content),
            None => kept = None,
        }
        kept.unwrap_or_else(|| Rc::new(Kept::new(content)))
    }

    /// A message has waited for the last of its sessions, or for another one.
    pub(super) fn give(&mut self, mut kept: Rc<Kept>) {
        let is_small = |kept: &mut Kept| kept.bytes.capacity() <= KEPT_MESSAGE_BYTES;
        if Rc::get_mut(&mut kept).is_some_and(is_small) {
            // Above its capacity it goes back to the system.
            let _ = self.0.push(kept);
        }
    }
}
