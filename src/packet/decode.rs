//! Bytes to packets.

use crate::read::{Reader, VarInt};
use crate::{
    Ack, Auth, ConnAck, Connect, Disconnect, Filters, Packet, Properties, PropertyContext, Publish,
    Qos, ReasonCode, SubAck, Subscribe, UnsubAck, Unsubscribe, UnsubscribeFilters, Version,
};
use core::fmt;

/// Why bytes are not a packet, or not one that may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What to tell the sender.
    pub reason: ReasonCode,
    /// The clause or section of the standard, for example "MQTT-3.1.2-3" or "MQTT 2.1.4".
    pub clause: &'static str,
    /// What is wrong, in words.
    pub what: &'static str,
}

impl Malformed {
    /// A Malformed Packet.
    #[must_use]
    pub const fn packet(clause: &'static str, what: &'static str) -> Self {
        Malformed {
            reason: ReasonCode::MalformedPacket,
            clause,
            what,
        }
    }

    /// A Protocol Error.
    #[must_use]
    pub const fn protocol(clause: &'static str, what: &'static str) -> Self {
        Malformed {
            reason: ReasonCode::ProtocolError,
            clause,
            what,
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} [{}]", self.reason, self.what, self.clause)
    }
}

impl core::error::Error for Malformed {}

/// What the bytes so far are the beginning of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole packet.
    Complete {
        /// Its length in bytes, fixed header included.
        len: usize,
    },
    /// Part of one.
    Incomplete {
        /// The length that it will have, if the fixed header is already whole.
        len: Option<usize>,
    },
}

/// Looks at the fixed header [MQTT 2.1] at the start of `bytes`: the length of the first packet, and whether it is all
/// there. `packet_max` is the largest packet to accept, fixed header included.
///
/// # Errors
/// As soon as it can be known: Malformed Packet for a packet type or flags that do not exist [MQTT-2.1.3-1] and for a
/// length of more than four bytes; Packet too large.
#[inline]
pub fn frame(bytes: &[u8], packet_max: usize) -> Result<Frame, Malformed> {
    let Some((&first, rest)) = bytes.split_first() else {
        return Ok(Frame::Incomplete { len: None });
    };
    check_first_byte(first)?;
    let Some(remaining) = VarInt::read(rest)? else {
        return Ok(Frame::Incomplete { len: None });
    };
    let len = 1 + remaining.size + remaining.value as usize;
    if len > packet_max {
        return Err(Malformed {
            reason: ReasonCode::PacketTooLarge,
            clause: "MQTT-3.2.2-15",
            what: "the packet is larger than the Maximum Packet Size",
        });
    }
    if bytes.len() < len {
        return Ok(Frame::Incomplete { len: Some(len) });
    }
    Ok(Frame::Complete { len })
}

/// Decodes one whole packet: `frame` is exactly that packet, fixed header included. A CONNECT states its own version;
/// `version` is that of the others.
///
/// # Errors
/// Whatever the standard forbids on the bytes themselves. Unsupported Protocol Version for a CONNECT that is neither
/// 3.1.1 nor 5.0 (3.1 with its "MQIsdp" included).
pub fn packet(version: Version, frame: &[u8]) -> Result<Packet<'_>, Malformed> {
    let (first, body) = split_frame(frame)?;
    let mut reader = Reader::new(body);
    if first == CONNECT {
        let connect = Connect::read(&mut reader)?;
        check_length_encoding(connect.version, frame, body)?;
        reader.end()?;
        return Ok(Packet::Connect(connect));
    }
    check_length_encoding(version, frame, body)?;
    let reader = &mut reader;
    Ok(match first >> 4 {
        2 => Packet::ConnAck(conn_ack(version, reader)?),
        // A PUBLISH ends with its payload, SUBSCRIBE and the like with their lists: these take all that is left.
        3 => Packet::Publish(publish(version, first, reader)?),
        4 => Packet::PubAck(ack(version, PropertyContext::PubAck, reader)?),
        5 => Packet::PubRec(ack(version, PropertyContext::PubRec, reader)?),
        6 => Packet::PubRel(ack(version, PropertyContext::PubRel, reader)?),
        7 => Packet::PubComp(ack(version, PropertyContext::PubComp, reader)?),
        8 => Packet::Subscribe(Subscribe {
            packet_id: reader.packet_id()?,
            properties: reader.properties(version, PropertyContext::Subscribe)?,
            filters: Filters::from_encoded(version, reader.rest())?,
        }),
        9 => Packet::SubAck(SubAck {
            packet_id: reader.packet_id()?,
            properties: reader.properties(version, PropertyContext::SubAck)?,
            reasons: reasons(reader.rest(), "MQTT-3.9.3-2", |code| {
                code.is_sub_ack(version)
            })?,
        }),
        10 => Packet::Unsubscribe(Unsubscribe {
            packet_id: reader.packet_id()?,
            properties: reader.properties(version, PropertyContext::Unsubscribe)?,
            filters: UnsubscribeFilters::from_encoded(version, reader.rest())?,
        }),
        11 => Packet::UnsubAck(unsub_ack(version, reader)?),
        12 => {
            reader.end()?;
            Packet::PingReq
        }
        13 => {
            reader.end()?;
            Packet::PingResp
        }
        14 => Packet::Disconnect(disconnect(version, reader)?),
        15 if version == Version::V5 => Packet::Auth(auth(reader)?),
        _ => return Err(NO_SUCH_TYPE),
    })
}

