//! Packets in words, to bytes: `PUBLISH qos1 id=7 topic="a/b" payload="x"`. README.md has the whole vocabulary.

use crate::pattern::{self, Pattern};
use crate::property::{self, Kind};

/// The protocol version that a client speaks; it decides how its packets are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V311,
    V5,
}

/// Encodes one packet. A CONNECT that names its version changes `version` for what the client says and hears after it.
pub(crate) fn encode(words: &[String], version: &mut Version) -> Result<Pattern, String> {
    let (name, words) = words.split_first().ok_or("no packet")?;
    let words = words.iter().map(|word| Word::of(word)).collect::<Vec<_>>();
    let (first_byte, body) = match name.as_str() {
        "CONNECT" => (0x10, connect(&words, version)?),
        "CONNACK" => (0x20, connack(&words, *version)?),
        "PUBLISH" => publish(&words, *version)?,
        "PUBACK" => (0x40, acknowledgement(&words, *version)?),
        "PUBREC" => (0x50, acknowledgement(&words, *version)?),
        "PUBREL" => (0x62, acknowledgement(&words, *version)?),
        "PUBCOMP" => (0x70, acknowledgement(&words, *version)?),
        "SUBSCRIBE" => (0x82, subscribe(&words, *version)?),
        "SUBACK" => (0x90, filters_acknowledgement(&words, *version)?),
        "UNSUBSCRIBE" => (0xA2, unsubscribe(&words, *version)?),
        "UNSUBACK" => (0xB0, filters_acknowledgement(&words, *version)?),
        "PINGREQ" => (0xC0, nothing(&words)?),
        "PINGRESP" => (0xD0, nothing(&words)?),
        "DISCONNECT" if *version == Version::V311 => (0xE0, nothing(&words)?),
        "DISCONNECT" => (0xE0, reason(&words, *version)?),
        "AUTH" if *version == Version::V5 => (0xF0, reason(&words, *version)?),
        _ => {
            return Err(format!(
                "`{name}` is neither hex nor a packet of this version"
            ));
        }
    };
    let mut packet = Pattern::default();
    packet.push(first_byte);
    packet.varint(body.len());
    packet.append(&body);
    Ok(packet)
}

/// `key`, or `key=value`.
struct Word<'a> {
    key: &'a str,
    value: Option<&'a str>,
}

impl<'a> Word<'a> {
    fn of(word: &'a str) -> Self {
        match word.split_once('=') {
            Some((key, value)) if !key.contains('"') => Word {
                key,
                value: Some(value),
            },
            _ => Word {
                key: word,
                value: None,
            },
        }
    }

    fn unknown(&self) -> String {
        match self.value {
            Some(value) => format!("`{}={value}` has no meaning here", self.key),
            None => format!("`{}` has no meaning here", self.key),
        }
    }
}

/// Properties in the order in which they are written.
#[derive(Default)]
struct Properties(Pattern);

impl Properties {
    fn add(&mut self, word: &Word<'_>, version: Version) -> Result<(), String> {
        let (Some(property), Some(value), Version::V5) =
            (property::by_name(word.key), word.value, version)
        else {
            return Err(word.unknown());
        };
        self.0.push(property.number);
        match property.kind {
            Kind::Byte => self.0.append(&pattern::number(value, 1)?),
            Kind::TwoBytes => self.0.append(&pattern::number(value, 2)?),
            Kind::FourBytes => self.0.append(&pattern::number(value, 4)?),
            Kind::Varint => self.0.varint(value.parse().map_err(|_| word.unknown())?),
            Kind::Counted => self.0.counted(&pattern::value(value)?)?,
            Kind::Pair => {
                let (name, value) = value
                    .split_once("\":\"")
                    .ok_or("a user property is written \"name\":\"value\"")?;
                self.0.counted(&pattern::value(&format!("{name}\""))?)?;
                self.0.counted(&pattern::value(&format!("\"{value}"))?)?;
            }
        }
        Ok(())
    }

    /// Length and properties in 5.0, nothing in 3.1.1.
    fn append_to(&self, body: &mut Pattern, version: Version) {
        if version == Version::V5 {
            body.varint(self.0.len());
            body.append(&self.0);
        }
    }
}

