//! Reason Strings: what a Reason Code means here, in words for people [MQTT 3.2.2.3.9]. A client of 5.0 gets them where it
//! wants them, and where the packet does not become larger than it takes; programs go by the code.

use crate::limits::{CLIENT_ID_BYTES, FILTER_LEVELS, TOPIC_BYTES, WILL_BYTES};
use larder_packet::{Malformed, Packet, Properties, Property, PropertyBuf, ReasonCode, Version};

// They say the limits in figures.
const _: () = assert!(
    CLIENT_ID_BYTES == 256 && TOPIC_BYTES == 4096 && FILTER_LEVELS == 200 && WILL_BYTES == 8192
);

/// Why a CONNECT is refused; empty where the code says it all.
pub(super) fn of_connect(reason: ReasonCode) -> &'static str {
    match reason {
        ReasonCode::BadAuthenticationMethod => "this server has no Authentication Method",
        ReasonCode::ClientIdentifierNotValid => {
            "a Client Identifier has at most 256 bytes, and those that begin with $larder/ are the server's"
        }
        ReasonCode::QuotaExceeded => "there are as many sessions as limits.sessions allows",
        ReasonCode::PacketTooLarge => "the CONNACK would exceed the client's Maximum Packet Size",
        _ => "",
    }
}

/// Why a message is refused.
pub(super) fn of_publish(reason: ReasonCode) -> &'static str {
    match reason {
        ReasonCode::NotAuthorized => "this client may not publish to this topic",
        ReasonCode::TopicNameInvalid => "a Topic Name has at most 4096 bytes here",
        ReasonCode::QuotaExceeded => "there is no room for this message",
        _ => "",
    }
}

/// Why a CONNECT is refused for its Will.
pub(super) fn of_will(reason: ReasonCode) -> &'static str {
    match reason {
        ReasonCode::PacketTooLarge => "a Will has at most 8192 bytes here",
        ReasonCode::QuotaExceeded => "there is no room for another Will",
        _ => "a Will Topic has at most 4096 bytes here, and does not begin with $",
    }
}

/// Why a subscription is refused: the first that is, of those in a SUBACK.
pub(super) fn of_subscribe(reasons: &[u8]) -> &'static str {
    let refused = reasons
        .iter()
        .filter_map(|reason| ReasonCode::from_u8(*reason))
        .find(|reason| reason.is_error());
    match refused {
        Some(ReasonCode::TopicFilterInvalid) => {
            "a Topic Filter has at most 4096 bytes and 200 levels here"
        }
        Some(ReasonCode::QuotaExceeded) => "there is no room for another subscription",
        Some(ReasonCode::NotAuthorized) => "this client may not subscribe to this filter",
        _ => "",
    }
}

/// Why a link is closed.
pub(super) fn of_close(reason: ReasonCode) -> &'static str {
    match reason {
        ReasonCode::KeepAliveTimeout => "nothing came for 1.5 times the Keep Alive",
        ReasonCode::SessionTakenOver => "another connection has this Client Identifier",
        ReasonCode::QuotaExceeded => "this needs more than the server has to give",
        ReasonCode::ReceiveMaximumExceeded => {
            "more messages are unacknowledged than the server's Receive Maximum allows"
        }
        ReasonCode::PacketTooLarge => {
            "the acknowledgement would exceed the client's Maximum Packet Size"
        }
        _ => "",
    }
}

/// What is wrong with a packet, and the clause that forbids it.
pub(super) fn of_malformed(malformed: &Malformed) -> String {
    format!("{} [{}]", malformed.what, malformed.clause)
}

/// What a client has said of the packets that it takes.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    pub(super) version: Version,
    /// Its Maximum Packet Size.
    pub(super) packet_max: u32,
    /// Its Request Problem Information.
    pub(super) problem_information: bool,
}

impl Terms {
    /// A packet with these words as its Reason String if it may have one, else without. `packet` makes it with these
    /// properties, and `buffer` holds them.
    pub(super) fn explained<'a>(
        self,
        words: &str,
        buffer: &'a mut PropertyBuf,
        packet: impl Fn(Properties<'a>) -> Packet<'a>,
    ) -> Packet<'a> {
        if words.is_empty() || self.version == Version::V311 {
            return packet(Properties::EMPTY);
        }
        buffer.push(Property::ReasonString(words));
        let explained = packet(buffer.as_properties());
        // [MQTT-3.1.2-29]
        let is_wanted = self.problem_information
            || matches!(explained, Packet::ConnAck(_) | Packet::Disconnect(_));
        if is_wanted && explained.encoded_len(self.version) <= self.packet_max as usize {
            explained
        } else {
            packet(Properties::EMPTY)
        }
    }
}
