//! Packets in words, from bytes, for telling what was expected and what came: the shorthand's own words.

use crate::pattern::Pattern;
use crate::property::{self, Kind};
use crate::shorthand::Version;
use std::fmt::Write as _;

/// Says what a packet is, in the words of the shorthand as far as it can be decoded.
pub(crate) fn tell(bytes: &[u8], version: Version) -> String {
    let mut out = String::new();
    let mut reader = Reader {
        rest: bytes,
        version,
    };
    match packet(&mut reader, &mut out) {
        Some(()) if reader.rest.is_empty() => out,
        Some(()) => format!("{out} and {} bytes too many", reader.rest.len()),
        None => format!("{out} … ends before its end"),
    }
}

/// How long the packet is that these bytes begin; `None` while its length is not all there.
pub(crate) fn packet_length(bytes: &[u8]) -> Option<usize> {
    let mut reader = Reader {
        rest: bytes,
        version: Version::V5,
    };
    reader.byte()?;
    let length = reader.varint()?;
    Some(bytes.len() - reader.rest.len() + length)
}

/// The packet without its Reason String, in the shortest form; `None` if it has none.
pub(crate) fn without_reason_string(bytes: &[u8], version: Version) -> Option<Vec<u8>> {
    let mut reader = Reader {
        rest: bytes,
        version,
    };
    let first_byte = reader.byte()?;
    reader.varint()?;
    // What stands before the properties, and whether these may be left out.
    let (before, is_optional) = match (version, first_byte >> 4) {
        (Version::V5, 2 | 9 | 11) => (2, false),
        (Version::V5, 4..=7) => (3, true),
        (Version::V5, 14 | 15) => (1, true),
        _ => return None,
    };
    let mut body = reader.take(before)?.to_vec();
    let length = reader.varint()?;
    let mut properties = Reader {
        rest: reader.take(length)?,
        version,
    };
    let mut kept = Vec::new();
    while !properties.rest.is_empty() {
        let property = properties.property()?;
        if property[0] != REASON_STRING {
            kept.extend_from_slice(property);
        }
    }
    if kept.len() == length {
        return None;
    }
    let mut packet = Pattern::default();
    if !(kept.is_empty() && is_optional) {
        let mut length = Pattern::default();
        length.varint(kept.len());
        body.extend(length.filled(0));
    }
    body.extend(kept);
    body.extend(reader.rest);
    packet.push(first_byte);
    packet.varint(body.len());
    packet.bytes(&body);
    Some(packet.filled(0))
}

const REASON_STRING: u8 = 0x1F;

/// The Client Identifier, if this is a CONNECT that has one.
pub(crate) fn client_identifier(bytes: &[u8]) -> Option<&[u8]> {
    connect_beginning(bytes)?.1.counted()
}

/// The Topic Name for which a message may be retained by virtue of this packet: a PUBLISH with RETAIN, or a CONNECT whose
/// Will has it.
pub(crate) fn retained_topic(bytes: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader {
        rest: bytes,
        version: Version::V5,
    };
    if reader.byte()? & 0xF1 == 0x31 {
        reader.varint()?;
        return reader.counted();
    }
    let (flags, mut reader) = connect_beginning(bytes)?;
    reader.counted()?;
    if flags & 0x24 != 0x24 {
        return None;
    }
    if reader.version == Version::V5 {
        let properties = reader.varint()?;
        reader.take(properties)?;
    }
    reader.counted()
}

/// A CONNECT's flags, and what begins with its Client Identifier.
fn connect_beginning(bytes: &[u8]) -> Option<(u8, Reader<'_>)> {
    let mut reader = Reader {
        rest: bytes,
        version: Version::V5,
    };
    let (0x10, _, b"MQTT", level) = (
        reader.byte()?,
        reader.varint()?,
        reader.counted()?,
        reader.byte()?,
    ) else {
        return None;
    };
    let flags = reader.byte()?;
    reader.take(2)?;
    if level == 5 {
        let properties = reader.varint()?;
        reader.take(properties)?;
    } else {
        reader.version = Version::V311;
    }
    Some((flags, reader))
}

