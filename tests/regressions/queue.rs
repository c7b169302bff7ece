//! A stored session's queue: full, expired, resumed, damaged, and found after a crash.

use crate::packets::{Connect, message_expiry, numbers, puback, publish_1, publish_v5};
use crate::world::World;
use larder::limits::{Limits, PAGE_WAIT};
use larder::net::LinkId;
use std::time::Duration;

/// A world with the session "reader", subscribed to "t" at QoS 1 and away, and a publisher.
fn with_reader_away(limits: Limits) -> (World, LinkId) {
    let mut world = World::new(limits);
    let link = world.connect(&reader());
    world.subscribe(link, "t", 1);
    world.lose(link);
    let publisher = world.connect(&Connect::v311("publisher"));
    (world, publisher)
}

fn reader() -> Connect {
    Connect::v311("reader").unclean()
}

/// A payload that with its topic "t" makes `bytes` bytes, and says its number.
fn numbered(number: usize, bytes: usize) -> Vec<u8> {
    format!("{number:0>width$}", width = bytes - 1).into_bytes()
}

/// A queue that dropped its oldest unsent messages has a hole behind those in flight.
#[test]
fn a_queue_that_dropped_messages_is_whole_after_a_crash() {
    let (window, queue_max) = (4, 100);
    let limits = Limits {
        session_disk_max: queue_max * 1000,
        window,
        ..Limits::default()
    };
    let (mut world, publisher) = with_reader_away(limits.clone());
    // Connected, it takes a window of messages and never acknowledges: so is a bridge whose cloud is away.
    world.connect(&reader());
    for number in 0..500 {
        world.say(publisher, &publish_1("t", 1, &numbered(number, 1000)));
        // Those in flight are not written at once.
        world.pass(limits.settle_wait);
        assert_eq!(world.received(publisher), puback(1));
    }
    let queued = world.gauges().queued_messages;
    let dropped = world.counters().drops.queue_full;
    assert_eq!(queued + dropped, 500);
    assert!(
        queued > queue_max * 9 / 10 && queued <= queue_max,
        "{queued}"
    );

    let mut world = world.crash();
    let publisher = world.connect(&Connect::v311("publisher"));
    for number in 500..503 {
        world.publish(publisher, "t", &numbered(number, 1000));
    }
    let dropped = dropped + world.counters().drops.queue_full;
    let link = world.connect(&reader());
    let delivered = numbers(&world.drain(link));
    let oldest = usize::from(window) + dropped as usize;
    let due: Vec<usize> = (0..window.into()).chain(oldest..503).collect();
    assert_eq!(delivered, due);
    assert!(due.len() > 90, "{}", due.len());
    assert_eq!(world.gauges().queued_messages, 0);
}

/// What may have been sent before a crash is kept [MQTT-4.4.0-1]; what came after it is not spared with it.
#[test]
fn a_full_queue_keeps_its_maximum_after_a_crash() {
    let (found, queue_max) = (5, 20);
    let limits = Limits {
        session_disk_max: queue_max * 1000,
        ..Limits::default()
    };
    let (mut world, publisher) = with_reader_away(limits);
    for number in 0..found {
        world.publish(publisher, "t", &numbered(number, 1000));
    }
    let mut world = world.crash();
    let publisher = world.connect(&Connect::v311("publisher"));
    for number in found..200 {
        world.publish(publisher, "t", &numbered(number, 1000));
        assert!(world.gauges().queued_bytes <= queue_max * 1000);
    }
    let queued = world.gauges().queued_messages;
    let dropped = world.counters().drops.queue_full as usize;
    assert_eq!(queued as usize + dropped, 200);
    let link = world.connect(&reader());
    let due: Vec<usize> = (0..found).chain(found + dropped..200).collect();
    assert_eq!(numbers(&world.drain(link)), due);
}

