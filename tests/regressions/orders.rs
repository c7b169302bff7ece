//! Orders in which a backlog leaves: after what is live, and newest first.

use crate::packets::{self, Connect, Message, numbers, publish_1, subscribe};
use crate::world::World;
use larder::broker::{Order, QueueClass, QueuePolicy, QueueRule};
use larder::limits::{LIVE_MESSAGES, Limits};
use larder::net::LinkId;
use std::collections::BTreeSet;
use std::time::Duration;

fn limits() -> Limits {
    Limits {
        window: 8,
        ..Limits::default()
    }
}

fn policy(order: Order) -> QueuePolicy {
    QueuePolicy {
        order,
        ..QueuePolicy::drop_oldest(1 << 20)
    }
}

fn rules(order: Order, classes: Vec<QueueClass>) -> Vec<QueueRule> {
    vec![QueueRule {
        client_id: "reader".to_owned(),
        policy: policy(order),
        classes,
    }]
}

fn reader() -> Connect {
    Connect::v5("reader")
        .unclean()
        .expiry(Duration::from_secs(3600))
}

/// A world with the session "reader", which has subscribed to everything at QoS 1, with Retain As Published, and is away; and
/// a publisher.
fn with_rules(rules: Vec<QueueRule>) -> (World, LinkId) {
    let mut world = World::with_rules(limits(), rules);
    let link = world.connect(&reader());
    const RETAIN_AS_PUBLISHED: u8 = 0x08;
    world.say(
        link,
        &subscribe(true, 1, &["#".to_owned()], 1 | RETAIN_AS_PUBLISHED),
    );
    world.received(link);
    world.lose(link);
    let publisher = world.connect(&Connect::v311("publisher"));
    (world, publisher)
}

fn with_order(order: Order) -> (World, LinkId) {
    with_rules(rules(order, Vec::new()))
}

/// Each of these numbers came, and none twice.
fn assert_all(got: &[usize], numbers: std::ops::Range<usize>) {
    let set: BTreeSet<usize> = got.iter().copied().collect();
    assert_eq!(got.len(), set.len(), "one came twice: {got:?}");
    assert_eq!(set, numbers.collect());
}

fn assert_empty(world: &World) {
    let gauges = world.gauges();
    assert_eq!((gauges.queued_messages, gauges.queued_bytes), (0, 0));
}

#[test]
fn what_is_live_goes_before_a_backlog() {
    for order in [Order::LiveFirst, Order::NewestFirst] {
        let (mut world, publisher) = with_order(order);
        world.publish_all(publisher, "t", 0..100);
        let link = world.connect(&reader());
        let mut got = world.messages(link);
        // The window is full of the backlog: what comes now is next.
        world.publish_all(publisher, "t", 100..105);
        world.acknowledge(link, &got.clone());
        let next = world.messages(link);
        assert_eq!(numbers(&next)[..5], [100, 101, 102, 103, 104], "{order:?}");
        world.acknowledge(link, &next);
        got.extend(next);
        got.extend(world.drain(link));
        assert_all(&numbers(&got), 0..105);
        assert_empty(&world);
    }
}

#[test]
fn the_newest_of_a_backlog_goes_first() {
    let (mut world, publisher) = with_order(Order::NewestFirst);
    world.publish_all(publisher, "t", 0..1000);
    let mut world = world.crash();
    let link = world.connect(&reader());
    let got = numbers(&world.drain(link));
    assert_eq!(got, (0..1000).rev().collect::<Vec<_>>());
    assert_empty(&world);
    assert_eq!(world.counters().drops.sum(), 0);
}

