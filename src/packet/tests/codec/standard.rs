//! Packets byte by byte, as the examples of the standards have them.

use crate::samples;
use larder_packet::ReasonCode::{self as R, MalformedPacket as Bad};
use larder_packet::Version::{V5, V311};
use larder_packet::{
    Ack, Connect, Disconnect, Frame, Packet, PacketId, Properties, Property, Publish, Qos, SubAck,
    Subscribe, SubscriptionOptions, Unsubscribe, Version, Will, connect_level, frame, packet,
};

const TEN: PacketId = PacketId::new(10).unwrap();

fn is_encoded_as(sample: Packet<'_>, version: Version, bytes: &[u8]) {
    let mut encoded = Vec::new();
    sample.encode(version, &mut encoded);
    assert_eq!(encoded, bytes, "{sample:?}");
    assert_eq!(packet(version, bytes), Ok(sample));
}

/// The flags and numbers of the non-normative example of 3.1.2, in both versions.
#[test]
fn connect() {
    let connect = Connect {
        version: V311,
        clean_start: true,
        keep_alive: 10,
        properties: Properties::EMPTY,
        client_id: "c",
        will: Some(Will {
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: Properties::EMPTY,
            topic: "w",
            payload: b"x",
        }),
        username: Some("u"),
        password: Some(b"p"),
    };
    is_encoded_as(
        Packet::Connect(connect),
        V311,
        b"\x10\x19\0\x04MQTT\x04\xCE\0\x0A\0\x01c\0\x01w\0\x01x\0\x01u\0\x01p",
    );
    is_encoded_as(
        Packet::Connect(Connect {
            version: V5,
            properties: samples::properties(&[Property::SessionExpiryInterval(10)]),
            ..connect
        }),
        V5,
        b"\x10\x20\0\x04MQTT\x05\xCE\0\x0A\x05\x11\0\0\0\x0A\0\x01c\0\0\x01w\0\x01x\0\x01u\0\x01p",
    );
}

/// The non-normative example of 3.3.2.
#[test]
fn publish() {
    let publish = Packet::Publish(Publish {
        dup: false,
        qos: Qos::AtLeastOnce,
        retain: false,
        topic: "a/b",
        packet_id: Some(TEN),
        properties: Properties::EMPTY,
        payload: b"",
    });
    is_encoded_as(publish, V311, b"\x32\x07\0\x03a/b\0\x0A");
    is_encoded_as(publish, V5, b"\x32\x08\0\x03a/b\0\x0A\0");
}

#[test]
fn acknowledgements_take_the_shortest_form() {
    let ack = Ack {
        packet_id: TEN,
        reason: R::Success,
        properties: Properties::EMPTY,
    };
    for version in [V311, V5] {
        is_encoded_as(Packet::PubAck(ack), version, &[0x40, 2, 0, 10]);
        is_encoded_as(Packet::PubRec(ack), version, &[0x50, 2, 0, 10]);
        is_encoded_as(Packet::PubRel(ack), version, &[0x62, 2, 0, 10]);
        is_encoded_as(Packet::PubComp(ack), version, &[0x70, 2, 0, 10]);
    }
    let refused = Ack {
        reason: R::QuotaExceeded,
        ..ack
    };
    is_encoded_as(Packet::PubAck(refused), V5, &[0x40, 3, 0, 10, 0x97]);
    // The longer forms of the same are understood as well [MQTT 3.4.2.2.1].
    assert_eq!(packet(V5, &[0x40, 3, 0, 10, 0]), Ok(Packet::PubAck(ack)));
    assert_eq!(packet(V5, &[0x40, 4, 0, 10, 0, 0]), Ok(Packet::PubAck(ack)));
}

/// The non-normative examples of 3.8.3, 3.9.3 and 3.10.3.
#[test]
fn subscribe_and_unsubscribe() {
    let qos = |qos| SubscriptionOptions {
        qos,
        ..SubscriptionOptions::default()
    };
    let subscribe = Packet::Subscribe(Subscribe {
        packet_id: TEN,
        properties: Properties::EMPTY,
        filters: samples::filters(
            V5,
            &[
                ("a/b", qos(Qos::AtLeastOnce)),
                ("c/d", qos(Qos::ExactlyOnce)),
            ],
        ),
    });
    is_encoded_as(subscribe, V311, b"\x82\x0E\0\x0A\0\x03a/b\x01\0\x03c/d\x02");
    is_encoded_as(subscribe, V5, b"\x82\x0F\0\x0A\0\0\x03a/b\x01\0\x03c/d\x02");

    let ack = SubAck {
        packet_id: TEN,
        properties: Properties::EMPTY,
        reasons: &[0, 2, 0x80],
    };
    is_encoded_as(Packet::SubAck(ack), V311, &[0x90, 5, 0, 10, 0, 2, 0x80]);
    is_encoded_as(Packet::SubAck(ack), V5, &[0x90, 6, 0, 10, 0, 0, 2, 0x80]);
    let mut v311 = Vec::new();
    Packet::SubAck(SubAck {
        reasons: &[1, 0x87],
        ..ack
    })
    .encode(V311, &mut v311);
    assert_eq!(v311, [0x90, 4, 0, 10, 1, 0x80]);

    let unsubscribe = Packet::Unsubscribe(Unsubscribe {
        packet_id: TEN,
        properties: Properties::EMPTY,
        filters: samples::unsubscribe_filters(&["a/b", "c/d"]),
    });
    is_encoded_as(unsubscribe, V311, b"\xA2\x0C\0\x0A\0\x03a/b\0\x03c/d");
    is_encoded_as(unsubscribe, V5, b"\xA2\x0D\0\x0A\0\0\x03a/b\0\x03c/d");
}

