//! An Application Message on its way through the relay.

use bytes::Bytes;
use larder_packet::Qos;

/// An Application Message as it crosses: what both sides have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Topic Name. On arrival the source's, after a rule was applied the destination's.
    pub topic: String,
    /// Quality of Service with which it arrived, later the one with which it is sent on.
    pub qos: Qos,
    /// The RETAIN flag, passed on as it is.
    pub retain: bool,
    /// What MQTT 5.0 sends along; left out towards a 3.1.1 cloud.
    pub properties: Properties,
    /// The payload.
    pub payload: Bytes,
}

/// The PUBLISH properties of MQTT 5.0 that belong to the message and not to one link [MQTT 3.3.2.3].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// Payload Format Indicator.
    pub payload_format: Option<u8>,
    /// Message Expiry Interval in seconds, counted from the arrival at the relay.
    pub message_expiry: Option<u32>,
    /// Content Type.
    pub content_type: Option<String>,
    /// Response Topic, not translated by the rules.
    pub response_topic: Option<String>,
    /// Correlation Data.
    pub correlation_data: Option<Bytes>,
    /// User Properties, in their order.
    pub user_properties: Vec<(String, String)>,
}

impl Message {
    /// Bytes of its PUBLISH packet in MQTT 5.0 with a packet identifier: what a Maximum Packet Size is compared with.
    #[must_use]
    pub fn packet_size(&self) -> usize {
        let properties = self.properties.encoded_size();
        let packet_identifier = if self.qos == Qos::AtMostOnce { 0 } else { 2 };
        let remaining = 2
            + self.topic.len()
            + packet_identifier
            + variable_byte_size(properties)
            + properties
            + self.payload.len();
        1 + variable_byte_size(remaining) + remaining
    }
}

impl Properties {
    fn encoded_size(&self) -> usize {
        let sized = |bytes: usize| 1 + 2 + bytes;
        self.payload_format.map_or(0, |_| 2)
            + self.message_expiry.map_or(0, |_| 5)
            + self
                .content_type
                .as_ref()
                .map_or(0, |text| sized(text.len()))
            + self
                .response_topic
                .as_ref()
                .map_or(0, |text| sized(text.len()))
            + self
                .correlation_data
                .as_ref()
                .map_or(0, |data| sized(data.len()))
            + self
                .user_properties
                .iter()
                .map(|(name, value)| sized(name.len()) + 2 + value.len())
                .sum::<usize>()
    }
}

/// Bytes of a Variable Byte Integer [MQTT 1.5.5].
fn variable_byte_size(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use bytes::BytesMut;
    use rumqttc::v5::mqttbytes::{QoS, v5};

    #[test]
    fn the_packet_size_is_what_the_encoder_writes() {
        for payload in [0, 1, 90, 127, 128, 16_300, 16_384, 70_000] {
            let message = Message {
                topic: "plant/7/temperature".into(),
                qos: Qos::AtLeastOnce,
                retain: false,
                properties: Properties {
                    payload_format: Some(1),
                    message_expiry: Some(60),
                    content_type: Some("text/plain".into()),
                    response_topic: Some("answers/7".into()),
                    correlation_data: Some(Bytes::from_static(b"42")),
                    user_properties: vec![("a".into(), "b".into()), ("a".into(), "c".into())],
                },
                payload: Bytes::from(vec![0; payload]),
            };
            let mut encoded = v5::Publish::new(
                message.topic.clone(),
                QoS::AtLeastOnce,
                message.payload.clone(),
                Some(v5::PublishProperties {
                    payload_format_indicator: Some(1),
                    message_expiry_interval: Some(60),
                    content_type: Some("text/plain".into()),
                    response_topic: Some("answers/7".into()),
                    correlation_data: Some(Bytes::from_static(b"42")),
                    user_properties: message.properties.user_properties.clone(),
                    ..Default::default()
                }),
            );
            encoded.pkid = 1;
            let mut bytes = BytesMut::new();
            encoded.write(&mut bytes).unwrap();
            assert_eq!(message.packet_size(), bytes.len());
        }
    }
}
