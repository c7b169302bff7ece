//! Packets of every kind, simple and with all that they can carry.

use larder_packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Filters, Packet, PacketId, Properties, Property,
    PropertyBuf, Publish, Qos, ReasonCode, SubAck, Subscribe, SubscriptionOptions, UnsubAck,
    Unsubscribe, UnsubscribeFilters, Version, Will,
};

pub(crate) const ID: PacketId = PacketId::new(0x1234).unwrap();

/// Packets that come back from `version`'s bytes as they were.
pub(crate) fn packets(version: Version) -> Vec<Packet<'static>> {
    let mut packets = plain(version);
    if version == Version::V5 {
        packets.extend(with_properties());
    }
    packets
}

pub(crate) fn properties(list: &[Property<'_>]) -> Properties<'static> {
    let mut buf = PropertyBuf::new();
    for &property in list {
        buf.push(property);
    }
    Box::leak(Box::new(buf)).as_properties()
}

pub(crate) fn filters(version: Version, list: &[(&str, SubscriptionOptions)]) -> Filters<'static> {
    let mut bytes = Vec::new();
    for &(filter, options) in list {
        Filters::encode(filter, options, &mut bytes);
    }
    Filters::from_encoded(version, bytes.leak()).unwrap()
}

pub(crate) fn unsubscribe_filters(list: &[&str]) -> UnsubscribeFilters<'static> {
    let mut bytes = Vec::new();
    for filter in list {
        UnsubscribeFilters::encode(filter, &mut bytes);
    }
    UnsubscribeFilters::from_encoded(Version::V5, bytes.leak()).unwrap()
}

fn plain(version: Version) -> Vec<Packet<'static>> {
    let connect = Connect {
        version,
        clean_start: true,
        keep_alive: 60,
        properties: Properties::EMPTY,
        client_id: "sensor-7",
        will: None,
        username: None,
        password: None,
    };
    let will = Will {
        qos: Qos::ExactlyOnce,
        retain: true,
        properties: Properties::EMPTY,
        topic: "sensors/7/status",
        payload: b"gone",
    };
    let publish = Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic: "sensors/7/temperature",
        packet_id: None,
        properties: Properties::EMPTY,
        payload: b"21.5",
    };
    let ack = Ack {
        packet_id: ID,
        reason: ReasonCode::Success,
        properties: Properties::EMPTY,
    };
    let qos = |qos| SubscriptionOptions {
        qos,
        ..SubscriptionOptions::default()
    };
    vec![
        Packet::Connect(connect),
        Packet::Connect(Connect {
            client_id: "",
            will: Some(will),
            ..connect
        }),
        Packet::Connect(Connect {
            clean_start: false,
            will: Some(Will {
                qos: Qos::AtMostOnce,
                retain: false,
                payload: b"",
                ..will
            }),
            username: Some("Jürgen"),
            password: Some(b"\0\xFF"),
            ..connect
        }),
        Packet::ConnAck(ConnAck {
            session_present: true,
            reason: ReasonCode::Success,
            properties: Properties::EMPTY,
        }),
        Packet::ConnAck(ConnAck {
            session_present: false,
            reason: ReasonCode::NotAuthorized,
            properties: Properties::EMPTY,
        }),
        Packet::Publish(publish),
        Packet::Publish(Publish {
            retain: true,
            payload: b"",
            ..publish
        }),
        Packet::Publish(Publish {
            dup: true,
            qos: Qos::AtLeastOnce,
            packet_id: Some(ID),
            payload: &[7; 200],
            ..publish
        }),
        Packet::Publish(Publish {
            qos: Qos::ExactlyOnce,
            packet_id: Some(PacketId::MAX),
            topic: "/",
            payload: &[8; 20_000],
            ..publish
        }),
        Packet::PubAck(ack),
        Packet::PubRec(ack),
        Packet::PubRel(ack),
        Packet::PubComp(ack),
        Packet::Subscribe(Subscribe {
            packet_id: ID,
            properties: Properties::EMPTY,
            filters: filters(
                version,
                &[
                    ("#", qos(Qos::AtMostOnce)),
                    ("a/+/b", qos(Qos::AtLeastOnce)),
                    ("$SYS/#", qos(Qos::ExactlyOnce)),
                ],
            ),
        }),
        Packet::SubAck(SubAck {
            packet_id: ID,
            properties: Properties::EMPTY,
            reasons: &[0, 1, 2, 0x80],
        }),
        Packet::Unsubscribe(Unsubscribe {
            packet_id: ID,
            properties: Properties::EMPTY,
            filters: unsubscribe_filters(&["#", "a/+/b"]),
        }),
        Packet::UnsubAck(UnsubAck {
            packet_id: ID,
            properties: Properties::EMPTY,
            reasons: if version == Version::V5 {
                &[0, 0x11]
            } else {
                &[]
            },
        }),
        Packet::PingReq,
        Packet::PingResp,
        Packet::Disconnect(Disconnect {
            reason: ReasonCode::Success,
            properties: Properties::EMPTY,
        }),
    ]
}

