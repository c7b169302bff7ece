//! MQTT 3.1.1 and 5.0 control packets: bytes to packets and back, for servers and clients alike.
//!
//! # Decoding
//! Bytes come from a stream. [`frame`] says whether they begin with a whole packet, and refuses a length above what the
//! caller is ready to hold as soon as the length is known. [`packet`] then decodes one whole packet into a [`Packet`]
//! whose strings, payload and properties borrow from those bytes: nothing is copied or allocated.
//!
//! What [`packet`] returns keeps every rule of the standard that can be checked on the bytes of one packet alone. What
//! does not is a [`Malformed`], with the Reason Code for the DISCONNECT or CONNACK and the clause that was broken.
//! Rules that need to know more stay with the caller: which side may send it, what came before it, the limits that were announced, whether an empty Client Identifier is acceptable.
//!
//! ```
//! use larder_packet::{Frame, Packet, Qos, Version, frame, packet};
//!
//! // PUBLISH, QoS 0, Topic Name "a/b", payload "hi" in MQTT 5.0, and the beginning of a PINGREQ.
//! let received = [0x30, 8, 0, 3, b'a', b'/', b'b', 0, b'h', b'i', 0xC0];
//! let Frame::Complete { len } = frame(&received, 1024)? else { panic!("it is whole") };
//! let Packet::Publish(publish) = packet(Version::V5, &received[..len])? else { panic!("it is a PUBLISH") };
//! assert_eq!((publish.topic, publish.payload, publish.qos), ("a/b", &b"hi"[..], Qos::AtMostOnce));
//!
//! assert_eq!(frame(&received[len..], 1024)?, Frame::Incomplete { len: None });
//! # Ok::<(), larder_packet::Malformed>(())
//! ```
//!
//! # Encoding
//! [`Packet::encode`] appends to a `Vec<u8>`; with room for [`Packet::encoded_len`] bytes there, it allocates nothing.
//! The form is always the shortest: a 5.0 acknowledgement of success without properties has no Reason Code. What 3.1.1
//! does not have (properties, most Reason Codes, subscription options besides QoS) is left out for 3.1.1.
//! [`Delivery`] is a PUBLISH on its way to a subscriber, put together from parts that are stored separately.
//!
//! ```
//! use larder_packet::{Ack, Packet, PacketId, Properties, ReasonCode, Version};
//!
//! let ack = Ack { packet_id: PacketId::MIN, reason: ReasonCode::Success, properties: Properties::EMPTY };
//! let mut out = Vec::new();
//! Packet::PubAck(ack).encode(Version::V5, &mut out);
//! assert_eq!(out, [0x40, 2, 0, 1]);
//! ```
//!
//! # Clauses
//! A citation like `[MQTT-3.3.2-2]` is a conformance statement of MQTT 5.0, whose numbers differ from those of 3.1.1
//! for the same rule; `[MQTT 2.1.4]` is a section. A rule that only 3.1.1 has is cited as `MQTT 3.1.1 [MQTT-3.1.2-22]`.

mod connect;
mod decode;
mod encode;
mod filters;
mod properties;
pub mod property;
mod read;
mod reason;
pub mod topic;
mod write;

pub use decode::{Frame, Malformed, connect_level, frame, packet};
pub use encode::Delivery;
pub use filters::{Filters, SubscriptionOptions, UnsubscribeFilters};
pub use properties::{Properties, PropertyBuf, PropertyContext};
pub use property::Property;
pub use reason::ReasonCode;

/// The version of the protocol, as CONNECT states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Version {
    /// MQTT 3.1.1.
    V311 = 4,
    /// MQTT 5.0.
    V5 = 5,
}

/// Quality of Service [MQTT 4.3].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Qos {
    /// At most once.
    #[default]
    AtMostOnce = 0,
    /// At least once.
    AtLeastOnce = 1,
    /// Exactly once.
    ExactlyOnce = 2,
}

impl Qos {
    /// The level with this number; `None` above 2.
    #[inline]
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Qos> {
        match number {
            0 => Some(Qos::AtMostOnce),
            1 => Some(Qos::AtLeastOnce),
            2 => Some(Qos::ExactlyOnce),
            _ => None,
        }
    }
}

/// A Packet Identifier: never zero [MQTT-2.2.1-3].
pub type PacketId = core::num::NonZeroU16;

