//! A blocking MQTT client, as small as these tests need it: it shows every packet that comes, and resends nothing by
//! itself.

use larder_packet::{
    Ack, Connect, Disconnect, Filters, Frame, Packet, PacketId, Properties, Property, PropertyBuf,
    Publish, Qos, ReasonCode, Subscribe, SubscriptionOptions, Version, frame, packet,
};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// What takes longer than this has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const PACKET_MAX: usize = 1 << 20;
const READ_BYTES: usize = 64 << 10;
/// Seconds for which a stored session of 5.0 outlives its link.
const EXPIRY: u32 = 3600;

/// Who connects, and how.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) client_id: String,
    pub(crate) version: Version,
    pub(crate) stored: bool,
}

impl Identity {
    pub(crate) fn stored(client_id: &str, version: Version) -> Identity {
        Identity {
            client_id: client_id.to_owned(),
            version,
            stored: true,
        }
    }

    pub(crate) fn volatile(client_id: &str, version: Version) -> Identity {
        Identity {
            stored: false,
            ..Identity::stored(client_id, version)
        }
    }
}

/// A packet from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    ConnAck {
        session_present: bool,
        reason: ReasonCode,
    },
    Publish(Message),
    PubAck(PacketId, ReasonCode),
    PubRec(PacketId, ReasonCode),
    PubRel(PacketId),
    PubComp(PacketId),
    SubAck(Vec<u8>),
    PingResp,
    Disconnect(ReasonCode),
}

/// A PUBLISH from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) dup: bool,
    /// With QoS 1 and 2.
    pub(crate) packet_id: Option<PacketId>,
}

/// What QoS 2 is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// PUBREC
    Receipt,
    /// PUBREL
    Release,
    /// PUBCOMP
    Completion,
}

pub(crate) struct Client {
    stream: TcpStream,
    version: Version,
    /// Whether the CONNACK said so.
    pub(crate) session_present: bool,
    /// Bytes that have come; those before `taken` are dealt with.
    inbox: Vec<u8>,
    taken: usize,
    outbox: Vec<u8>,
}

impl Client {
    /// Connects and takes the CONNACK; one that refuses is an error.
    pub(crate) fn connect(address: SocketAddr, identity: &Identity) -> io::Result<Client> {
        let mut client = Client::open(address, identity.version)?;
        let mut properties = PropertyBuf::new();
        if identity.version == Version::V5 && identity.stored {
            properties.push(Property::SessionExpiryInterval(EXPIRY));
        }
        client.send(&Packet::Connect(Connect {
            version: identity.version,
            clean_start: !identity.stored,
            keep_alive: 0,
            properties: properties.as_properties(),
            client_id: &identity.client_id,
            will: None,
            username: None,
            password: None,
        }))?;
        match client.receive()? {
            Received::ConnAck {
                session_present,
                reason: ReasonCode::Success,
            } => {
                client.session_present = session_present;
                Ok(client)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// A link on which nothing has been said yet.
    pub(crate) fn open(address: SocketAddr, version: Version) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Client {
            stream,
            version,
            session_present: false,
            inbox: Vec::new(),
            taken: 0,
            outbox: Vec::new(),
        })
    }

    /// The port of our side: by it a trace of the broker tells its links apart.
    pub(crate) fn port(&self) -> u16 {
        self.stream
            .local_addr()
            .expect("a connected socket has an address")
            .port()
    }

    /// Subscribes and takes the SUBACK. To a topic that nobody publishes to yet: else messages may come before it.
    pub(crate) fn subscribe(&mut self, filter: &str, qos: Qos) -> io::Result<()> {
        self.queue_subscribe(filter, qos);
        self.flush()?;
        match self.receive()? {
            Received::SubAck(reasons) if reasons == [qos as u8] => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Puts a SUBSCRIBE into the outbox.
    pub(crate) fn queue_subscribe(&mut self, filter: &str, qos: Qos) {
        let mut filters = Vec::new();
        let options = SubscriptionOptions {
            qos,
            // Where it can be said: what was said before the test asked is old.
            retain_handling: if self.version == Version::V5 { 2 } else { 0 },
            ..SubscriptionOptions::default()
        };
        Filters::encode(filter, options, &mut filters);
        let subscribe = Packet::Subscribe(Subscribe {
            packet_id: PacketId::MIN,
            properties: Properties::EMPTY,
            filters: Filters::from_encoded(self.version, &filters).expect("a Topic Filter"),
        });
        subscribe.encode(self.version, &mut self.outbox);
    }

    /// Puts a PUBLISH into the outbox: QoS 1 if it has a Packet Identifier, else QoS 0.
    pub(crate) fn queue_publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        packet_id: Option<PacketId>,
        dup: bool,
    ) {
        let qos = match packet_id {
            Some(_) => Qos::AtLeastOnce,
            None => Qos::AtMostOnce,
        };
        self.queue_message(topic, payload, qos, packet_id, dup);
    }

    /// Puts a PUBLISH of QoS 2 into the outbox.
    pub(crate) fn queue_publish_2(&mut self, topic: &str, payload: &[u8], id: PacketId, dup: bool) {
        self.queue_message(topic, payload, Qos::ExactlyOnce, Some(id), dup);
    }

    fn queue_message(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: Qos,
        packet_id: Option<PacketId>,
        dup: bool,
    ) {
        let publish = Packet::Publish(Publish {
            dup,
            qos,
            retain: false,
            topic,
            packet_id,
            properties: Properties::EMPTY,
            payload,
        });
        publish.encode(self.version, &mut self.outbox);
    }

    /// Puts anything into the outbox.
    #[allow(dead_code, reason = "not by all tests")]
    pub(crate) fn queue_bytes(&mut self, bytes: &[u8]) {
        self.outbox.extend_from_slice(bytes);
    }

    /// Puts a packet into the outbox.
    #[allow(dead_code, reason = "not by all tests")]
    pub(crate) fn queue_packet(&mut self, packet: &Packet) {
        packet.encode(self.version, &mut self.outbox);
    }

    /// Publishes at QoS 0.
    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8]) -> io::Result<()> {
        self.queue_publish(topic, payload, None, false);
        self.flush()
    }

