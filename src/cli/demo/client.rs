//! A small MQTT client that waits: one connection, no thread of its own, no memory of what it sent.

use larder_packet::{
    Connect, Disconnect, Filters, Frame, Packet, PacketId, Properties, Property, PropertyBuf, Qos,
    ReasonCode, Subscribe, SubscriptionOptions, Version, frame, packet,
};
use std::fmt::Display;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long a connection, its CONNACK or a SUBACK may take, and a write that nobody reads.
const PATIENCE: Duration = Duration::from_secs(5);
/// Long enough that no demonstration needs a PINGREQ; not 0, which some brokers refuse.
const KEEP_ALIVE_SECONDS: u16 = 300;
const PACKET_BYTES_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 64 * 1024;

/// As whom to connect.
#[derive(Clone, Copy, Debug)]
pub(super) struct Login<'a> {
    pub(super) version: Version,
    pub(super) client_id: &'a str,
    pub(super) clean_start: bool,
    /// Session Expiry Interval in seconds. 3.1.1 has none: there a session lasts unless Clean Session was set.
    pub(super) session_expiry: u32,
    /// Receive Maximum, 5.0 only.
    pub(super) receive_maximum: u16,
}

/// A connection that has had its CONNACK.
#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    version: Version,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    session_present: bool,
}

impl Client {
    /// Connects and waits for the CONNACK.
    ///
    /// # Errors
    /// `ConnectionRefused` with the Reason Code in words if the broker says no; what the network says otherwise.
    pub(super) fn connect(address: SocketAddr, login: Login<'_>) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut client = Client {
            stream,
            version: login.version,
            inbox: Vec::new(),
            outbox: Vec::new(),
            session_present: false,
        };
        let mut properties = PropertyBuf::new();
        properties.push(Property::SessionExpiryInterval(login.session_expiry));
        properties.push(Property::ReceiveMaximum(login.receive_maximum));
        client.send(&Packet::Connect(Connect {
            version: login.version,
            clean_start: login.clean_start,
            keep_alive: KEEP_ALIVE_SECONDS,
            properties: properties.as_properties(),
            client_id: login.client_id,
            will: None,
            username: None,
            password: None,
        }));
        let (mut reason, mut session_present) = (ReasonCode::Success, false);
        client.answer("CONNACK", |packet| match packet {
            Packet::ConnAck(ack) => {
                (reason, session_present) = (ack.reason, ack.session_present);
                true
            }
            _ => false,
        })?;
        if reason != ReasonCode::Success {
            return Err(io::Error::new(
                ErrorKind::ConnectionRefused,
                format!("the broker refuses the connection: {reason}"),
            ));
        }
        client.session_present = session_present;
        Ok(client)
    }

    /// Whether the broker had the session already.
    pub(super) fn session_present(&self) -> bool {
        self.session_present
    }

    /// Puts a packet behind what [`Client::flush`] will write.
    pub(super) fn send(&mut self, packet: &Packet<'_>) {
        packet.encode(self.version, &mut self.outbox);
    }

    /// Writes what was sent.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        self.stream.write_all(&self.outbox)?;
        self.outbox.clear();
        Ok(())
    }

    /// Subscribes, and waits for the SUBACK. To be called before messages may come.
    pub(super) fn subscribe(&mut self, filters: &[&str], qos: Qos) -> io::Result<()> {
        let mut encoded = Vec::new();
        let options = SubscriptionOptions {
            qos,
            ..SubscriptionOptions::default()
        };
        for filter in filters {
            Filters::encode(filter, options, &mut encoded);
        }
        self.send(&Packet::Subscribe(Subscribe {
            packet_id: PacketId::MIN,
            properties: Properties::EMPTY,
            filters: Filters::from_encoded(self.version, &encoded).map_err(invalid)?,
        }));
        let mut refused = None;
        self.answer("SUBACK", |packet| match packet {
            Packet::SubAck(ack) => {
                refused = ack.reasons.iter().copied().find(|reason| *reason >= 0x80);
                true
            }
            _ => false,
        })?;
        match refused.map(|code| ReasonCode::from_u8(code).unwrap_or(ReasonCode::UnspecifiedError))
        {
            None => Ok(()),
            Some(reason) => Err(invalid(format!(
                "the broker refuses the subscription: {reason}"
            ))),
        }
    }

    /// Hands over the packets that have come; if none has, waits for some, at most so long. `take` may append packets to
    /// send to what it is given; they are written before this returns.
    ///
    /// # Errors
    /// The connection is over.
    pub(super) fn receive(
        &mut self,
        wait: Duration,
        mut take: impl FnMut(Packet<'_>, &mut Vec<u8>),
    ) -> io::Result<()> {
        self.flush()?;
        if self.hand_over(&mut take)? == 0 && self.read(wait)? {
            self.hand_over(&mut take)?;
        }
        self.flush()
    }

    /// Says goodbye.
    pub(super) fn disconnect(mut self) -> io::Result<()> {
        self.send(&Packet::Disconnect(Disconnect {
            reason: ReasonCode::Success,
            properties: Properties::EMPTY,
        }));
        self.flush()
    }

    /// Writes, and reads until `is_it` knows the packet that it waits for.
    fn answer(&mut self, name: &str, mut is_it: impl FnMut(Packet<'_>) -> bool) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut found = false;
        while !found {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(
                    ErrorKind::TimedOut,
                    format!("no {name} came within {} s", PATIENCE.as_secs()),
                ));
            }
            self.receive(left, |packet, _| found |= is_it(packet))?;
        }
        Ok(())
    }

    /// Whether something came.
    fn read(&mut self, wait: Duration) -> io::Result<bool> {
        self.stream
            .set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        let before = self.inbox.len();
        self.inbox.resize(before + READ_BYTES, 0);
        let read = self.stream.read(&mut self.inbox[before..]);
        self.inbox
            .truncate(before + read.as_ref().map_or(0, |read| *read));
        match read {
            Ok(0) => Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the broker has closed the connection",
            )),
            Ok(_) => Ok(true),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// How many packets there were.
    fn hand_over(&mut self, take: &mut impl FnMut(Packet<'_>, &mut Vec<u8>)) -> io::Result<usize> {
        let (mut start, mut count) = (0, 0);
        while let Frame::Complete { len } =
            frame(&self.inbox[start..], PACKET_BYTES_MAX).map_err(invalid)?
        {
            match packet(self.version, &self.inbox[start..start + len]).map_err(invalid)? {
                Packet::Disconnect(disconnect) => {
                    return Err(io::Error::new(
                        ErrorKind::ConnectionAborted,
                        format!("the broker ends the connection: {}", disconnect.reason),
                    ));
                }
                packet => take(packet, &mut self.outbox),
            }
            start += len;
            count += 1;
        }
        self.inbox.drain(..start);
        Ok(count)
    }
}

fn invalid(error: impl Display) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error.to_string())
}
