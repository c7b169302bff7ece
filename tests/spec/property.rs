//! The properties of MQTT 5.0 by name, number and type [2.2.2.2].

/// How a property's value is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Byte,
    TwoBytes,
    FourBytes,
    Varint,
    Counted,
    Pair,
}

pub(crate) struct Property {
    pub(crate) number: u8,
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

pub(crate) const PROPERTIES: [Property; 27] = [
    property(0x01, "payload_format_indicator", Kind::Byte),
    property(0x02, "message_expiry_interval", Kind::FourBytes),
    property(0x03, "content_type", Kind::Counted),
    property(0x08, "response_topic", Kind::Counted),
    property(0x09, "correlation_data", Kind::Counted),
    property(0x0B, "subscription_identifier", Kind::Varint),
    property(0x11, "session_expiry_interval", Kind::FourBytes),
    property(0x12, "assigned_client_identifier", Kind::Counted),
    property(0x13, "server_keep_alive", Kind::TwoBytes),
    property(0x15, "authentication_method", Kind::Counted),
    property(0x16, "authentication_data", Kind::Counted),
    property(0x17, "request_problem_information", Kind::Byte),
    property(0x18, "will_delay_interval", Kind::FourBytes),
    property(0x19, "request_response_information", Kind::Byte),
    property(0x1A, "response_information", Kind::Counted),
    property(0x1C, "server_reference", Kind::Counted),
    property(0x1F, "reason_string", Kind::Counted),
    property(0x21, "receive_maximum", Kind::TwoBytes),
    property(0x22, "topic_alias_maximum", Kind::TwoBytes),
    property(0x23, "topic_alias", Kind::TwoBytes),
    property(0x24, "maximum_qos", Kind::Byte),
    property(0x25, "retain_available", Kind::Byte),
    property(0x26, "user_property", Kind::Pair),
    property(0x27, "maximum_packet_size", Kind::FourBytes),
    property(0x28, "wildcard_subscription_available", Kind::Byte),
    property(0x29, "subscription_identifier_available", Kind::Byte),
    property(0x2A, "shared_subscription_available", Kind::Byte),
];

pub(crate) fn by_name(name: &str) -> Option<&'static Property> {
    PROPERTIES.iter().find(|property| property.name == name)
}

pub(crate) fn by_number(number: u8) -> Option<&'static Property> {
    PROPERTIES.iter().find(|property| property.number == number)
}

const fn property(number: u8, name: &'static str, kind: Kind) -> Property {
    Property { number, name, kind }
}
