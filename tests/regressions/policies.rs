//! What the owner allows a queue: how many, how old, what goes, and how fast.

use crate::packets::{self, Connect, numbers, publish_0, publish_1};
use crate::world::{SYS_INTERVAL, World};
use larder::broker::{QueuePolicy, QueueRule, Rate, WhenFull};
use larder::limits::Limits;
use larder::net::LinkId;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// A world in which the queue of "reader", subscribed to "t" at QoS 1 and away, has this policy; and a publisher.
fn with_policy(policy: QueuePolicy) -> (World, LinkId) {
    let limits = Limits {
        window: 4,
        ..Limits::default()
    };
    let rule = QueueRule {
        client_id: "read*".to_owned(),
        policy,
        classes: Vec::new(),
    };
    let mut world = World::with_rules(limits, vec![rule]);
    let link = world.connect(&reader());
    world.subscribe(link, "t", 1);
    world.lose(link);
    let publisher = world.connect(&Connect::v311("publisher"));
    (world, publisher)
}

fn plain() -> QueuePolicy {
    QueuePolicy::drop_oldest(1 << 20)
}

fn reader() -> Connect {
    Connect::v311("reader").unclean()
}

/// What `$SYS/larder/dropped/…` says next.
fn told(world: &mut World, kind: &str) -> u64 {
    let link = world.connect(&Connect::v311("watcher"));
    let filter = format!("$SYS/larder/dropped/{kind}");
    world.say(link, &packets::subscribe(false, 1, &[filter], 0));
    world.pass(SYS_INTERVAL);
    let (told, _) = packets::without_suback(&world.received(link));
    world.lose(link);
    // What was said last is retained, and comes first.
    let messages = packets::messages(false, &told);
    let [_, message] = &messages[..] else {
        panic!("{messages:?}")
    };
    String::from_utf8_lossy(&message.payload).parse().unwrap()
}

#[test]
fn a_queue_holds_no_more_messages_than_it_may_and_loses_the_oldest() {
    let (mut world, publisher) = with_policy(QueuePolicy {
        messages_max: 20,
        ..plain()
    });
    for number in 0..100 {
        world.publish_all(publisher, "t", number..number + 1);
        assert!(world.gauges().queued_messages <= 20);
    }
    let queued = world.gauges().queued_messages as usize;
    assert!(queued > 17, "{queued}");
    let dropped = (100 - queued) as u64;
    assert_eq!(world.counters().drops.queue_full, dropped);
    assert_eq!(told(&mut world, "queue-full"), dropped);

    let mut world = world.crash();
    let publisher = world.connect(&Connect::v311("publisher"));
    world.publish_all(publisher, "t", 100..110);
    assert!(world.gauges().queued_messages <= 20);
    let dropped = world.counters().drops.queue_full as usize;
    let link = world.connect(&reader());
    let delivered = numbers(&world.drain(link));
    assert_eq!(delivered.len(), queued + 10 - dropped);
    // The first window may have been sent before the crash, and stays.
    let stays = 100 - queued..104 - queued;
    assert_eq!(delivered[..4], stays.collect::<Vec<_>>());
    assert!(delivered.is_sorted() && delivered.last() == Some(&109));
    assert_eq!(world.gauges().queued_messages, 0);
}

#[test]
fn messages_that_were_never_sent_go_when_they_are_too_old() {
    let (mut world, publisher) = with_policy(QueuePolicy {
        age_max: Some(32 * MINUTE),
        ..plain()
    });
    world.publish_all(publisher, "t", 0..10);
    let link = world.connect(&reader());
    assert_eq!(numbers(&world.messages(link)), [0, 1, 2, 3]);
    world.lose(link);
    world.pass(20 * MINUTE);
    world.publish_all(publisher, "t", 10..15);
    // They are looked for sixteen times in that age.
    world.pass(15 * MINUTE);
    assert_eq!(world.counters().drops.aged, 6);
    assert_eq!(told(&mut world, "aged"), 6);
    assert_eq!(world.gauges().queued_messages, 4 + 5);

    let link = world.connect(&reader());
    assert_eq!(
        numbers(&world.drain(link)),
        [0, 1, 2, 3, 10, 11, 12, 13, 14]
    );
    assert_eq!(world.gauges().queued_messages, 0);
}

/// What became too old between two looks is not sent either.
#[test]
fn a_message_that_is_too_old_is_not_sent_though_it_is_still_there() {
    let (mut world, publisher) = with_policy(QueuePolicy {
        age_max: Some(32 * MINUTE),
        ..plain()
    });
    world.publish_all(publisher, "t", 0..1);
    world.pass(MINUTE);
    world.publish_all(publisher, "t", 1..2);
    world.pass(31 * MINUTE + Duration::from_secs(70));
    assert_eq!(world.gauges().queued_messages, 2);
    world.publish_all(publisher, "t", 2..3);
    let link = world.connect(&reader());
    assert_eq!(numbers(&world.drain(link)), [2]);
    assert_eq!(world.counters().drops.aged, 2);
    assert_eq!(world.gauges().queued_messages, 0);
}