fn packet(reader: &mut Reader<'_>, out: &mut String) -> Option<()> {
    let first_byte = reader.byte()?;
    let name = NAMES[usize::from(first_byte >> 4)];
    out.push_str(name);
    let length = reader.varint()?;
    if length != reader.rest.len() {
        let _ = write!(out, " (of {length} bytes)");
    }
    match (name, first_byte & 0x0F) {
        ("PUBLISH", _) | ("PUBREL" | "SUBSCRIBE" | "UNSUBSCRIBE", 2) | (_, 0) => {}
        (_, flags) => {
            let _ = write!(out, " (flags {flags:04b})");
        }
    }
    match name {
        "CONNECT" => connect(reader, out),
        "CONNACK" => {
            match reader.byte()? {
                0 => {}
                1 => out.push_str(" session_present"),
                flags => {
                    let _ = write!(out, " (flags {flags:08b})");
                }
            }
            reader.code(out)?;
            reader.properties(out, "")
        }
        "PUBLISH" => publish(reader, out, first_byte),
        "PUBACK" | "PUBREC" | "PUBREL" | "PUBCOMP" => {
            reader.id(out)?;
            reader.reason(out)
        }
        "DISCONNECT" | "AUTH" => reader.reason(out),
        "SUBACK" | "UNSUBACK" => {
            reader.id(out)?;
            reader.properties(out, "")?;
            while !reader.rest.is_empty() {
                reader.code(out)?;
            }
            Some(())
        }
        "SUBSCRIBE" | "UNSUBSCRIBE" => {
            reader.id(out)?;
            reader.properties(out, "")?;
            while !reader.rest.is_empty() {
                let _ = write!(out, " filter={}", quoted(reader.counted()?));
                if name == "SUBSCRIBE" {
                    options(reader.byte()?, out);
                }
            }
            Some(())
        }
        _ => Some(()),
    }
}

const NAMES: [&str; 16] = [
    "reserved type 0",
    "CONNECT",
    "CONNACK",
    "PUBLISH",
    "PUBACK",
    "PUBREC",
    "PUBREL",
    "PUBCOMP",
    "SUBSCRIBE",
    "SUBACK",
    "UNSUBSCRIBE",
    "UNSUBACK",
    "PINGREQ",
    "PINGRESP",
    "DISCONNECT",
    "AUTH",
];

fn connect(reader: &mut Reader<'_>, out: &mut String) -> Option<()> {
    match (reader.counted()?, reader.byte()?) {
        (b"MQTT", 5) => {
            reader.version = Version::V5;
            out.push_str(" v5");
        }
        (b"MQTT", 4) => {
            reader.version = Version::V311;
            out.push_str(" v311");
        }
        (name, level) => {
            let _ = write!(out, " ({} level {level})", quoted(name));
        }
    }
    let flags = reader.byte()?;
    for (bit, word) in [
        (0x02, " clean"),
        (0x08, " will_qos1"),
        (0x10, " will_qos2"),
        (0x20, " will_retain"),
        (0x01, " (reserved flag)"),
    ] {
        if flags & bit != 0 {
            out.push_str(word);
        }
    }
    let _ = write!(out, " keep_alive={}", reader.two()?);
    reader.properties(out, "")?;
    let _ = write!(out, " id={}", quoted(reader.counted()?));
    if flags & 0x04 != 0 {
        reader.properties(out, "will:")?;
        let _ = write!(out, " will_topic={}", quoted(reader.counted()?));
        let _ = write!(out, " will_payload={}", quoted(reader.counted()?));
    }
    for (bit, word) in [(0x80, "user"), (0x40, "password")] {
        if flags & bit != 0 {
            let _ = write!(out, " {word}={}", quoted(reader.counted()?));
        }
    }
    Some(())
}

