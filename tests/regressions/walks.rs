//! What a new subscription gets of the retained messages, however many there are.

use crate::packets::{self, Connect, Message, puback, publish_1, retained, subscribe};
use crate::retained::{FEW, MANY, answer, ask, assert_all, retain, take_all, with_retained};
use larder::broker::ConfiguredSession;
use larder::limits::{Limits, SUBSCRIBE_WALK_STEPS, WALK_STEPS};
use larder::net::LinkId;
use larder::record::SubscriptionRecord;

#[test]
fn whoever_subscribes_to_everything_gets_thousands_of_them_as_fast_as_it_reads() {
    let (mut world, _) = with_retained(Limits::default(), MANY);
    let link = world.connect(&Connect::v311("reader"));
    world.read_only(link, 4);
    ask(&mut world, link, 0);
    // It reads a little now and then.
    while world.gauges().buffers_lent > 0 {
        world.read_only(link, 1000);
        world.settle();
    }
    let (messages, before) = answer(&mut world, link);
    assert_eq!(before, Some(0), "the SUBACK comes first");
    assert_all(&messages, MANY);
    assert_eq!(world.counters().drops.sum(), 0);
}

#[test]
fn at_qos_1_they_come_as_they_are_acknowledged_and_need_no_memory_meanwhile() {
    let limits = Limits {
        transient_pool_bytes: 0,
        ..Limits::default()
    };
    let (mut world, _) = with_retained(limits, MANY);
    let link = world.connect(&Connect::v311("reader"));
    ask(&mut world, link, 1);
    let (first, before) = answer(&mut world, link);
    assert_eq!((first.len(), before), (64, Some(0)));
    world.acknowledge(link, &first);
    let (rest, _) = take_all(&mut world, link);
    assert_all(&[first, rest].concat(), MANY);
    assert_eq!(world.counters().drops.sum(), 0);
}

#[test]
fn a_stored_session_is_told_of_its_subscription_when_all_of_them_are_on_disk() {
    let limits = Limits {
        // Several batches.
        batch_bytes: 40_000,
        ..Limits::default()
    };
    let (mut world, _) = with_retained(limits, MANY);
    let reader = Connect::v311("reader").unclean();
    let link = world.connect(&reader);
    world.stall();
    ask(&mut world, link, 1);
    let (first, before) = answer(&mut world, link);
    assert_eq!((first.len(), before), (64, None), "live, but not told yet");

    world.unstall();
    let (_, before) = answer(&mut world, link);
    assert!(before.is_some());
    let mut world = world.crash();
    let link = world.connect(&reader);
    assert_all(&world.drain(link), MANY);
}

#[test]
fn a_crash_before_the_suback_leaves_no_subscription() {
    let limits = Limits {
        batch_bytes: 40_000,
        ..Limits::default()
    };
    let (mut world, _) = with_retained(limits, MANY);
    let reader = Connect::v311("reader").unclean();
    let link = world.connect(&reader);
    world.stall();
    ask(&mut world, link, 1);
    let mut world = world.crash();
    assert_eq!(world.gauges().subscriptions, 0);
    let link = world.connect(&reader);
    ask(&mut world, link, 1);
    let (messages, before) = take_all(&mut world, link);
    assert!(before.is_some());
    assert!(messages.len() >= MANY, "some came before, as owed");
}

#[test]
fn what_a_stored_session_has_asked_for_it_gets_though_its_link_breaks() {
    let limits = Limits {
        batch_bytes: 40_000,
        ..Limits::default()
    };
    let (mut world, publisher) = with_retained(limits, MANY);
    let reader = Connect::v311("reader").unclean();
    let link = world.connect(&reader);
    world.stall();
    ask(&mut world, link, 1);
    world.lose(link);
    world.unstall();
    let mut world = world.crash();
    assert_eq!(world.gauges().subscriptions, 1);
    assert_eq!(world.gauges().queued_messages, MANY as u64);
    let _ = publisher;
    let link = world.connect(&reader);
    assert_all(&world.drain(link), MANY);
}

