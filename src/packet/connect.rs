//! CONNECT [MQTT 3.1], the one packet whose flags say which fields follow.

use crate::decode::Malformed;
use crate::read::Reader;
use crate::write::Sink;
use crate::{Connect, PropertyContext, Qos, ReasonCode, Version, Will};

const USER_NAME: u8 = 0b1000_0000;
const PASSWORD: u8 = 0b0100_0000;
const WILL_RETAIN: u8 = 0b0010_0000;
const WILL_QOS_SHIFT: u8 = 3;
const WILL: u8 = 0b0000_0100;
const CLEAN_START: u8 = 0b0000_0010;
const RESERVED: u8 = 0b0000_0001;

impl<'a> Connect<'a> {
    /// Reads what follows the fixed header.
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let version = version(reader)?;
        let flags = reader.u8()?;
        if flags & RESERVED != 0 {
            return Err(Malformed::packet(
                "MQTT-3.1.2-3",
                "the reserved Connect Flag is set",
            ));
        }
        if version == Version::V311 && flags & (USER_NAME | PASSWORD) == PASSWORD {
            return Err(Malformed::packet(
                "MQTT 3.1.1 [MQTT-3.1.2-22]",
                "there is a Password without a User Name",
            ));
        }
        let will_flags = will_flags(flags)?;
        let keep_alive = reader.u16()?;
        let properties = reader.properties(version, PropertyContext::Connect)?;
        let client_id = reader.string()?;
        let will = match will_flags {
            Some((qos, retain)) => Some(will(version, qos, retain, reader)?),
            None => None,
        };
        let username = if flags & USER_NAME == 0 {
            None
        } else {
            Some(reader.string()?)
        };
        let password = if flags & PASSWORD == 0 {
            None
        } else {
            Some(reader.binary()?)
        };
        Ok(Connect {
            version,
            clean_start: flags & CLEAN_START != 0,
            keep_alive,
            properties,
            client_id,
            will,
            username,
            password,
        })
    }

    /// Writes what follows the fixed header.
    pub(crate) fn write(&self, sink: &mut impl Sink) {
        let mut flags = 0;
        if self.clean_start {
            flags |= CLEAN_START;
        }
        if let Some(will) = &self.will {
            flags |= WILL | (will.qos as u8) << WILL_QOS_SHIFT;
            if will.retain {
                flags |= WILL_RETAIN;
            }
        }
        if self.username.is_some() {
            flags |= USER_NAME;
        }
        if self.password.is_some() {
            flags |= PASSWORD;
        }
        sink.string("MQTT");
        sink.u8(self.version as u8);
        sink.u8(flags);
        sink.u16(self.keep_alive);
        sink.properties(self.version, self.properties);
        sink.string(self.client_id);
        if let Some(will) = &self.will {
            sink.properties(self.version, will.properties);
            sink.string(will.topic);
            sink.binary(will.payload);
        }
        if let Some(username) = self.username {
            sink.string(username);
        }
        if let Some(password) = self.password {
            sink.binary(password);
        }
    }
}

fn version(reader: &mut Reader<'_>) -> Result<Version, Malformed> {
    let unsupported = |clause, what| Malformed {
        reason: ReasonCode::UnsupportedProtocolVersion,
        clause,
        what,
    };
    match (reader.binary()?, reader.u8()?) {
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        (b"MQTT", _) => Err(unsupported(
            "MQTT-3.1.2-2",
            "the protocol is neither MQTT 3.1.1 nor MQTT 5.0",
        )),
        (b"MQIsdp", _) => Err(unsupported(
            "MQTT-3.1.2-2",
            "the protocol is MQTT 3.1; 3.1.1 and 5.0 are spoken here",
        )),
        _ => Err(unsupported(
            "MQTT-3.1.2-1",
            "the Protocol Name is not \"MQTT\"",
        )),
    }
}

/// Will QoS and Will Retain, if the Will Flag is set.
fn will_flags(flags: u8) -> Result<Option<(Qos, bool)>, Malformed> {
    let qos = flags >> WILL_QOS_SHIFT & 3;
    let retain = flags & WILL_RETAIN != 0;
    if flags & WILL == 0 {
        return match (qos, retain) {
            (0, false) => Ok(None),
            (0, true) => Err(Malformed::packet(
                "MQTT-3.1.2-13",
                "there is Will Retain without a Will",
            )),
            _ => Err(Malformed::packet(
                "MQTT-3.1.2-11",
                "there is a Will QoS without a Will",
            )),
        };
    }
    let qos = Qos::from_u8(qos).ok_or(Malformed::packet("MQTT-3.1.2-12", "the Will QoS is 3"))?;
    Ok(Some((qos, retain)))
}

fn will<'a>(
    version: Version,
    qos: Qos,
    retain: bool,
    reader: &mut Reader<'a>,
) -> Result<Will<'a>, Malformed> {
    let properties = reader.properties(version, PropertyContext::Will)?;
    let topic = reader.topic_name_or_empty()?;
    if topic.is_empty() {
        return Err(Malformed::packet("MQTT-4.7.3-1", "the Will Topic is empty"));
    }
    Ok(Will {
        qos,
        retain,
        properties,
        topic,
        payload: reader.binary()?,
    })
}
