//! Playing a conversation against a broker.

use crate::broker::Broker;
use crate::format::{Action, Conversation, Expected, Turn};
use crate::pattern::{Pattern, hex};
use crate::shorthand::Version;
use crate::words;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What differs from run to run.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    /// How long a reply may take.
    pub(crate) patience: Duration,
    /// The broker is not Larder: what it announces in a CONNACK of 5.0 is its own affair, and so is whether, and with
    /// which code, it explains itself before it closes a connection.
    pub(crate) peer: bool,
}

/// Plays the conversation; an error says where it went wrong, what was expected, and what came.
pub(crate) fn play(
    conversation: &Conversation,
    broker: &mut Broker,
    rules: Rules,
) -> Result<(), String> {
    let mut links: BTreeMap<&str, Link> = BTreeMap::new();
    for step in &conversation.steps {
        let at = |name: &str, why: String| {
            let Conversation {
                file,
                title,
                clauses,
                ..
            } = conversation;
            format!(
                "tests/spec/{file}:{}: {name}{why}\n  in “{title}” {}",
                step.line,
                clauses.join(" ")
            )
        };
        match &step.action {
            Action::Wait(duration) => std::thread::sleep(*duration),
            Action::Restart => {
                // It does not see its links end before it is killed.
                broker.restart().map_err(|why| at("", why))?;
                links.clear();
            }
            Action::Client(name, turn) => {
                let told = format!("{name} ");
                let link = match turn {
                    Turn::Send(_) | Turn::SendSlowly(_) if !links.contains_key(name.as_str()) => {
                        let link = Link::open(broker.address, rules)
                            .map_err(|why| at(&told, format!("cannot connect: {why}")))?;
                        links.entry(name).or_insert(link)
                    }
                    _ => links
                        .get_mut(name.as_str())
                        .ok_or_else(|| at(&told, "has no connection".into()))?,
                };
                link.play(turn, rules).map_err(|why| at(&told, why))?;
                if matches!(turn, Turn::Closed | Turn::Drops) {
                    links.remove(name.as_str());
                }
            }
        }
    }
    Ok(())
}

/// What a conversation leaves behind at a broker.
pub(crate) struct Traces {
    /// The Client Identifiers that it connects with.
    identifiers: BTreeSet<Vec<u8>>,
    /// The topics for which messages may be retained.
    retained: BTreeSet<Vec<u8>>,
}

impl Traces {
    pub(crate) fn of(conversation: &Conversation) -> Traces {
        let sent = || {
            conversation
                .steps
                .iter()
                .filter_map(|step| match &step.action {
                    Action::Client(_, Turn::Send(bytes) | Turn::SendSlowly(bytes)) => Some(bytes),
                    _ => None,
                })
        };
        let collected = |found: fn(&[u8]) -> Option<&[u8]>| {
            let found = sent().filter_map(|bytes| found(bytes));
            found
                .filter(|text| !text.is_empty())
                .map(<[u8]>::to_vec)
                .collect()
        };
        Traces {
            identifiers: collected(words::client_identifier),
            retained: collected(words::retained_topic),
        }
    }
}

/// Ends the sessions and removes the retained messages, so that the next conversation finds none.
pub(crate) fn forget(traces: &Traces, address: SocketAddr, rules: Rules) -> Result<(), String> {
    for identifier in &traces.identifiers {
        let mut connect = Pattern::default();
        connect.push(0x10);
        connect.varint(12 + identifier.len());
        connect.bytes(b"\0\x04MQTT\x04\x02\0\x3C"); // 3.1.1, Clean Session, Keep Alive 60 s
        let mut id = Pattern::default();
        id.bytes(identifier);
        connect.counted(&id)?;
        let mut link = Link::open(address, rules)?;
        link.send(&connect.filled(0));
        // Whether it is accepted is not this step's question; an identifier that is refused has no session.
        link.packet(rules.patience)
            .map_err(|got| format!("no CONNACK while tidying up: {}", got.tell(Version::V311)))?;
        link.send(&[0xE0, 0]);
    }
    if traces.retained.is_empty() {
        return Ok(());
    }
    let mut link = Link::open(address, rules)?;
    link.send(b"\x10\x10\0\x04MQTT\x04\x02\0\x3C\0\x04tidy");
    for topic in &traces.retained {
        let mut name = Pattern::default();
        name.bytes(topic);
        let mut publish = Pattern::default();
        publish.push(0x33); // QoS 1, RETAIN, and no payload
        publish.varint(2 + topic.len() + 2);
        publish.counted(&name)?;
        publish.bytes(&[0, 1]);
        link.send(&publish.filled(0));
    }
    link.send(&[0xE0, 0]);
    // The CONNACK, and then PUBACKs.
    for _ in 0..=traces.retained.len() {
        link.packet(rules.patience)
            .map_err(|got| format!("no PUBACK while tidying up: {}", got.tell(Version::V311)))?;
    }
    Ok(())
}

struct Link {
    stream: TcpStream,
    received: Vec<u8>,
}

/// Why there is no next packet; with the bytes that came of it.
enum NoPacket {
    Silence(Vec<u8>),
    Closed(Vec<u8>),
}

impl NoPacket {
    fn tell(&self, version: Version) -> String {
        let (what, bytes) = match self {
            NoPacket::Silence(bytes) => ("nothing in time", bytes),
            NoPacket::Closed(bytes) => ("the connection was closed", bytes),
        };
        if bytes.is_empty() {
            what.to_owned()
        } else {
            format!("{what}, after {}", both(&hex(bytes), bytes, version))
        }
    }
}