/// A control packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Client to server: connection request.
    Connect(Connect<'a>),
    /// Server to client: connection acknowledgement.
    ConnAck(ConnAck<'a>),
    /// Either way: a message.
    Publish(Publish<'a>),
    /// Either way: acknowledgement of QoS 1.
    PubAck(Ack<'a>),
    /// Either way: QoS 2, received.
    PubRec(Ack<'a>),
    /// Either way: QoS 2, release.
    PubRel(Ack<'a>),
    /// Either way: QoS 2, complete.
    PubComp(Ack<'a>),
    /// Client to server: subscribe request.
    Subscribe(Subscribe<'a>),
    /// Server to client: subscribe acknowledgement.
    SubAck(SubAck<'a>),
    /// Client to server: unsubscribe request.
    Unsubscribe(Unsubscribe<'a>),
    /// Server to client: unsubscribe acknowledgement.
    UnsubAck(UnsubAck<'a>),
    /// Client to server: are you there?
    PingReq,
    /// Server to client: yes.
    PingResp,
    /// Client to server; in 5.0 either way: the end of the connection.
    Disconnect(Disconnect<'a>),
    /// Either way, 5.0 only: a step of enhanced authentication.
    Auth(Auth<'a>),
}

/// CONNECT [MQTT 3.1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version that the client speaks.
    pub version: Version,
    /// Clean Start; 3.1.1: Clean Session.
    pub clean_start: bool,
    /// Keep Alive in seconds; 0: none.
    pub keep_alive: u16,
    /// Properties.
    pub properties: Properties<'a>,
    /// Client Identifier; may be empty.
    pub client_id: &'a str,
    /// The Will, if the Will Flag is set.
    pub will: Option<Will<'a>>,
    /// User Name.
    pub username: Option<&'a str>,
    /// Password. In 3.1.1 only with a User Name.
    pub password: Option<&'a [u8]>,
}

/// The Will in a CONNECT [MQTT 3.1.2.5].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// Will QoS.
    pub qos: Qos,
    /// Will Retain.
    pub retain: bool,
    /// Will Properties.
    pub properties: Properties<'a>,
    /// Will Topic: a valid Topic Name.
    pub topic: &'a str,
    /// Will Payload.
    pub payload: &'a [u8],
}

/// CONNACK [MQTT 3.2].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Session Present; false with any reason but Success [MQTT-3.2.2-6].
    pub session_present: bool,
    /// Reason Code; in 3.1.1 translated from and to the return codes 0 to 5.
    pub reason: ReasonCode,
    /// Properties.
    pub properties: Properties<'a>,
}

/// PUBLISH [MQTT 3.3].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// DUP: may have been sent before.
    pub dup: bool,
    /// QoS.
    pub qos: Qos,
    /// RETAIN.
    pub retain: bool,
    /// Topic Name; in 5.0 empty where a Topic Alias stands for it.
    pub topic: &'a str,
    /// Packet Identifier: exactly if QoS is 1 or 2.
    pub packet_id: Option<PacketId>,
    /// Properties.
    pub properties: Properties<'a>,
    /// The message.
    pub payload: &'a [u8],
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP [MQTT 3.4 to 3.7].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The Packet Identifier of the PUBLISH.
    pub packet_id: PacketId,
    /// Reason Code; in 3.1.1 always Success.
    pub reason: ReasonCode,
    /// Properties.
    pub properties: Properties<'a>,
}

/// SUBSCRIBE [MQTT 3.8].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Packet Identifier.
    pub packet_id: PacketId,
    /// Properties.
    pub properties: Properties<'a>,
    /// Topic Filters with their options; at least one.
    pub filters: Filters<'a>,
}

/// SUBACK [MQTT 3.9].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// The Packet Identifier of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// Properties.
    pub properties: Properties<'a>,
    /// A Reason Code for each Topic Filter; in 3.1.1 a return code 0, 1, 2 or 0x80 (any other failure is sent as that).
    pub reasons: &'a [u8],
}

/// UNSUBSCRIBE [MQTT 3.10].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Packet Identifier.
    pub packet_id: PacketId,
    /// Properties.
    pub properties: Properties<'a>,
    /// Topic Filters; at least one.
    pub filters: UnsubscribeFilters<'a>,
}

/// UNSUBACK [MQTT 3.11].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// The Packet Identifier of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Properties.
    pub properties: Properties<'a>,
    /// A Reason Code for each Topic Filter; empty in 3.1.1.
    pub reasons: &'a [u8],
}

/// DISCONNECT [MQTT 3.14].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Reason Code; Success is Normal disconnection, and the only one in 3.1.1.
    pub reason: ReasonCode,
    /// Properties.
    pub properties: Properties<'a>,
}

/// AUTH [MQTT 3.15], 5.0 only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success, Continue authentication or Re-authenticate.
    pub reason: ReasonCode,
    /// Properties.
    pub properties: Properties<'a>,
}