fn publish(reader: &mut Reader<'_>, out: &mut String, first_byte: u8) -> Option<()> {
    for (bit, word) in [
        (0x02, " qos1"),
        (0x04, " qos2"),
        (0x08, " dup"),
        (0x01, " retain"),
    ] {
        if first_byte & bit != 0 {
            out.push_str(word);
        }
    }
    let topic = reader.counted()?;
    if first_byte & 0x06 != 0 {
        reader.id(out)?;
    }
    let _ = write!(out, " topic={}", quoted(topic));
    reader.properties(out, "")?;
    let payload = std::mem::take(&mut reader.rest);
    if !payload.is_empty() {
        let _ = write!(out, " payload={}", quoted(payload));
    }
    Some(())
}

fn options(options: u8, out: &mut String) {
    for (bit, word) in [
        (0x01, " qos1"),
        (0x02, " qos2"),
        (0x04, " no_local"),
        (0x08, " retain_as_published"),
        (0x10, " retain_handling=1"),
        (0x20, " retain_handling=2"),
    ] {
        if options & bit != 0 {
            out.push_str(word);
        }
    }
}

fn quoted(bytes: &[u8]) -> String {
    const SHOWN: usize = 80;
    let mut out = String::from("\"");
    for chunk in bytes[..bytes.len().min(SHOWN)].utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => out.extend(['\\', character]),
                _ if character.is_control() => {
                    character.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| {
                        let _ = write!(out, "\\x{byte:02x}");
                    })
                }
                _ => out.push(character),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    if bytes.len() > SHOWN {
        let _ = write!(out, "… ({} bytes)", bytes.len());
    }
    out
}