/// [MQTT-3.3.1-1, MQTT-4.4.0-1]
#[test]
fn all_that_was_sent_before_a_crash_comes_again_as_it_was_and_with_dup() {
    let limits = Limits {
        window: 4,
        ..Limits::default()
    };
    let (mut world, publisher) = with_reader_away(limits);
    for number in 0..20 {
        world.publish(publisher, "t", &numbered(number, 10));
    }
    let link = world.connect(&reader());
    let mut before = Vec::new();
    while before.len() < 20 {
        let messages = world.messages(link);
        assert!(!messages.is_empty());
        // The last three are never acknowledged.
        let acknowledged = messages.len().min(17 - before.len().min(17));
        world.acknowledge(link, &messages[..acknowledged]);
        before.extend(messages);
    }
    assert!(before.iter().all(|message| !message.dup));

    // The settlements were not written yet.
    let mut world = world.crash();
    let publisher = world.connect(&Connect::v311("publisher"));
    world.publish(publisher, "t", &numbered(20, 10));
    let link = world.connect(&reader());
    let mut after = world.drain(link);
    let new = after.pop().unwrap();
    assert_eq!((new.dup, new.payload), (false, numbered(20, 10)));
    for message in &mut before {
        message.dup = true;
    }
    assert_eq!(after, before);
}

/// [MQTT-3.1.2-25]
#[test]
fn a_message_in_flight_that_the_next_link_cannot_take_holds_up_nothing() {
    let limits = Limits {
        window: 4,
        ..Limits::default()
    };
    let mut world = World::new(limits);
    let reader = Connect::v5("reader")
        .unclean()
        .expiry(Duration::from_secs(3600));
    let link = world.connect(&reader);
    world.subscribe(link, "t", 1);
    let publisher = world.connect(&Connect::v311("publisher"));
    world.say(publisher, &publish_1("t", 1, &[b'x'; 500]));
    assert_eq!(world.messages(link).len(), 1);
    world.lose(link);

    let link = world.connect(&reader.packet_max(200));
    for number in 0..20 {
        world.say(publisher, &publish_1("t", 1, &numbered(number, 10)));
        assert_eq!(numbers(&world.drain(link)), [number]);
    }
    assert_eq!(world.counters().drops.too_large, 1);
    assert_eq!(world.gauges().queued_messages, 0);
}

#[test]
fn a_message_in_flight_that_is_damaged_meanwhile_holds_up_nothing() {
    let limits = Limits {
        window: 1,
        ..Limits::default()
    };
    let (mut world, publisher) = with_reader_away(limits);
    for number in 1..=5 {
        world.publish(publisher, "t", &numbered(number, 10));
    }
    let link = world.connect(&reader());
    assert_eq!(numbers(&world.messages(link)), [1]);
    world.lose(link);
    world.flash().damaged = Some(1);
    let link = world.connect(&reader());
    assert_eq!(numbers(&world.drain(link)), [2, 3, 4, 5]);
    assert_eq!(world.counters().drops.damaged, 1);
    assert_eq!(world.gauges().queued_messages, 0);
}

/// More than a batch has room to settle, while the disk commits nothing.
#[test]
fn a_backlog_that_expired_is_passed_over_however_slow_the_disk_is() {
    let expired = 14_000;
    let limits = Limits {
        sessions: 10,
        links: 20,
        ..Limits::default()
    };
    let (mut world, publisher) = with_reader_away(limits);
    let expiring = world.connect(&Connect::v5("expiring"));
    let expiry = message_expiry(Duration::from_secs(1));
    for _ in 0..expired {
        world.say(expiring, &publish_v5("t", 1, &expiry, b"x"));
    }
    assert_eq!(world.received(expiring), [0x40, 2, 0, 1].repeat(expired));
    world.publish(publisher, "t", b"good");
    world.pass(Duration::from_secs(10));

    world.stall();
    let link = world.connect(&reader());
    assert_eq!(world.messages(link), []);
    let passed = world.counters().drops.expired;
    assert!(0 < passed && passed < expired as u64, "{passed}");

    world.unstall();
    let messages = world.drain(link);
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].payload, b"good");
    assert_eq!(world.counters().drops.expired, expired as u64);
    assert_eq!(world.gauges().queued_messages, 0);
}

