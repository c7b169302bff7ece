//! Large retained messages: in memory until they are on disk, and read from there.

use crate::packets::{Connect, Message, puback, publish_0, publish_1, retained, subscribe};
use crate::retained::{FEW, answer, ask, assert_all, retain, take_all};
use crate::world::World;
use larder::limits::Limits;
use larder::net::LinkId;

/// A payload of 4 KiB that begins with a number.
fn large(number: usize) -> String {
    format!("{number:<4096}")
}

/// A world in which the pool has room for few large messages, and on disk there are so many.
fn with_large(count: usize) -> (World, LinkId) {
    let mut world = World::new(Limits {
        retained_pool_bytes: 24_000,
        ..Limits::default()
    });
    let publisher = world.connect(&Connect::v311("publisher"));
    for number in 0..count {
        retain(&mut world, publisher, number, &large(number));
    }
    (world, publisher)
}

fn assert_all_large(messages: &[Message], count: usize) {
    assert!(messages.iter().all(|message| message.payload.len() == 4096));
    let trimmed = messages.iter().map(|message| Message {
        payload: message.payload.trim_ascii_end().to_vec(),
        ..message.clone()
    });
    assert_all(&trimmed.collect::<Vec<_>>(), count);
}

#[test]
fn large_ones_leave_the_memory_and_are_read_for_whoever_subscribes() {
    let count = 50;
    let (mut world, _) = with_large(count);
    assert!(world.gauges().retained_bytes < 24_000);
    for restarts in 0..2 {
        for qos in 0..=2 {
            let reader = world.connect(&Connect::v311("reader"));
            ask(&mut world, reader, qos);
            let (messages, before) = take_all(&mut world, reader);
            assert_eq!(before, Some(0));
            assert_all_large(&messages, count);
            world.lose(reader);
        }
        let stored = Connect::v311("stored").unclean();
        let reader = world.connect(&stored);
        ask(&mut world, reader, 1);
        let (messages, _) = take_all(&mut world, reader);
        assert_all_large(&messages, count);
        assert_eq!(world.counters().drops.sum(), 0);
        if restarts == 0 {
            // Until the settlements are on disk.
            world.pass(FEW);
            world = world.crash();
            assert_eq!(world.gauges().retained_messages, count as u64);
        }
    }
}

#[test]
fn one_that_has_to_be_read_is_read_when_it_can_leave() {
    let count = 20;
    let (mut world, _) = with_large(count);
    let reader = world.connect(&Connect::v311("reader"));
    world.read_only(reader, 4);
    ask(&mut world, reader, 0);
    let asked = world.flash().topics_asked;
    assert!(asked <= 2, "{asked}");
    world.let_read(reader);
    world.settle();
    let (messages, _) = take_all(&mut world, reader);
    assert_all_large(&messages, count);
    assert_eq!(world.flash().topics_asked, count as u64, "each once");
}

#[test]
fn what_is_replaced_while_it_is_read_comes_as_it_is_then() {
    let (mut world, publisher) = with_large(3);
    let reader = world.connect(&Connect::v311("reader"));
    world.send(reader, &subscribe(false, 9, &["t/#".to_owned()], 0));
    world.turn();
    world.send(publisher, &retained(publish_1("t/0", 1, b"replaced")));
    world.settle();
    let (messages, _) = take_all(&mut world, reader);
    let of_first = messages.iter().filter(|message| message.retain);
    assert_eq!(of_first.count(), 3);
    assert!(
        messages
            .iter()
            .any(|message| message.payload == b"replaced")
    );
    let last = messages
        .iter()
        .rposition(|message| message.payload.starts_with(b"0 "));
    let new = messages
        .iter()
        .rposition(|message| message.payload == b"replaced");
    assert!(last < new, "the old one does not come last");
}

#[test]
fn one_that_cannot_be_read_is_tried_again_and_one_that_is_damaged_is_counted() {
    let (mut world, _) = with_large(5);
    world.flash().unreadable = 2;
    world.flash().damaged_topic = Some("t/3");
    let reader = world.connect(&Connect::v311("reader"));
    ask(&mut world, reader, 0);
    assert_eq!(answer(&mut world, reader).0, []);
    world.pass(2 * FEW);
    let (messages, _) = take_all(&mut world, reader);
    assert_eq!(messages.len(), 4);
    assert_eq!(world.counters().drops.damaged, 1);
    assert_eq!(world.counters().read_errors, 2);
}

#[test]
fn large_ones_of_qos_1_wait_for_the_disk_and_not_for_ever() {
    let limits = Limits::default();
    let (mut world, publisher) = with_large(0);
    world.stall();
    // Five fit into the memory.
    for number in 0..8 {
        let topic = format!("t/{number}");
        world.say(
            publisher,
            &retained(publish_1(&topic, 1, large(number).as_bytes())),
        );
    }
    assert_eq!(world.gauges().retained_messages, 5);
    world.pass(limits.park_max / 2);
    assert!(!world.is_closed(publisher));
    world.unstall();
    assert_eq!(world.received(publisher), puback(1).repeat(8));
    assert_eq!(world.gauges().retained_messages, 8);

    world.stall();
    for number in 0..8 {
        let topic = format!("t/{number}");
        world.say(
            publisher,
            &retained(publish_1(&topic, 1, large(number).as_bytes())),
        );
    }
    world.pass(limits.park_max + FEW);
    assert!(world.is_closed(publisher), "3.1.1 has no word for it");
}

#[test]
fn large_ones_of_qos_0_are_written_before_their_minute_when_memory_is_wanted() {
    let (mut world, publisher) = with_large(0);
    for round in 0..20 {
        for number in 0..6 {
            let topic = format!("t/{number}");
            let payload = large(100 * round + number);
            world.say(publisher, &retained(publish_0(&topic, payload.as_bytes())));
        }
        world.pass(FEW);
    }
    assert_eq!(world.counters().not_retained, 0);
    assert_eq!(world.gauges().retained_messages, 6);
    // Some wait for their minute: as many as half the memory has room for.
    let written = world.flash().retained;
    assert!((6..=6 * 20 / 2 + 10).contains(&written), "{written}");
    let reader = world.connect(&Connect::v311("reader"));
    ask(&mut world, reader, 0);
    let (messages, _) = take_all(&mut world, reader);
    assert!(
        messages
            .iter()
            .all(|message| message.payload.starts_with(b"190"))
    );
}
