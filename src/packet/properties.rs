//! The properties of a packet: encoded bytes that have been checked, and a builder of them.

use crate::decode::Malformed;
use crate::property::{Property, UNKNOWN, id};
use crate::read::Reader;
use core::fmt;

/// The properties of one packet: encoded, without their length, and checked. Empty in MQTT 3.1.1.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Properties<'a>(&'a [u8]);

impl<'a> Properties<'a> {
    /// No properties.
    pub const EMPTY: Properties<'static> = Properties(&[]);

    /// Checks encoded properties, without their length, for the packet that `context` names.
    ///
    /// # Errors
    /// Malformed Packet if a property is cut short, unknown or not allowed in that packet [MQTT 2.2.2.2]; Protocol
    /// Error if one is there twice that may be there once, or has a value that the standard forbids.
    pub fn from_encoded(bytes: &'a [u8], context: PropertyContext) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let mut seen: u64 = 0;
        while let Some(&id) = reader.rest().first() {
            let allowed = contexts(id).ok_or(UNKNOWN)?;
            if allowed & context as u16 == 0 {
                return Err(Malformed::packet(
                    "MQTT 2.2.2.2",
                    "a property is not allowed in this packet",
                ));
            }
            let once = 1 << id;
            if seen & once != 0 && !repeats(id, context) {
                return Err(Malformed::protocol(
                    "MQTT 2.2.2.2",
                    "a property is there twice that may be there once",
                ));
            }
            seen |= once;
            Property::read(&mut reader)?;
        }
        let has = |id: u8| seen & (1 << id) != 0;
        if has(id::AUTHENTICATION_DATA) && !has(id::AUTHENTICATION_METHOD) {
            return Err(Malformed::protocol(
                "MQTT 3.1.2.11.10",
                "there is Authentication Data without an Authentication Method",
            ));
        }
        Ok(Properties(bytes))
    }

    /// The encoded properties, without their length.
    #[inline]
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Whether there is none.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The properties in their order.
    pub fn iter(self) -> impl Iterator<Item = Property<'a>> {
        let mut reader = Reader::new(self.0);
        // What was checked is read without error, so that only the end ends this.
        core::iter::from_fn(move || Property::read(&mut reader).ok())
    }

    /// The properties in their order, undecoded: each with its Property Identifier ([`id`]) and all its encoded bytes,
    /// identifier included. For copying some of them.
    pub fn iter_raw(self) -> impl Iterator<Item = (u8, &'a [u8])> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let (&id, value) = rest.split_first()?;
            let (property, after) = rest.split_at_checked(1 + value_len(id, value)?)?;
            rest = after;
            Some((id, property))
        })
    }

    /// The encoded value of the first property with this identifier.
    #[inline]
    fn value(self, id: u8) -> Option<&'a [u8]> {
        if self.is_empty() {
            return None;
        }
        self.iter_raw()
            .find(|&(found, _)| found == id)
            .map(|(_, property)| &property[1..])
    }
}

/// Getters of the properties that are there once; of Subscription Identifiers, the first.
macro_rules! getters {
    ($($name:ident: $type:ty = $read:ident($id:ident), $doc:literal;)*) => {
        impl<'a> Properties<'a> {
            $(
                #[doc = concat!($doc, ".")]
                #[must_use]
                pub fn $name(self) -> Option<$type> {
                    Reader::new(self.value(id::$id)?).$read().ok()
                }
            )*
        }
    };
}