/// A drop that was under way when its session ended is counted all the same.
#[test]
fn what_was_dropped_for_a_session_that_has_ended_meanwhile_is_counted() {
    let limits = Limits {
        session_disk_max: 5000,
        ..Limits::default()
    };
    let (mut world, publisher) = with_reader_away(limits);
    for number in 0..5 {
        world.publish(publisher, "t", &numbered(number, 1000));
    }
    world.stall();
    world.say(publisher, &publish_1("t", 1, &numbered(5, 1000)));
    world.open_with(&Connect::v311("reader"));
    world.unstall();
    assert_eq!(world.received(publisher), puback(1));
    assert_eq!(world.gauges().queued_messages, 0);
    assert_eq!(world.counters().drops.queue_full, 2);
}

#[test]
fn a_reader_that_acknowledges_one_by_one_costs_a_page_for_each_half_of_its_window() {
    let limits = Limits {
        window: 64,
        ..Limits::default()
    };
    let (mut world, publisher) = with_reader_away(limits);
    for number in 0..640 {
        world.publish(publisher, "t", &numbered(number, 10));
    }
    let link = world.connect(&reader());
    assert_eq!(numbers(&world.drain(link)), (0..640).collect::<Vec<_>>());
    // The first whole window, and then 576 messages by halves.
    assert_eq!(world.flash().pages, 1 + 576 / 32);
}

#[test]
fn a_reader_that_holds_most_of_its_window_is_sent_on_as_far_as_it_allows() {
    let limits = Limits {
        window: 8,
        ..Limits::default()
    };
    let (mut world, publisher) = with_reader_away(limits);
    for number in 0..20 {
        world.publish(publisher, "t", &numbered(number, 10));
    }
    let link = world.connect(&reader());
    let mut open = world.messages(link);
    assert_eq!(open.len(), 8);
    for number in 8..20 {
        let oldest = open.remove(0);
        world.acknowledge(link, &[oldest]);
        world.pass(PAGE_WAIT);
        let next = world.messages(link);
        assert_eq!(numbers(&next), [number]);
        open.extend(next);
    }
}

/// Nothing can be sent before the oldest message is acknowledged, and so nothing is read.
#[test]
fn a_reader_that_leaves_its_oldest_message_open_costs_no_pages() {
    let limits = Limits {
        window: 8,
        ..Limits::default()
    };
    let (mut world, publisher) = with_reader_away(limits);
    for number in 0..20 {
        world.publish(publisher, "t", &numbered(number, 10));
    }
    let link = world.connect(&reader());
    let open = world.messages(link);
    for message in &open[1..] {
        world.acknowledge(link, std::slice::from_ref(message));
        world.pass(PAGE_WAIT);
    }
    assert_eq!(world.flash().pages, 1);
    world.acknowledge(link, &open[..1]);
    assert_eq!(numbers(&world.drain(link)), (8..20).collect::<Vec<_>>());
}

/// More than there are Packet Identifiers, and a start in the midst of it.
#[test]
fn a_backlog_longer_than_all_packet_identifiers_drains_after_a_crash() {
    let (mut world, publisher) = with_reader_away(Limits::default());
    for number in 0..40_000 {
        world.publish(publisher, "t", &numbered(number, 10));
    }
    let mut world = world.crash();
    let publisher = world.connect(&Connect::v311("publisher"));
    for number in 40_000..72_000 {
        world.publish(publisher, "t", &numbered(number, 10));
    }
    let link = world.connect(&reader());
    assert_eq!(numbers(&world.drain(link)), Vec::from_iter(0..72_000));
}
