//! rumqttc's 5.0 half.

use super::{CONNECT_TIMEOUT, LinkError, NoRoom, Raw, Target, Way, in_flight_max};
use crate::message::{Message, Properties};
use crate::relay::Terms;
use bytes::Bytes;
use larder_packet::Qos;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectProperties, Filter, Packet, PubAckReason, Publish, PublishProperties,
    RetainForwardRule, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};
use rumqttc::{NetworkOptions, Outgoing, Transport};
use std::time::Duration;

pub(super) fn open(target: &Target, way: Way<'_>, capacity: usize) -> (AsyncClient, EventLoop) {
    let mut options = match way {
        Way::Tcp(host, port) => MqttOptions::new(&target.client_id, host, port),
        Way::Unix(path) => {
            let mut options = MqttOptions::new(&target.client_id, path, 0);
            options.set_transport(Transport::Unix);
            options
        }
    };
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = Some(u32::MAX);
    properties.receive_maximum = Some(target.window);
    properties.max_packet_size = Some(target.packet_max);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options
        .set_clean_start(false)
        .set_connect_properties(properties)
        .set_keep_alive(target.keep_alive)
        .set_manual_acks(true)
        .set_outgoing_inflight_upper_limit(in_flight_max(target.window))
        .set_connection_timeout(CONNECT_TIMEOUT.as_secs())
        .set_network_options(network);
    if let Some((username, password)) = &target.credentials {
        options.set_credentials(username, password);
    }
    AsyncClient::new(options, capacity)
}

pub(super) fn publish(client: &AsyncClient, message: Message) -> Result<(), NoRoom> {
    let properties = PublishProperties {
        payload_format_indicator: message.properties.payload_format,
        message_expiry_interval: message.properties.message_expiry,
        topic_alias: None,
        response_topic: message.properties.response_topic,
        correlation_data: message.properties.correlation_data,
        user_properties: message.properties.user_properties,
        subscription_identifiers: Vec::new(),
        content_type: message.properties.content_type,
    };
    client
        .try_publish_with_properties(
            message.topic,
            qos(message.qos),
            message.retain,
            message.payload,
            properties,
        )
        .map_err(|_| NoRoom)
}

pub(super) fn acknowledge(client: &AsyncClient, tag: u16) -> Result<(), NoRoom> {
    let mut publish = Publish::new("", QoS::AtLeastOnce, Bytes::new(), None);
    publish.pkid = tag;
    client.try_ack(&publish).map_err(|_| NoRoom)
}

pub(super) fn subscribe(client: &AsyncClient, filters: &[(String, Qos)]) -> Result<(), NoRoom> {
    let filters = filters.iter().map(|(path, granted)| Filter {
        path: path.clone(),
        qos: qos(*granted),
        nolocal: true,
        preserve_retain: true,
        retain_forward_rule: RetainForwardRule::OnNewSubscribe,
    });
    client.try_subscribe_many(filters).map_err(|_| NoRoom)
}

pub(super) async fn poll(events: &mut EventLoop, keep_alive: Duration) -> Result<Raw, LinkError> {
    Ok(match events.poll().await.map_err(error)? {
        Event::Incoming(Packet::ConnAck(connack)) => {
            if events.options.keep_alive().is_zero() {
                // Server Keep Alive 0 switches the server's side off; rumqttc would send PINGREQ without pause.
                events.options.set_keep_alive(keep_alive);
            }
            Raw::Connected(terms(&connack))
        }
        Event::Incoming(packet) => incoming(packet)?,
        Event::Outgoing(Outgoing::Publish(packet_id)) => Raw::Published { packet_id },
        Event::Outgoing(Outgoing::PubAck(_)) => Raw::AckWritten,
        Event::Outgoing(Outgoing::AwaitAck(_)) => Raw::Collision,
        Event::Outgoing(Outgoing::Disconnect) => Raw::Disconnected,
        Event::Outgoing(_) => Raw::Other,
    })
}

