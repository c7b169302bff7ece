//! Packets to bytes.

use crate::write::{Count, Sink, VARINT_MAX, varint_len};
use crate::{Packet, PacketId, Properties, Publish, Qos, ReasonCode, Version};

impl Packet<'_> {
    /// Bytes that [`Packet::encode`] appends.
    #[must_use]
    pub fn encoded_len(&self, version: Version) -> usize {
        let mut body = Count::default();
        self.write_body(version, &mut body);
        packet_len(body.bytes())
    }

    /// Appends the packet to `out`, which grows by no more than the packet needs. A CONNECT states its own version;
    /// `version` is that of the others.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let mut body = Count::default();
        self.write_body(version, &mut body);
        write_fixed_header(self.first_byte(), body.bytes(), out);
        self.write_body(version, out);
    }

    fn first_byte(&self) -> u8 {
        match self {
            Packet::Connect(_) => 0x10,
            Packet::ConnAck(_) => 0x20,
            Packet::Publish(publish) => {
                publish_first_byte(publish.dup, publish.qos, publish.retain)
            }
            Packet::PubAck(_) => 0x40,
            Packet::PubRec(_) => 0x50,
            Packet::PubRel(_) => 0x62,
            Packet::PubComp(_) => 0x70,
            Packet::Subscribe(_) => 0x82,
            Packet::SubAck(_) => 0x90,
            Packet::Unsubscribe(_) => 0xA2,
            Packet::UnsubAck(_) => 0xB0,
            Packet::PingReq => 0xC0,
            Packet::PingResp => 0xD0,
            Packet::Disconnect(_) => 0xE0,
            Packet::Auth(_) => 0xF0,
        }
    }

    /// Writes what follows the fixed header.
    fn write_body(&self, version: Version, sink: &mut impl Sink) {
        match self {
            Packet::Connect(connect) => connect.write(sink),
            Packet::ConnAck(ack) => {
                sink.u8(u8::from(ack.session_present));
                sink.u8(match version {
                    Version::V311 => ack.reason.v311_return_code(),
                    Version::V5 => ack.reason as u8,
                });
                sink.properties(version, ack.properties);
            }
            Packet::Publish(publish) => write_publish(publish, version, sink),
            Packet::PubAck(ack)
            | Packet::PubRec(ack)
            | Packet::PubRel(ack)
            | Packet::PubComp(ack) => {
                sink.u16(ack.packet_id.get());
                write_optional_reason(ack.reason, ack.properties, version, sink);
            }
            Packet::Subscribe(subscribe) => {
                sink.u16(subscribe.packet_id.get());
                sink.properties(version, subscribe.properties);
                subscribe.filters.write(version, sink);
            }
            Packet::SubAck(ack) => {
                sink.u16(ack.packet_id.get());
                sink.properties(version, ack.properties);
                match version {
                    Version::V311 => {
                        for &reason in ack.reasons {
                            sink.u8(reason.min(ReasonCode::UnspecifiedError as u8));
                        }
                    }
                    Version::V5 => sink.put(ack.reasons),
                }
            }
            Packet::Unsubscribe(unsubscribe) => {
                sink.u16(unsubscribe.packet_id.get());
                sink.properties(version, unsubscribe.properties);
                sink.put(unsubscribe.filters.as_bytes());
            }
            Packet::UnsubAck(ack) => {
                sink.u16(ack.packet_id.get());
                if version == Version::V5 {
                    sink.properties(version, ack.properties);
                    sink.put(ack.reasons);
                }
            }
            Packet::PingReq | Packet::PingResp => {}
            Packet::Disconnect(disconnect) => {
                write_optional_reason(disconnect.reason, disconnect.properties, version, sink);
            }
            Packet::Auth(auth) => {
                write_optional_reason(auth.reason, auth.properties, version, sink)
            }
        }
    }
}