struct Reader<'a> {
    rest: &'a [u8],
    version: Version,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn two(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn counted(&mut self) -> Option<&'a [u8]> {
        let length = self.two()?;
        self.take(length.into())
    }

    fn varint(&mut self) -> Option<usize> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value |= usize::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A property with its identifier.
    fn property(&mut self) -> Option<&'a [u8]> {
        let all = self.rest;
        let property = property::by_number(self.byte()?)?;
        match property.kind {
            Kind::Byte => drop(self.byte()?),
            Kind::TwoBytes => drop(self.two()?),
            Kind::FourBytes => drop(self.take(4)?),
            Kind::Varint => drop(self.varint()?),
            Kind::Counted => drop(self.counted()?),
            Kind::Pair => drop((self.counted()?, self.counted()?)),
        }
        Some(&all[..all.len() - self.rest.len()])
    }

    fn id(&mut self, out: &mut String) -> Option<()> {
        let _ = write!(out, " id={}", self.two()?);
        Some(())
    }

    fn code(&mut self, out: &mut String) -> Option<()> {
        let _ = write!(out, " 0x{:02X}", self.byte()?);
        Some(())
    }

    /// A Reason Code and properties, which may both be left out.
    fn reason(&mut self, out: &mut String) -> Option<()> {
        if self.rest.is_empty() {
            return Some(());
        }
        self.code(out)?;
        if self.rest.is_empty() {
            Some(())
        } else {
            self.properties(out, "")
        }
    }

    fn properties(&mut self, out: &mut String, prefix: &str) -> Option<()> {
        if self.version == Version::V311 {
            return Some(());
        }
        let length = self.varint()?;
        let mut inner = Reader {
            rest: self.take(length)?,
            version: self.version,
        };
        while !inner.rest.is_empty() {
            let number = inner.byte()?;
            let Some(property) = property::by_number(number) else {
                let _ = write!(out, " (unknown property 0x{number:02X})");
                return Some(());
            };
            let _ = write!(out, " {prefix}{}=", property.name);
            let _ = match property.kind {
                Kind::Byte => write!(out, "{}", inner.byte()?),
                Kind::TwoBytes => write!(out, "{}", inner.two()?),
                Kind::FourBytes => write!(
                    out,
                    "{}",
                    u32::from_be_bytes(inner.take(4)?.try_into().ok()?)
                ),
                Kind::Varint => write!(out, "{}", inner.varint()?),
                Kind::Counted => write!(out, "{}", quoted(inner.counted()?)),
                Kind::Pair => write!(
                    out,
                    "{}:{}",
                    quoted(inner.counted()?),
                    quoted(inner.counted()?)
                ),
            };
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{format, shorthand};

    /// What is told of a packet encodes to the packet.
    #[test]
    fn telling_and_encoding_are_inverse() {
        for text in [
            r#"CONNECT v5 clean keep_alive=10 session_expiry_interval=60 id="a" user="u" password="\xff\"""#,
            r#"CONNECT v5 will_qos1 keep_alive=60 id="" will:will_delay_interval=1 will_topic="w" will_payload="x""#,
            r#"CONNECT v311 keep_alive=0 id="a""#,
            "CONNACK session_present 0x00 receive_maximum=64 maximum_qos=1",
            r#"PUBLISH qos1 dup id=7 topic="a/ü" user_property="k":"v" subscription_identifier=300 payload="x""#,
            "PUBACK id=1 0x10",
            r#"PUBREL id=2 0x92 reason_string="x""#,
            r#"SUBSCRIBE id=1 filter="a" qos2 no_local filter="b" retain_as_published retain_handling=2"#,
            "SUBACK id=1 0x00 0x9E",
            r#"UNSUBSCRIBE id=1 filter="a""#,
            "DISCONNECT",
            "DISCONNECT 0x8E",
        ] {
            let mut version = Version::V5;
            let bytes = shorthand::encode(&format::words(text).unwrap(), &mut version)
                .unwrap()
                .exact()
                .unwrap();
            assert_eq!(tell(&bytes, Version::V5), text);
        }
    }

    #[test]
    fn a_reason_string_is_left_out_and_nothing_else() {
        for (with, without) in [
            (
                r#"CONNACK 0x87 reason_string="x" receive_maximum=1"#,
                Some("CONNACK 0x87 receive_maximum=1"),
            ),
            (r#"CONNACK 0x87 reason_string="x""#, Some("CONNACK 0x87")),
            (
                r#"PUBACK id=1 0x87 reason_string="x""#,
                Some("PUBACK id=1 0x87"),
            ),
            (
                r#"PUBREC id=1 0x87 reason_string="x" user_property="a":"b""#,
                Some(r#"PUBREC id=1 0x87 user_property="a":"b""#),
            ),
            (
                r#"SUBACK id=1 reason_string="x" 0x01 0x87"#,
                Some("SUBACK id=1 0x01 0x87"),
            ),
            (
                r#"DISCONNECT 0x82 reason_string="x""#,
                Some("DISCONNECT 0x82"),
            ),
            ("DISCONNECT 0x82", None),
            ("CONNACK receive_maximum=1", None),
            (r#"PUBLISH topic="a" content_type="x""#, None),
        ] {
            let encode = |text: &str| {
                shorthand::encode(&format::words(text).unwrap(), &mut { Version::V5 })
                    .unwrap()
                    .exact()
                    .unwrap()
            };
            assert_eq!(
                without_reason_string(&encode(with), Version::V5),
                without.map(encode),
                "{with}"
            );
        }
    }

    #[test]
    fn what_cannot_be_decoded_is_told_as_far_as_it_goes() {
        assert_eq!(
            tell(&[0x40, 0x02, 0x00], Version::V5),
            "PUBACK (of 2 bytes) … ends before its end"
        );
        assert_eq!(
            tell(&[0xD0, 0x00, 0x01], Version::V5),
            "PINGRESP (of 0 bytes) and 1 bytes too many"
        );
        assert_eq!(tell(&[], Version::V5), " … ends before its end");
    }
}
