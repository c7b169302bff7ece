//! One link to one broker over rumqttc, 3.1.1 or 5.0, as the events and requests that the relay knows.
//!
//! rumqttc is used for what it does well, one connection at a time, and never as a queue:
//! - An event loop lives as long as its connection. A new link is a new event loop, so nothing of rumqttc's own is
//!   replayed under packet identifiers that have another meaning by then.
//! - Requests are handed over without waiting. Their channel has room for all that the relay can owe a link, so that the
//!   task that polls is never the one that waits for it.
//! - Packet identifiers are rumqttc's. `Outgoing::Publish` names them in the order of the requests, and so the relay's
//!   own ids are found again at a PUBACK.

mod v4;
mod v5;

use crate::message::Message;
use crate::relay::Terms;
use crate::tunnel::{Far, Tunnel};
use larder_packet::{Qos, Version};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};

/// How long a connection may take, from looking up its name to the CONNACK; with TLS, so long to the end of its handshake
/// and from there to the CONNACK.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// The largest packet of MQTT: a fixed header and 268,435,455 bytes.
const PACKET_MAX: usize = 268_435_460;

/// What to connect to, and as whom.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: Address,
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) credentials: Option<(String, String)>,
    pub(crate) keep_alive: Duration,
    /// Receive Maximum to announce, and the most messages that will be unacknowledged.
    pub(crate) window: u16,
    /// Maximum Packet Size to announce, in bytes.
    pub(crate) packet_max: u32,
}

#[derive(Clone, Debug)]
pub(crate) enum Address {
    Tcp { host: String, port: u16 },
    Tls(Far),
    Unix(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Tcp { host, port } | Address::Tls(Far { host, port, .. }) => {
                write!(f, "{host}:{port}")
            }
            Address::Unix(path) => f.write_str(path),
        }
    }
}

/// What happens on a link.
#[derive(Debug)]
pub(crate) enum Event {
    Connected(Terms),
    /// The index of each filter that the server refused.
    Subscribed {
        refused: Vec<usize>,
    },
    Message {
        tag: u16,
        message: Message,
    },
    Acknowledged {
        id: u64,
        reason: u8,
    },
    /// A QoS 0 message has been written.
    Written,
    /// A PUBACK has been written.
    AckWritten,
    /// Our DISCONNECT has been written.
    Disconnected,
    /// Nothing that matters to the relay.
    Other,
}

/// Why a link has ended, or has not come to be.
#[derive(Debug)]
pub(crate) struct LinkError {
    pub(crate) text: String,
    /// The other end closed it: what it was sent may be the cause.
    pub(crate) closed_by_peer: bool,
    /// Nothing but that is known.
    pub(crate) is_bare: bool,
}

impl LinkError {
    pub(crate) fn ours(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            closed_by_peer: false,
            is_bare: false,
        }
    }

    pub(crate) fn peer(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            closed_by_peer: true,
            is_bare: false,
        }
    }

    fn closed() -> Self {
        Self {
            text: "closed by the server".to_owned(),
            closed_by_peer: true,
            is_bare: true,
        }
    }

    pub(crate) fn from_io(error: &io::Error) -> Self {
        use io::ErrorKind;
        let closed_by_peer = matches!(
            error.kind(),
            ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
                | ErrorKind::UnexpectedEof
        );
        Self {
            text: error.to_string(),
            closed_by_peer,
            is_bare: closed_by_peer,
        }
    }
}

/// Opens a link: the half that asks, and the half that is polled. Nothing happens before the first poll.
pub(crate) fn open(target: &Target) -> (Requests, Connection) {
    // All that the relay can owe a link: a window each of QoS 1 and QoS 0, two of acks; a SUBSCRIBE and a DISCONNECT.
    let capacity = 4 * usize::from(target.window) + 2;
    let submitted = Rc::default();
    let (way, tunnel) = match &target.address {
        Address::Tcp { host, port } => (Way::Tcp(host, *port), None),
        Address::Unix(path) => (Way::Unix(path.clone()), None),
        Address::Tls(far) => {
            let tunnel = Tunnel::new(far.clone());
            (Way::Unix(tunnel.path().to_owned()), Some(tunnel))
        }
    };
    let (client, events) = match target.version {
        Version::V311 => {
            let (client, events) = v4::open(target, way, capacity);
            (Client::V4(client), Events::V4(Box::new(events)))
        }
        Version::V5 => {
            let (client, events) = v5::open(target, way, capacity);
            (Client::V5(client), Events::V5(Box::new(events)))
        }
    };
    let connection = Connection {
        events,
        tunnel,
        submitted: Rc::clone(&submitted),
        ids: BTreeMap::new(),
        window: target.window,
        keep_alive: target.keep_alive,
    };
    (Requests { client, submitted }, connection)
}

/// Whether somebody answers at an address, and with TLS is who it should be.
pub(crate) async fn answers(target: &Target) -> bool {
    let answer = async {
        match &target.address {
            Address::Tcp { host, port } => TcpStream::connect(format!("{host}:{port}"))
                .await
                .map(|_| ())
                .map_err(|error| LinkError::from_io(&error)),
            Address::Tls(far) => far.connect().await.map(|_| ()),
            Address::Unix(path) => UnixStream::connect(path)
                .await
                .map(|_| ())
                .map_err(|error| LinkError::from_io(&error)),
        }
    };
    matches!(
        tokio::time::timeout(CONNECT_TIMEOUT, answer).await,
        Ok(Ok(()))
    )
}

/// How rumqttc itself connects.
enum Way<'a> {
    Tcp(&'a str, u16),
    Unix(String),
}

/// The half of a link that asks. No call waits.
pub(crate) struct Requests {
    client: Client,
    submitted: Submitted,
}

