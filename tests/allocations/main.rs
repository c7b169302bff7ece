//! What a message costs of the allocator, once a server has carried a few: nothing. The turn is the real one; what the
//! peers and the disk allocate is not counted.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[allow(dead_code)]
#[path = "../regressions/packets.rs"]
mod packets;
mod rig;

use larder::net::LinkId;
use packets::{Connect, publish_0, publish_1, publish_2, publish_v5, retained, subscribe};
use rig::Rig;
use std::time::Duration;

/// Messages of one round, which come together.
const ROUND: u16 = 8;
/// Rounds after which every buffer has the size that it needs, and as many in which nothing may be allocated.
const ROUNDS: u32 = 200;
/// The same with a real disk, which takes its time.
const ROUNDS_ON_DISK: u32 = 40;

/// Who receives the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiver {
    Volatile,
    Stored,
    /// A stored session without a link.
    Absent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V311,
    V5,
}

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

fn connect(version: Version, client_id: &'static str, is_stored: bool) -> Connect {
    match (version, is_stored) {
        (Version::V311, false) => Connect::v311(client_id),
        (Version::V311, true) => Connect::v311(client_id).unclean(),
        (Version::V5, false) => Connect::v5(client_id),
        (Version::V5, true) => Connect::v5(client_id)
            .unclean()
            .expiry(Duration::from_secs(3600)),
    }
}

/// A round of messages to this topic, as one client sends them at once.
fn round(version: Version, qos: u8, topic: &str, properties: &[u8]) -> Vec<u8> {
    (1..=ROUND)
        .flat_map(|id| one(version, qos, topic, id, properties))
        .collect()
}

fn one(version: Version, qos: u8, topic: &str, id: u16, properties: &[u8]) -> Vec<u8> {
    let payload = [b'x'; 100];
    match (version, qos) {
        (Version::V311, 0) => publish_0(topic, &payload),
        (Version::V311, 1) => publish_1(topic, id, &payload),
        (Version::V311, _) => publish_2(topic, id, &payload),
        (Version::V5, qos) => of_v5(qos, topic, id, properties, &payload),
    }
}

fn of_v5(qos: u8, topic: &str, id: u16, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut publish = publish_v5(topic, id, properties, payload);
    publish[0] = 0x30 | qos << 1;
    if qos == 0 {
        // Without the Packet Identifier.
        let at = publish.len() - payload.len() - properties.len() - 3;
        publish.drain(at..at + 2);
        publish[1] -= 2;
    }
    publish
}

/// What was allocated where nothing should have been.
#[derive(Default)]
struct Bill(Vec<String>);

impl Bill {
    /// Plays the rounds; each brings the peers so many messages.
    fn add(&mut self, what: &str, rig: &mut Rig, publisher: LinkId, round: &[u8], delivers: u64) {
        let rounds = if rig.has_files() {
            ROUNDS_ON_DISK
        } else {
            ROUNDS
        };
        // Twice, so that both batches have carried what a round brings, whichever of them comes to that.
        rig.play(publisher, round, rounds / 2);
        rig.play(publisher, round, rounds / 2);
        let (allocations, delivered) = (rig.allocations(), rig.delivered());
        rig.play(publisher, round, rounds);
        let delivered = rig.delivered() - delivered;
        assert_eq!(delivered, delivers * u64::from(rounds), "{what}");
        let allocated = rig.allocations() - allocations;
        if allocated > 0 {
            let messages = u64::from(rounds) * u64::from(ROUND);
            self.0
                .push(format!("{what}: {allocated} times in {messages} messages"));
        }
    }

    fn pay(self) {
        assert!(
            self.0.is_empty(),
            "memory was allocated:\n{}",
            self.0.join("\n")
        );
    }
}

#[test]
fn it_is_counted() {
    let mut rig = Rig::new();
    rig.connect(&Connect::v311("c"));
    assert!(rig.allocations() > 0, "a session takes memory");
}

#[test]
fn a_message_from_one_client_to_another() {
    let mut bill = Bill::default();
    every_way(&mut bill, |_| Rig::new());
    bill.pay();
}