fn incoming(packet: Packet) -> Result<Raw, LinkError> {
    Ok(match packet {
        Packet::SubAck(suback) => {
            let codes = suback.return_codes.iter().enumerate();
            let refused =
                codes.filter(|(_, code)| !matches!(code, SubscribeReasonCode::Success(_)));
            Raw::Subscribed {
                refused: refused.map(|(index, _)| index).collect(),
            }
        }
        Packet::PubAck(puback) => Raw::Acknowledged {
            packet_id: puback.pkid,
            reason: reason_code(puback.reason),
        },
        Packet::Publish(publish) => Raw::Message {
            tag: publish.pkid,
            message: message(publish)?,
        },
        _ => Raw::Other,
    })
}

fn message(publish: Publish) -> Result<Message, LinkError> {
    let topic = std::str::from_utf8(&publish.topic)
        .map_err(|_| LinkError::ours("it sent a topic that is not UTF-8"))?;
    if topic.is_empty() {
        return Err(LinkError::ours(
            "it sent a Topic Alias, though none was allowed",
        ));
    }
    let properties = publish.properties.unwrap_or_default();
    Ok(Message {
        topic: topic.to_owned(),
        qos: match publish.qos {
            QoS::AtMostOnce => Qos::AtMostOnce,
            QoS::AtLeastOnce => Qos::AtLeastOnce,
            QoS::ExactlyOnce => Qos::ExactlyOnce,
        },
        retain: publish.retain,
        properties: Properties {
            payload_format: properties.payload_format_indicator,
            message_expiry: properties.message_expiry_interval,
            content_type: properties.content_type,
            response_topic: properties.response_topic,
            correlation_data: properties
                .correlation_data
                .map(|data| Bytes::copy_from_slice(&data)),
            user_properties: properties.user_properties,
        },
        // A copy: rumqttc's is a slice that keeps its whole read buffer.
        payload: Bytes::copy_from_slice(&publish.payload),
    })
}

fn terms(connack: &ConnAck) -> Terms {
    let mut terms = Terms {
        session_present: connack.session_present,
        ..Terms::default()
    };
    if let Some(properties) = &connack.properties {
        terms.receive_maximum = properties.receive_max.unwrap_or(u16::MAX);
        terms.packet_size_max = properties.max_packet_size;
        terms.qos_max = match properties.max_qos {
            Some(0) => Qos::AtMostOnce,
            Some(1) => Qos::AtLeastOnce,
            _ => Qos::ExactlyOnce,
        };
        terms.retain_available = properties.retain_available != Some(0);
    }
    terms
}

fn qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce | Qos::ExactlyOnce => QoS::AtLeastOnce,
    }
}

/// The Reason Codes of a PUBACK [MQTT 3.4.2.1].
fn reason_code(reason: PubAckReason) -> u8 {
    match reason {
        PubAckReason::Success => 0x00,
        PubAckReason::NoMatchingSubscribers => 0x10,
        PubAckReason::UnspecifiedError => 0x80,
        PubAckReason::ImplementationSpecificError => 0x83,
        PubAckReason::NotAuthorized => 0x87,
        PubAckReason::TopicNameInvalid => 0x90,
        PubAckReason::PacketIdentifierInUse => 0x91,
        PubAckReason::QuotaExceeded => 0x97,
        PubAckReason::PayloadFormatInvalid => 0x99,
    }
}

fn error(error: ConnectionError) -> LinkError {
    match error {
        ConnectionError::ConnectionRefused(code) => LinkError::ours(format!("refused: {code:?}")),
        ConnectionError::MqttState(StateError::ConnectionAborted) => LinkError::closed(),
        ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code,
            reason_string,
        }) => {
            let said = reason_string
                .map(|text| format!(", \"{text}\""))
                .unwrap_or_default();
            LinkError::peer(format!("closed by the server: {reason_code:?}{said}"))
        }
        ConnectionError::MqttState(StateError::Io(error)) | ConnectionError::Io(error) => {
            LinkError::from_io(&error)
        }
        ConnectionError::MqttState(StateError::Deserialization(
            rumqttc::v5::mqttbytes::Error::Io(error),
        )) => LinkError::from_io(&error),
        ConnectionError::MqttState(StateError::AwaitPingResp) => {
            LinkError::ours("no answer to a PINGREQ")
        }
        ConnectionError::Timeout(_) => LinkError::ours("no connection in time"),
        error => LinkError::ours(error.to_string()),
    }
}