/// The protocol level that a CONNECT states (3, 4 or 5, or one that does not exist), even if [`packet`] refuses it:
/// whoever answers it with a CONNACK needs to know in which form. `None` if `frame` is not a CONNECT or ends before it.
#[must_use]
pub fn connect_level(frame: &[u8]) -> Option<u8> {
    let (first, body) = split_frame(frame).ok()?;
    let mut reader = Reader::new(body);
    reader.binary().ok()?;
    (first == CONNECT).then_some(reader.u8().ok()?)
}

const CONNECT: u8 = 0x10;

const NO_SUCH_TYPE: Malformed =
    Malformed::packet("MQTT 2.1.2", "there is no control packet of this type");

#[inline]
fn check_first_byte(first: u8) -> Result<(), Malformed> {
    match (first >> 4, first & 0xF) {
        (0, _) => Err(NO_SUCH_TYPE),
        (3, flags) if flags & 0b0110 == 0b0110 => {
            Err(Malformed::packet("MQTT-3.3.1-4", "a PUBLISH has QoS 3"))
        }
        (3, flags) if flags & 0b1110 == 0b1000 => Err(Malformed::packet(
            "MQTT-3.3.1-2",
            "a PUBLISH of QoS 0 has the DUP flag",
        )),
        (3, _) | (6 | 8 | 10, 0b0010) => Ok(()),
        (6 | 8 | 10, _) | (_, 1..) => Err(Malformed::packet(
            "MQTT-2.1.3-1",
            "reserved flags of the fixed header are wrong",
        )),
        _ => Ok(()),
    }
}

/// The first byte, checked, and what follows the fixed header.
#[inline]
fn split_frame(frame: &[u8]) -> Result<(u8, &[u8]), Malformed> {
    const NOT_WHOLE: Malformed = Malformed::packet(
        "MQTT 2.1.4",
        "the Remaining Length is not that of the packet",
    );
    let (&first, rest) = frame.split_first().ok_or(NOT_WHOLE)?;
    check_first_byte(first)?;
    let remaining = VarInt::read(rest)?.ok_or(NOT_WHOLE)?;
    let body = &rest[remaining.size..];
    if body.len() == remaining.value as usize {
        Ok((first, body))
    } else {
        Err(NOT_WHOLE)
    }
}

/// 5.0 wants the Remaining Length in its shortest form; 3.1.1 does not say.
#[inline]
fn check_length_encoding(version: Version, frame: &[u8], body: &[u8]) -> Result<(), Malformed> {
    let length = VarInt {
        value: body.len() as u32,
        size: frame.len() - body.len() - 1,
    };
    if version == Version::V5 && !length.is_shortest() {
        return Err(Malformed::packet(
            "MQTT-1.5.5-1",
            "the Remaining Length is longer than it need be",
        ));
    }
    Ok(())
}

#[inline]
fn publish<'a>(
    version: Version,
    first: u8,
    reader: &mut Reader<'a>,
) -> Result<Publish<'a>, Malformed> {
    let qos = Qos::from_u8(first >> 1 & 3).unwrap_or_default();
    let topic = reader.topic_name_or_empty()?;
    let packet_id = match qos {
        Qos::AtMostOnce => None,
        Qos::AtLeastOnce | Qos::ExactlyOnce => Some(reader.packet_id()?),
    };
    let properties = reader.properties(version, PropertyContext::Publish)?;
    if topic.is_empty() && properties.topic_alias().is_none() {
        return Err(match version {
            Version::V311 => Malformed::packet("MQTT-4.7.3-1", "the Topic Name is empty"),
            Version::V5 => Malformed::protocol(
                "MQTT 3.3.2.1",
                "the Topic Name is empty and there is no Topic Alias",
            ),
        });
    }
    Ok(Publish {
        dup: first & 8 != 0,
        qos,
        retain: first & 1 != 0,
        topic,
        packet_id,
        properties,
        payload: reader.rest(),
    })
}

