//! Every packet, encoded and decoded again; cut short at every byte.

use crate::samples;
use larder_packet::{Delivery, Frame, Packet, Property, Publish, Qos, Version, frame, packet};

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

#[test]
fn a_packet_is_decoded_as_it_was_encoded() {
    for version in VERSIONS {
        for sample in samples::packets(version) {
            let mut bytes = vec![0xEE];
            sample.encode(version, &mut bytes);
            let bytes = &bytes[1..];
            assert_eq!(bytes.len(), sample.encoded_len(version), "{sample:?}");
            assert_eq!(
                frame(bytes, bytes.len()),
                Ok(Frame::Complete { len: bytes.len() })
            );
            assert_eq!(packet(version, bytes), Ok(sample));
        }
    }
}

#[test]
fn with_room_for_its_length_encoding_allocates_nothing() {
    for version in VERSIONS {
        for sample in samples::packets(version) {
            let mut out = Vec::with_capacity(sample.encoded_len(version));
            let before = (out.as_ptr(), out.capacity());
            sample.encode(version, &mut out);
            assert_eq!((out.as_ptr(), out.capacity()), before);
        }
    }
}

#[test]
fn a_packet_cut_short_is_incomplete_and_never_decoded() {
    for version in VERSIONS {
        for sample in samples::packets(version) {
            let mut bytes = Vec::new();
            sample.encode(version, &mut bytes);
            let header = bytes.len() - body_len(&bytes);
            for cut in 0..bytes.len() {
                let len = (cut >= header).then_some(bytes.len());
                assert_eq!(
                    frame(&bytes[..cut], usize::MAX),
                    Ok(Frame::Incomplete { len })
                );
                assert!(
                    packet(version, &bytes[..cut]).is_err(),
                    "{cut} bytes of {sample:?}"
                );
            }
        }
    }
}

/// With a Remaining Length that fits, a packet that lost its end is another packet (a PUBLISH with less payload, an
/// acknowledgement without its properties) or malformed: it never is the same.
#[test]
fn a_body_cut_short_is_malformed_or_another_packet() {
    for version in VERSIONS {
        for sample in samples::packets(version) {
            let mut bytes = Vec::new();
            sample.encode(version, &mut bytes);
            let body = &bytes[bytes.len() - body_len(&bytes)..];
            for cut in 0..body.len().min(300) {
                let mut shorter = vec![bytes[0]];
                push_length(cut, &mut shorter);
                shorter.extend_from_slice(&body[..cut]);
                assert_ne!(packet(version, &shorter), Ok(sample));
            }
        }
    }
}

#[test]
fn a_byte_too_many_is_malformed() {
    for version in VERSIONS {
        for sample in samples::packets(version) {
            let ends_with_payload_or_list = matches!(
                sample,
                Packet::Publish(_)
                    | Packet::SubAck(_)
                    | Packet::UnsubAck(_)
                    | Packet::PubAck(_)
                    | Packet::PubRec(_)
                    | Packet::PubRel(_)
                    | Packet::PubComp(_)
                    | Packet::Disconnect(_)
            );
            if ends_with_payload_or_list {
                continue;
            }
            let mut bytes = Vec::new();
            sample.encode(version, &mut bytes);
            let mut longer = vec![bytes[0]];
            push_length(body_len(&bytes) + 1, &mut longer);
            longer.extend_from_slice(&bytes[bytes.len() - body_len(&bytes)..]);
            longer.push(0);
            assert!(packet(version, &longer).is_err(), "{sample:?}");
        }
    }
}

#[test]
fn a_delivery_is_the_publish_with_the_same_parts() {
    let travelling = samples::properties(&[
        Property::ContentType("text/plain"),
        Property::UserProperty("a", "b"),
    ]);
    let ids = samples::properties(&[
        Property::SubscriptionIdentifier(7),
        Property::SubscriptionIdentifier(300),
    ]);
    let together = samples::properties(&[
        Property::MessageExpiryInterval(59),
        Property::TopicAlias(9),
        Property::SubscriptionIdentifier(7),
        Property::SubscriptionIdentifier(300),
        Property::ContentType("text/plain"),
        Property::UserProperty("a", "b"),
    ]);
    for version in VERSIONS {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            for payload in [&[][..], &[1; 90], &[2; 130], &[3; 70_000]] {
                let packet_id = (qos != Qos::AtMostOnce).then_some(samples::ID);
                let delivery = Delivery {
                    dup: packet_id.is_some(),
                    qos,
                    retain: true,
                    topic: "a/b",
                    topic_alias: Some(9),
                    packet_id,
                    message_expiry: Some(59),
                    subscription_ids: ids.as_bytes(),
                    properties: travelling.as_bytes(),
                    payload,
                };
                let publish = Packet::Publish(Publish {
                    dup: delivery.dup,
                    qos,
                    retain: true,
                    topic: "a/b",
                    packet_id,
                    properties: together,
                    payload,
                });
                let (mut one, mut other) = (Vec::new(), Vec::new());
                delivery.encode(version, &mut one);
                publish.encode(version, &mut other);
                assert_eq!(one, other);
                assert_eq!(one.len(), delivery.encoded_len(version));
            }
        }
    }
}

/// The Remaining Length of a whole packet.
fn body_len(bytes: &[u8]) -> usize {
    let size = 1 + bytes[1..]
        .iter()
        .take_while(|&&byte| byte & 0x80 != 0)
        .count();
    bytes.len() - 1 - size
}

fn push_length(mut value: usize, out: &mut Vec<u8>) {
    while value > 127 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