getters! {
    payload_format_indicator: bool = flag(PAYLOAD_FORMAT_INDICATOR), "Whether the payload is declared to be UTF-8 text";
    message_expiry_interval: u32 = u32(MESSAGE_EXPIRY_INTERVAL), "Message Expiry Interval in seconds";
    content_type: &'a str = string(CONTENT_TYPE), "Content Type";
    response_topic: &'a str = string(RESPONSE_TOPIC), "Response Topic";
    correlation_data: &'a [u8] = binary(CORRELATION_DATA), "Correlation Data";
    subscription_identifier: u32 = varint(SUBSCRIPTION_IDENTIFIER), "Subscription Identifier, the first if there are several";
    session_expiry_interval: u32 = u32(SESSION_EXPIRY_INTERVAL), "Session Expiry Interval in seconds; `u32::MAX`: never";
    assigned_client_identifier: &'a str = string(ASSIGNED_CLIENT_IDENTIFIER), "Assigned Client Identifier";
    server_keep_alive: u16 = u16(SERVER_KEEP_ALIVE), "Server Keep Alive in seconds";
    authentication_method: &'a str = string(AUTHENTICATION_METHOD), "Authentication Method";
    authentication_data: &'a [u8] = binary(AUTHENTICATION_DATA), "Authentication Data";
    request_problem_information: bool = flag(REQUEST_PROBLEM_INFORMATION), "Request Problem Information; absent means true";
    will_delay_interval: u32 = u32(WILL_DELAY_INTERVAL), "Will Delay Interval in seconds";
    request_response_information: bool = flag(REQUEST_RESPONSE_INFORMATION), "Request Response Information; absent means false";
    response_information: &'a str = string(RESPONSE_INFORMATION), "Response Information";
    server_reference: &'a str = string(SERVER_REFERENCE), "Server Reference";
    reason_string: &'a str = string(REASON_STRING), "Reason String";
    receive_maximum: u16 = u16(RECEIVE_MAXIMUM), "Receive Maximum; absent means 65,535";
    topic_alias_maximum: u16 = u16(TOPIC_ALIAS_MAXIMUM), "Topic Alias Maximum; absent means 0";
    topic_alias: u16 = u16(TOPIC_ALIAS), "Topic Alias";
    maximum_qos: u8 = u8(MAXIMUM_QOS), "Maximum QoS, 0 or 1; absent means 2";
    retain_available: bool = flag(RETAIN_AVAILABLE), "Retain Available; absent means true";
    maximum_packet_size: u32 = u32(MAXIMUM_PACKET_SIZE), "Maximum Packet Size in bytes; absent means no limit";
    wildcard_subscription_available: bool = flag(WILDCARD_SUBSCRIPTION_AVAILABLE), "Wildcard Subscription Available; absent means true";
    subscription_identifier_available: bool = flag(SUBSCRIPTION_IDENTIFIER_AVAILABLE), "Subscription Identifiers Available; absent means true";
    shared_subscription_available: bool = flag(SHARED_SUBSCRIPTION_AVAILABLE), "Shared Subscription Available; absent means true";
}

impl fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Where properties stand; decides which are allowed [MQTT 2.2.2.2, table 2-4].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[allow(missing_docs, reason = "they bear the packets' names")]
pub enum PropertyContext {
    Connect = 1,
    /// The Will Properties in a CONNECT [MQTT 3.1.3.2].
    Will = 1 << 1,
    ConnAck = 1 << 2,
    Publish = 1 << 3,
    PubAck = 1 << 4,
    PubRec = 1 << 5,
    PubRel = 1 << 6,
    PubComp = 1 << 7,
    Subscribe = 1 << 8,
    SubAck = 1 << 9,
    Unsubscribe = 1 << 10,
    UnsubAck = 1 << 11,
    Disconnect = 1 << 12,
    Auth = 1 << 13,
}

