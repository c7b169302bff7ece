//! A load of QoS 1 that goes on through calamities, and what is promised of it: what was acknowledged is delivered, in
//! order.

use crate::broker::{Broker, Place};
use crate::client::{Client, Identity, Received, is_end, packet_id};
use larder_packet::{Qos, ReasonCode, Version};
use std::collections::VecDeque;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Messages that a publisher has unacknowledged.
const WINDOW: usize = 16;
/// The topics are `kill/0`, `kill/1`, ...
const PUBLISHERS: [Version; 4] = [Version::V311, Version::V5, Version::V311, Version::V5];
const FILTER: &str = "kill/+";
/// A subscriber that gets nothing for so long gives up.
const DROUGHT: Duration = Duration::from_secs(20);

/// Publishes while `calamities` befall the broker, which is back when they are over; then sees that every stored
/// session is given all of it.
pub(crate) fn survives(broker: &mut Broker, calamities: impl FnOnce(&mut Broker)) {
    let present = [
        Identity::stored("present-311", Version::V311),
        Identity::stored("present-5", Version::V5),
    ];
    let absent = [
        Identity::stored("absent-311", Version::V311),
        Identity::stored("absent-5", Version::V5),
    ];
    for identity in present.iter().chain(&absent) {
        let mut client = broker.connect(identity);
        client.subscribe(FILTER, Qos::AtLeastOnce).unwrap();
    }

    let (stop, published) = (AtomicBool::new(false), OnceLock::new());
    let place = broker.place();
    let sessions: Vec<Deliveries> = std::thread::scope(|scope| {
        let publishers: Vec<_> = (0..PUBLISHERS.len())
            .map(|index| {
                scope.spawn({
                    let (place, stop) = (&place, &stop);
                    move || publish(index, place, stop)
                })
            })
            .collect();
        let take = |identity| {
            scope.spawn({
                let (place, published) = (&place, &published);
                move || take_all(identity, place, published)
            })
        };
        let mut subscribers: Vec<_> = present.iter().map(take).collect();
        scope.spawn(|| overhear(&place, &stop));

        calamities(broker);
        stop.store(true, Ordering::Relaxed);
        let counts: Vec<u32> = publishers
            .into_iter()
            .map(|publisher| publisher.join().unwrap())
            .collect();
        published.set(counts).unwrap();
        subscribers.extend(absent.iter().map(take));
        subscribers
            .into_iter()
            .map(|subscriber| subscriber.join().unwrap())
            .collect()
    });

    let published = published.get().unwrap();
    println!("QoS 1: {published:?} published, all acknowledged");
    for (identity, deliveries) in present.iter().chain(&absent).zip(&sessions) {
        println!("QoS 1: {}: {deliveries}", identity.client_id);
    }
    for (identity, deliveries) in present.iter().chain(&absent).zip(&sessions) {
        for (publisher, count) in published.iter().enumerate() {
            let wrong = deliveries.first_wrong(publisher, *count);
            assert_eq!(wrong, None, "{}, publisher {publisher}", identity.client_id);
        }
    }
}

/// Publishes 1, 2, 3, ... until told to stop, and then until all is acknowledged. After each lost link what is not
/// acknowledged is sent again, in its order. Returns the last number.
fn publish(index: usize, place: &Place, stop: &AtomicBool) -> u32 {
    let identity = Identity::volatile(&format!("publisher-{index}"), PUBLISHERS[index]);
    let topic = format!("kill/{index}");
    let mut unacknowledged = VecDeque::new();
    let mut last = 0;
    loop {
        let mut on_one_link = || -> io::Result<()> {
            let mut client = Client::connect(place.wait(), &identity)?;
            for number in &unacknowledged {
                client.queue_publish(&topic, &payload(*number), Some(packet_id(*number)), true);
            }
            loop {
                while unacknowledged.len() < WINDOW && !stop.load(Ordering::Relaxed) {
                    last += 1;
                    unacknowledged.push_back(last);
                    client.queue_publish(&topic, &payload(last), Some(packet_id(last)), false);
                }
                if unacknowledged.is_empty() {
                    return Ok(());
                }
                client.flush()?;
                let mut received = Some(client.receive()?);
                while let Some(puback) = received {
                    let expected = packet_id(unacknowledged.pop_front().unwrap());
                    assert_eq!(puback, Received::PubAck(expected, ReasonCode::Success));
                    received = client.take_buffered()?;
                }
            }
        };
        match on_one_link() {
            Ok(()) => return last,
            Err(error) if is_end(&error) => {}
            Err(error) => panic!("{}: {error}", identity.client_id),
        }
    }
}

