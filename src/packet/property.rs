//! Properties [MQTT 2.2.2]: validated once, kept as bytes, read when asked for.

use crate::decode::Malformed;
use crate::read::Reader;
use crate::write::{Count, Sink};
use crate::{ReasonCode, topic};

/// Property Identifiers [MQTT 2.2.2.2].
pub mod id {
    #![allow(missing_docs, reason = "they bear the standard's names")]
    pub const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
    pub const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
    pub const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
    pub const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub const AUTHENTICATION_METHOD: u8 = 0x15;
    pub const AUTHENTICATION_DATA: u8 = 0x16;
    pub const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub const WILL_DELAY_INTERVAL: u8 = 0x18;
    pub const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub const RESPONSE_INFORMATION: u8 = 0x1A;
    pub const SERVER_REFERENCE: u8 = 0x1C;
    pub const REASON_STRING: u8 = 0x1F;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub const TOPIC_ALIAS: u8 = 0x23;
    pub const MAXIMUM_QOS: u8 = 0x24;
    pub const RETAIN_AVAILABLE: u8 = 0x25;
    pub const USER_PROPERTY: u8 = 0x26;
    pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
    pub const SUBSCRIPTION_IDENTIFIER_AVAILABLE: u8 = 0x29;
    pub const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2A;
}

