//! Packet Identifiers follow from sequence numbers, of which each start leaves out a block: they come round.

use crate::packets::{Connect, Message, puback, publish_1};
use crate::world::World;
use larder::limits::{Limits, SEQ_RESERVE, SETTLEMENT_WAIT};
use larder::net::LinkId;
use std::collections::BTreeMap;

const PACKET_IDS: u64 = 65_535;
/// Starts after which the next number has gone round, if one message is published in each life.
const STARTS: u64 = PACKET_IDS / (SEQ_RESERVE + 1);

fn reader() -> Connect {
    Connect::v311("reader").unclean()
}

fn with_reader(limits: Limits) -> (World, LinkId) {
    let mut world = World::new(limits);
    let link = world.connect(&reader());
    world.subscribe(link, "t", 1);
    (world, link)
}

fn payloads(messages: &[Message]) -> Vec<&[u8]> {
    messages.iter().map(|message| &*message.payload).collect()
}

/// A crash brings a message back whose settlement was not committed: under its identifier no other message may have been
/// sent.
#[test]
fn an_identifier_is_not_used_again_before_the_settlement_of_its_last_message_is_durable() {
    let (mut world, link) = with_reader(Limits::default());
    world.lose(link);
    for _ in 0..STARTS {
        let publisher = world.connect(&Connect::v311("publisher"));
        world.publish(publisher, "t", b"one of each life");
        world = world.crash();
    }
    let publisher = world.connect(&Connect::v311("publisher"));
    let last = PACKET_IDS - STARTS * (SEQ_RESERVE + 1);
    for number in 0..=last {
        world.publish(publisher, "t", format!("{number}").as_bytes());
    }

    world.stall();
    let link = world.connect(&reader());
    let before = world.drain(link);
    assert_eq!(
        before.len() as u64,
        STARTS + last - 1,
        "all but the last two"
    );
    let mut world = world.crash();
    let link = world.connect(&reader());
    let after = world.drain(link);
    assert_eq!(after.len() as u64, STARTS + last + 1);
    let mut sent: BTreeMap<u16, &Message> = BTreeMap::new();
    for message in before.iter().chain(&after[..before.len()]) {
        let first = sent.entry(message.packet_id).or_insert(message);
        assert_eq!(message.payload, first.payload);
    }
}

/// What is held of a session's first lives keeps their identifiers, and no others.
#[test]
fn a_reader_that_holds_messages_over_many_starts_is_sent_the_rest_once_it_acknowledges() {
    let settle_wait = Limits::default().settle_wait;
    let (mut world, mut link) = with_reader(Limits::default());
    for payload in [&b"first"[..], b"second"] {
        let publisher = world.connect(&Connect::v311("publisher"));
        world.say(publisher, &publish_1("t", 1, payload));
        world.messages(link);
        world.pass(settle_wait);
        assert_eq!(world.received(publisher), puback(1));
        world = world.crash();
        link = world.connect(&reader());
    }
    let held = world.messages(link);
    assert_eq!(payloads(&held), [&b"first"[..], b"second"]);
    for _ in 2..=STARTS {
        let publisher = world.connect(&Connect::v311("publisher"));
        world.say(publisher, &publish_1("t", 1, b"acknowledged at once"));
        assert_eq!(world.drain(link).len(), 1);
        world.pass(SETTLEMENT_WAIT);
        world = world.crash();
        link = world.connect(&reader());
        assert_eq!(world.messages(link), held);
    }
    let publisher = world.connect(&Connect::v311("publisher"));
    world.publish(publisher, "t", b"gone round");
    assert_eq!(world.messages(link), []);
    world.acknowledge(link, &held[..1]);
    world.pass(SETTLEMENT_WAIT);
    assert_eq!(payloads(&world.messages(link)), [b"gone round"]);
}
