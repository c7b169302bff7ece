//! Packets as the generator sends and takes them: MQTT 3.1.1, built once, and read without looking at more than is needed.

use larder_packet::{
    Connect, Filters, Packet, PacketId, Properties, Publish, Qos, Subscribe, SubscriptionOptions,
    Version,
};

/// Bytes of a payload that say which message it is.
pub(crate) const STAMP_BYTES: usize = 20;

pub(crate) const PUBACK: u8 = 0x40;
pub(crate) const PUBREC: u8 = 0x50;
pub(crate) const PUBREL: u8 = 0x62;
pub(crate) const PUBCOMP: u8 = 0x70;
pub(crate) const DISCONNECT: [u8; 2] = [0xE0, 0];

/// What a payload begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) publisher: u32,
    /// Counts a publisher's messages from 0.
    pub(crate) number: u64,
    /// When it was to be sent, in nanoseconds since the load began.
    pub(crate) intended: u64,
}

/// A packet that was received, as far as the generator looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Publish {
        qos: u8,
        packet_id: [u8; 2],
        stamp: Stamp,
    },
    /// PUBACK, PUBREC, PUBREL or PUBCOMP, by its first byte.
    Ack {
        first: u8,
        packet_id: [u8; 2],
    },
    Other,
}

/// CONNECT without Keep Alive.
pub(crate) fn connect(client_id: &str, clean_session: bool) -> Vec<u8> {
    encoded(&Packet::Connect(Connect {
        version: Version::V311,
        clean_start: clean_session,
        keep_alive: 0,
        properties: Properties::EMPTY,
        client_id,
        will: None,
        username: None,
        password: None,
    }))
}

/// SUBSCRIBE to all `filters`, under Packet Identifier 1; `None` if one of them is not a Topic Filter.
pub(crate) fn subscribe(filters: &[String], qos: Qos) -> Option<Vec<u8>> {
    let options = SubscriptionOptions {
        qos,
        ..SubscriptionOptions::default()
    };
    let mut bytes = Vec::new();
    for filter in filters {
        Filters::encode(filter, options, &mut bytes);
    }
    Some(encoded(&Packet::Subscribe(Subscribe {
        packet_id: PacketId::MIN,
        properties: Properties::EMPTY,
        filters: Filters::from_encoded(Version::V311, &bytes).ok()?,
    })))
}

fn encoded(packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(Version::V311, &mut bytes);
    bytes
}

/// A PUBLISH in which only the Packet Identifier and the stamp change.
pub(crate) struct Template {
    bytes: Vec<u8>,
    packet_id_at: Option<usize>,
    stamp_at: usize,
}

impl Template {
    /// `payload` is its length, at least [`STAMP_BYTES`].
    pub(crate) fn new(topic: &str, qos: Qos, payload: usize) -> Template {
        let payload = vec![b'x'; payload.max(STAMP_BYTES)];
        let has_packet_id = qos != Qos::AtMostOnce;
        let bytes = encoded(&Packet::Publish(Publish {
            dup: false,
            qos,
            retain: false,
            topic,
            packet_id: has_packet_id.then_some(PacketId::MIN),
            properties: Properties::EMPTY,
            payload: &payload,
        }));
        let stamp_at = bytes.len() - payload.len();
        Template {
            packet_id_at: has_packet_id.then_some(stamp_at - 2),
            stamp_at,
            bytes,
        }
    }

    pub(crate) fn append(&self, packet_id: u16, stamp: Stamp, out: &mut Vec<u8>) {
        let at = out.len();
        out.extend_from_slice(&self.bytes);
        let packet = &mut out[at..];
        if let Some(at) = self.packet_id_at {
            packet[at..at + 2].copy_from_slice(&packet_id.to_be_bytes());
        }
        let payload = &mut packet[self.stamp_at..];
        payload[..4].copy_from_slice(&stamp.publisher.to_le_bytes());
        payload[4..12].copy_from_slice(&stamp.number.to_le_bytes());
        payload[12..STAMP_BYTES].copy_from_slice(&stamp.intended.to_le_bytes());
    }
}

/// The first packet, and its length; `None` if it is not whole, or a PUBLISH that is not ours.
pub(crate) fn next(bytes: &[u8]) -> Option<(Received, usize)> {
    let (&first, mut rest) = bytes.split_first()?;
    let mut len = 0usize;
    for shift in [0, 7, 14, 21] {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        len |= usize::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let body = rest.get(..len)?;
    let whole = bytes.len() - rest.len() + len;
    let received = match first >> 4 {
        3 => publish(first, body)?,
        4..=7 => Received::Ack {
            first,
            packet_id: array(body, 0)?,
        },
        _ => Received::Other,
    };
    Some((received, whole))
}

fn publish(first: u8, body: &[u8]) -> Option<Received> {
    let qos = first >> 1 & 3;
    let topic = usize::from(u16::from_be_bytes(array(body, 0)?));
    let mut at = 2 + topic;
    let mut packet_id = [0; 2];
    if qos > 0 {
        packet_id = array(body, at)?;
        at += 2;
    }
    let stamp = Stamp {
        publisher: u32::from_le_bytes(array(body, at)?),
        number: u64::from_le_bytes(array(body, at + 4)?),
        intended: u64::from_le_bytes(array(body, at + 12)?),
    };
    Some(Received::Publish {
        qos,
        packet_id,
        stamp,
    })
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_a_template_makes_is_a_publish_and_is_read_again() {
        for (qos, payload) in [
            (Qos::AtMostOnce, 100),
            (Qos::AtLeastOnce, 100),
            (Qos::ExactlyOnce, 20_000),
        ] {
            let stamp = Stamp {
                publisher: 7,
                number: 1 << 40,
                intended: 99,
            };
            let mut out = vec![0];
            Template::new("a/b", qos, payload).append(0x1234, stamp, &mut out);
            let packet = larder_packet::packet(Version::V311, &out[1..]).unwrap();
            let Packet::Publish(publish) = packet else {
                panic!("{packet:?}");
            };
            assert_eq!(
                (publish.topic, publish.qos, publish.payload.len()),
                ("a/b", qos, payload)
            );

            let (received, len) = next(&out[1..]).unwrap();
            let packet_id = match qos {
                Qos::AtMostOnce => [0, 0],
                _ => [0x12, 0x34],
            };
            assert_eq!(len, out.len() - 1);
            assert_eq!(
                received,
                Received::Publish {
                    qos: qos as u8,
                    packet_id,
                    stamp
                }
            );
            assert_eq!(next(&out[1..out.len() - 1]), None);
        }
    }
}