#[inline]
fn ack<'a>(
    version: Version,
    context: PropertyContext,
    reader: &mut Reader<'a>,
) -> Result<Ack<'a>, Malformed> {
    let packet_id = reader.packet_id()?;
    let (clause, may_be): (_, fn(ReasonCode) -> bool) = match context {
        PropertyContext::PubAck => ("MQTT-3.4.2-1", ReasonCode::is_received),
        PropertyContext::PubRec => ("MQTT-3.5.2-1", ReasonCode::is_received),
        PropertyContext::PubRel => ("MQTT-3.6.2-1", ReasonCode::is_released),
        _ => ("MQTT-3.7.2-1", ReasonCode::is_released),
    };
    let (reason, properties) = optional_reason(version, context, reader, clause, may_be)?;
    Ok(Ack {
        packet_id,
        reason,
        properties,
    })
}

fn conn_ack<'a>(version: Version, reader: &mut Reader<'a>) -> Result<ConnAck<'a>, Malformed> {
    let flags = reader.u8()?;
    if flags > 1 {
        return Err(Malformed::packet(
            "MQTT-3.2.2-1",
            "reserved bits of the Connect Acknowledge Flags are set",
        ));
    }
    let code = reader.u8()?;
    let reason = match version {
        Version::V311 => ReasonCode::from_v311_return_code(code),
        Version::V5 => ReasonCode::from_u8(code).filter(|&reason| reason.is_conn_ack()),
    };
    let reason = reason.ok_or(not_of_packet("MQTT-3.2.2-8"))?;
    let properties = reader.properties(version, PropertyContext::ConnAck)?;
    reader.end()?;
    let session_present = flags == 1;
    if session_present && reason != ReasonCode::Success {
        return Err(Malformed::protocol(
            "MQTT-3.2.2-6",
            "a CONNACK that refuses the connection has Session Present",
        ));
    }
    Ok(ConnAck {
        session_present,
        reason,
        properties,
    })
}

fn unsub_ack<'a>(version: Version, reader: &mut Reader<'a>) -> Result<UnsubAck<'a>, Malformed> {
    let packet_id = reader.packet_id()?;
    if version == Version::V311 {
        reader.end()?;
        return Ok(UnsubAck {
            packet_id,
            properties: Properties::EMPTY,
            reasons: &[],
        });
    }
    Ok(UnsubAck {
        packet_id,
        properties: reader.properties(version, PropertyContext::UnsubAck)?,
        reasons: reasons(reader.rest(), "MQTT-3.11.3-2", ReasonCode::is_unsub_ack)?,
    })
}

fn disconnect<'a>(version: Version, reader: &mut Reader<'a>) -> Result<Disconnect<'a>, Malformed> {
    let (reason, properties) = optional_reason(
        version,
        PropertyContext::Disconnect,
        reader,
        "MQTT-3.14.2-1",
        ReasonCode::is_disconnect,
    )?;
    Ok(Disconnect { reason, properties })
}

fn auth<'a>(reader: &mut Reader<'a>) -> Result<Auth<'a>, Malformed> {
    let omitted = reader.is_empty();
    let (reason, properties) = optional_reason(
        Version::V5,
        PropertyContext::Auth,
        reader,
        "MQTT-3.15.2-1",
        ReasonCode::is_auth,
    )?;
    // Only Success without properties may leave everything out [MQTT 3.15.2.1].
    if !omitted && properties.authentication_method().is_none() {
        return Err(Malformed::protocol(
            "MQTT 3.15.2.2.2",
            "an AUTH has no Authentication Method",
        ));
    }
    Ok(Auth { reason, properties })
}

/// The Reason Code and the properties that end a packet: either may be left out, then it is Success without
/// properties. 3.1.1 has neither.
#[inline]
fn optional_reason<'a>(
    version: Version,
    context: PropertyContext,
    reader: &mut Reader<'a>,
    clause: &'static str,
    may_be: fn(ReasonCode) -> bool,
) -> Result<(ReasonCode, Properties<'a>), Malformed> {
    if reader.is_empty() || version == Version::V311 {
        reader.end()?;
        return Ok((ReasonCode::Success, Properties::EMPTY));
    }
    let reason = ReasonCode::from_u8(reader.u8()?)
        .filter(|&reason| may_be(reason))
        .ok_or(not_of_packet(clause))?;
    if reader.is_empty() {
        return Ok((reason, Properties::EMPTY));
    }
    let properties = reader.properties(version, context)?;
    reader.end()?;
    Ok((reason, properties))
}

/// The Reason Codes of a SUBACK or UNSUBACK: at least one.
fn reasons<'a>(
    codes: &'a [u8],
    clause: &'static str,
    may_be: impl Fn(ReasonCode) -> bool,
) -> Result<&'a [u8], Malformed> {
    if codes.is_empty() {
        return Err(Malformed::protocol(
            clause,
            "an acknowledgement has no Reason Code",
        ));
    }
    let known = |&code: &u8| ReasonCode::from_u8(code).is_some_and(&may_be);
    if codes.iter().all(known) {
        Ok(codes)
    } else {
        Err(not_of_packet(clause))
    }
}

const fn not_of_packet(clause: &'static str) -> Malformed {
    Malformed::protocol(
        clause,
        "the Reason Code is not one that this packet can have",
    )
}
