//! Packets as the simulated peers and the oracle handle them: decoded, owned, and short to print.

use larder_packet::{
    Ack, Connect, Disconnect, Filters, Frame, Packet, PacketId, Properties, Property, PropertyBuf,
    Publish, Qos, ReasonCode, Subscribe, SubscriptionOptions, Unsubscribe, UnsubscribeFilters,
    Version, frame, packet,
};
use std::collections::BTreeMap;
use std::fmt;

const PACKET_MAX: usize = 1 << 20;
/// What clients of 5.0 allow the server; few, so that topics must do without.
pub const TOPIC_ALIAS_MAXIMUM: u16 = 2;
/// Reason Code of a PUBREC by which a client refuses a message.
pub const REFUSED: u8 = 0x83;
/// Reason Code of a PUBREL or PUBCOMP for a Packet Identifier that is not known.
pub const UNKNOWN: u8 = 0x92;

/// Names a message over its whole way: its publisher, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    pub publisher: u16,
    pub number: u32,
}

impl Id {
    /// A payload of at least `len` bytes that begins with this name.
    pub fn payload(self, len: usize) -> Vec<u8> {
        let mut payload = format!("{self};").into_bytes();
        payload.resize(payload.len().max(len), b'.');
        payload
    }

    /// The name at the beginning of a payload.
    pub fn of(payload: &[u8]) -> Option<Id> {
        let end = payload.iter().position(|byte| *byte == b';')?;
        let text = std::str::from_utf8(&payload[..end]).ok()?;
        let (publisher, number) = text.strip_prefix('p')?.split_once('.')?;
        Some(Id {
            publisher: publisher.parse().ok()?,
            number: number.parse().ok()?,
        })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}.{}", self.publisher, self.number)
    }
}

/// A packet.
#[derive(Clone, PartialEq, Eq)]
pub enum Wire {
    Connect(Hello),
    ConnAck {
        present: bool,
        reason: u8,
        receive_maximum: u16,
        topic_alias_maximum: u16,
    },
    Publish(Message),
    PubAck {
        pid: u16,
        reason: u8,
    },
    PubRec {
        pid: u16,
        reason: u8,
    },
    PubRel {
        pid: u16,
        reason: u8,
    },
    PubComp {
        pid: u16,
        reason: u8,
    },
    Subscribe {
        pid: u16,
        filters: Vec<Subscription>,
    },
    SubAck {
        pid: u16,
        reasons: Vec<u8>,
    },
    Unsubscribe {
        pid: u16,
        filters: Vec<String>,
    },
    UnsubAck {
        pid: u16,
    },
    PingReq,
    PingResp,
    /// `expiry`: a new Session Expiry Interval.
    Disconnect {
        reason: u8,
        expiry: Option<u32>,
    },
}

/// CONNECT.
#[derive(Clone, PartialEq, Eq)]
pub struct Hello {
    pub client_id: String,
    pub version: Version,
    pub clean: bool,
    /// Session Expiry Interval in seconds; for 3.1.1 0 or `u32::MAX`, as the Clean Session flag says.
    pub expiry: u32,
    pub keep_alive: u16,
    pub receive_maximum: u16,
    pub packet_max: u32,
}

/// A Topic Filter with its options.
#[derive(Clone, PartialEq, Eq)]
pub struct Subscription {
    pub filter: String,
    pub qos: Qos,
    pub no_local: bool,
}

/// PUBLISH.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    pub dup: bool,
    pub qos: Qos,
    pub topic: String,
    /// Topic Alias: the topic is empty while the bytes have it alone.
    pub alias: Option<u16>,
    /// 0 for QoS 0.
    pub pid: u16,
    /// Message Expiry Interval in seconds.
    pub expiry: Option<u32>,
    pub payload: Vec<u8>,
}

