//! A load of QoS 2 that goes on through calamities, and what is promised of it: every message comes exactly once, in
//! order, to a client that keeps its session.

use crate::broker::{Broker, Place};
use crate::client::{Client, Identity, Message, Received, Step, is_end, packet_id};
use larder_packet::{PacketId, Qos, ReasonCode, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Those of the publishers, and of the subscribers.
pub(crate) const VERSIONS: [Version; 2] = [Version::V311, Version::V5];
/// One of each version.
const PUBLISHERS: u32 = 2;
const WINDOW: u32 = 16;

/// Publishes while `calamities` befall the broker, which is back when they are over; then sees that both subscribers
/// have taken all of it once.
pub(crate) fn survives(broker: &mut Broker, calamities: impl FnOnce(&mut Broker)) {
    let place = broker.place();
    let subscribers = VERSIONS.map(|version| {
        let identity = Identity::stored(&format!("reader-{version:?}"), version);
        subscribed(broker, &identity, "load/#");
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
        calamities(broker);
        stop.store(true, Ordering::Relaxed);
        let counts = publishing.map(|publisher| publisher.join().unwrap());
        published.set(counts).unwrap();
        taking.map(|subscriber| subscriber.join().unwrap())
    });
    let published = published.get().unwrap();
    println!(
        "QoS 2: {published:?} messages, all once to each of {} subscribers",
        subscribers.len()
    );
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

/// A subscriber as the standard wants it [MQTT-4.3.3-10]: what it holds it does not take again.
#[derive(Default)]
pub(crate) struct Receiver {
    pub(crate) held: BTreeSet<PacketId>,
    /// The payloads that it took, in their order.
    pub(crate) taken: Vec<u32>,
}

impl Receiver {
    /// A PUBLISH has come; the PUBREC is for the caller to send.
    pub(crate) fn publish(&mut self, message: &Message) -> PacketId {
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
    pub(crate) fn drain(&mut self, client: &mut Client, messages: usize) {
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

/// Subscribes and goes.
pub(crate) fn subscribed(broker: &Broker, identity: &Identity, filter: &str) {
    let mut client = broker.connect(identity);
    client.subscribe(filter, Qos::ExactlyOnce).unwrap();
    client.disconnect().unwrap();
}