#[test]
fn packets_of_two_bytes() {
    let normal = Disconnect {
        reason: R::Success,
        properties: Properties::EMPTY,
    };
    for version in [V311, V5] {
        is_encoded_as(Packet::PingReq, version, &[0xC0, 0]);
        is_encoded_as(Packet::PingResp, version, &[0xD0, 0]);
        is_encoded_as(Packet::Disconnect(normal), version, &[0xE0, 0]);
    }
    let with_will = Disconnect {
        reason: R::DisconnectWithWillMessage,
        ..normal
    };
    is_encoded_as(Packet::Disconnect(with_will), V5, &[0xE0, 1, 4]);
}

#[test]
fn a_packet_is_refused_when_its_length_is_known() {
    assert_eq!(
        frame(&[0x30, 0x80], 1024),
        Ok(Frame::Incomplete { len: None })
    );
    assert_eq!(
        frame(&[0x30, 0x80, 0x08], 1027),
        Ok(Frame::Incomplete { len: Some(1027) })
    );
    let too_large = frame(&[0x30, 0x80, 0x08], 1026).unwrap_err();
    assert_eq!(
        (too_large.reason, too_large.clause),
        (R::PacketTooLarge, "MQTT-3.2.2-15")
    );
    let endless = frame(&[0x30, 0x80, 0x80, 0x80, 0x80], usize::MAX).unwrap_err();
    assert_eq!((endless.reason, endless.clause), (Bad, "MQTT 1.5.5"));
}

#[test]
fn the_first_byte_is_refused_alone() {
    let refused = |first| {
        frame(&[first], 1024)
            .err()
            .map(|malformed| malformed.clause)
    };
    for first in 0..=255_u8 {
        let expected = match (first >> 4, first & 0xF) {
            (0, _) => Some("MQTT 2.1.2"),
            (3, 0x8 | 0x9) => Some("MQTT-3.3.1-2"),
            (3, 0x6 | 0x7 | 0xE | 0xF) => Some("MQTT-3.3.1-4"),
            (3, _) | (6 | 8 | 10, 2) | (1 | 2 | 4 | 5 | 7 | 9 | 11.., 0) => None,
            _ => Some("MQTT-2.1.3-1"),
        };
        assert_eq!(refused(first), expected, "{first:#04x}");
    }
}

#[test]
fn the_level_of_a_refused_connect_can_be_told() {
    assert_eq!(connect_level(b"\x10\x07\0\x04MQTT\x06"), Some(6));
    assert_eq!(connect_level(b"\x10\x09\0\x06MQIsdp\x03"), Some(3));
    assert_eq!(connect_level(b"\x10\x06\0\x04MQTT"), None);
    assert_eq!(connect_level(b"\xC0\0"), None);
}

#[test]
fn the_frame_must_be_exactly_one_packet() {
    for bytes in [&[][..], &[0xC0], &[0xC0, 1], &[0xC0, 0, 0], &[0xC0, 0x80]] {
        assert_eq!(
            packet(V5, bytes).unwrap_err().clause,
            "MQTT 2.1.4",
            "{bytes:02x?}"
        );
    }
    // 5.0 wants the shortest length, 3.1.1 does not say.
    assert_eq!(packet(V311, &[0xC0, 0x80, 0]), Ok(Packet::PingReq));
    assert_eq!(
        packet(V5, &[0xC0, 0x80, 0]).unwrap_err().clause,
        "MQTT-1.5.5-1"
    );
}

#[test]
fn malformed_says_what_and_where() {
    let malformed = packet(V5, b"\x30\x04\0\x01#\0").unwrap_err();
    assert_eq!(
        malformed.to_string(),
        "Malformed Packet (0x81): a Topic Name has a wildcard character [MQTT-3.3.2-2]"
    );
}