impl Wire {
    pub fn encode(&self, version: Version) -> Vec<u8> {
        let mut out = Vec::new();
        let mut properties = PropertyBuf::new();
        match self {
            Wire::Connect(hello) => {
                if version == Version::V5 {
                    properties.push(Property::SessionExpiryInterval(hello.expiry));
                    properties.push(Property::ReceiveMaximum(hello.receive_maximum));
                    properties.push(Property::MaximumPacketSize(hello.packet_max));
                    properties.push(Property::TopicAliasMaximum(TOPIC_ALIAS_MAXIMUM));
                }
                Packet::Connect(Connect {
                    version,
                    clean_start: hello.clean,
                    keep_alive: hello.keep_alive,
                    properties: properties.as_properties(),
                    client_id: &hello.client_id,
                    will: None,
                    username: None,
                    password: None,
                })
                .encode(version, &mut out);
            }
            Wire::Publish(message) => {
                if let Some(seconds) = message.expiry.filter(|_| version == Version::V5) {
                    properties.push(Property::MessageExpiryInterval(seconds));
                }
                if let Some(alias) = message.alias {
                    properties.push(Property::TopicAlias(alias));
                }
                Packet::Publish(Publish {
                    dup: message.dup,
                    qos: message.qos,
                    retain: false,
                    topic: &message.topic,
                    packet_id: PacketId::new(message.pid),
                    properties: properties.as_properties(),
                    payload: &message.payload,
                })
                .encode(version, &mut out);
            }
            Wire::PubAck { pid, reason } => {
                Packet::PubAck(ack(*pid, *reason)).encode(version, &mut out)
            }
            Wire::PubRec { pid, reason } => {
                Packet::PubRec(ack(*pid, *reason)).encode(version, &mut out)
            }
            Wire::PubRel { pid, reason } => {
                Packet::PubRel(ack(*pid, *reason)).encode(version, &mut out)
            }
            Wire::PubComp { pid, reason } => {
                Packet::PubComp(ack(*pid, *reason)).encode(version, &mut out)
            }
            Wire::Subscribe { pid, filters } => {
                let mut encoded = Vec::new();
                for subscription in filters {
                    let options = SubscriptionOptions {
                        qos: subscription.qos,
                        no_local: subscription.no_local,
                        ..SubscriptionOptions::default()
                    };
                    Filters::encode(&subscription.filter, options, &mut encoded);
                }
                Packet::Subscribe(Subscribe {
                    packet_id: packet_id(*pid),
                    properties: Properties::EMPTY,
                    filters: Filters::from_encoded(version, &encoded).expect("valid filters"),
                })
                .encode(version, &mut out);
            }
            Wire::Unsubscribe { pid, filters } => {
                let mut encoded = Vec::new();
                for filter in filters {
                    UnsubscribeFilters::encode(filter, &mut encoded);
                }
                Packet::Unsubscribe(Unsubscribe {
                    packet_id: packet_id(*pid),
                    properties: Properties::EMPTY,
                    filters: UnsubscribeFilters::from_encoded(version, &encoded)
                        .expect("valid filters"),
                })
                .encode(version, &mut out);
            }
            Wire::PingReq => Packet::PingReq.encode(version, &mut out),
            Wire::Disconnect { expiry, .. } => {
                if let Some(seconds) = expiry.filter(|_| version == Version::V5) {
                    properties.push(Property::SessionExpiryInterval(seconds));
                }
                Packet::Disconnect(Disconnect {
                    reason: ReasonCode::Success,
                    properties: properties.as_properties(),
                })
                .encode(version, &mut out);
            }
            _ => unreachable!("a client does not send this"),
        }
        out
    }