#[test]
fn a_message_and_its_commit_by_the_real_store() {
    let mut bill = Bill::default();
    let base = std::env::temp_dir().join(format!("larder-allocations-{}", std::process::id()));
    every_way(&mut bill, |number| {
        let data_dir = base.join(number.to_string());
        std::fs::create_dir_all(&data_dir).unwrap();
        Rig::with_files(&data_dir)
    });
    std::fs::remove_dir_all(base).unwrap();
    bill.pay();
}

/// Both versions, every QoS, every kind of publisher and receiver, each with a rig of its own.
fn every_way(bill: &mut Bill, rig: impl Fn(u32) -> Rig) {
    let mut number = 0;
    for version in VERSIONS {
        for qos in 0..=2 {
            for is_stored in [false, true] {
                for receiver in [Receiver::Volatile, Receiver::Stored, Receiver::Absent] {
                    number += 1;
                    one_way(bill, &mut rig(number), version, qos, is_stored, receiver);
                }
            }
        }
    }
}

fn one_way(
    bill: &mut Bill,
    rig: &mut Rig,
    version: Version,
    qos: u8,
    publisher_is_stored: bool,
    receiver: Receiver,
) {
    let is_stored = receiver != Receiver::Volatile;
    let subscriber = rig.connect(&connect(version, "subscriber", is_stored));
    let filter = ["a/+/c".to_owned()];
    rig.say(
        subscriber,
        &subscribe(version == Version::V5, 1, &filter, qos),
    );
    if receiver == Receiver::Absent {
        rig.lose(subscriber);
    }
    let publisher = rig.connect(&connect(version, "publisher", publisher_is_stored));
    let round = round(version, qos, "a/b/c", b"");
    let delivers = match receiver {
        Receiver::Absent => 0,
        _ => u64::from(ROUND),
    };
    let what = format!("{version:?}, QoS {qos}, {receiver:?}, {publisher_is_stored}");
    let written = rig.written();
    bill.add(&what, rig, publisher, &round, delivers);
    let writes = receiver == Receiver::Absent && qos > 0;
    assert!(!writes || rig.written() > written, "{what}: it is written");
}

/// Messages come faster than commits: one batch fills while the other is committed.
#[test]
fn messages_that_come_while_the_disk_is_slow() {
    let mut bill = Bill::default();
    for version in VERSIONS {
        // A publisher of QoS 2 that does not wait for its PUBCOMP has no Packet Identifier left.
        for qos in 0..=1 {
            for receiver in [Receiver::Volatile, Receiver::Stored, Receiver::Absent] {
                let mut rig = Rig::with_slow_disk();
                one_way(&mut bill, &mut rig, version, qos, true, receiver);
            }
        }
    }
    bill.pay();
}

/// Half a packet, and then the other half: what is not whole is kept.
#[test]
fn packets_that_come_in_halves() {
    let mut bill = Bill::default();
    for version in VERSIONS {
        let mut rig = Rig::new();
        let subscriber = rig.connect(&connect(version, "subscriber", false));
        let filter = ["a/#".to_owned()];
        rig.say(
            subscriber,
            &subscribe(version == Version::V5, 1, &filter, 1),
        );
        let publisher = rig.connect(&connect(version, "publisher", false));
        let round = round(version, 1, "a/b/c", b"");
        let (first, second) = round.split_at(round.len() / 2 + 20);
        rig.say(publisher, first);
        let whole = [second, first].concat();
        bill.add(
            &format!("{version:?}"),
            &mut rig,
            publisher,
            &whole,
            u64::from(ROUND),
        );
    }
    bill.pay();
}

