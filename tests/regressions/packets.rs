//! Packets byte by byte: a test does not trust the codec of the core that it tests.

use std::time::Duration;

/// CONNACK of MQTT 3.1.1, accepted, without and with Session Present.
pub(crate) const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
pub(crate) const CONNACK_PRESENT: [u8; 4] = [0x20, 2, 1, 0];
pub(crate) const PINGREQ: [u8; 2] = [0xC0, 0];
pub(crate) const PINGRESP: [u8; 2] = [0xD0, 0];

/// CONNECT, with Clean Session or Clean Start unless it is told otherwise.
#[derive(Clone)]
pub(crate) struct Connect {
    client_id: &'static str,
    version: u8,
    clean: bool,
    keep_alive: u16,
    properties: Vec<u8>,
    will: Option<Will>,
}

#[derive(Clone)]
struct Will {
    topic: &'static str,
    payload: &'static [u8],
    qos: u8,
    retain: bool,
    properties: Vec<u8>,
}

impl Connect {
    pub(crate) fn v311(client_id: &'static str) -> Connect {
        Connect {
            client_id,
            version: 4,
            clean: true,
            keep_alive: 0,
            properties: Vec::new(),
            will: None,
        }
    }

    pub(crate) fn v5(client_id: &'static str) -> Connect {
        Connect {
            version: 5,
            ..Connect::v311(client_id)
        }
    }

    /// With Clean Session or Clean Start 0.
    pub(crate) fn unclean(self) -> Connect {
        Connect {
            clean: false,
            ..self
        }
    }

    /// With a Keep Alive of so many seconds.
    pub(crate) fn keep_alive(self, keep_alive: u16) -> Connect {
        Connect { keep_alive, ..self }
    }

    /// With a Session Expiry Interval.
    pub(crate) fn expiry(mut self, expiry: Duration) -> Connect {
        self.properties.extend(session_expiry(expiry));
        self
    }

    /// With a Maximum Packet Size.
    pub(crate) fn packet_max(self, bytes: u32) -> Connect {
        self.property(0x27, &bytes.to_be_bytes())
    }

    /// With one property more.
    pub(crate) fn property(mut self, id: u8, value: &[u8]) -> Connect {
        self.properties.push(id);
        self.properties.extend(value);
        self
    }

    pub(crate) fn will(self, topic: &'static str, payload: &'static [u8], qos: u8) -> Connect {
        let properties = Vec::new();
        Connect {
            will: Some(Will {
                topic,
                payload,
                qos,
                retain: false,
                properties,
            }),
            ..self
        }
    }

    pub(crate) fn will_retain(mut self) -> Connect {
        self.will.as_mut().unwrap().retain = true;
        self
    }

    /// With a Will Delay Interval.
    pub(crate) fn will_delay(mut self, delay: Duration) -> Connect {
        let seconds = u32::try_from(delay.as_secs()).unwrap();
        let will = self.will.as_mut().unwrap();
        will.properties.push(0x18);
        will.properties.extend(seconds.to_be_bytes());
        self
    }

    pub(crate) fn is_v5(&self) -> bool {
        self.version == 5
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = string("MQTT");
        let will_flags = self
            .will
            .as_ref()
            .map_or(0, |will| u8::from(will.retain) << 5 | will.qos << 3 | 0b100);
        body.extend([self.version, u8::from(self.clean) << 1 | will_flags]);
        body.extend(self.keep_alive.to_be_bytes());
        if self.is_v5() {
            body.push(self.properties.len() as u8);
            body.extend(&self.properties);
        }
        body.extend(string(self.client_id));
        if let Some(will) = &self.will {
            if self.is_v5() {
                body.push(will.properties.len() as u8);
                body.extend(&will.properties);
            }
            body.extend(string(will.topic));
            body.extend(u16::try_from(will.payload.len()).unwrap().to_be_bytes());
            body.extend(will.payload);
        }
        packet(0x10, &body)
    }
}

/// A Session Expiry Interval, as a property.
fn session_expiry(expiry: Duration) -> Vec<u8> {
    let seconds = u32::try_from(expiry.as_secs()).unwrap();
    [&[0x11][..], &seconds.to_be_bytes()].concat()
}

/// A Message Expiry Interval, as a property.
pub(crate) fn message_expiry(expiry: Duration) -> Vec<u8> {
    let seconds = u32::try_from(expiry.as_secs()).unwrap();
    [&[0x02][..], &seconds.to_be_bytes()].concat()
}

/// SUBSCRIBE to filters without properties, all at one QoS.
pub(crate) fn subscribe(is_v5: bool, packet_id: u16, filters: &[String], qos: u8) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    if is_v5 {
        body.push(0);
    }
    for filter in filters {
        body.extend(string(filter));
        body.push(qos);
    }
    packet(0x82, &body)
}

/// UNSUBSCRIBE of MQTT 3.1.1.
pub(crate) fn unsubscribe(packet_id: u16, filter: &str) -> Vec<u8> {
    packet(
        0xA2,
        &[&packet_id.to_be_bytes()[..], &string(filter)].concat(),
    )
}

/// PUBLISH of MQTT 3.1.1 at QoS 0.
pub(crate) fn publish_0(topic: &str, payload: &[u8]) -> Vec<u8> {
    packet(0x30, &[&string(topic), payload].concat())
}