impl Link {
    fn open(address: SocketAddr, rules: Rules) -> Result<Self, String> {
        let stream = TcpStream::connect_timeout(&address, rules.patience)
            .map_err(|error| error.to_string())?;
        stream
            .set_nodelay(true)
            .map_err(|error| error.to_string())?;
        stream
            .set_write_timeout(Some(rules.patience))
            .map_err(|error| error.to_string())?;
        Ok(Link {
            stream,
            received: Vec::new(),
        })
    }

    fn play(&mut self, turn: &Turn, rules: Rules) -> Result<(), String> {
        match turn {
            Turn::Send(bytes) => self.send(bytes),
            Turn::SendSlowly(bytes) => bytes.chunks(1).for_each(|byte| self.send(byte)),
            Turn::Receive(expected) => return self.receive(expected, rules),
            Turn::Hears => {
                let heard = self.packet(rules.patience);
                return heard.map(drop).map_err(|got| {
                    format!("should have heard something; got {}", got.tell(Version::V5))
                });
            }
            Turn::Silent => {
                self.send(&[0xC0, 0]);
                let mut pattern = Pattern::default();
                pattern.bytes(&[0xD0, 0]);
                let pingresp = Expected {
                    pattern,
                    version: Version::V5,
                    any_reason_string: false,
                };
                return self.receive(&pingresp, rules);
            }
            Turn::Closed => match self.packet(rules.patience) {
                Err(NoPacket::Closed(bytes)) if bytes.is_empty() => {}
                Err(got) => {
                    return Err(format!(
                        "should have been closed; got {}",
                        got.tell(Version::V5)
                    ));
                }
                Ok(bytes) => {
                    return Err(format!(
                        "should have been closed; got {}",
                        both(&hex(&bytes), &bytes, Version::V5)
                    ));
                }
            },
            Turn::Drops => {}
        }
        Ok(())
    }

    /// A failure to send shows in what is received next.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    fn receive(&mut self, expected: &Expected, rules: Rules) -> Result<(), String> {
        let Expected {
            pattern: expected,
            version,
            any_reason_string,
        } = expected;
        let version = *version;
        let wanted = both(&expected.hex(), &expected.filled(b'?'), version);
        let got = match self.packet(rules.patience) {
            Ok(bytes) if expected.matches(&bytes) => return Ok(()),
            Ok(bytes)
                if *any_reason_string
                    && words::without_reason_string(&bytes, version)
                        .is_some_and(|bytes| expected.matches(&bytes)) =>
            {
                return Ok(());
            }
            Ok(bytes) if rules.peer && is_alike(&expected.filled(0), &bytes, version) => {
                return Ok(());
            }
            Err(NoPacket::Closed(bytes))
                if rules.peer && bytes.is_empty() && is_refusal(&expected.filled(0)) =>
            {
                return Ok(());
            }
            Ok(bytes) => {
                let offset = expected.first_difference(&bytes).unwrap_or_default();
                format!(
                    "{}\n  differs from byte {offset} on",
                    both(&hex(&bytes), &bytes, version)
                )
            }
            Err(got) => got.tell(version),
        };
        Err(format!(
            "heard something else\n  expected  {wanted}\n  got       {got}"
        ))
    }

    /// The next whole packet, whatever it is.
    fn packet(&mut self, patience: Duration) -> Result<Vec<u8>, NoPacket> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(length) =
                words::packet_length(&self.received).filter(|length| *length <= self.received.len())
            {
                return Ok(self.received.drain(..length).collect());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stream.set_read_timeout(Some(left)).is_err() {
                return Err(NoPacket::Silence(std::mem::take(&mut self.received)));
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(NoPacket::Closed(std::mem::take(&mut self.received))),
                Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                Err(error) => match error.kind() {
                    std::io::ErrorKind::WouldBlock
                    | std::io::ErrorKind::TimedOut
                    | std::io::ErrorKind::Interrupted => {}
                    _ => return Err(NoPacket::Closed(std::mem::take(&mut self.received))),
                },
            }
        }
    }
}

fn both(hex: &str, bytes: &[u8], version: Version) -> String {
    format!("{hex}\n            {}", words::tell(bytes, version))
}

/// Both refuse, or both are a CONNACK of 5.0 with the same flags, whatever their properties.
fn is_alike(expected: &[u8], got: &[u8], version: Version) -> bool {
    let accepts_alike = version == Version::V5
        && expected[0] == 0x20
        && connack_essence(expected) == connack_essence(got);
    accepts_alike || (expected[0] == got[0] && is_refusal(expected) && is_refusal(got))
}

/// Whether it is a DISCONNECT, or a CONNACK that does not accept: what announces that the connection will be closed.
fn is_refusal(bytes: &[u8]) -> bool {
    bytes[0] == 0xE0
        || (bytes[0] == 0x20 && connack_essence(bytes).is_some_and(|essence| essence[1] != 0))
}

/// Flags and Reason Code of a CONNACK.
fn connack_essence(bytes: &[u8]) -> Option<&[u8]> {
    let length_bytes = bytes.iter().skip(1).position(|byte| byte & 0x80 == 0)? + 1;
    bytes.get(1 + length_bytes..3 + length_bytes)
}