/// One property with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property<'a> {
    /// 0x01: whether the payload is UTF-8 text.
    PayloadFormatIndicator(bool),
    /// 0x02, in seconds.
    MessageExpiryInterval(u32),
    /// 0x03.
    ContentType(&'a str),
    /// 0x08: a Topic Name.
    ResponseTopic(&'a str),
    /// 0x09.
    CorrelationData(&'a [u8]),
    /// 0x0B: 1 to 268,435,455.
    SubscriptionIdentifier(u32),
    /// 0x11, in seconds; `u32::MAX`: the session does not expire.
    SessionExpiryInterval(u32),
    /// 0x12.
    AssignedClientIdentifier(&'a str),
    /// 0x13, in seconds.
    ServerKeepAlive(u16),
    /// 0x15.
    AuthenticationMethod(&'a str),
    /// 0x16.
    AuthenticationData(&'a [u8]),
    /// 0x17.
    RequestProblemInformation(bool),
    /// 0x18, in seconds.
    WillDelayInterval(u32),
    /// 0x19.
    RequestResponseInformation(bool),
    /// 0x1A.
    ResponseInformation(&'a str),
    /// 0x1C.
    ServerReference(&'a str),
    /// 0x1F: for people, not for programs.
    ReasonString(&'a str),
    /// 0x21: messages of QoS 1 and 2 at a time, at least 1.
    ReceiveMaximum(u16),
    /// 0x22: the highest Topic Alias; 0: none.
    TopicAliasMaximum(u16),
    /// 0x23: at least 1.
    TopicAlias(u16),
    /// 0x24: 0 or 1.
    MaximumQos(u8),
    /// 0x25.
    RetainAvailable(bool),
    /// 0x26: name and value. The only property that any packet may hold many times.
    UserProperty(&'a str, &'a str),
    /// 0x27, in bytes, at least 1.
    MaximumPacketSize(u32),
    /// 0x28.
    WildcardSubscriptionAvailable(bool),
    /// 0x29.
    SubscriptionIdentifierAvailable(bool),
    /// 0x2A.
    SharedSubscriptionAvailable(bool),
}

impl<'a> Property<'a> {
    /// Appends the property as MQTT encodes it. Strings and binary data are at most 65,535 bytes long; a longer one is
    /// cut.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.write(out);
    }

    /// Bytes that [`Property::encode`] appends.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let mut count = Count::default();
        self.write(&mut count);
        count.bytes()
    }

    /// Its Property Identifier, one of [`id`].
    #[must_use]
    pub const fn id(&self) -> u8 {
        match self {
            Property::PayloadFormatIndicator(_) => id::PAYLOAD_FORMAT_INDICATOR,
            Property::MessageExpiryInterval(_) => id::MESSAGE_EXPIRY_INTERVAL,
            Property::ContentType(_) => id::CONTENT_TYPE,
            Property::ResponseTopic(_) => id::RESPONSE_TOPIC,
            Property::CorrelationData(_) => id::CORRELATION_DATA,
            Property::SubscriptionIdentifier(_) => id::SUBSCRIPTION_IDENTIFIER,
            Property::SessionExpiryInterval(_) => id::SESSION_EXPIRY_INTERVAL,
            Property::AssignedClientIdentifier(_) => id::ASSIGNED_CLIENT_IDENTIFIER,
            Property::ServerKeepAlive(_) => id::SERVER_KEEP_ALIVE,
            Property::AuthenticationMethod(_) => id::AUTHENTICATION_METHOD,
            Property::AuthenticationData(_) => id::AUTHENTICATION_DATA,
            Property::RequestProblemInformation(_) => id::REQUEST_PROBLEM_INFORMATION,
            Property::WillDelayInterval(_) => id::WILL_DELAY_INTERVAL,
            Property::RequestResponseInformation(_) => id::REQUEST_RESPONSE_INFORMATION,
            Property::ResponseInformation(_) => id::RESPONSE_INFORMATION,
            Property::ServerReference(_) => id::SERVER_REFERENCE,
            Property::ReasonString(_) => id::REASON_STRING,
            Property::ReceiveMaximum(_) => id::RECEIVE_MAXIMUM,
            Property::TopicAliasMaximum(_) => id::TOPIC_ALIAS_MAXIMUM,
            Property::TopicAlias(_) => id::TOPIC_ALIAS,
            Property::MaximumQos(_) => id::MAXIMUM_QOS,
            Property::RetainAvailable(_) => id::RETAIN_AVAILABLE,
            Property::UserProperty(..) => id::USER_PROPERTY,
            Property::MaximumPacketSize(_) => id::MAXIMUM_PACKET_SIZE,
            Property::WildcardSubscriptionAvailable(_) => id::WILDCARD_SUBSCRIPTION_AVAILABLE,
            Property::SubscriptionIdentifierAvailable(_) => id::SUBSCRIPTION_IDENTIFIER_AVAILABLE,
            Property::SharedSubscriptionAvailable(_) => id::SHARED_SUBSCRIPTION_AVAILABLE,
        }
    }

    fn write(&self, sink: &mut impl Sink) {
        sink.u8(self.id());
        match *self {
            Property::PayloadFormatIndicator(value)
            | Property::RequestProblemInformation(value)
            | Property::RequestResponseInformation(value)
            | Property::RetainAvailable(value)
            | Property::WildcardSubscriptionAvailable(value)
            | Property::SubscriptionIdentifierAvailable(value)
            | Property::SharedSubscriptionAvailable(value) => sink.u8(u8::from(value)),
            Property::MaximumQos(value) => sink.u8(value),
            Property::ServerKeepAlive(value)
            | Property::ReceiveMaximum(value)
            | Property::TopicAliasMaximum(value)
            | Property::TopicAlias(value) => sink.u16(value),
            Property::MessageExpiryInterval(value)
            | Property::SessionExpiryInterval(value)
            | Property::WillDelayInterval(value)
            | Property::MaximumPacketSize(value) => sink.u32(value),
            Property::SubscriptionIdentifier(value) => sink.varint(value),
            Property::ContentType(value)
            | Property::ResponseTopic(value)
            | Property::AssignedClientIdentifier(value)
            | Property::AuthenticationMethod(value)
            | Property::ResponseInformation(value)
            | Property::ServerReference(value)
            | Property::ReasonString(value) => sink.string(value),
            Property::CorrelationData(value) | Property::AuthenticationData(value) => {
                sink.binary(value);
            }
            Property::UserProperty(name, value) => {
                sink.string(name);
                sink.string(value);
            }
        }
    }

    /// Reads one whole property and checks its value.
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Property<'a>, Malformed> {
        Ok(match reader.u8()? {
            id::PAYLOAD_FORMAT_INDICATOR => {
                Property::PayloadFormatIndicator(flag(reader, "MQTT 3.3.2.3.2")?)
            }
            id::MESSAGE_EXPIRY_INTERVAL => Property::MessageExpiryInterval(reader.u32()?),
            id::CONTENT_TYPE => Property::ContentType(reader.string()?),
            id::RESPONSE_TOPIC => Property::ResponseTopic(response_topic(reader)?),
            id::CORRELATION_DATA => Property::CorrelationData(reader.binary()?),
            id::SUBSCRIPTION_IDENTIFIER => Property::SubscriptionIdentifier(at_least_1(
                reader.varint()?,
                "MQTT 3.8.2.1.2",
                "the Subscription Identifier is zero",
            )?),
            id::SESSION_EXPIRY_INTERVAL => Property::SessionExpiryInterval(reader.u32()?),
            id::ASSIGNED_CLIENT_IDENTIFIER => Property::AssignedClientIdentifier(reader.string()?),
            id::SERVER_KEEP_ALIVE => Property::ServerKeepAlive(reader.u16()?),
            id::AUTHENTICATION_METHOD => Property::AuthenticationMethod(reader.string()?),
            id::AUTHENTICATION_DATA => Property::AuthenticationData(reader.binary()?),
            id::REQUEST_PROBLEM_INFORMATION => {
                Property::RequestProblemInformation(flag(reader, "MQTT 3.1.2.11.7")?)
            }
            id::WILL_DELAY_INTERVAL => Property::WillDelayInterval(reader.u32()?),
            id::REQUEST_RESPONSE_INFORMATION => {
                Property::RequestResponseInformation(flag(reader, "MQTT 3.1.2.11.6")?)
            }
            id::RESPONSE_INFORMATION => Property::ResponseInformation(reader.string()?),
            id::SERVER_REFERENCE => Property::ServerReference(reader.string()?),
            id::REASON_STRING => Property::ReasonString(reader.string()?),
            id::RECEIVE_MAXIMUM => Property::ReceiveMaximum(at_least_1(
                reader.u16()?,
                "MQTT 3.1.2.11.3",
                "the Receive Maximum is zero",
            )?),
            id::TOPIC_ALIAS_MAXIMUM => Property::TopicAliasMaximum(reader.u16()?),
            id::TOPIC_ALIAS => match reader.u16()? {
                0 => {
                    return Err(Malformed {
                        reason: ReasonCode::TopicAliasInvalid,
                        clause: "MQTT-3.3.2-8",
                        what: "the Topic Alias is zero",
                    });
                }
                alias => Property::TopicAlias(alias),
            },
            id::MAXIMUM_QOS => Property::MaximumQos(u8::from(flag(reader, "MQTT 3.2.2.3.4")?)),
            id::RETAIN_AVAILABLE => Property::RetainAvailable(flag(reader, "MQTT 3.2.2.3.5")?),
            id::USER_PROPERTY => Property::UserProperty(reader.string()?, reader.string()?),
            id::MAXIMUM_PACKET_SIZE => Property::MaximumPacketSize(at_least_1(
                reader.u32()?,
                "MQTT 3.1.2.11.4",
                "the Maximum Packet Size is zero",
            )?),
            id::WILDCARD_SUBSCRIPTION_AVAILABLE => {
                Property::WildcardSubscriptionAvailable(flag(reader, "MQTT 3.2.2.3.11")?)
            }
            id::SUBSCRIPTION_IDENTIFIER_AVAILABLE => {
                Property::SubscriptionIdentifierAvailable(flag(reader, "MQTT 3.2.2.3.12")?)
            }
            id::SHARED_SUBSCRIPTION_AVAILABLE => {
                Property::SharedSubscriptionAvailable(flag(reader, "MQTT 3.2.2.3.13")?)
            }
            _ => return Err(UNKNOWN),
        })
    }
}

fn flag(reader: &mut Reader<'_>, clause: &'static str) -> Result<bool, Malformed> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed::protocol(
            clause,
            "a property that can be 0 or 1 has another value",
        )),
    }
}

fn at_least_1<T: Default + PartialEq>(
    value: T,
    clause: &'static str,
    what: &'static str,
) -> Result<T, Malformed> {
    if value == T::default() {
        Err(Malformed::protocol(clause, what))
    } else {
        Ok(value)
    }
}

fn response_topic<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Malformed> {
    let name = reader.string()?;
    if topic::name_is_valid(name) {
        Ok(name)
    } else {
        Err(Malformed::protocol(
            "MQTT-3.3.2-14",
            "the Response Topic is not a Topic Name",
        ))
    }
}

pub(crate) const UNKNOWN: Malformed = Malformed::packet(
    "MQTT 2.2.2.2",
    "a Property Identifier is not in the standard",
);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// One of each, in the order of the identifiers.
    const ALL: [Property<'static>; 27] = [
        Property::PayloadFormatIndicator(true),
        Property::MessageExpiryInterval(3600),
        Property::ContentType("text/plain"),
        Property::ResponseTopic("reply/to"),
        Property::CorrelationData(&[0, 1, 255]),
        Property::SubscriptionIdentifier(268_435_455),
        Property::SessionExpiryInterval(u32::MAX),
        Property::AssignedClientIdentifier("auto-1"),
        Property::ServerKeepAlive(60),
        Property::AuthenticationMethod("SCRAM-SHA-256"),
        Property::AuthenticationData(b""),
        Property::RequestProblemInformation(false),
        Property::WillDelayInterval(10),
        Property::RequestResponseInformation(true),
        Property::ResponseInformation("responses/"),
        Property::ServerReference("other:1883"),
        Property::ReasonString("too much"),
        Property::ReceiveMaximum(1),
        Property::TopicAliasMaximum(0),
        Property::TopicAlias(1),
        Property::MaximumQos(1),
        Property::RetainAvailable(true),
        Property::UserProperty("name", "value"),
        Property::MaximumPacketSize(1024),
        Property::WildcardSubscriptionAvailable(true),
        Property::SubscriptionIdentifierAvailable(false),
        Property::SharedSubscriptionAvailable(true),
    ];

    #[test]
    fn each_property_is_read_as_it_was_written() {
        for property in ALL {
            let mut bytes = Vec::new();
            property.encode(&mut bytes);
            assert_eq!(bytes.len(), property.encoded_len());
            assert_eq!(bytes[0], property.id());
            let mut reader = Reader::new(&bytes);
            assert_eq!(Property::read(&mut reader).unwrap(), property);
            assert!(reader.is_empty());
            for cut in 0..bytes.len() {
                assert!(
                    Property::read(&mut Reader::new(&bytes[..cut])).is_err(),
                    "{property:?}"
                );
            }
        }
    }

    #[test]
    fn values_outside_the_standard_are_refused() {
        for (bytes, reason) in [
            (
                &[id::PAYLOAD_FORMAT_INDICATOR, 2][..],
                ReasonCode::ProtocolError,
            ),
            (
                &[id::REQUEST_PROBLEM_INFORMATION, 2],
                ReasonCode::ProtocolError,
            ),
            (&[id::MAXIMUM_QOS, 2], ReasonCode::ProtocolError),
            (&[id::RECEIVE_MAXIMUM, 0, 0], ReasonCode::ProtocolError),
            (
                &[id::MAXIMUM_PACKET_SIZE, 0, 0, 0, 0],
                ReasonCode::ProtocolError,
            ),
            (&[id::SUBSCRIPTION_IDENTIFIER, 0], ReasonCode::ProtocolError),
            (&[id::RESPONSE_TOPIC, 0, 1, b'#'], ReasonCode::ProtocolError),
            (&[id::TOPIC_ALIAS, 0, 0], ReasonCode::TopicAliasInvalid),
            (
                &[id::SUBSCRIPTION_IDENTIFIER, 0x81, 0x00],
                ReasonCode::MalformedPacket,
            ),
            (&[id::CONTENT_TYPE, 0, 1, 0], ReasonCode::MalformedPacket),
            (&[0x00], ReasonCode::MalformedPacket),
            (&[0x2B], ReasonCode::MalformedPacket),
        ] {
            assert_eq!(
                Property::read(&mut Reader::new(bytes)).unwrap_err().reason,
                reason,
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn a_string_too_long_for_its_length_is_cut_at_a_character() {
        let long = "x".repeat(65_534) + "ä";
        let mut bytes = Vec::new();
        Property::ReasonString(&long).encode(&mut bytes);
        assert_eq!(
            Property::read(&mut Reader::new(&bytes)).unwrap(),
            Property::ReasonString(&long[..65_534])
        );
    }
}