fn with_properties() -> Vec<Packet<'static>> {
    let user = Property::UserProperty("region", "north");
    let message = [
        Property::PayloadFormatIndicator(true),
        Property::MessageExpiryInterval(3600),
        Property::ContentType("application/json"),
        Property::ResponseTopic("reply/7"),
        Property::CorrelationData(b"\0\x01\x02"),
        user,
        Property::UserProperty("region", "south"),
    ];
    let explained = properties(&[Property::ReasonString("because"), user]);
    let reauthenticate = [
        Property::AuthenticationMethod("SCRAM-SHA-256"),
        Property::AuthenticationData(b"client-first"),
    ];
    let options = SubscriptionOptions {
        qos: Qos::AtLeastOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: 2,
    };
    let shared = SubscriptionOptions {
        no_local: false,
        retain_handling: 1,
        ..options
    };
    vec![
        Packet::Connect(Connect {
            version: Version::V5,
            clean_start: false,
            keep_alive: 0,
            properties: properties(&[
                Property::SessionExpiryInterval(86_400),
                Property::ReceiveMaximum(20),
                Property::MaximumPacketSize(65_536),
                Property::TopicAliasMaximum(10),
                Property::RequestResponseInformation(true),
                Property::RequestProblemInformation(false),
                user,
                reauthenticate[0],
                reauthenticate[1],
            ]),
            client_id: "gateway",
            will: Some(Will {
                qos: Qos::AtLeastOnce,
                retain: false,
                properties: properties(
                    &[&[Property::WillDelayInterval(30)], &message[..]].concat(),
                ),
                topic: "gateway/status",
                payload: b"offline",
            }),
            username: None,
            password: Some(b"token"),
        }),
        Packet::ConnAck(ConnAck {
            session_present: false,
            reason: ReasonCode::Success,
            properties: properties(&[
                Property::SessionExpiryInterval(3600),
                Property::ReceiveMaximum(16),
                Property::MaximumQos(1),
                Property::RetainAvailable(false),
                Property::MaximumPacketSize(65_536),
                Property::AssignedClientIdentifier("auto-1"),
                Property::TopicAliasMaximum(5),
                Property::ReasonString("welcome"),
                user,
                Property::WildcardSubscriptionAvailable(true),
                Property::SubscriptionIdentifierAvailable(true),
                Property::SharedSubscriptionAvailable(false),
                Property::ServerKeepAlive(30),
                Property::ResponseInformation("responses"),
                Property::ServerReference("other:1883"),
            ]),
        }),
        Packet::Publish(Publish {
            dup: false,
            qos: Qos::AtLeastOnce,
            retain: true,
            topic: "",
            packet_id: Some(ID),
            properties: properties(
                &[
                    &message[..],
                    &[
                        Property::TopicAlias(3),
                        Property::SubscriptionIdentifier(1),
                        Property::SubscriptionIdentifier(268_435_455),
                    ],
                ]
                .concat(),
            ),
            payload: b"{}",
        }),
        Packet::PubAck(Ack {
            packet_id: ID,
            reason: ReasonCode::NoMatchingSubscribers,
            properties: Properties::EMPTY,
        }),
        Packet::PubRec(Ack {
            packet_id: ID,
            reason: ReasonCode::QuotaExceeded,
            properties: explained,
        }),
        Packet::PubRel(Ack {
            packet_id: ID,
            reason: ReasonCode::Success,
            properties: explained,
        }),
        Packet::PubComp(Ack {
            packet_id: ID,
            reason: ReasonCode::PacketIdentifierNotFound,
            properties: explained,
        }),
        Packet::Subscribe(Subscribe {
            packet_id: ID,
            properties: properties(&[Property::SubscriptionIdentifier(128), user]),
            filters: filters(
                Version::V5,
                &[("a/#", options), ("$share/group/+/b", shared)],
            ),
        }),
        Packet::SubAck(SubAck {
            packet_id: ID,
            properties: explained,
            reasons: &[2, 0x8F, 0xA2],
        }),
        Packet::Unsubscribe(Unsubscribe {
            packet_id: ID,
            properties: properties(&[user]),
            filters: unsubscribe_filters(&["$share/group/+/b"]),
        }),
        Packet::UnsubAck(UnsubAck {
            packet_id: ID,
            properties: explained,
            reasons: &[0x11, 0x87],
        }),
        Packet::Disconnect(Disconnect {
            reason: ReasonCode::DisconnectWithWillMessage,
            properties: Properties::EMPTY,
        }),
        Packet::Disconnect(Disconnect {
            reason: ReasonCode::ServerMoved,
            properties: properties(&[
                Property::SessionExpiryInterval(0),
                Property::ReasonString("moved"),
                Property::ServerReference("other:1883"),
            ]),
        }),
        Packet::Auth(Auth {
            reason: ReasonCode::Success,
            properties: Properties::EMPTY,
        }),
        Packet::Auth(Auth {
            reason: ReasonCode::ReAuthenticate,
            properties: properties(&reauthenticate),
        }),
    ]
}