    fn from_packet(packet: &Packet<'_>) -> Wire {
        match packet {
            Packet::Connect(connect) => Wire::Connect(Hello {
                client_id: connect.client_id.to_owned(),
                version: connect.version,
                clean: connect.clean_start,
                expiry: match connect.version {
                    Version::V5 => connect.properties.session_expiry_interval().unwrap_or(0),
                    Version::V311 if connect.clean_start => 0,
                    Version::V311 => u32::MAX,
                },
                keep_alive: connect.keep_alive,
                receive_maximum: connect.properties.receive_maximum().unwrap_or(u16::MAX),
                packet_max: connect.properties.maximum_packet_size().unwrap_or(u32::MAX),
            }),
            Packet::ConnAck(ack) => Wire::ConnAck {
                present: ack.session_present,
                reason: ack.reason as u8,
                receive_maximum: ack.properties.receive_maximum().unwrap_or(u16::MAX),
                topic_alias_maximum: ack.properties.topic_alias_maximum().unwrap_or(0),
            },
            Packet::Publish(publish) => Wire::Publish(Message {
                dup: publish.dup,
                qos: publish.qos,
                topic: publish.topic.to_owned(),
                alias: publish.properties.topic_alias(),
                pid: publish.packet_id.map_or(0, PacketId::get),
                expiry: publish.properties.message_expiry_interval(),
                payload: publish.payload.to_owned(),
            }),
            Packet::PubAck(ack) => Wire::PubAck {
                pid: ack.packet_id.get(),
                reason: ack.reason as u8,
            },
            Packet::PubRec(ack) => Wire::PubRec {
                pid: ack.packet_id.get(),
                reason: ack.reason as u8,
            },
            Packet::PubRel(ack) => Wire::PubRel {
                pid: ack.packet_id.get(),
                reason: ack.reason as u8,
            },
            Packet::PubComp(ack) => Wire::PubComp {
                pid: ack.packet_id.get(),
                reason: ack.reason as u8,
            },
            Packet::Subscribe(subscribe) => Wire::Subscribe {
                pid: subscribe.packet_id.get(),
                filters: subscribe
                    .filters
                    .iter()
                    .map(|(filter, options)| Subscription {
                        filter: filter.to_owned(),
                        qos: options.qos,
                        no_local: options.no_local,
                    })
                    .collect(),
            },
            Packet::SubAck(ack) => Wire::SubAck {
                pid: ack.packet_id.get(),
                reasons: ack.reasons.to_owned(),
            },
            Packet::Unsubscribe(unsubscribe) => Wire::Unsubscribe {
                pid: unsubscribe.packet_id.get(),
                filters: unsubscribe.filters.iter().map(str::to_owned).collect(),
            },
            Packet::UnsubAck(ack) => Wire::UnsubAck {
                pid: ack.packet_id.get(),
            },
            Packet::PingReq => Wire::PingReq,
            Packet::PingResp => Wire::PingResp,
            Packet::Disconnect(disconnect) => Wire::Disconnect {
                reason: disconnect.reason as u8,
                expiry: disconnect.properties.session_expiry_interval(),
            },
            _ => unreachable!("nobody here speaks of AUTH"),
        }
    }
}

fn ack(pid: u16, reason: u8) -> Ack<'static> {
    Ack {
        packet_id: packet_id(pid),
        reason: match reason {
            REFUSED => ReasonCode::ImplementationSpecificError,
            UNKNOWN => ReasonCode::PacketIdentifierNotFound,
            _ => ReasonCode::Success,
        },
        properties: Properties::EMPTY,
    }
}

fn packet_id(pid: u16) -> PacketId {
    PacketId::new(pid).expect("not zero")
}

/// Topic Aliases that a client sets on one link.
#[derive(Default)]
pub struct Aliases {
    topics: Vec<String>,
    /// The server's Topic Alias Maximum.
    pub maximum: u16,
    next: usize,
}

impl Aliases {
    /// Lets aliases stand for topics: first those that are free, then one after the other again.
    pub fn apply(&mut self, message: &mut Message) {
        // Few, so that they are set again.
        let maximum = usize::from(self.maximum.min(2));
        if maximum == 0 {
            return;
        }
        let at = match self.topics.iter().position(|topic| *topic == message.topic) {
            Some(at) => {
                message.topic.clear();
                at
            }
            None => {
                let at = self.next % maximum;
                self.next += 1;
                self.topics
                    .resize(self.topics.len().max(at + 1), String::new());
                self.topics[at].clone_from(&message.topic);
                at
            }
        };
        message.alias = Some(at as u16 + 1);
    }
}

/// One direction of a link: bytes in, packets out.
pub struct Decoder {
    pub version: Version,
    bytes: Vec<u8>,
    /// Topics by their alias, and the highest that there may be.
    aliases: BTreeMap<u16, String>,
    alias_max: u16,
}

