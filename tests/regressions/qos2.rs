//! Exactly once: who waits for which commit.

use crate::packets::{
    Connect, Message, message_expiry, puback, publish_2, publish_v5, pubrec, unsubscribe,
};
use crate::world::World;
use larder::limits::Limits;
use larder::net::LinkId;
use std::time::Duration;

/// Another receiver's message may be settled before it is written, and then there is no commit to wait for.
#[test]
fn a_volatile_receiver_does_not_wait_for_a_commit_that_need_not_come() {
    let mut world = World::new(Limits::default());
    let stored = world.connect(&Connect::v311("stored").unclean());
    world.subscribe(stored, "t", 1);
    let volatile = world.connect(&Connect::v311("volatile"));
    world.subscribe(volatile, "t", 2);
    let publisher = world.connect(&Connect::v311("publisher"));
    world.stall();

    world.say(publisher, &publish_2("t", 1, b"x"));
    let message = world.messages(stored);
    assert_eq!(world.messages(volatile).len(), 1);
    world.say(stored, &puback(message[0].packet_id));
    // Settled everywhere, it is owed to nobody.
    assert_eq!(world.received(publisher), pubrec(1));
}

/// A crash would bring the same PUBLISH again: nobody has it before it is on disk.
#[test]
fn who_gets_a_message_exactly_once_gets_it_when_its_publishers_session_has_it() {
    let mut world = World::new(Limits::default());
    let volatile = world.connect(&Connect::v311("volatile"));
    world.subscribe(volatile, "t", 2);
    let publisher = world.connect(&Connect::v311("publisher").unclean());
    world.stall();

    world.say(publisher, &publish_2("t", 1, b"x"));
    world.pass(Duration::from_secs(3));
    assert_eq!(world.messages(volatile).len(), 0);
    assert_eq!(world.received(publisher), []);
    world.unstall();
    assert_eq!(world.messages(volatile).len(), 1);
    assert_eq!(world.received(publisher), pubrec(1));
}

/// What waits for nothing does not overtake what waits for its commit.
#[test]
fn messages_to_a_volatile_receiver_keep_their_order_when_only_the_first_waits_for_a_commit() {
    let mut world = World::new(Limits::default());
    let stored = world.connect(&Connect::v311("stored").unclean());
    world.subscribe(stored, "t", 2);
    let volatile = world.connect(&Connect::v311("volatile"));
    world.subscribe(volatile, "t", 2);
    let publisher = world.connect(&Connect::v311("publisher"));
    world.stall();

    world.say(publisher, &publish_2("t", 1, b"first"));
    world.say(stored, &unsubscribe(2, "t"));
    world.say(publisher, &publish_2("t", 2, b"second"));
    assert_eq!(world.messages(volatile), []);
    world.unstall();
    assert_eq!(payloads(&world.messages(volatile)), ["first", "second"]);
}

/// Its receiver holds the Packet Identifier until it is released, whatever becomes of the message [MQTT-4.3.3-7].
#[test]
fn what_was_in_flight_before_a_start_does_not_expire_after_it() {
    let mut world = World::new(Limits {
        window: 1,
        ..Limits::default()
    });
    let reader = Connect::v311("reader").unclean();
    let link = world.connect(&reader);
    world.subscribe(link, "t", 2);
    let publisher = world.connect(&Connect::v5("publisher"));
    for (packet_id, payload) in [(1, "in flight"), (2, "never sent")] {
        let expiry = message_expiry(Duration::from_secs(10));
        let mut publish = publish_v5("t", packet_id, &expiry, payload.as_bytes());
        publish[0] = 0x34;
        world.say(publisher, &publish);
    }
    let sent = world.messages(link);
    assert_eq!(payloads(&sent), ["in flight"]);

    let mut world = world.crash();
    world.pass(Duration::from_secs(20));
    let link = world.connect(&reader);
    let again = world.messages(link);
    assert_eq!(payloads(&again), ["in flight"]);
    assert_eq!(
        (again[0].dup, again[0].packet_id),
        (true, sent[0].packet_id)
    );
    settle_by(&mut world, link, again[0].packet_id);
    assert_eq!(world.counters().drops.expired, 1);
    assert_eq!(world.gauges().queued_messages, 0);
}

/// Behind messages whose settlement was not committed before the start, too.
#[test]
fn what_was_in_flight_before_a_start_is_not_dropped_after_it() {
    let limits = Limits {
        window: 2,
        session_disk_max: 5000,
        ..Limits::default()
    };
    let mut world = World::new(limits);
    let reader = Connect::v311("reader").unclean();
    let link = world.connect(&reader);
    world.subscribe(link, "t", 2);
    world.lose(link);
    let publisher = world.connect(&Connect::v311("publisher"));
    world.publish(publisher, "t", b"a");
    world.publish(publisher, "t", b"b");
    for (packet_id, payload) in [(3, b"c"), (4, b"d")] {
        world.say(publisher, &publish_2("t", packet_id, payload));
        assert_eq!(world.received(publisher), pubrec(packet_id));
    }
    world.stall();
    let link = world.connect(&reader);
    let settled = world.messages(link);
    world.acknowledge(link, &settled);
    let in_flight = world.messages(link);
    assert_eq!(payloads(&in_flight), ["c", "d"]);

    let mut world = world.crash();
    let publisher = world.connect(&Connect::v311("publisher"));
    for _ in 0..10 {
        world.publish(publisher, "t", &[b'.'; 1000]);
    }
    assert!(world.counters().drops.queue_full > 0);
    let link = world.connect(&reader);
    let settled = world.messages(link);
    assert_eq!(payloads(&settled), ["a", "b"]);
    world.acknowledge(link, &settled);
    let again = world.messages(link);
    assert_eq!(payloads(&again), ["c", "d"]);
    for (again, before) in again.iter().zip(&in_flight) {
        assert_eq!((again.dup, again.packet_id), (true, before.packet_id));
    }
}

/// PUBREC, PUBREL, PUBCOMP.
fn settle_by(world: &mut World, link: LinkId, packet_id: u16) {
    world.say(link, &pubrec(packet_id));
    let [high, low] = packet_id.to_be_bytes();
    assert_eq!(world.received(link), [0x62, 2, high, low]);
    world.say(link, &[0x70, 2, high, low]);
}

fn payloads(messages: &[Message]) -> Vec<String> {
    let text = |message: &Message| String::from_utf8_lossy(&message.payload).into_owned();
    messages.iter().map(text).collect()
}