/// The contexts in which a property is allowed, as a set; `None` if the standard has no such property.
const fn contexts(id: u8) -> Option<u16> {
    use PropertyContext as In;
    const ALL: u16 = (1 << 14) - 1;
    const MESSAGE: u16 = In::Publish as u16 | In::Will as u16;
    const AUTHENTICATION: u16 = In::Connect as u16 | In::ConnAck as u16 | In::Auth as u16;
    const ASKING: u16 =
        In::Connect as u16 | MESSAGE | In::Subscribe as u16 | In::Unsubscribe as u16;
    Some(match id {
        id::PAYLOAD_FORMAT_INDICATOR
        | id::MESSAGE_EXPIRY_INTERVAL
        | id::CONTENT_TYPE
        | id::RESPONSE_TOPIC
        | id::CORRELATION_DATA => MESSAGE,
        id::SUBSCRIPTION_IDENTIFIER => In::Publish as u16 | In::Subscribe as u16,
        id::SESSION_EXPIRY_INTERVAL => {
            In::Connect as u16 | In::ConnAck as u16 | In::Disconnect as u16
        }
        id::AUTHENTICATION_METHOD | id::AUTHENTICATION_DATA => AUTHENTICATION,
        id::REQUEST_PROBLEM_INFORMATION | id::REQUEST_RESPONSE_INFORMATION => In::Connect as u16,
        id::WILL_DELAY_INTERVAL => In::Will as u16,
        id::SERVER_REFERENCE => In::ConnAck as u16 | In::Disconnect as u16,
        id::REASON_STRING => ALL & !ASKING,
        id::RECEIVE_MAXIMUM | id::TOPIC_ALIAS_MAXIMUM | id::MAXIMUM_PACKET_SIZE => {
            In::Connect as u16 | In::ConnAck as u16
        }
        id::TOPIC_ALIAS => In::Publish as u16,
        id::USER_PROPERTY => ALL,
        id::ASSIGNED_CLIENT_IDENTIFIER
        | id::SERVER_KEEP_ALIVE
        | id::RESPONSE_INFORMATION
        | id::MAXIMUM_QOS
        | id::RETAIN_AVAILABLE
        | id::WILDCARD_SUBSCRIPTION_AVAILABLE
        | id::SUBSCRIPTION_IDENTIFIER_AVAILABLE
        | id::SHARED_SUBSCRIPTION_AVAILABLE => In::ConnAck as u16,
        _ => return None,
    })
}

/// Whether a property may be there several times: a message that matches several subscriptions carries the identifier
/// of each [MQTT-3.3.4-3].
fn repeats(id: u8, context: PropertyContext) -> bool {
    id == id::USER_PROPERTY
        || (id == id::SUBSCRIPTION_IDENTIFIER && context == PropertyContext::Publish)
}

/// The length of the value of property `id` at the start of `bytes`, by its data type alone.
fn value_len(id: u8, bytes: &[u8]) -> Option<usize> {
    let string = |bytes: &[u8]| {
        bytes
            .first_chunk()
            .map(|&len| 2 + usize::from(u16::from_be_bytes(len)))
    };
    match id {
        id::PAYLOAD_FORMAT_INDICATOR
        | id::REQUEST_PROBLEM_INFORMATION
        | id::REQUEST_RESPONSE_INFORMATION
        | id::MAXIMUM_QOS
        | id::RETAIN_AVAILABLE
        | id::WILDCARD_SUBSCRIPTION_AVAILABLE
        | id::SUBSCRIPTION_IDENTIFIER_AVAILABLE
        | id::SHARED_SUBSCRIPTION_AVAILABLE => Some(1),
        id::SERVER_KEEP_ALIVE | id::RECEIVE_MAXIMUM | id::TOPIC_ALIAS_MAXIMUM | id::TOPIC_ALIAS => {
            Some(2)
        }
        id::MESSAGE_EXPIRY_INTERVAL
        | id::SESSION_EXPIRY_INTERVAL
        | id::WILL_DELAY_INTERVAL
        | id::MAXIMUM_PACKET_SIZE => Some(4),
        id::SUBSCRIPTION_IDENTIFIER => bytes
            .iter()
            .position(|byte| byte & 0x80 == 0)
            .map(|at| at + 1),
        id::USER_PROPERTY => {
            let name = string(bytes)?;
            Some(name + string(bytes.get(name..)?)?)
        }
        _ => string(bytes),
    }
}

/// Properties in the making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertyBuf {
    bytes: Vec<u8>,
}

