//! QoS 2 under `kill -9`: at every packet of its handshake, in both directions, and at random moments under load. Every
//! message comes exactly once to a client that keeps its session, and no Packet Identifier is held for ever.

use crate::broker::{Broker, Place, Setup};
use crate::client::{Client, Identity, Message, Received, Step, is_end, packet_id};
use crate::kill::{Random, seed};
use larder_packet::{PacketId, Qos, ReasonCode, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// All messages of the tests that go step by step have this one, so that one held for ever would be noticed.
const ID: PacketId = PacketId::MIN;
const VERSIONS: [Version; 2] = [Version::V311, Version::V5];
/// Each of these moments comes so often.
const ROUNDS: u32 = 3;
const KILLS: u32 = 20;
/// The broker lives for up to so long.
const LIFE_MAX_MS: u64 = 300;
/// One of each version.
const PUBLISHERS: u32 = 2;
const WINDOW: u32 = 16;

/// A subscriber as the standard wants it [MQTT-4.3.3-10]: what it holds it does not take again.
#[derive(Default)]
struct Receiver {
    held: BTreeSet<PacketId>,
    /// The payloads that it took, in their order.
    taken: Vec<u32>,
}

impl Receiver {
    /// A PUBLISH has come; the PUBREC is for the caller to send.
    fn publish(&mut self, message: &Message) -> PacketId {
        let id = message.packet_id.expect("QoS 2");
        if self.held.insert(id) {
            let text = std::str::from_utf8(&message.payload).expect("a number");
            self.taken.push(text.parse().expect("a number"));
        } else {
            assert!(message.dup, "a PUBLISH that comes again says so");
        }
        id
    }

    /// Answers whatever has come.
    fn answer(&mut self, client: &mut Client, received: &Received) {
        match received {
            Received::Publish(message) => {
                let id = self.publish(message);
                client.queue_step(Step::Receipt, id);
            }
            Received::PubRel(id) => {
                self.held.remove(id);
                client.queue_step(Step::Completion, *id);
            }
            other => panic!("{other:?}"),
        }
    }

    /// Takes what the session is owed until it has so many messages and holds none, and then nothing more comes.
    fn drain(&mut self, client: &mut Client, messages: usize) {
        while self.taken.len() < messages || !self.held.is_empty() {
            let received = client.receive().unwrap();
            self.answer(client, &received);
            client.flush().unwrap();
        }
        // A PUBREL may come again where its PUBCOMP was not recorded.
        while let Some(received) = client.receive_within(Duration::from_millis(100)).unwrap() {
            self.answer(client, &received);
            client.flush().unwrap();
        }
        client.ping().unwrap();
    }
}

/// Killed and started again, with the client's session as it was.
fn restarted(broker: &mut Broker, identity: &Identity) -> Client {
    broker.kill();
    broker.start();
    let client = broker.connect(identity);
    assert!(client.session_present);
    client
}

fn subscribed(broker: &Broker, identity: &Identity, filter: &str) {
    let mut client = broker.connect(identity);
    client.subscribe(filter, Qos::ExactlyOnce).unwrap();
    client.disconnect().unwrap();
}

#[test]
fn a_publisher_may_see_the_broker_killed_at_every_packet_of_its_handshake() {
    let mut broker = Setup::new("").start();
    let reader = Identity::stored("reader", Version::V5);
    subscribed(&broker, &reader, "qos2/#");
    let mut number = 0;
    for version in VERSIONS {
        let identity = Identity::stored(&format!("publisher-{version:?}"), version);
        let mut client = broker.connect(&identity);
        for moment in (0..5).cycle().take(5 * ROUNDS as usize) {
            number += 1;
            let payload = number.to_string().into_bytes();
            let publish = |client: &mut Client, dup| {
                client.queue_publish_2("qos2/x", &payload, ID, dup);
                client.flush().unwrap();
            };
            let release = |client: &mut Client| {
                client.queue_step(Step::Release, ID);
                client.flush().unwrap();
            };
            let received = |client: &mut Client| {
                let pubrec = client.receive().unwrap();
                assert_eq!(
                    pubrec,
                    Received::PubRec(ID, ReasonCode::Success),
                    "{number}"
                );
            };
            publish(&mut client, false);
            if moment == 0 {
                // It may have come or not.
                client = restarted(&mut broker, &identity);
                publish(&mut client, true);
            }
            received(&mut client);
            if moment == 1 {
                // The client has seen the PUBREC.
                client = restarted(&mut broker, &identity);
            }
            if moment == 2 {
                // It has not.
                client = restarted(&mut broker, &identity);
                publish(&mut client, true);
                received(&mut client);
            }
            release(&mut client);
            if moment == 3 {
                client = restarted(&mut broker, &identity);
                release(&mut client);
            }
            assert_eq!(client.receive().unwrap(), Received::PubComp(ID), "{number}");
            if moment == 4 {
                client = restarted(&mut broker, &identity);
            }
        }
    }
    let mut receiver = Receiver::default();
    receiver.drain(&mut broker.connect(&reader), number as usize);
    assert_eq!(receiver.taken, Vec::from_iter(1..=number));
    println!("qos2: {number} messages, the broker killed at a packet of each: all once, in order");
}

#[test]
fn a_subscriber_may_see_the_broker_killed_at_every_packet_of_its_handshake() {
    let mut broker = Setup::new("").start();
    let mut number = 0;
    for version in VERSIONS {
        let identity = Identity::stored(&format!("subscriber-{version:?}"), version);
        let topic = format!("qos2/{version:?}");
        let mut client = broker.connect(&identity);
        client.subscribe(&topic, Qos::ExactlyOnce).unwrap();
        let mut receiver = Receiver::default();
        let first = number + 1;
        for moment in (0..4).cycle().take(4 * ROUNDS as usize) {
            number += 1;
            let mut publisher = broker.connect(&Identity::volatile("publisher", Version::V5));
            publisher.queue_publish_2(&topic, number.to_string().as_bytes(), ID, false);
            publisher.flush().unwrap();
            assert_eq!(
                publisher.receive().unwrap(),
                Received::PubRec(ID, ReasonCode::Success)
            );

            let Received::Publish(message) = client.receive().unwrap() else {
                panic!("{number}: a PUBLISH was due");
            };
            let id = receiver.publish(&message);
            assert!(!message.dup, "{number}");
            if moment == 0 {
                client = restarted(&mut broker, &identity);
                let Received::Publish(again) = client.receive().unwrap() else {
                    panic!("{number}: it was not received yet");
                };
                assert_eq!(receiver.publish(&again), id, "[MQTT-4.4.0-1]");
            }
            client.queue_step(Step::Receipt, id);
            client.flush().unwrap();
            if moment == 1 {
                // The PUBREC may have been recorded or not: the PUBLISH comes again, or its PUBREL.
                client = restarted(&mut broker, &identity);
                let mut received = client.receive().unwrap();
                if let Received::Publish(again) = &received {
                    assert_eq!(receiver.publish(again), id);
                    client.queue_step(Step::Receipt, id);
                    client.flush().unwrap();
                    received = client.receive().unwrap();
                }
                assert_eq!(received, Received::PubRel(id), "{number}");
            } else {
                assert_eq!(client.receive().unwrap(), Received::PubRel(id), "{number}");
            }
            if moment == 2 {
                // What was received is never sent again.
                client = restarted(&mut broker, &identity);
                assert_eq!(client.receive().unwrap(), Received::PubRel(id), "{number}");
            }
            receiver.held.remove(&id);
            client.queue_step(Step::Completion, id);
            client.flush().unwrap();
            if moment == 3 {
                // The PUBCOMP may have been recorded or not.
                client = restarted(&mut broker, &identity);
                receiver.drain(&mut client, (number - first + 1) as usize);
            }
        }
        receiver.drain(&mut client, (number - first + 1) as usize);
        assert_eq!(
            receiver.taken,
            Vec::from_iter(first..=number),
            "{version:?}"
        );
    }
    println!("qos2: {number} messages, the broker killed at a packet of each: all once, in order");
}

#[test]
fn every_message_comes_once_through_kills_at_random_moments() {
    let seed = seed();
    let mut random = Random(seed);
    let mut broker = Setup::new("").start();
    let place = broker.place();
    let subscribers = VERSIONS.map(|version| {
        let identity = Identity::stored(&format!("reader-{version:?}"), version);
        subscribed(&broker, &identity, "load/#");
        identity
    });
    let (stop, published) = (AtomicBool::new(false), OnceLock::new());
    let taken = std::thread::scope(|scope| {
        let publishing = [0, 1].map(|index| {
            let (place, stop) = (&place, &stop);
            scope.spawn(move || publish(index, place, stop))
        });
        let taking = subscribers.each_ref().map(|subscriber| {
            let (place, published) = (&place, &published);
            scope.spawn(move || take_all(place, subscriber, published))
        });
        for _ in 0..KILLS {
            std::thread::sleep(Duration::from_millis(random.next() % LIFE_MAX_MS));
            broker.kill();
            broker.start();
        }
        stop.store(true, Ordering::Relaxed);
        let counts = publishing.map(|publisher| publisher.join().unwrap());
        published.set(counts).unwrap();
        taking.map(|subscriber| subscriber.join().unwrap())
    });
    let published = published.get().unwrap();
    println!("qos2: {published:?} messages, {KILLS} kills (LARDER_SEED={seed})");
    for (identity, taken) in subscribers.iter().zip(taken) {
        for (publisher, count) in (0..).zip(published) {
            let whose = |number: &u32| number % PUBLISHERS == publisher;
            let numbers = taken.iter().filter(|number| whose(number));
            let numbers: Vec<u32> = numbers.map(|number| number / PUBLISHERS).collect();
            let all = Vec::from_iter(1..=*count);
            assert_eq!(numbers, all, "{}, {publisher}", identity.client_id);
        }
    }
}

/// Publishes 1, 2, 3, … as a client that keeps its session [MQTT-4.4.0-1]; gives back the last.
fn publish(index: u32, place: &Place, stop: &AtomicBool) -> u32 {
    let version = VERSIONS[index as usize];
    let identity = Identity::stored(&format!("load-{index}"), version);
    let topic = format!("load/{index}");
    let payload = |number: u32| (number * PUBLISHERS + index).to_string();
    // Whether it was received: then what is sent is the PUBREL.
    let mut under_way: BTreeMap<u32, bool> = BTreeMap::new();
    let mut last = 0;
    loop {
        let mut on_one_link = || -> io::Result<()> {
            let mut client = Client::connect(place.wait(), &identity)?;
            for (number, received) in &under_way {
                match received {
                    true => client.queue_step(Step::Release, packet_id(*number)),
                    false => {
                        let payload = payload(*number);
                        client.queue_publish_2(
                            &topic,
                            payload.as_bytes(),
                            packet_id(*number),
                            true,
                        );
                    }
                }
            }
            loop {
                while under_way.len() < WINDOW as usize && !stop.load(Ordering::Relaxed) {
                    last += 1;
                    under_way.insert(last, false);
                    let payload = payload(last);
                    client.queue_publish_2(&topic, payload.as_bytes(), packet_id(last), false);
                }
                if under_way.is_empty() {
                    return Ok(());
                }
                client.flush()?;
                match client.receive()? {
                    Received::PubRec(id, ReasonCode::Success) => {
                        let number = number_of(&under_way, id);
                        under_way.insert(number, true);
                        client.queue_step(Step::Release, id);
                    }
                    Received::PubComp(id) => {
                        let number = number_of(&under_way, id);
                        under_way.remove(&number);
                    }
                    other => panic!("{other:?}"),
                }
            }
        };
        match on_one_link() {
            Ok(()) => return last,
            Err(error) if is_end(&error) => {}
            Err(error) => panic!("publisher: {error}"),
        }
    }
}

fn number_of(under_way: &BTreeMap<u32, bool>, id: PacketId) -> u32 {
    let mut numbers = under_way.keys().filter(|number| packet_id(**number) == id);
    *numbers.next().expect("a message that is under way")
}

/// Takes what the session is owed until it has all of `published`.
fn take_all(place: &Place, identity: &Identity, published: &OnceLock<[u32; 2]>) -> Vec<u32> {
    let mut receiver = Receiver::default();
    loop {
        let mut on_one_link = || -> io::Result<()> {
            let mut client = Client::connect(place.wait(), identity)?;
            assert!(client.session_present);
            loop {
                let all = published.get().map(|counts| counts.iter().sum::<u32>());
                let is_all = all.is_some_and(|all| receiver.taken.len() >= all as usize);
                match client.receive_within(Duration::from_millis(300))? {
                    Some(received) => receiver.answer(&mut client, &received),
                    None if is_all => return Ok(()),
                    None => {}
                }
                client.flush()?;
            }
        };
        match on_one_link() {
            Ok(()) => {
                assert!(receiver.held.is_empty(), "{:?}", receiver.held);
                return receiver.taken;
            }
            Err(error) if is_end(&error) => {}
            Err(error) => panic!("subscriber: {error}"),
        }
    }
}