/// A PUBLISH on its way to a subscriber, put together from what is stored apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// DUP.
    pub dup: bool,
    /// The granted QoS.
    pub qos: Qos,
    /// RETAIN.
    pub retain: bool,
    /// Topic Name; empty where the Topic Alias stands for it.
    pub topic: &'a str,
    /// Topic Alias; 5.0 only.
    pub topic_alias: Option<u16>,
    /// Packet Identifier: exactly if QoS is 1 or 2.
    pub packet_id: Option<PacketId>,
    /// What is left of the Message Expiry Interval, in seconds.
    pub message_expiry: Option<u32>,
    /// Subscription Identifiers as encoded properties, each 0x0B and its number.
    pub subscription_ids: &'a [u8],
    /// The properties that travel with the message, encoded; without those above.
    pub properties: &'a [u8],
    /// The message.
    pub payload: &'a [u8],
}

impl Delivery<'_> {
    /// Bytes that [`Delivery::encode`] appends.
    #[inline]
    #[must_use]
    pub fn encoded_len(&self, version: Version) -> usize {
        packet_len(self.body_len(version))
    }

    /// Appends the PUBLISH to `out`, which grows by no more than the packet needs. The Topic Name has at most 65,535
    /// bytes.
    #[inline]
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        debug_assert!(
            self.topic.len() <= usize::from(u16::MAX),
            "the Topic Name is too long"
        );
        debug_assert_eq!(self.packet_id.is_some(), self.qos != Qos::AtMostOnce);
        let first = publish_first_byte(self.dup, self.qos, self.retain);
        write_fixed_header(first, self.body_len(version), out);
        out.u16(self.topic.len() as u16);
        out.put(self.topic.as_bytes());
        if let Some(packet_id) = self.packet_id {
            out.u16(packet_id.get());
        }
        if version == Version::V5 {
            out.varint(self.properties_len() as u32);
            if let Some(seconds) = self.message_expiry {
                out.u8(crate::property::id::MESSAGE_EXPIRY_INTERVAL);
                out.u32(seconds);
            }
            if let Some(alias) = self.topic_alias {
                out.u8(crate::property::id::TOPIC_ALIAS);
                out.u16(alias);
            }
            out.put(self.subscription_ids);
            out.put(self.properties);
        }
        out.put(self.payload);
    }

    #[inline]
    fn body_len(&self, version: Version) -> usize {
        let properties = match version {
            Version::V311 => 0,
            Version::V5 => varint_len(self.properties_len()) + self.properties_len(),
        };
        let packet_id = if self.packet_id.is_some() { 2 } else { 0 };
        2 + self.topic.len() + packet_id + properties + self.payload.len()
    }

    #[inline]
    fn properties_len(&self) -> usize {
        let message_expiry = if self.message_expiry.is_some() {
            1 + 4
        } else {
            0
        };
        let topic_alias = if self.topic_alias.is_some() { 1 + 2 } else { 0 };
        message_expiry + topic_alias + self.subscription_ids.len() + self.properties.len()
    }
}

const fn publish_first_byte(dup: bool, qos: Qos, retain: bool) -> u8 {
    0x30 | (dup as u8) << 3 | (qos as u8) << 1 | retain as u8
}

/// The length of a packet with so many bytes after its fixed header.
#[inline]
const fn packet_len(body: usize) -> usize {
    1 + varint_len(body) + body
}

/// Makes room for the whole packet and writes its fixed header.
#[inline]
fn write_fixed_header(first: u8, body: usize, out: &mut Vec<u8>) {
    debug_assert!(
        body <= VARINT_MAX as usize,
        "{body} bytes do not fit a packet"
    );
    out.reserve_exact(packet_len(body));
    out.push(first);
    out.varint(body as u32);
}

fn write_publish(publish: &Publish<'_>, version: Version, sink: &mut impl Sink) {
    debug_assert_eq!(publish.packet_id.is_some(), publish.qos != Qos::AtMostOnce);
    sink.string(publish.topic);
    if let Some(packet_id) = publish.packet_id {
        sink.u16(packet_id.get());
    }
    sink.properties(version, publish.properties);
    sink.put(publish.payload);
}

/// Success is left out where nothing follows it, and no properties likewise.
fn write_optional_reason(
    reason: ReasonCode,
    properties: Properties<'_>,
    version: Version,
    sink: &mut impl Sink,
) {
    if version == Version::V311 || (reason == ReasonCode::Success && properties.is_empty()) {
        return;
    }
    sink.u8(reason as u8);
    if !properties.is_empty() {
        sink.properties(version, properties);
    }
}