impl Decoder {
    pub fn new(version: Version, alias_max: u16) -> Decoder {
        Decoder {
            version,
            bytes: Vec::new(),
            aliases: BTreeMap::new(),
            alias_max,
        }
    }

    /// Puts the topic there for which an alias stands.
    fn name(&mut self, message: &mut Message) -> Result<(), String> {
        let Some(alias) = message.alias.take() else {
            return Ok(());
        };
        if alias > self.alias_max {
            return Err(format!("Topic Alias {alias} is above the maximum"));
        }
        if !message.topic.is_empty() {
            self.aliases.insert(alias, message.topic.clone());
            return Ok(());
        }
        let topic = self.aliases.get(&alias);
        message
            .topic
            .clone_from(topic.ok_or_else(|| format!("Topic Alias {alias} was not set"))?);
        Ok(())
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether the beginning of a packet is there.
    pub fn has_begun(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// The next whole packet.
    pub fn next(&mut self) -> Option<Result<Wire, String>> {
        match frame(&self.bytes, PACKET_MAX) {
            Ok(Frame::Incomplete { .. }) => None,
            Ok(Frame::Complete { len }) => {
                let mut wire = packet(self.version, &self.bytes[..len])
                    .map(|packet| Wire::from_packet(&packet))
                    .map_err(|malformed| malformed.to_string());
                if let Ok(Wire::Publish(message)) = &mut wire {
                    if let Err(text) = self.name(message) {
                        wire = Err(text);
                    }
                }
                if let Ok(Wire::Connect(hello)) = &wire {
                    self.version = hello.version;
                }
                self.bytes.drain(..len);
                Some(wire)
            }
            Err(malformed) => Some(Err(malformed.to_string())),
        }
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wire::Connect(hello) => write!(
                f,
                "CONNECT {:?} {} clean={} expiry={} keep_alive={} receive_maximum={}",
                hello.version,
                hello.client_id,
                u8::from(hello.clean),
                hello.expiry,
                hello.keep_alive,
                hello.receive_maximum
            ),
            Wire::ConnAck {
                present, reason, ..
            } => write!(f, "CONNACK present={} 0x{reason:02X}", u8::from(*present)),
            Wire::Publish(message) => {
                write!(
                    f,
                    "PUBLISH {} #{} qos={} {}",
                    message.topic,
                    message.pid,
                    message.qos as u8,
                    Id::of(&message.payload).map_or("?".into(), |id| id.to_string())
                )?;
                if message.dup {
                    write!(f, " DUP")?;
                }
                if let Some(seconds) = message.expiry {
                    write!(f, " expiry={seconds}")?;
                }
                Ok(())
            }
            Wire::PubAck { pid, reason } => write!(f, "PUBACK #{pid} 0x{reason:02X}"),
            Wire::PubRec { pid, reason } => write!(f, "PUBREC #{pid} 0x{reason:02X}"),
            Wire::PubRel { pid, reason } => write!(f, "PUBREL #{pid} 0x{reason:02X}"),
            Wire::PubComp { pid, reason } => write!(f, "PUBCOMP #{pid} 0x{reason:02X}"),
            Wire::Subscribe { pid, filters } => {
                write!(f, "SUBSCRIBE #{pid}")?;
                filters
                    .iter()
                    .try_for_each(|of| write!(f, " {}:{}", of.filter, of.qos as u8))
            }
            Wire::SubAck { pid, reasons } => write!(f, "SUBACK #{pid} {reasons:02X?}"),
            Wire::Unsubscribe { pid, filters } => write!(f, "UNSUBSCRIBE #{pid} {filters:?}"),
            Wire::UnsubAck { pid } => write!(f, "UNSUBACK #{pid}"),
            Wire::PingReq => f.write_str("PINGREQ"),
            Wire::PingResp => f.write_str("PINGRESP"),
            Wire::Disconnect { reason, expiry } => {
                write!(f, "DISCONNECT 0x{reason:02X}")?;
                expiry.map_or(Ok(()), |seconds| write!(f, " expiry={seconds}"))
            }
        }
    }
}