    /// Publishes at QoS 1 and waits for the PUBACK.
    pub(crate) fn publish_acknowledged(
        &mut self,
        topic: &str,
        payload: &[u8],
    ) -> io::Result<ReasonCode> {
        self.queue_publish(topic, payload, Some(PacketId::MIN), false);
        self.flush()?;
        match self.receive()? {
            Received::PubAck(PacketId::MIN, reason) => Ok(reason),
            other => Err(unexpected(&other)),
        }
    }

    /// Publishes `payload(n)` for each `n` at QoS 1, up to `window` of them unacknowledged, and holds the broker to
    /// success and to the order of its PUBACKs [MQTT-4.6.0-2]. The Packet Identifier of `n` is [`packet_id`]`(n)`.
    pub(crate) fn publish_all(
        &mut self,
        topic: &str,
        numbers: RangeInclusive<u32>,
        window: u32,
        payload: impl Fn(u32) -> Vec<u8>,
    ) -> io::Result<()> {
        let mut next = *numbers.start();
        for acknowledged in numbers.clone() {
            while next <= *numbers.end() && next < acknowledged + window {
                self.queue_publish(topic, &payload(next), Some(packet_id(next)), false);
                next += 1;
            }
            let puback = match self.take_buffered()? {
                Some(received) => received,
                None => {
                    self.flush()?;
                    self.receive()?
                }
            };
            if puback != Received::PubAck(packet_id(acknowledged), ReasonCode::Success) {
                return Err(unexpected(&puback));
            }
        }
        Ok(())
    }