#[test]
fn a_message_to_many_of_every_kind() {
    let mut bill = Bill::default();
    for version in VERSIONS {
        for qos in 0..=2 {
            let mut rig = Rig::new();
            for (client_id, is_stored) in [("v1", false), ("v2", false), ("s1", true), ("s2", true)]
            {
                let subscriber = rig.connect(&connect(version, client_id, is_stored));
                // Two that match: the message comes once.
                let filters = ["a/#".to_owned(), "+/b/c".to_owned()];
                rig.say(
                    subscriber,
                    &subscribe(version == Version::V5, 1, &filters, qos),
                );
            }
            let publisher = rig.connect(&connect(version, "publisher", false));
            let round = round(version, qos, "a/b/c", b"");
            let what = format!("{version:?}, QoS {qos}");
            bill.add(&what, &mut rig, publisher, &round, 4 * u64::from(ROUND));
        }
    }
    bill.pay();
}

#[test]
fn a_message_that_its_topic_retains() {
    let mut bill = Bill::default();
    for version in VERSIONS {
        for qos in 0..=2 {
            let mut rig = Rig::new();
            let subscriber = rig.connect(&connect(version, "subscriber", false));
            let filter = ["a/#".to_owned()];
            rig.say(
                subscriber,
                &subscribe(version == Version::V5, 1, &filter, qos),
            );
            let publisher = rig.connect(&connect(version, "publisher", false));
            let round: Vec<u8> = (1..=ROUND)
                .flat_map(|id| retained(one(version, qos, "a/b/c", id, b"")))
                .collect();
            let what = format!("{version:?}, QoS {qos}");
            bill.add(&what, &mut rig, publisher, &round, u64::from(ROUND));
        }
    }
    bill.pay();
}

#[test]
fn a_message_whose_topic_has_an_alias_both_ways() {
    let mut bill = Bill::default();
    for qos in 0..=2 {
        for is_stored in [false, true] {
            let mut rig = Rig::new();
            let aliases = connect(Version::V5, "subscriber", is_stored).property(0x22, &[0, 10]);
            let subscriber = rig.connect(&aliases);
            rig.say(subscriber, &subscribe(true, 1, &["a/#".to_owned()], qos));
            let publisher = rig.connect(&connect(Version::V5, "publisher", false));
            let alias = [0x23, 0, 1];
            rig.say(publisher, &one(Version::V5, qos, "a/long/topic", 1, &alias));
            let round = round(Version::V5, qos, "", &alias);
            let what = format!("QoS {qos}, stored {is_stored}");
            bill.add(&what, &mut rig, publisher, &round, u64::from(ROUND));
        }
    }
    bill.pay();
}

#[test]
fn a_message_that_one_of_a_group_gets() {
    let mut bill = Bill::default();
    for version in VERSIONS {
        for qos in 0..=2 {
            for is_stored in [false, true] {
                let mut rig = Rig::new();
                for client_id in ["m1", "m2", "m3"] {
                    let member = rig.connect(&connect(version, client_id, is_stored));
                    let filter = ["$share/g/a/#".to_owned()];
                    rig.say(member, &subscribe(version == Version::V5, 1, &filter, qos));
                }
                let publisher = rig.connect(&connect(version, "publisher", false));
                let round = round(version, qos, "a/b/c", b"");
                let what = format!("{version:?}, QoS {qos}, stored {is_stored}");
                bill.add(&what, &mut rig, publisher, &round, u64::from(ROUND));
            }
        }
    }
    bill.pay();
}

/// A Subscription Identifier, a User Property and a Message Expiry Interval.
#[test]
fn a_message_with_properties() {
    let mut bill = Bill::default();
    let properties = [0x02, 0, 0, 1, 0, 0x26, 0, 1, b'k', 0, 1, b'v'];
    for qos in 0..=2 {
        for is_stored in [false, true] {
            let mut rig = Rig::new();
            let subscriber = rig.connect(&connect(Version::V5, "subscriber", is_stored));
            let mut identified = subscribe(true, 1, &["a/#".to_owned()], qos);
            identified.splice(4..5, [2, 0x0B, 7]);
            identified[1] += 2;
            rig.say(subscriber, &identified);
            let publisher = rig.connect(&connect(Version::V5, "publisher", false));
            let round = round(Version::V5, qos, "a/b/c", &properties);
            let what = format!("QoS {qos}, stored {is_stored}");
            bill.add(&what, &mut rig, publisher, &round, u64::from(ROUND));
        }
    }
    bill.pay();
}