/// A second outage leaves a newer backlog upon the older one. No row is lost, doubled or taken for one in flight, whenever
/// the server crashes; and what its queue is said to hold is right.
#[test]
fn backlogs_upon_each_other_leave_newest_first_across_crashes() {
    let (mut world, publisher) = with_order(Order::NewestFirst);
    world.publish_all(publisher, "t", 0..600);
    let link = world.connect(&reader());
    let first = world.messages(link);
    assert_eq!(numbers(&first), (592..600).rev().collect::<Vec<_>>());
    world.acknowledge(link, &first);
    let unacknowledged = world.messages(link);
    world.pass(Duration::from_secs(2));
    world.lose(link);

    let mut world = world.crash();
    assert_eq!(world.gauges().queued_messages, 592);
    let publisher = world.connect(&Connect::v311("publisher"));
    world.publish_all(publisher, "t", 600..900);
    let mut world = world.crash();
    assert_eq!(world.gauges().queued_messages, 892);

    let link = world.connect(&reader());
    let again = world.messages(link);
    let id = |message: &Message| message.packet_id;
    assert_eq!(numbers(&again), numbers(&unacknowledged));
    assert_eq!(
        again.iter().map(id).collect::<Vec<_>>(),
        unacknowledged.iter().map(id).collect::<Vec<_>>()
    );
    assert!(again.iter().all(|message| message.dup));
    world.acknowledge(link, &again);
    // What had been recalled is sent out; then the newer backlog, and last what is left of the older.
    let mut rest = numbers(&world.drain(link));
    let newer = rest.iter().position(|number| *number == 899).unwrap();
    assert!(newer <= 256 + 8, "{newer} before the newest");
    let mut descending = rest.split_off(newer);
    let mut sorted = descending.clone();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(descending, sorted);
    descending.extend(rest);
    descending.extend(numbers(&first));
    descending.extend(numbers(&again));
    assert_all(&descending, 0..900);
    assert_empty(&world);
}

/// A client that does not keep up has a backlog though it is there; and gets all.
#[test]
fn who_does_not_keep_up_gets_a_backlog() {
    for order in [Order::LiveFirst, Order::NewestFirst] {
        let (mut world, publisher) = with_order(order);
        let link = world.connect(&reader());
        for number in 0..1500 {
            world.say(publisher, &publish_1("t", 1, number.to_string().as_bytes()));
            // Its acknowledgement waits as long for that of the reader.
            world.pass(limits().settle_wait);
            assert_eq!(world.received(publisher), packets::puback(1));
        }
        let got = numbers(&world.drain(link));
        assert_all(&got, 0..1500);
        let (live, backlog): (Vec<usize>, Vec<usize>) = got
            .iter()
            .partition(|number| **number < 8 + LIVE_MESSAGES as usize);
        assert!(live.is_sorted() && got[..10].is_sorted());
        assert_eq!(backlog.is_sorted(), order == Order::LiveFirst);
        assert_empty(&world);
    }
}

/// A message that a newer one of its topic may have overtaken is not to replace it where it is retained.
#[test]
fn a_backlog_keeps_retain_only_where_it_is_the_last_of_its_topic() {
    let large = vec![b'x'; 4096];
    for order in [Order::LiveFirst, Order::NewestFirst] {
        let (mut world, publisher) = with_order(order);
        let retain = |world: &mut World, topic: &str, payload: &[u8]| {
            world.say(publisher, &packets::retained(publish_1(topic, 1, payload)));
            world.received(publisher);
        };
        for topic in ["changed", "gone", "kept", "large"] {
            retain(&mut world, topic, b"old");
        }
        retain(&mut world, "large", &large);
        let mut world = world.crash();
        let publisher = world.connect(&Connect::v311("publisher"));
        let mut retain = |topic: &str, payload: &[u8]| {
            world.say(publisher, &packets::retained(publish_1(topic, 1, payload)));
            world.received(publisher);
        };
        retain("changed", b"new");
        retain("gone", b"");
        let link = world.connect(&reader());
        let got: BTreeSet<(String, usize, bool)> = world
            .drain(link)
            .into_iter()
            .map(|message| (message.topic, message.payload.len(), message.retain))
            .collect();
        let of = |topic: &str, len, retain| (topic.to_owned(), len, retain);
        let expected = [
            of("changed", 3, false),
            of("changed", 3, true),
            of("gone", 3, false),
            of("gone", 0, true),
            of("kept", 3, true),
            of("large", 3, false),
            of("large", 4096, true),
        ];
        assert_eq!(got, BTreeSet::from(expected), "{order:?}");
    }
}