/// PUBLISH of MQTT 3.1.1 at QoS 1.
pub(crate) fn publish_1(topic: &str, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let body = [&string(topic), &packet_id.to_be_bytes()[..], payload].concat();
    packet(0x32, &body)
}

/// The same PUBLISH with RETAIN.
pub(crate) fn retained(mut publish: Vec<u8>) -> Vec<u8> {
    publish[0] |= 1;
    publish
}

/// PUBLISH of MQTT 5.0 at QoS 1.
pub(crate) fn publish_v5(
    topic: &str,
    packet_id: u16,
    properties: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut body = string(topic);
    body.extend(packet_id.to_be_bytes());
    body.push(properties.len() as u8);
    body.extend(properties);
    body.extend(payload);
    packet(0x32, &body)
}

pub(crate) fn publish_2(topic: &str, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let mut publish = publish_1(topic, packet_id, payload);
    publish[0] = 0x34;
    publish
}

pub(crate) fn pubrec(packet_id: u16) -> Vec<u8> {
    packet(0x50, &packet_id.to_be_bytes())
}

pub(crate) fn puback(packet_id: u16) -> Vec<u8> {
    packet(0x40, &packet_id.to_be_bytes())
}

/// DISCONNECT of MQTT 5.0 with a Session Expiry Interval.
pub(crate) fn disconnect(expiry: Duration) -> Vec<u8> {
    packet(0xE0, &[&[0, 5][..], &session_expiry(expiry)].concat())
}

/// The beginning of a packet of so many bytes behind its fixed header.
pub(crate) fn announce(first: u8, len: usize) -> Vec<u8> {
    let mut begun = vec![first];
    remaining_length(len, &mut begun);
    begun
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [&announce(first, body.len()), body].concat()
}

fn remaining_length(mut len: usize, out: &mut Vec<u8>) {
    loop {
        let low = (len % 128) as u8;
        len /= 128;
        if len == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn string(text: &str) -> Vec<u8> {
    let len = u16::try_from(text.len()).unwrap();
    [&len.to_be_bytes(), text.as_bytes()].concat()
}

/// A PUBLISH as a subscriber receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    /// 0 at QoS 0.
    pub(crate) packet_id: u16,
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
}

/// The numbers that messages have as their payloads.
pub(crate) fn numbers(messages: &[Message]) -> Vec<usize> {
    let number = |message: &Message| String::from_utf8_lossy(&message.payload).parse().unwrap();
    messages.iter().map(number).collect()
}

/// The messages in `bytes`, which must hold nothing but whole PUBLISH packets.
pub(crate) fn messages(is_v5: bool, mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let (first, body, rest) = split(bytes);
        assert_eq!(first >> 4, 3, "{bytes:02x?} begins with no PUBLISH");
        messages.push(message(is_v5, first, body));
        bytes = rest;
    }
    messages
}

/// What came, without the first SUBACK; and how many bytes came before that.
pub(crate) fn without_suback(received: &[u8]) -> (Vec<u8>, Option<usize>) {
    let mut at = 0;
    while at < received.len() {
        let (first, _, rest) = split(&received[at..]);
        let end = received.len() - rest.len();
        if first == 0x90 {
            return ([&received[..at], rest].concat(), Some(at));
        }
        at = end;
    }
    (received.to_vec(), None)
}

fn message(is_v5: bool, first: u8, body: &[u8]) -> Message {
    let (topic, mut rest) = body[2..].split_at(u16::from_be_bytes([body[0], body[1]]).into());
    assert!(!topic.is_empty(), "Topic Aliases are never used");
    let mut packet_id = 0;
    if first & 0b110 != 0 {
        packet_id = u16::from_be_bytes([rest[0], rest[1]]);
        rest = &rest[2..];
    }
    if is_v5 {
        rest = &rest[1 + usize::from(rest[0])..];
    }
    Message {
        dup: first & 0b1000 != 0,
        retain: first & 0b1 != 0,
        packet_id,
        topic: String::from_utf8_lossy(topic).into_owned(),
        payload: rest.to_vec(),
    }
}

/// The first byte of a packet, its body, and what comes behind it.
fn split(bytes: &[u8]) -> (u8, &[u8], &[u8]) {
    let (mut at, mut len) = (1, 0);
    loop {
        let byte = bytes[at];
        len |= usize::from(byte & 0x7F) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    (bytes[0], &bytes[at..at + len], &bytes[at + len..])
}

/// Whole packets, with every DISCONNECT of 5.0 cut to its Reason Code: its Reason String is for people.
pub(crate) fn without_reason_strings(mut bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while let [first, rest @ ..] = bytes {
        let size = rest.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        let bits = |len, (place, byte): (usize, &u8)| len | usize::from(byte & 0x7F) << (7 * place);
        let len = rest[..size].iter().enumerate().fold(0, bits);
        let (whole, behind) = bytes.split_at(1 + size + len);
        match first {
            0xE0 if len > 1 => plain.extend([0xE0, 1, whole[1 + size]]),
            _ => plain.extend(whole),
        }
        bytes = behind;
    }
    plain
}