fn payload(number: u32) -> Vec<u8> {
    format!("{number:>60}").into_bytes()
}

/// Takes and acknowledges what a stored session is owed, until it has all of `published`, or nothing more comes.
fn take_all(identity: &Identity, place: &Place, published: &OnceLock<Vec<u32>>) -> Deliveries {
    let mut deliveries = Deliveries::default();
    let mut heard = Instant::now();
    while heard.elapsed() < DROUGHT && !deliveries.has_all(published.get()) {
        let mut on_one_link = || -> io::Result<()> {
            let mut client = Client::connect(place.wait(), identity)?;
            assert!(
                client.session_present,
                "{}: the session is gone",
                identity.client_id
            );
            while heard.elapsed() < DROUGHT && !deliveries.has_all(published.get()) {
                let mut received = client.receive_within(Duration::from_millis(100))?;
                while let Some(Received::Publish(message)) = received {
                    heard = Instant::now();
                    deliveries.note(&message.topic, &message.payload);
                    client.queue_puback(message.packet_id.unwrap());
                    received = client.take_buffered()?;
                }
                assert_eq!(received, None, "{}", identity.client_id);
                client.flush()?;
            }
            client
                .ping()
                .or_else(|error| if is_end(&error) { Ok(()) } else { Err(error) })
        };
        match on_one_link() {
            Ok(()) => {}
            Err(error) if is_end(&error) => {}
            Err(error) => panic!("{}: {error}", identity.client_id),
        }
    }
    deliveries
}

/// A volatile subscriber, to whom nothing is promised across a kill.
fn overhear(place: &Place, stop: &AtomicBool) {
    let identity = Identity::volatile("volatile", Version::V5);
    while !stop.load(Ordering::Relaxed) {
        let on_one_link = || -> io::Result<()> {
            let mut client = Client::connect(place.wait(), &identity)?;
            client.queue_subscribe(FILTER, Qos::AtLeastOnce);
            client.flush()?;
            while !stop.load(Ordering::Relaxed) {
                let received = client.receive_within(Duration::from_millis(100))?;
                if let Some(Received::Publish(message)) = received {
                    client.queue_puback(message.packet_id.unwrap());
                    client.flush()?;
                }
            }
            Ok(())
        };
        if let Err(error) = on_one_link() {
            assert!(is_end(&error), "volatile: {error}");
        }
    }
}

/// What came to one session.
#[derive(Default)]
struct Deliveries {
    /// The numbers of each publisher, each where it came for the first time.
    first: [Vec<u32>; PUBLISHERS.len()],
    /// The highest number so far of each.
    seen: [std::collections::BTreeSet<u32>; PUBLISHERS.len()],
    doubled: u32,
}

impl Deliveries {
    fn note(&mut self, topic: &str, payload: &[u8]) {
        let publisher: usize = topic.strip_prefix("kill/").unwrap().parse().unwrap();
        let number = std::str::from_utf8(payload)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        if self.seen[publisher].insert(number) {
            self.first[publisher].push(number);
        } else {
            self.doubled += 1;
        }
    }

    fn has_all(&self, published: Option<&Vec<u32>>) -> bool {
        published.is_some_and(|counts| {
            let numbers = self.seen.iter().zip(counts);
            numbers
                .into_iter()
                .all(|(seen, count)| seen.len() == *count as usize)
        })
    }

    /// The first place at which the numbers of a publisher are not 1, 2, 3, ... up to `count`.
    fn first_wrong(&self, publisher: usize, count: u32) -> Option<String> {
        let came = &self.first[publisher];
        let wrong = (1..=count)
            .zip(came)
            .find(|(expected, number)| expected != *number);
        match wrong {
            Some((expected, number)) => Some(format!("{number} came where {expected} was due")),
            None if came.len() != count as usize => Some(format!("{} came of {count}", came.len())),
            None => None,
        }
    }
}

impl std::fmt::Display for Deliveries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let delivered: usize = self.first.iter().map(Vec::len).sum();
        write!(f, "{delivered} delivered, {} doubled", self.doubled)
    }
}