/// Each class has an order of its own; and what the configuration names no more is delivered all the same, whatever the
/// order was and will be.
#[test]
fn orders_change_with_the_configuration() {
    let orders = [Order::Fifo, Order::LiveFirst, Order::NewestFirst];
    for (before, after) in orders.iter().flat_map(|a| orders.map(|b| (*a, b))) {
        let class = |order| QueueClass {
            name: "bulk".to_owned(),
            filters: vec!["bulk/#".to_owned()],
            policy: policy(order),
            reserve: 0,
        };
        let (mut world, publisher) = with_rules(rules(before, vec![class(before)]));
        let say = |world: &mut World, publisher, numbers: std::ops::Range<usize>| {
            for number in numbers {
                let topic = ["t", "bulk/t"][number % 2];
                world.publish(publisher, topic, number.to_string().as_bytes());
            }
        };
        say(&mut world, publisher, 0..40);
        let link = world.connect(&reader());
        let sent = numbers(&world.messages(link));
        say(&mut world, publisher, 40..50);
        let mut world = world.crash_into_rules(rules(after, vec![class(after)]));
        let publisher = world.connect(&Connect::v311("publisher"));
        say(&mut world, publisher, 50..90);
        let link = world.connect(&reader());
        let mut all = world.messages(link);
        world.acknowledge(link, &all);
        say(&mut world, publisher, 90..100);
        let mut world = world.crash_into_rules(rules(before, vec![class(before)]));
        let link = world.connect(&reader());
        all.extend(world.drain(link));
        let got: BTreeSet<usize> = numbers(&all).into_iter().collect();
        assert_eq!(got, (0..100).collect(), "{before:?} {after:?}");
        for (number, message) in numbers(&all).into_iter().zip(&all) {
            assert!(message.dup || !sent.contains(&number), "{number}");
        }
        assert_empty(&world);
    }
}

/// A full stack loses its oldest, and what is being recalled counts.
#[test]
fn a_full_stack_loses_its_oldest() {
    let mut rules = rules(Order::NewestFirst, Vec::new());
    rules[0].policy.messages_max = 100;
    let (mut world, publisher) = with_rules(rules);
    world.publish_all(publisher, "t", 0..300);
    let dropped = world.counters().drops.queue_full;
    assert_eq!(world.gauges().queued_messages + dropped, 300);
    let mut world = world.crash();
    let link = world.connect(&reader());
    let got = numbers(&world.drain(link));
    assert_eq!(got, (dropped as usize..300).rev().collect::<Vec<_>>());
    assert!(got.len() <= 100 && got.len() >= 90, "{}", got.len());
}

/// The backlog has its share though live messages never stop.
#[test]
fn a_backlog_has_its_share_of_a_busy_link() {
    for order in [Order::LiveFirst, Order::NewestFirst] {
        let (mut world, publisher) = with_order(order);
        world.publish_all(publisher, "t", 0..100);
        let link = world.connect(&reader());
        let (mut live, mut backlog) = (0, 0);
        for number in 100..900 {
            world.publish_all(publisher, "t", number..number + 1);
            let messages = world.messages(link);
            for number in numbers(&messages) {
                *(if number < 100 {
                    &mut backlog
                } else {
                    &mut live
                }) += 1;
            }
            // It takes one message for each that comes.
            world.acknowledge(link, &messages[..messages.len().min(1)]);
        }
        assert!(
            backlog >= 8 + live / 25,
            "{order:?}: {backlog} beside {live}"
        );
    }
}
