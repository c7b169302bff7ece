//! QoS 2 under `kill -9`: at every packet of its handshake, in both directions, and at random moments under load. Every
//! message comes exactly once to a client that keeps its session, and no Packet Identifier is held for ever.

use crate::broker::{Broker, Setup};
use crate::client::{Client, Identity, Received, Step};
use crate::exactly_once::{self, Receiver, VERSIONS, subscribed};
use crate::random::{Random, seed};
use larder_packet::{PacketId, Qos, ReasonCode, Version};
use std::time::Duration;

/// All messages of the tests that go step by step have this one, so that one held for ever would be noticed.
const ID: PacketId = PacketId::MIN;
/// Each of these moments comes so often.
const ROUNDS: u32 = 3;
const KILLS: u32 = 20;
/// The broker lives for up to so long.
const LIFE_MAX_MS: u64 = 300;

/// Killed and started again, with the client's session as it was.
fn restarted(broker: &mut Broker, identity: &Identity) -> Client {
    broker.kill();
    broker.start();
    let client = broker.connect(identity);
    assert!(client.session_present);
    client
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
    exactly_once::survives(&mut broker, |broker| {
        for _ in 0..KILLS {
            std::thread::sleep(Duration::from_millis(random.next() % LIFE_MAX_MS));
            broker.kill();
            broker.start();
        }
    });
    println!("qos2: {KILLS} kills (LARDER_SEED={seed})");
}
