//! The floods. Each says what it did, and counts what was refused.

use crate::broker::Broker;
use crate::client::{Client, Identity, Received, is_end, packet_id};
use larder_packet::{
    Connect, Filters, Packet, PacketId, Properties, Property, PropertyBuf, Publish, Qos,
    ReasonCode, Subscribe, SubscriptionOptions, Version,
};
use std::io::{self, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// What was answered with a refusal.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// With 0x97, and long topics with 0x90.
    pub(crate) publishes: u64,
    /// CONNACKs with 0x97 or, of 3.1.1, 3.
    pub(crate) connects: u64,
    /// Filters with 0x97.
    pub(crate) filters: u64,
}

pub(crate) type Flood = fn(&Broker, &mut Refusals) -> String;

pub(crate) const ALL: [(&str, Flood); 7] = [
    ("links that never read", links_that_never_read),
    ("long topics and properties", long_topics),
    ("half-open connections", half_open),
    ("retained messages", retained),
    ("a backlog, and a bridge without its cloud", backlog),
    ("subscriptions", subscriptions),
    ("sessions", sessions),
];

const LINKS: usize = 900;
/// If `LARDER_HALF_OPEN` says nothing.
const HALF_OPEN: u32 = 10_000;
const HALF_OPEN_MAX: Duration = Duration::from_secs(600);
/// Of those at a time.
const HALF_OPEN_AT_A_TIME: usize = 80;
const RETAINED: u32 = 40_000;
/// If `LARDER_BACKLOG` says nothing.
const BACKLOG: u32 = 100_000;
const SESSIONS: u32 = 2_500;
const WINDOW: u32 = 64;

fn links_that_never_read(broker: &Broker, refusals: &mut Refusals) -> String {
    const MESSAGES: u32 = 5_000;
    let links: Vec<TcpStream> = (0..LINKS)
        .map(|number| {
            let mut link = TcpStream::connect(broker.address()).unwrap();
            let mut bytes = connect(&format!("never-{number}"), number % 2 == 0);
            let qos = [Qos::AtMostOnce, Qos::AtLeastOnce][number % 2];
            bytes.extend(subscribe(1, &["never/#"], qos));
            link.write_all(&bytes).unwrap();
            link
        })
        .collect();
    let mut publisher = broker.connect(&Identity::volatile("never", Version::V5));
    for number in 0..MESSAGES {
        let id = (number % 4 == 0).then(|| packet_id(number));
        publisher.queue_publish("never/x", &[b'.'; 1000], id, false);
        publisher.flush().unwrap();
        if id.is_some() {
            note(publisher.receive().unwrap(), refusals);
        }
    }
    publisher.ping().unwrap();
    drop(links);
    format!("{LINKS} links, {MESSAGES} messages to each")
}

