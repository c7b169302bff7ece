//! What acknowledges, when it leaves, and what comes after it.

use crate::flash::Pace;
use crate::packets::{
    CONNACK, CONNACK_PRESENT, Connect, disconnect, puback, publish_1, publish_v5,
};
use crate::world::World;
use larder::limits::Limits;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

/// [MQTT-3.14.4-1]
#[test]
fn a_puback_that_is_due_leaves_before_a_disconnect_and_nothing_after_it() {
    let mut world = World::new(Limits::default());
    let link = world.connect(&Connect::v5("c"));
    // A PUBLISH, and an AUTH without an Authentication Method in the CONNECT.
    let both = [&publish_v5("nobody", 1, &[], b"x")[..], &[0xF0, 0]].concat();
    world.say(link, &both);
    let puback = [0x40, 3, 0, 1, 0x10];
    let disconnect = [0xE0, 1, 0x82];
    assert_eq!(world.received(link), [&puback[..], &disconnect].concat());
    assert!(world.is_closed(link));
}

/// [MQTT-3.1.4-3]
#[test]
fn a_link_that_is_taken_over_before_its_connack_has_left_gets_none_and_is_not_read() {
    let mut world = World::new(Limits::default());
    world.stall();
    let old = world.open_with(&Connect::v311("c").unclean());
    world.send(old, &publish_1("nobody", 1, b"x"));
    world.settle();
    // One turn hears of the commit that the CONNACK waits for, and of its successor.
    let new = world.open_with(&Connect::v311("c").unclean());
    world.flash().pace = Pace::Prompt;
    world.settle();
    assert!(world.is_closed(old));
    assert_eq!(world.received(old), []);
    assert_eq!(world.counters().publish_received, 0);
    assert_eq!(world.received(new), CONNACK_PRESENT);
}

/// [MQTT-3.3.1-1]: a first transmission does not come after the second.
#[test]
fn what_a_link_that_is_taken_over_has_left_precedes_what_its_successor_is_sent() {
    let mut world = World::new(Limits::default());
    let reader = Connect::v5("c").unclean().expiry(DAY);
    let old = world.connect(&reader);
    world.subscribe(old, "t", 1);
    world.read_only(old, 0);
    let publisher = world.connect(&Connect::v311("publisher"));
    world.say(publisher, &publish_1("t", 1, b"x"));
    world.written();
    // One turn hears that the old link takes bytes again, and of its successor.
    world.let_read(old);
    let new = world.open_with(&reader);
    world.settle();
    assert_eq!(world.written(), [old, new]);
    let message = &world.received(old)[..];
    assert_eq!(message[0], 0x32);
    assert!(message.ends_with(&[0xE0, 1, 0x8E]));
    // The same again behind its CONNACK, with DUP.
    let connack_and_message = world.received(new);
    let length = message.len() - 3;
    let again = &connack_and_message[connack_and_message.len() - length..];
    assert_eq!(again[0], 0x3A);
    assert_eq!(again[1..], message[1..length]);
}

#[test]
fn a_connack_without_a_session_waits_until_the_end_of_the_last_one_is_durable() {
    let mut world = World::new(Limits::default());
    let link = world.connect(&Connect::v5("c").unclean().expiry(DAY));
    world.stall();
    world.say(link, &disconnect(Duration::ZERO));
    let link = world.open_with(&Connect::v311("c"));
    world.settle();
    assert_eq!(world.received(link), []);
    world.unstall();
    assert_eq!(world.received(link), CONNACK);

    // Nothing of it is left.
    let mut world = world.crash();
    let link = world.open_with(&Connect::v311("c").unclean());
    world.settle();
    assert_eq!(world.received(link), CONNACK);
}

/// What was never written stays so: a subscriber that acknowledges at once costs the flash nothing, also after one of its
/// acknowledgements came out of order and its link broke.
#[test]
fn live_messages_are_not_written_after_a_link_broke_with_a_later_one_acknowledged() {
    let mut world = World::new(Limits::default());
    let reader = Connect::v311("reader").unclean();
    let link = world.connect(&reader);
    world.subscribe(link, "t", 1);
    let publisher = world.connect(&Connect::v311("publisher"));

    world.stall();
    world.say(publisher, &publish_1("t", 1, b"first"));
    world.pass(Duration::from_millis(25));
    // The first is being written by now; the second is acknowledged before it would be.
    world.say(publisher, &publish_1("t", 2, b"second"));
    let messages = world.messages(link);
    assert_eq!(messages.len(), 2);
    world.acknowledge(link, &messages[1..]);
    world.lose(link);
    let link = world.connect(&reader);
    world.unstall();
    let again = world.drain(link);
    assert_eq!(again.len(), 1);
    assert!(again[0].dup);
    assert_eq!(again[0].payload, b"first");
    assert_eq!(world.gauges().queued_messages, 0);
    world.pass(Duration::from_secs(2));
    world.received(publisher);

    let written = world.gauges().disk_written;
    for _ in 0..50 {
        world.say(publisher, &publish_1("t", 1, b"live"));
        assert_eq!(world.drain(link).len(), 1);
        assert_eq!(world.received(publisher), puback(1));
        world.pass(Duration::from_millis(100));
    }
    world.pass(Duration::from_secs(2));
    assert_eq!(world.gauges().disk_written, written);
}