    /// The next message; its PUBACK is in the outbox, and leaves before the next wait for a packet.
    pub(crate) fn next_message(&mut self) -> io::Result<Message> {
        let received = match self.take_buffered()? {
            Some(received) => received,
            None => {
                self.flush()?;
                self.receive()?
            }
        };
        match received {
            Received::Publish(message) => {
                if let Some(packet_id) = message.packet_id {
                    self.queue_puback(packet_id);
                }
                Ok(message)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Puts a PUBACK into the outbox.
    pub(crate) fn queue_puback(&mut self, packet_id: PacketId) {
        let ack = Packet::PubAck(Ack {
            packet_id,
            reason: ReasonCode::Success,
            properties: Properties::EMPTY,
        });
        ack.encode(self.version, &mut self.outbox);
    }

    /// Puts a step of QoS 2 into the outbox.
    pub(crate) fn queue_step(&mut self, step: Step, packet_id: PacketId) {
        let ack = Ack {
            packet_id,
            reason: ReasonCode::Success,
            properties: Properties::EMPTY,
        };
        let packet = match step {
            Step::Receipt => Packet::PubRec(ack),
            Step::Release => Packet::PubRel(ack),
            Step::Completion => Packet::PubComp(ack),
        };
        packet.encode(self.version, &mut self.outbox);
    }

    /// PINGREQ and PINGRESP: what was sent before has been dealt with.
    pub(crate) fn ping(&mut self) -> io::Result<()> {
        self.send(&Packet::PingReq)?;
        match self.receive()? {
            Received::PingResp => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// DISCONNECT; a stored session stays.
    pub(crate) fn disconnect(mut self) -> io::Result<()> {
        self.send(&Packet::Disconnect(Disconnect {
            reason: ReasonCode::Success,
            properties: Properties::EMPTY,
        }))?;
        self.expect_end()
    }

    /// The broker closes the link, and says nothing more on it.
    pub(crate) fn expect_end(&mut self) -> io::Result<()> {
        match self.receive() {
            Err(error) if is_end(&error) => Ok(()),
            Err(error) => Err(error),
            Ok(received) => Err(unexpected(&received)),
        }
    }

    /// The next packet, if it comes in good time.
    pub(crate) fn receive(&mut self) -> io::Result<Received> {
        self.receive_within(PATIENCE)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::TimedOut, "nothing came from the broker"))
    }

    /// The next packet, or `None` if none comes for so long.
    pub(crate) fn receive_within(&mut self, wait: Duration) -> io::Result<Option<Received>> {
        let deadline = Instant::now() + wait;
        loop {
            if let Some(received) = self.take_buffered()? {
                return Ok(Some(received));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            self.fill()?;
        }
    }

    /// The next packet if it is here already.
    pub(crate) fn take_buffered(&mut self) -> io::Result<Option<Received>> {
        let bytes = &self.inbox[self.taken..];
        let Frame::Complete { len } = frame(bytes, PACKET_MAX).map_err(io::Error::other)? else {
            return Ok(None);
        };
        let received = owned(packet(self.version, &bytes[..len]).map_err(io::Error::other)?)?;
        self.taken += len;
        Ok(Some(received))
    }

    /// Sends what is in the outbox.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let sent = self.stream.write_all(&self.outbox);
        self.outbox.clear();
        sent
    }

    pub(crate) fn send(&mut self, packet: &Packet) -> io::Result<()> {
        packet.encode(self.version, &mut self.outbox);
        self.flush()
    }

    /// Reads once; nothing within the read timeout is no error.
    fn fill(&mut self) -> io::Result<()> {
        self.inbox.drain(..self.taken);
        self.taken = 0;
        let held = self.inbox.len();
        self.inbox.resize(held + READ_BYTES, 0);
        let read = self.stream.read(&mut self.inbox[held..]);
        self.inbox
            .truncate(held + read.as_ref().copied().unwrap_or(0));
        match read {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(error) if is_timeout(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The Packet Identifier of message `n`: no two that are less than 65,535 apart have the same.
pub(crate) fn packet_id(n: u32) -> PacketId {
    PacketId::new((n % 65_535 + 1) as u16).expect("at least 1")
}

/// Whether the link has ended, rather than that something on it was wrong.
pub(crate) fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | BrokenPipe
            | ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
    )
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

fn unexpected(received: &Received) -> io::Error {
    io::Error::other(format!("the broker sent {received:?}"))
}

fn owned(packet: Packet) -> io::Result<Received> {
    Ok(match packet {
        Packet::ConnAck(connack) => Received::ConnAck {
            session_present: connack.session_present,
            reason: connack.reason,
        },
        Packet::Publish(publish) => Received::Publish(Message {
            topic: publish.topic.to_owned(),
            payload: publish.payload.to_owned(),
            dup: publish.dup,
            packet_id: publish.packet_id,
        }),
        Packet::PubAck(ack) => Received::PubAck(ack.packet_id, ack.reason),
        Packet::PubRec(ack) => Received::PubRec(ack.packet_id, ack.reason),
        Packet::PubRel(ack) => Received::PubRel(ack.packet_id),
        Packet::PubComp(ack) => Received::PubComp(ack.packet_id),
        Packet::SubAck(suback) => Received::SubAck(suback.reasons.to_owned()),
        Packet::PingResp => Received::PingResp,
        Packet::Disconnect(disconnect) => Received::Disconnect(disconnect.reason),
        other => return Err(io::Error::other(format!("the broker sent {other:?}"))),
    })
}