/// A queue that was aged while it was off: ages count service, and are kept over a crash.
#[test]
fn ages_outlive_a_crash() {
    let (mut world, publisher) = with_policy(QueuePolicy {
        age_max: Some(32 * MINUTE),
        ..plain()
    });
    world.publish_all(publisher, "t", 0..8);
    world.pass(20 * MINUTE);
    let mut world = world.crash();
    world.pass(15 * MINUTE);
    // The first window may have been sent.
    assert_eq!(world.counters().drops.aged, 4);
    let link = world.connect(&reader());
    assert_eq!(numbers(&world.drain(link)), [0, 1, 2, 3]);
}

#[test]
fn a_queue_that_drops_the_newest_counts_them() {
    let (mut world, publisher) = with_policy(QueuePolicy {
        messages_max: 3,
        when_full: WhenFull::DropNewest,
        ..plain()
    });
    world.publish_all(publisher, "t", 0..5);
    assert_eq!(told(&mut world, "queue-full"), 2);
    let link = world.connect(&reader());
    assert_eq!(numbers(&world.drain(link)), [0, 1, 2]);
    world.say(publisher, &publish_1("t", 1, b"5"));
    assert_eq!(numbers(&world.drain(link)), [5]);
    assert_eq!(world.gauges().queued_messages, 0);
}

#[test]
fn a_queue_that_rejects_takes_no_byte_too_many() {
    let (mut world, publisher) = with_policy(QueuePolicy {
        bytes_max: 10,
        when_full: WhenFull::Reject,
        ..plain()
    });
    world.publish_all(publisher, "t", 0..5);
    assert_eq!(world.gauges().queued_bytes, 10);
    world.say(publisher, &publish_1("t", 1, b"5"));
    assert!(world.is_closed(publisher));
    assert_eq!(world.counters().refused, 1);
    let link = world.connect(&reader());
    assert_eq!(numbers(&world.drain(link)), [0, 1, 2, 3, 4]);
}

/// And what comes meanwhile waits behind it, so that the order stays [MQTT-4.6.0-6].
#[test]
fn a_backlog_leaves_at_its_rate() {
    let (mut world, publisher) = with_policy(QueuePolicy {
        rate: Rate {
            messages: Some(10),
            bytes: None,
        },
        qos0: true,
        ..plain()
    });
    world.publish_all(publisher, "t", 0..30);
    let link = world.connect(&reader());
    let mut delivered = numbers(&world.drain(link));
    assert_eq!(delivered, (0..10).collect::<Vec<_>>());
    for tenth in 1..=40 {
        let number = 29 + tenth;
        if tenth <= 10 && tenth % 2 == 0 {
            world.say(publisher, &publish_0("t", number.to_string().as_bytes()));
        } else if tenth <= 10 {
            world.publish_all(publisher, "t", number..number + 1);
        }
        world.pass(Duration::from_millis(100));
        delivered.extend(numbers(&world.drain(link)));
        assert!(delivered.len() <= 10 + tenth, "{tenth}: {delivered:?}");
    }
    assert_eq!(delivered, (0..40).collect::<Vec<_>>());
    assert_eq!(world.gauges().queued_messages, 0);

    // Without a backlog they go at once.
    for number in 40..100 {
        world.say(publisher, &publish_1("t", 1, number.to_string().as_bytes()));
        assert_eq!(numbers(&world.drain(link)), [number]);
    }
}

#[test]
fn a_backlog_leaves_at_its_rate_in_bytes() {
    let (mut world, publisher) = with_policy(QueuePolicy {
        rate: Rate {
            messages: None,
            bytes: Some(100),
        },
        ..plain()
    });
    for _ in 0..10 {
        world.publish(publisher, "t", &[b'x'; 49]);
    }
    let link = world.connect(&reader());
    assert_eq!(world.drain(link).len(), 2);
    for _ in 0..4 {
        world.pass(Duration::from_secs(1));
        assert_eq!(world.drain(link).len(), 2);
    }
    assert_eq!(world.gauges().queued_messages, 0);
}

/// Nobody is there who could keep a Will: it goes to all whose queue has room.
#[test]
fn a_queue_that_rejects_what_it_has_no_room_for_rejects_no_will() {
    let (mut world, publisher) = with_policy(QueuePolicy {
        messages_max: 1,
        when_full: WhenFull::Reject,
        ..plain()
    });
    world.publish_all(publisher, "t", 0..1);
    let other = Connect::v311("other").unclean();
    let link = world.connect(&other);
    world.subscribe(link, "t", 1);
    let client = world.connect(&Connect::v311("client").unclean().will("t", b"7", 1));
    world.lose(client);
    assert_eq!(numbers(&world.messages(link)), [7]);
    assert_eq!(world.counters().drops.queue_full, 1);
    let reader = world.connect(&reader());
    assert_eq!(numbers(&world.drain(reader)), [0]);
    let mut world = world.crash();
    world.settle();
    assert_eq!(world.counters().drops.queue_full, 0);
}