fn long_topics(broker: &Broker, refusals: &mut Refusals) -> String {
    const ROUNDS: u32 = 60;
    let topic = format!("long/{}", "x".repeat(65_000));
    let mut properties = PropertyBuf::new();
    let value = "v".repeat(60_000);
    properties.push(Property::UserProperty("k", &value));
    let (mut closed, mut served, mut refused) = (0, 0, 0);
    for round in 0..ROUNDS {
        let mut client = Client::open(broker.address(), Version::V5).unwrap();
        if round % 3 == 0 {
            client.queue_bytes(&connect(&topic, false));
        } else {
            client.queue_bytes(&connect("long", false));
            let publish = Packet::Publish(Publish {
                dup: false,
                qos: Qos::AtLeastOnce,
                retain: round % 2 == 0,
                topic: &topic,
                packet_id: Some(PacketId::MIN),
                properties: properties.as_properties(),
                payload: b"",
            });
            client.queue_packet(&publish);
            client.queue_bytes(&subscribe(2, &[&topic], Qos::AtLeastOnce));
        }
        // It may be closed on the way.
        let _ = client.flush();
        loop {
            match client.receive() {
                Ok(Received::ConnAck {
                    reason: ReasonCode::Success,
                    ..
                }) => {}
                Ok(Received::ConnAck { .. } | Received::Disconnect(_)) => refused += 1,
                Ok(Received::SubAck(_)) => {
                    served += 1;
                    break;
                }
                Ok(received) => note(received, refusals),
                Err(error) if is_end(&error) => {
                    closed += 1;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    format!("{ROUNDS} of 64 KiB: {served} served, {refused} refused with a word, {closed} closed")
}

fn half_open(broker: &Broker, _: &mut Refusals) -> String {
    let address = broker.address();
    let mut open = std::collections::VecDeque::new();
    let begun = connect("half", true);
    let (began, count) = (Instant::now(), number("LARDER_HALF_OPEN", HALF_OPEN));
    for number in 0..count {
        let mut link = loop {
            match TcpStream::connect(address) {
                Ok(link) => break link,
                // The listener's queue is full for a moment.
                Err(error) => assert!(began.elapsed() < HALF_OPEN_MAX, "{error}"),
            }
        };
        // Without a goodbye, so that its port is free at once.
        socket2::SockRef::from(&link)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        let _ = link.write_all(&begun[..number as usize % (begun.len() - 1)]);
        open.push_back(link);
        if open.len() > HALF_OPEN_AT_A_TIME {
            open.pop_front();
        }
    }
    format!("{count}, {HALF_OPEN_AT_A_TIME} at a time")
}

fn retained(broker: &Broker, refusals: &mut Refusals) -> String {
    let mut publisher = broker.connect(&Identity::volatile("retained", Version::V5));
    let before = refusals.publishes;
    windowed(&mut publisher, RETAINED, refusals, |number, id| {
        let topic = format!("retained/{number}/{}", "t".repeat(100));
        encoded(&topic, &[b'.'; 500], true, id)
    });
    let refused = refusals.publishes - before;
    assert!(refused > 0, "there is no end to retained messages");
    format!("{RETAINED} topics of 100 bytes with 500 bytes each")
}

fn backlog(broker: &Broker, refusals: &mut Refusals) -> String {
    let mut away = broker.connect(&Identity::stored("away", Version::V5));
    away.subscribe("backlog/#", Qos::AtLeastOnce).unwrap();
    away.disconnect().unwrap();
    let mut publisher = broker.connect(&Identity::volatile("backlog", Version::V5));
    let count = number("LARDER_BACKLOG", BACKLOG);
    windowed(&mut publisher, count, refusals, |_, id| {
        encoded("backlog/x", &[b'.'; 100], false, id)
    });
    format!("{count} messages, twice")
}

fn subscriptions(broker: &Broker, refusals: &mut Refusals) -> String {
    const CLIENTS: usize = 60;
    const FILTERS: usize = 1000;
    let mut granted = 0;
    for number in 0..CLIENTS {
        let mut client = broker.connect(&Identity::stored(&format!("sub-{number}"), Version::V5));
        let filters: Vec<String> = (0..FILTERS)
            .map(|filter| format!("sub/{number}/{filter}/{}", "f".repeat(100)))
            .collect();
        for filters in filters.chunks(10) {
            let filters: Vec<&str> = filters.iter().map(|filter| &**filter).collect();
            client.queue_bytes(&subscribe(1, &filters, Qos::AtLeastOnce));
            client.flush().unwrap();
            let Received::SubAck(reasons) = client.receive().unwrap() else {
                panic!("a SUBACK was due");
            };
            for reason in reasons {
                match reason {
                    1 => granted += 1,
                    0x97 => refusals.filters += 1,
                    other => panic!("a filter is refused with {other:#x}"),
                }
            }
        }
        client.disconnect().unwrap();
    }
    assert!(refusals.filters > 0, "there is no end to subscriptions");
    format!(
        "{} filters of 100 bytes, {granted} granted",
        CLIENTS * FILTERS
    )
}

fn sessions(broker: &Broker, refusals: &mut Refusals) -> String {
    let mut granted = 0;
    for number in 0..SESSIONS {
        let version = [Version::V311, Version::V5][number as usize % 2];
        let identity = Identity::stored(&format!("session-{number}"), version);
        match Client::attempt(broker.address(), &identity).unwrap() {
            ReasonCode::Success => granted += 1,
            ReasonCode::QuotaExceeded | ReasonCode::ServerUnavailable => refusals.connects += 1,
            other => panic!("a session is refused with {other:?}"),
        }
    }
    assert!(refusals.connects > 0, "there is no end to sessions");
    format!("{SESSIONS}, {granted} granted")
}

fn number(variable: &str, default: u32) -> u32 {
    std::env::var(variable).map_or(default, |number| number.parse().expect(variable))
}

/// Publishes so many messages, each as it is told, with some unacknowledged; refusals are counted.
fn windowed(
    publisher: &mut Client,
    messages: u32,
    refusals: &mut Refusals,
    message: impl Fn(u32, PacketId) -> Vec<u8>,
) {
    let mut next = 0;
    for acknowledged in 0..messages {
        while next < messages && next < acknowledged + WINDOW {
            publisher.queue_bytes(&message(next, packet_id(next)));
            next += 1;
        }
        publisher.flush().unwrap();
        note(publisher.receive().unwrap(), refusals);
    }
}

fn note(received: Received, refusals: &mut Refusals) {
    match received {
        Received::PubAck(_, ReasonCode::Success | ReasonCode::NoMatchingSubscribers) => {}
        Received::PubAck(_, ReasonCode::QuotaExceeded | ReasonCode::TopicNameInvalid) => {
            refusals.publishes += 1;
        }
        other => panic!("{other:?}"),
    }
}

fn encoded(topic: &str, payload: &[u8], retain: bool, packet_id: PacketId) -> Vec<u8> {
    let mut bytes = Vec::new();
    let publish = Packet::Publish(Publish {
        dup: false,
        qos: Qos::AtLeastOnce,
        retain,
        topic,
        packet_id: Some(packet_id),
        properties: Properties::EMPTY,
        payload,
    });
    publish.encode(Version::V5, &mut bytes);
    bytes
}

/// A CONNECT of 5.0.
fn connect(client_id: &str, stored: bool) -> Vec<u8> {
    let mut properties = PropertyBuf::new();
    if stored {
        properties.push(Property::SessionExpiryInterval(60));
    }
    let mut bytes = Vec::new();
    let connect = Packet::Connect(Connect {
        version: Version::V5,
        clean_start: true,
        keep_alive: 0,
        properties: properties.as_properties(),
        client_id,
        will: None,
        username: None,
        password: None,
    });
    connect.encode(Version::V5, &mut bytes);
    bytes
}

fn subscribe(packet_id: u16, topics: &[&str], qos: Qos) -> Vec<u8> {
    let mut filters = Vec::new();
    let options = SubscriptionOptions {
        qos,
        ..SubscriptionOptions::default()
    };
    for topic in topics {
        Filters::encode(topic, options, &mut filters);
    }
    let mut bytes = Vec::new();
    let subscribe = Packet::Subscribe(Subscribe {
        packet_id: PacketId::new(packet_id).unwrap(),
        properties: Properties::EMPTY,
        filters: Filters::from_encoded(Version::V5, &filters).unwrap(),
    });
    subscribe.encode(Version::V5, &mut bytes);
    bytes
}

impl Client {
    /// Tries to connect, and says how it was answered.
    fn attempt(address: std::net::SocketAddr, identity: &Identity) -> io::Result<ReasonCode> {
        let mut properties = PropertyBuf::new();
        if identity.version == Version::V5 {
            properties.push(Property::SessionExpiryInterval(60));
        }
        let mut client = Client::open(address, identity.version)?;
        client.send(&Packet::Connect(Connect {
            version: identity.version,
            clean_start: false,
            keep_alive: 0,
            properties: properties.as_properties(),
            client_id: &identity.client_id,
            will: None,
            username: None,
            password: None,
        }))?;
        match client.receive()? {
            Received::ConnAck { reason, .. } => Ok(reason),
            other => panic!("{other:?}"),
        }
    }
}