/// The relay's ids of the PUBLISH requests that have no packet identifier yet, in their order; 0 for QoS 0.
type Submitted = Rc<RefCell<VecDeque<u64>>>;

enum Client {
    V4(rumqttc::AsyncClient),
    V5(rumqttc::v5::AsyncClient),
}

/// The request did not fit, which the relay's accounts rule out; the link cannot be trusted any more.
#[derive(Debug)]
pub(crate) struct NoRoom;

impl Requests {
    pub(crate) fn publish(&self, id: u64, message: Message) -> Result<(), NoRoom> {
        self.submitted.borrow_mut().push_back(id);
        match &self.client {
            Client::V4(client) => v4::publish(client, message),
            Client::V5(client) => v5::publish(client, message),
        }
    }

    pub(crate) fn acknowledge(&self, tag: u16) -> Result<(), NoRoom> {
        match &self.client {
            Client::V4(client) => v4::acknowledge(client, tag),
            Client::V5(client) => v5::acknowledge(client, tag),
        }
    }

    /// Subscribes with No Local and Retain As Published where there is such a thing. Retained messages are sent again
    /// only for a new subscription.
    pub(crate) fn subscribe(&self, filters: &[(String, Qos)]) -> Result<(), NoRoom> {
        match &self.client {
            Client::V4(client) => v4::subscribe(client, filters),
            Client::V5(client) => v5::subscribe(client, filters),
        }
    }

    pub(crate) fn disconnect(&self) -> Result<(), NoRoom> {
        match &self.client {
            Client::V4(client) => client.try_disconnect().map_err(|_| NoRoom),
            Client::V5(client) => client.try_disconnect().map_err(|_| NoRoom),
        }
    }
}

/// The half of a link that is polled.
pub(crate) struct Connection {
    events: Events,
    /// What carries the bytes on, if rumqttc does not do it itself.
    tunnel: Option<Tunnel>,
    submitted: Submitted,
    /// Packet identifier to the relay's id, of what is not acknowledged.
    ids: BTreeMap<u16, u64>,
    window: u16,
    keep_alive: Duration,
}

enum Events {
    V4(Box<rumqttc::EventLoop>),
    V5(Box<rumqttc::v5::EventLoop>),
}

/// An event in rumqttc's terms, common to both versions.
enum Raw {
    Connected(Terms),
    Subscribed {
        refused: Vec<usize>,
    },
    Message {
        tag: u16,
        message: Message,
    },
    Acknowledged {
        packet_id: u16,
        reason: u8,
    },
    /// Written, under this packet identifier; 0 for QoS 0.
    Published {
        packet_id: u16,
    },
    AckWritten,
    /// A packet identifier came round again before it was free: rumqttc would stop sending.
    Collision,
    Disconnected,
    Other,
}

impl Connection {
    /// What happens next. After an error the link is over. Dropping the future ends the link as well: rumqttc's poll
    /// may have half done what it does.
    pub(crate) async fn next(&mut self) -> Result<Event, LinkError> {
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.open(CONNECT_TIMEOUT).await?;
        }
        // rumqttc wakes at least once per keep alive, to send a PINGREQ, unless it is stuck writing to a peer that has
        // stopped reading.
        let patience = (2 * self.keep_alive).max(2 * CONNECT_TIMEOUT);
        let raw = tokio::time::timeout(patience, async {
            match &mut self.events {
                Events::V4(events) => v4::poll(events).await,
                Events::V5(events) => v5::poll(events, self.keep_alive).await,
            }
        });
        match (raw.await, &mut self.tunnel) {
            (Ok(Ok(raw)), _) => self.named(raw),
            (Ok(Err(error)), Some(tunnel)) => Err(tunnel.why(error).await),
            (Ok(Err(error)), None) => Err(error),
            (Err(_), _) => Err(LinkError::ours(format!(
                "nothing could be written for {} s",
                patience.as_secs()
            ))),
        }
    }

    fn named(&mut self, raw: Raw) -> Result<Event, LinkError> {
        Ok(match raw {
            Raw::Connected(terms) => Event::Connected(self.with_slack(terms)),
            Raw::Subscribed { refused } => Event::Subscribed { refused },
            Raw::Message { tag, message } => Event::Message { tag, message },
            Raw::AckWritten => Event::AckWritten,
            Raw::Disconnected => Event::Disconnected,
            Raw::Other => Event::Other,
            Raw::Acknowledged { packet_id, reason } => match self.ids.remove(&packet_id) {
                Some(id) => Event::Acknowledged { id, reason },
                None => Event::Other,
            },
            Raw::Published { packet_id } => {
                let id = self.submitted.borrow_mut().pop_front();
                match (id, packet_id) {
                    (Some(0), 0) => Event::Written,
                    (Some(id), packet_id) if id != 0 && packet_id != 0 => {
                        self.ids.insert(packet_id, id);
                        Event::Other
                    }
                    _ => return Err(LinkError::ours("lost count of the packet identifiers")),
                }
            }
            Raw::Collision => return Err(LinkError::ours("the server acknowledges out of order")),
        })
    }

    /// rumqttc takes no request, acks included, while as much is unacknowledged as it may send. One less is therefore
    /// what the relay is told, so that acks always go out.
    fn with_slack(&self, terms: Terms) -> Terms {
        let in_flight_max = terms.receive_maximum.min(in_flight_max(self.window));
        Terms {
            receive_maximum: (in_flight_max - 1).max(1),
            ..terms
        }
    }
}

/// What rumqttc may have unacknowledged: its table is that long, and its packet identifiers go round in it.
fn in_flight_max(window: u16) -> u16 {
    window + 1
}