impl PropertyBuf {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        PropertyBuf { bytes: Vec::new() }
    }

    /// Adds a property after the others. Which ones a packet may have, and how often, is the caller's to know.
    pub fn push(&mut self, property: Property<'_>) {
        property.encode(&mut self.bytes);
    }

    /// Removes all; keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// The properties, to be put into a packet.
    #[must_use]
    pub fn as_properties(&self) -> Properties<'_> {
        Properties(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ReasonCode;

    #[test]
    fn getters_find_what_was_pushed() {
        let mut buf = PropertyBuf::new();
        buf.push(Property::UserProperty("a", "b"));
        buf.push(Property::SessionExpiryInterval(7));
        buf.push(Property::UserProperty("a", "c"));
        buf.push(Property::ReceiveMaximum(20));
        buf.push(Property::RequestProblemInformation(false));
        let properties = buf.as_properties();
        assert_eq!(
            Properties::from_encoded(properties.as_bytes(), PropertyContext::Connect),
            Ok(properties)
        );
        assert_eq!(properties.session_expiry_interval(), Some(7));
        assert_eq!(properties.receive_maximum(), Some(20));
        assert_eq!(properties.request_problem_information(), Some(false));
        assert_eq!(properties.maximum_packet_size(), None);
        assert_eq!(properties.iter().count(), 5);
        let ids: Vec<u8> = properties.iter_raw().map(|(id, _)| id).collect();
        assert_eq!(ids, [0x26, 0x11, 0x26, 0x21, 0x17]);
        let copied: Vec<u8> = properties
            .iter_raw()
            .flat_map(|(_, bytes)| bytes)
            .copied()
            .collect();
        assert_eq!(copied, properties.as_bytes());
        buf.clear();
        assert!(buf.as_properties().is_empty());
        assert_eq!(Properties::EMPTY.receive_maximum(), None);
    }

    #[test]
    fn a_property_twice_is_a_protocol_error_except_where_it_may_repeat() {
        let ids = [
            id::SUBSCRIPTION_IDENTIFIER,
            1,
            id::SUBSCRIPTION_IDENTIFIER,
            2,
        ];
        assert!(Properties::from_encoded(&ids, PropertyContext::Publish).is_ok());
        let twice = Properties::from_encoded(&ids, PropertyContext::Subscribe).unwrap_err();
        assert_eq!(twice.reason, ReasonCode::ProtocolError);
        let user = [id::USER_PROPERTY, 0, 0, 0, 0, id::USER_PROPERTY, 0, 0, 0, 0];
        assert!(Properties::from_encoded(&user, PropertyContext::UnsubAck).is_ok());
    }

    #[test]
    fn a_property_of_another_packet_is_malformed() {
        let delay = [id::WILL_DELAY_INTERVAL, 0, 0, 0, 1];
        assert!(Properties::from_encoded(&delay, PropertyContext::Will).is_ok());
        let misplaced = Properties::from_encoded(&delay, PropertyContext::Connect).unwrap_err();
        assert_eq!(
            (misplaced.reason, misplaced.clause),
            (ReasonCode::MalformedPacket, "MQTT 2.2.2.2")
        );
    }

    #[test]
    fn authentication_data_needs_a_method() {
        let data = [id::AUTHENTICATION_DATA, 0, 0];
        let alone = Properties::from_encoded(&data, PropertyContext::Connect).unwrap_err();
        assert_eq!(alone.clause, "MQTT 3.1.2.11.10");
    }

    /// Table 2-4, by row.
    #[test]
    fn properties_are_allowed_where_the_standard_says() {
        use PropertyContext as In;
        let rows: [(u8, &[In]); 6] = [
            (id::CONTENT_TYPE, &[In::Publish, In::Will]),
            (
                id::SESSION_EXPIRY_INTERVAL,
                &[In::Connect, In::ConnAck, In::Disconnect],
            ),
            (
                id::AUTHENTICATION_METHOD,
                &[In::Connect, In::ConnAck, In::Auth],
            ),
            (id::SERVER_REFERENCE, &[In::ConnAck, In::Disconnect]),
            (
                id::REASON_STRING,
                &[
                    In::ConnAck,
                    In::PubAck,
                    In::PubRec,
                    In::PubRel,
                    In::PubComp,
                    In::SubAck,
                    In::UnsubAck,
                    In::Disconnect,
                    In::Auth,
                ],
            ),
            (id::RECEIVE_MAXIMUM, &[In::Connect, In::ConnAck]),
        ];
        for (id, allowed) in rows {
            let set = allowed.iter().fold(0, |set, &context| set | context as u16);
            assert_eq!(contexts(id), Some(set), "{id:#x}");
        }
        assert_eq!((0..=255).filter(|&id| contexts(id).is_some()).count(), 27);
    }
}
