//! rumqttc's 3.1.1 half.

use super::{CONNECT_TIMEOUT, LinkError, NoRoom, PACKET_MAX, Raw, Target, Way, in_flight_max};
use crate::message::{Message, Properties};
use crate::relay::Terms;
use bytes::Bytes;
use larder_packet::Qos;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions,
    Outgoing, Packet, Publish, QoS, StateError, SubscribeFilter, SubscribeReasonCode, Transport,
};

pub(super) fn open(target: &Target, way: Way<'_>, capacity: usize) -> (AsyncClient, EventLoop) {
    let mut options = match way {
        Way::Tcp(host, port) => MqttOptions::new(&target.client_id, host, port),
        Way::Unix(path) => {
            let mut options = MqttOptions::new(&target.client_id, path, 0);
            options.set_transport(Transport::Unix);
            options
        }
    };
    options
        .set_clean_session(false)
        .set_keep_alive(target.keep_alive)
        .set_manual_acks(true)
        .set_inflight(in_flight_max(target.window))
        .set_max_packet_size(target.packet_max as usize, PACKET_MAX);
    if let Some((username, password)) = &target.credentials {
        options.set_credentials(username, password);
    }
    let (client, mut events) = AsyncClient::new(options, capacity);
    let mut network = NetworkOptions::new();
    network.set_connection_timeout(CONNECT_TIMEOUT.as_secs());
    network.set_tcp_nodelay(true);
    events.set_network_options(network);
    (client, events)
}

pub(super) fn publish(client: &AsyncClient, message: Message) -> Result<(), NoRoom> {
    let qos = if message.qos == Qos::AtMostOnce {
        QoS::AtMostOnce
    } else {
        QoS::AtLeastOnce
    };
    client
        .try_publish(message.topic, qos, message.retain, message.payload)
        .map_err(|_| NoRoom)
}

pub(super) fn acknowledge(client: &AsyncClient, tag: u16) -> Result<(), NoRoom> {
    let mut publish = Publish::from_bytes("", QoS::AtLeastOnce, Bytes::new());
    publish.pkid = tag;
    client.try_ack(&publish).map_err(|_| NoRoom)
}

pub(super) fn subscribe(client: &AsyncClient, filters: &[(String, Qos)]) -> Result<(), NoRoom> {
    let filters = filters.iter().map(|(filter, qos)| {
        let qos = if *qos == Qos::AtMostOnce {
            QoS::AtMostOnce
        } else {
            QoS::AtLeastOnce
        };
        SubscribeFilter::new(filter.clone(), qos)
    });
    client.try_subscribe_many(filters).map_err(|_| NoRoom)
}

pub(super) async fn poll(events: &mut EventLoop) -> Result<Raw, LinkError> {
    Ok(match events.poll().await.map_err(error)? {
        Event::Incoming(packet) => incoming(packet),
        Event::Outgoing(Outgoing::Publish(packet_id)) => Raw::Published { packet_id },
        Event::Outgoing(Outgoing::PubAck(_)) => Raw::AckWritten,
        Event::Outgoing(Outgoing::AwaitAck(_)) => Raw::Collision,
        Event::Outgoing(Outgoing::Disconnect) => Raw::Disconnected,
        Event::Outgoing(_) => Raw::Other,
    })
}

fn incoming(packet: Packet) -> Raw {
    match packet {
        Packet::ConnAck(connack) => Raw::Connected(Terms {
            session_present: connack.session_present,
            ..Terms::default()
        }),
        Packet::SubAck(suback) => {
            let codes = suback.return_codes.iter().enumerate();
            let refused = codes.filter(|(_, code)| **code == SubscribeReasonCode::Failure);
            Raw::Subscribed {
                refused: refused.map(|(index, _)| index).collect(),
            }
        }
        Packet::PubAck(puback) => Raw::Acknowledged {
            packet_id: puback.pkid,
            reason: 0,
        },
        Packet::Publish(publish) => Raw::Message {
            tag: publish.pkid,
            message: Message {
                topic: publish.topic,
                qos: match publish.qos {
                    QoS::AtMostOnce => Qos::AtMostOnce,
                    QoS::AtLeastOnce => Qos::AtLeastOnce,
                    QoS::ExactlyOnce => Qos::ExactlyOnce,
                },
                retain: publish.retain,
                properties: Properties::default(),
                // A copy: rumqttc's is a slice that keeps its whole read buffer.
                payload: Bytes::copy_from_slice(&publish.payload),
            },
        },
        _ => Raw::Other,
    }
}

fn error(error: ConnectionError) -> LinkError {
    match error {
        ConnectionError::ConnectionRefused(code) => LinkError::ours(match code {
            ConnectReturnCode::BadUserNamePassword => {
                "refused: bad username or password".to_owned()
            }
            ConnectReturnCode::NotAuthorized => "refused: not authorised".to_owned(),
            ConnectReturnCode::BadClientId => "refused: client_id not accepted".to_owned(),
            ConnectReturnCode::RefusedProtocolVersion => {
                "refused: it does not speak MQTT 3.1.1".to_owned()
            }
            code => format!("refused: {code:?}"),
        }),
        ConnectionError::MqttState(StateError::ConnectionAborted) => LinkError::closed(),
        ConnectionError::MqttState(StateError::Io(error)) | ConnectionError::Io(error) => {
            LinkError::from_io(&error)
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => {
            LinkError::ours("no answer to a PINGREQ")
        }
        ConnectionError::MqttState(StateError::Deserialization(rumqttc::mqttbytes::Error::Io(
            error,
        ))) => LinkError::from_io(&error),
        ConnectionError::NetworkTimeout => LinkError::ours("no connection in time"),
        error => LinkError::ours(error.to_string()),
    }
}