fn connect(words: &[Word<'_>], version: &mut Version) -> Result<Pattern, String> {
    let mut flags = 0;
    let mut keep_alive = pattern::number("60", 2)?;
    let mut id = Pattern::default();
    let (mut user, mut password) = (None, None);
    let (mut will_topic, mut will_payload, mut will_properties) =
        (None, Pattern::default(), Properties::default());
    let mut properties = Properties::default();
    for word in words {
        match (word.key, word.value) {
            ("v5", None) => *version = Version::V5,
            ("v311", None) => *version = Version::V311,
            ("clean", None) => flags |= 0x02,
            ("keep_alive", Some(value)) => keep_alive = pattern::number(value, 2)?,
            ("id", Some(value)) => id = pattern::value(value)?,
            ("user", Some(value)) => user = Some(pattern::value(value)?),
            ("password", Some(value)) => password = Some(pattern::value(value)?),
            ("will_topic", Some(value)) => will_topic = Some(pattern::value(value)?),
            ("will_payload", Some(value)) => will_payload = pattern::value(value)?,
            ("will_qos1", None) => flags |= 0x08,
            ("will_qos2", None) => flags |= 0x10,
            ("will_retain", None) => flags |= 0x20,
            (key, value) => match key.strip_prefix("will:") {
                Some(key) => will_properties.add(&Word { key, value }, *version)?,
                None => properties.add(word, *version)?,
            },
        }
    }
    flags |= if will_topic.is_some() { 0x04 } else { 0 };
    flags |= if user.is_some() { 0x80 } else { 0 };
    flags |= if password.is_some() { 0x40 } else { 0 };

    let mut body = Pattern::default();
    body.bytes(b"\0\x04MQTT");
    body.push(if *version == Version::V5 { 5 } else { 4 });
    body.push(flags);
    body.append(&keep_alive);
    properties.append_to(&mut body, *version);
    body.counted(&id)?;
    if let Some(topic) = will_topic {
        will_properties.append_to(&mut body, *version);
        body.counted(&topic)?;
        body.counted(&will_payload)?;
    }
    for credential in [user, password].into_iter().flatten() {
        body.counted(&credential)?;
    }
    Ok(body)
}

fn connack(words: &[Word<'_>], version: Version) -> Result<Pattern, String> {
    let mut flags = 0;
    let mut code = pattern::number("0", 1)?;
    let mut properties = Properties::default();
    for word in words {
        match (word.key, word.value) {
            ("session_present", None) => flags |= 0x01,
            (number, None) if number.starts_with("0x") => code = pattern::number(number, 1)?,
            _ => properties.add(word, version)?,
        }
    }
    let mut body = Pattern::default();
    body.push(flags);
    body.append(&code);
    properties.append_to(&mut body, version);
    Ok(body)
}

fn publish(words: &[Word<'_>], version: Version) -> Result<(u8, Pattern), String> {
    let mut first_byte = 0x30;
    let mut id = None;
    let (mut topic, mut payload) = (Pattern::default(), Pattern::default());
    let mut properties = Properties::default();
    for word in words {
        match (word.key, word.value) {
            ("retain", None) => first_byte |= 0x01,
            ("qos1", None) => first_byte |= 0x02,
            ("qos2", None) => first_byte |= 0x04,
            ("dup", None) => first_byte |= 0x08,
            ("id", Some(value)) => id = Some(pattern::number(value, 2)?),
            ("topic", Some(value)) => topic = pattern::value(value)?,
            ("payload", Some(value)) => payload = pattern::value(value)?,
            _ => properties.add(word, version)?,
        }
    }
    if id.is_some() != (first_byte & 0x06 != 0) {
        return Err("a PUBLISH has an id if, and only if, it has qos1 or qos2".into());
    }
    let mut body = Pattern::default();
    body.counted(&topic)?;
    body.append(&id.unwrap_or_default());
    properties.append_to(&mut body, version);
    body.append(&payload);
    Ok((first_byte, body))
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP in their shortest form: the Reason Code only if written, properties only if any.
fn acknowledgement(words: &[Word<'_>], version: Version) -> Result<Pattern, String> {
    let (id, words) = identifier(words)?;
    let mut body = id;
    body.append(&reason(words, version)?);
    Ok(body)
}

/// What may follow in a PUBACK and makes up a DISCONNECT or AUTH: a Reason Code, and then properties.
fn reason(words: &[Word<'_>], version: Version) -> Result<Pattern, String> {
    let mut code = Pattern::default();
    let mut properties = Properties::default();
    for word in words {
        match (word.key, word.value, version) {
            (number, None, Version::V5) if number.starts_with("0x") => {
                code = pattern::number(number, 1)?
            }
            _ => properties.add(word, version)?,
        }
    }
    if properties.0.len() > 0 {
        if code.len() == 0 {
            return Err("properties follow a Reason Code: write 0x00 before them".into());
        }
        properties.append_to(&mut code, version);
    }
    Ok(code)
}

fn subscribe(words: &[Word<'_>], version: Version) -> Result<Pattern, String> {
    let (id, words) = identifier(words)?;
    let mut properties = Properties::default();
    let mut filters: Vec<(Pattern, u8)> = Vec::new();
    for word in words {
        let options = filters.last_mut().map(|(_, options)| options);
        match (word.key, word.value, options) {
            ("filter", Some(value), _) => filters.push((pattern::value(value)?, 0)),
            ("qos1", None, Some(options)) => *options |= 0x01,
            ("qos2", None, Some(options)) => *options |= 0x02,
            ("no_local", None, Some(options)) => *options |= 0x04,
            ("retain_as_published", None, Some(options)) => *options |= 0x08,
            ("retain_handling", Some("1"), Some(options)) => *options |= 0x10,
            ("retain_handling", Some("2"), Some(options)) => *options |= 0x20,
            _ => properties.add(word, version)?,
        }
    }
    let mut body = id;
    properties.append_to(&mut body, version);
    for (filter, options) in filters {
        body.counted(&filter)?;
        body.push(options);
    }
    Ok(body)
}

fn unsubscribe(words: &[Word<'_>], version: Version) -> Result<Pattern, String> {
    let (id, words) = identifier(words)?;
    let mut properties = Properties::default();
    let mut filters = Pattern::default();
    for word in words {
        match (word.key, word.value) {
            ("filter", Some(value)) => filters.counted(&pattern::value(value)?)?,
            _ => properties.add(word, version)?,
        }
    }
    let mut body = id;
    properties.append_to(&mut body, version);
    body.append(&filters);
    Ok(body)
}

/// SUBACK and UNSUBACK: one code for each filter; a 3.1.1 UNSUBACK has none.
fn filters_acknowledgement(words: &[Word<'_>], version: Version) -> Result<Pattern, String> {
    let (id, words) = identifier(words)?;
    let mut properties = Properties::default();
    let mut codes = Pattern::default();
    for word in words {
        match (word.key, word.value) {
            (number, None) if number.starts_with("0x") => {
                codes.append(&pattern::number(number, 1)?)
            }
            _ => properties.add(word, version)?,
        }
    }
    let mut body = id;
    properties.append_to(&mut body, version);
    body.append(&codes);
    Ok(body)
}

fn identifier<'w, 'a>(words: &'w [Word<'a>]) -> Result<(Pattern, &'w [Word<'a>]), String> {
    match words.split_first() {
        Some((
            Word {
                key: "id",
                value: Some(value),
            },
            rest,
        )) => Ok((pattern::number(value, 2)?, rest)),
        _ => Err("the first word must be id=…, the Packet Identifier".into()),
    }
}

fn nothing(words: &[Word<'_>]) -> Result<Pattern, String> {
    words
        .first()
        .map_or(Ok(Pattern::default()), |word| Err(word.unknown()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format;

    #[track_caller]
    fn encodes(text: &str, mut version: Version, bytes: &[u8]) {
        let pattern = encode(&format::words(text).unwrap(), &mut version).unwrap();
        assert_eq!(pattern.exact().unwrap(), bytes, "{text}");
    }

    #[test]
    fn each_packet_of_5_0_has_the_bytes_of_the_standard() {
        use Version::V5;
        encodes(
            r#"CONNECT clean id="a" keep_alive=10 session_expiry_interval=60 user="u" password="p""#,
            V5,
            b"\x10\x19\0\x04MQTT\x05\xC2\0\x0A\x05\x11\0\0\0\x3C\0\x01a\0\x01u\0\x01p",
        );
        encodes(
            r#"CONNECT id="a" will_topic="w" will_payload="x" will_qos1 will:will_delay_interval=1"#,
            V5,
            b"\x10\x1A\0\x04MQTT\x05\x0C\0\x3C\0\0\x01a\x05\x18\0\0\0\x01\0\x01w\0\x01x",
        );
        encodes(
            "CONNACK session_present receive_maximum=64",
            V5,
            b"\x20\x06\x01\0\x03\x21\0\x40",
        );
        encodes("CONNACK 0x84", V5, b"\x20\x03\0\x84\0");
        encodes(
            r#"PUBLISH qos1 dup retain id=7 topic="a/b" user_property="k":"v" payload="x""#,
            V5,
            b"\x3B\x10\0\x03a/b\0\x07\x07\x26\0\x01k\0\x01vx",
        );
        encodes("PUBACK id=1", V5, b"\x40\x02\0\x01");
        encodes("PUBACK id=1 0x10", V5, b"\x40\x03\0\x01\x10");
        encodes("PUBREC id=1", V5, b"\x50\x02\0\x01");
        encodes("PUBREL id=1", V5, b"\x62\x02\0\x01");
        encodes(
            r#"PUBCOMP id=1 0x92 reason_string="x""#,
            V5,
            b"\x70\x08\0\x01\x92\x04\x1F\0\x01x",
        );
        encodes(
            r#"SUBSCRIBE id=1 subscription_identifier=200 filter="a" qos1 no_local filter="b" retain_as_published retain_handling=2"#,
            V5,
            b"\x82\x0E\0\x01\x03\x0B\xC8\x01\0\x01a\x05\0\x01b\x28",
        );
        encodes("SUBACK id=1 0x00 0x9E", V5, b"\x90\x05\0\x01\0\0\x9E");
        encodes(
            r#"UNSUBSCRIBE id=2 filter="a""#,
            V5,
            b"\xA2\x06\0\x02\0\0\x01a",
        );
        encodes("UNSUBACK id=2 0x11", V5, b"\xB0\x04\0\x02\0\x11");
        encodes("PINGREQ", V5, b"\xC0\0");
        encodes("PINGRESP", V5, b"\xD0\0");
        encodes("DISCONNECT", V5, b"\xE0\0");
        encodes("DISCONNECT 0x8E", V5, b"\xE0\x01\x8E");
        encodes(
            "DISCONNECT 0x00 session_expiry_interval=1",
            V5,
            b"\xE0\x07\0\x05\x11\0\0\0\x01",
        );
        encodes(
            r#"AUTH 0x19 authentication_method="m""#,
            V5,
            b"\xF0\x06\x19\x04\x15\0\x01m",
        );
    }

    #[test]
    fn packets_of_3_1_1_have_no_properties() {
        use Version::V311;
        encodes(
            r#"CONNECT clean id="a""#,
            V311,
            b"\x10\x0D\0\x04MQTT\x04\x02\0\x3C\0\x01a",
        );
        encodes("CONNACK 0x02", V311, b"\x20\x02\0\x02");
        encodes(
            r#"PUBLISH topic="a" payload="x""#,
            V311,
            b"\x30\x04\0\x01ax",
        );
        encodes(
            r#"SUBSCRIBE id=1 filter="a" qos2"#,
            V311,
            b"\x82\x06\0\x01\0\x01a\x02",
        );
        encodes("SUBACK id=1 0x80", V311, b"\x90\x03\0\x01\x80");
        encodes("UNSUBACK id=1", V311, b"\xB0\x02\0\x01");
        let mut version = V311;
        for text in [
            "PUBACK id=1 0x10",
            "DISCONNECT 0x00",
            "AUTH 0x18",
            "CONNACK receive_maximum=1",
            "PUBLISH id=1",
            "PINGREQ 1",
        ] {
            assert!(
                encode(&format::words(text).unwrap(), &mut version).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn a_connect_sets_its_clients_version() {
        let mut version = Version::V5;
        encode(&format::words("CONNECT v311 clean").unwrap(), &mut version).unwrap();
        assert_eq!(version, Version::V311);
    }
}