#[test]
fn a_change_behind_the_walk_or_before_it_is_not_missed() {
    let (mut world, publisher) = with_retained(Limits::default(), 1000);
    let link = world.connect(&Connect::v311("reader"));
    ask(&mut world, link, 1);
    let (first, _) = answer(&mut world, link);
    let payload = |message: &Message| String::from_utf8_lossy(&message.payload).into_owned();
    let passed: usize = payload(&first[0]).parse().unwrap();
    let last = 999;
    retain(&mut world, publisher, passed, "changed behind");
    retain(&mut world, publisher, last, "changed before");
    world.acknowledge(link, &first);
    let (rest, _) = take_all(&mut world, link);
    let of = |text: &str, retain: bool| {
        let is = |message: &&Message| payload(message) == text && message.retain == retain;
        rest.iter().filter(is).count()
    };
    assert_eq!(of("changed behind", false), 1);
    assert_eq!(of("changed before", true) + of("changed before", false), 2);
    assert_eq!(of("999", true), 0, "it is out of date");
    assert_eq!(first.len() + rest.len(), 1000 + 2);
}

#[test]
fn an_unsubscribe_ends_the_walk() {
    let (mut world, _) = with_retained(Limits::default(), 1000);
    let link = world.connect(&Connect::v311("reader"));
    ask(&mut world, link, 1);
    let (first, _) = answer(&mut world, link);
    world.say(link, &packets::unsubscribe(3, "t/#"));
    assert_eq!(world.received(link), [0xB0, 2, 0, 3]);
    world.acknowledge(link, &first);
    assert_eq!(world.messages(link), []);
}

#[test]
fn many_who_subscribe_to_everything_at_once_take_turns() {
    let (mut world, _) = with_retained(Limits::default(), MANY);
    let names: Vec<&'static str> = (0..50).map(|no| &*format!("r{no}").leak()).collect();
    let links: Vec<LinkId> = names
        .iter()
        .map(|name| world.connect(&Connect::v311(name)))
        .collect();
    for link in &links {
        world.send(*link, &subscribe(false, 9, &["t/#".to_owned()], 0));
    }
    world.turn();
    let sent = world.counters().publish_sent;
    let most = links.len() * SUBSCRIBE_WALK_STEPS + WALK_STEPS;
    assert!(sent <= most as u64, "{sent} in one turn");
    world.settle();
    for link in links {
        let (messages, _) = answer(&mut world, link);
        assert_all(&messages, MANY);
    }
}

#[test]
fn a_subscription_that_finds_the_disk_full_is_granted_all_the_same_after_a_while() {
    let limits = Limits::default();
    let (mut world, publisher) = with_retained(limits.clone(), 10);
    world.flash().claims_used = Some(limits.disk_max);
    // A commit tells.
    retain(&mut world, publisher, 0, "0");
    let link = world.connect(&Connect::v311("reader").unclean());
    ask(&mut world, link, 1);
    assert_eq!(world.received(link), []);
    world.pass(limits.park_max + FEW);
    let (messages, before) = answer(&mut world, link);
    assert_eq!((messages.len(), before), (0, Some(0)));
    assert_eq!(world.counters().drops.queue_full, 10);

    world.flash().claims_used = None;
    world.say(publisher, &retained(publish_1("t/0", 1, b"0")));
    world.pass(FEW);
    assert_eq!(world.received(publisher), puback(1));
    ask(&mut world, link, 1);
    let (mut messages, _) = take_all(&mut world, link);
    assert_eq!(messages.len(), 11);
    messages.retain(|message| message.retain);
    assert_all(&messages, 10);
}

#[test]
fn a_session_that_the_configuration_names_is_owed_what_is_retained_when_it_is_new() {
    let bridge = ConfiguredSession {
        client_id: "bridge".to_owned(),
        subscriptions: vec![(
            "t/#".to_owned(),
            SubscriptionRecord {
                qos: 1,
                retain_handling: 1,
                retain_as_published: true,
                ..SubscriptionRecord::default()
            },
        )],
        disk_max: 1 << 20,
        window: 64,
        window_bytes: 1 << 20,
    };
    let (world, _) = with_retained(Limits::default(), 100);
    let mut world = world.crash_naming(Limits::default(), std::slice::from_ref(&bridge));
    world.settle();
    assert_eq!(world.gauges().queued_messages, 100);
    // It is there by now.
    let mut world = world.crash_naming(Limits::default(), &[bridge]);
    world.settle();
    assert_eq!(world.gauges().queued_messages, 100);
    let publisher = world.connect(&Connect::v311("publisher"));
    retain(&mut world, publisher, 100, "100");
    let link = world.connect(&Connect::v311("bridge").unclean());
    assert_all(&world.drain(link), 101);
}
