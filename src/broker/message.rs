//! A message inside the core: as it comes from its publisher, and as it waits in memory.

use crate::limits::TRANSIENT_BYTES;
use crate::record::ShareKey;
use crate::time::ServiceSeconds;
use larder_packet::Qos;
use std::rc::Rc;

/// What a publisher's message is made of, before it is copied into the journal.
#[derive(Clone, Copy, Default)]
pub(super) struct Content<'a> {
    pub(super) topic: &'a str,
    /// Encoded, without Message Expiry Interval, Topic Alias and Subscription Identifier.
    pub(super) properties: &'a [u8],
    pub(super) payload: &'a [u8],
    pub(super) expires_at: Option<ServiceSeconds>,
}

impl Content<'_> {
    pub(super) fn len(&self) -> usize {
        self.topic.len() + self.properties.len() + self.payload.len()
    }
}

/// A message that waits in memory, once for all sessions that wait for it; or a Will.
#[derive(PartialEq, Eq)]
pub(super) struct Kept {
    /// Topic, properties, payload.
    bytes: Box<[u8]>,
    topic: usize,
    properties: usize,
    pub(super) expires_at: Option<ServiceSeconds>,
}

impl Kept {
    pub(super) fn new(content: &Content) -> Kept {
        let mut bytes = Vec::with_capacity(content.len());
        bytes.extend_from_slice(content.topic.as_bytes());
        bytes.extend_from_slice(content.properties);
        bytes.extend_from_slice(content.payload);
        Kept {
            bytes: bytes.into_boxed_slice(),
            topic: content.topic.len(),
            properties: content.properties.len(),
            expires_at: content.expires_at,
        }
    }

    pub(super) fn content(&self) -> Content<'_> {
        Content {
            topic: std::str::from_utf8(self.topic()).unwrap_or_default(),
            properties: self.properties(),
            payload: self.payload(),
            expires_at: self.expires_at,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn topic(&self) -> &[u8] {
        &self.bytes[..self.topic]
    }

    pub(super) fn properties(&self) -> &[u8] {
        &self.bytes[self.topic..self.topic + self.properties]
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.bytes[self.topic + self.properties..]
    }
}

/// A held message as one session is to get it.
pub(super) struct Transient {
    pub(super) message: Rc<Kept>,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) subscription_ids: Box<[u8]>,
    /// The Shared Subscription by which it is on its way.
    pub(super) share: Option<ShareKey>,
}

impl Transient {
    /// Bytes that it takes in memory; the message is counted for each session that waits for it.
    pub(super) fn cost(&self) -> usize {
        self.message.len() + self.subscription_ids.len() + TRANSIENT_BYTES
    }
}
