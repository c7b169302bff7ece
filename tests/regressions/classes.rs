//! Classes of messages: lanes of a queue, each with a policy, a part of the Packet Identifiers and a share of its own.

use crate::packets::{Connect, Message, numbers, publish_1, subscribe};
use crate::world::{SYS_INTERVAL, World};
use larder::broker::{QueueClass, QueuePolicy, QueueRule, WhenFull};
use larder::limits::{LANE_SHARE, Limits};
use larder::net::LinkId;
use std::time::Duration;

/// The first Packet Identifier of a lane.
const PART: u16 = 8191;

fn limits() -> Limits {
    Limits {
        window: 8,
        disk_max: 100_000,
        ..Limits::default()
    }
}

fn plain() -> QueuePolicy {
    QueuePolicy::drop_oldest(1 << 20)
}

fn class(name: &str, filter: &str) -> QueueClass {
    QueueClass {
        name: name.to_owned(),
        filters: vec![filter.to_owned()],
        policy: plain(),
        reserve: 0,
    }
}

fn rule(classes: Vec<QueueClass>) -> QueueRule {
    QueueRule {
        client_id: "reader".to_owned(),
        policy: QueuePolicy {
            messages_max: 20,
            ..plain()
        },
        classes,
    }
}

fn reader() -> Connect {
    Connect::v311("reader").unclean()
}

/// A world with the session "reader", which has subscribed to everything at QoS 1 and is away; and a publisher.
fn with_classes(classes: Vec<QueueClass>) -> (World, LinkId) {
    let mut world = World::with_rules(limits(), vec![rule(classes)]);
    let link = world.connect(&reader());
    world.subscribe(link, "#", 1);
    world.lose(link);
    let publisher = world.connect(&Connect::v311("publisher"));
    (world, publisher)
}

/// Those of one part of the Packet Identifiers.
fn of_lane(messages: &[Message], lane: u16) -> Vec<usize> {
    let is_of = |message: &&Message| (message.packet_id - 1) / PART == lane;
    let own: Vec<Message> = messages.iter().filter(is_of).cloned().collect();
    numbers(&own)
}

#[test]
fn telemetry_never_pushes_out_alarms() {
    let (mut world, publisher) = with_classes(vec![class("alarms", "alarm/#")]);
    world.publish_all(publisher, "alarm/fire", 0..10);
    world.publish_all(publisher, "telemetry", 100..200);
    world.publish_all(publisher, "alarm/flood", 10..12);
    let dropped = world.counters().drops.queue_full;
    assert_eq!(world.gauges().queued_messages + dropped, 112);
    let [(None, own), (Some("alarms"), alarms)] = world.drops_of("reader")[..] else {
        panic!("{:?}", world.drops_of("reader"))
    };
    assert_eq!((own.queue_full, alarms.queue_full), (dropped, 0));

    let mut world = world.crash();
    let link = world.connect(&reader());
    let messages = world.drain(link);
    assert_eq!(of_lane(&messages, 1), (0..12).collect::<Vec<_>>());
    let telemetry = of_lane(&messages, 0);
    assert_eq!(telemetry, (100 + dropped as usize..200).collect::<Vec<_>>());
    assert_eq!(numbers(&messages)[..8], [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(world.gauges().queued_messages, 0);
    assert_eq!(world.gauges().queued_bytes, 0);
}

#[test]
fn a_class_has_its_own_policy_and_is_told_under_sys() {
    let mut alarms = class("alarms", "alarm/#");
    alarms.policy.messages_max = 3;
    alarms.policy.when_full = WhenFull::DropNewest;
    let mut debug = class("debug", "debug/#");
    debug.policy.age_max = Some(Duration::from_secs(1600));
    let (mut world, publisher) = with_classes(vec![alarms, debug]);
    world.publish_all(publisher, "alarm/fire", 0..5);
    world.publish_all(publisher, "debug/x", 10..14);
    world.publish_all(publisher, "telemetry", 20..22);
    world.pass(Duration::from_secs(1800));
    let watcher = world.connect(&Connect::v311("watcher"));
    let figures = ["queued/messages", "dropped/queue-full", "dropped/aged"];
    let filters = figures.map(|figure| format!("$SYS/larder/class/+/{figure}"));
    world.say(watcher, &subscribe(false, 1, &filters, 0));
    // What is retained of them.
    world.received(watcher);
    world.pass(SYS_INTERVAL);
    // First those of "alarms", then those of "debug".
    assert_eq!(numbers(&world.messages(watcher)), [3, 2, 0, 0, 0, 4]);
    let link = world.connect(&reader());
    assert_eq!(numbers(&world.drain(link)), [0, 1, 2, 20, 21]);
}

/// Neither starves: who waits has its turn.
#[test]
fn the_last_class_has_its_share() {
    let (mut world, publisher) = with_classes(vec![class("alarms", "alarm/#")]);
    world.publish_all(publisher, "alarm/fire", 0..100);
    world.publish_all(publisher, "telemetry", 100..110);
    let link = world.connect(&reader());
    let messages = world.drain(link);
    assert_eq!(messages.len(), 110);
    let all = numbers(&messages);
    let first = all.iter().position(|number| *number == 100).unwrap();
    let share = 100 / usize::from(LANE_SHARE);
    // Up to a window and a page of the others may be under way already.
    assert!((share..=share + 8).contains(&first), "{all:?}");
    let before = all.iter().position(|number| *number == 99).unwrap();
    let telemetry = all[..before].iter().filter(|number| **number >= 100);
    assert!((4..=7).contains(&telemetry.count()), "{all:?}");
}

/// While all have something each gets its part of all that leaves, and the first class what is left.
#[test]
fn classes_have_the_shares_that_they_were_given() {
    let mut bulk = class("bulk", "bulk/#");
    bulk.policy.share = 30;
    let mut rule = rule(vec![class("alarms", "alarm/#"), bulk]);
    rule.policy = QueuePolicy {
        share: 20,
        ..plain()
    };
    let mut world = World::with_rules(limits(), vec![rule]);
    let link = world.connect(&reader());
    world.subscribe(link, "#", 1);
    world.lose(link);
    let publisher = world.connect(&Connect::v311("publisher"));
    world.publish_all(publisher, "alarm/fire", 0..300);
    world.publish_all(publisher, "bulk/x", 1000..1300);
    world.publish_all(publisher, "telemetry", 2000..2300);
    let link = world.connect(&reader());
    let messages = world.drain(link);
    assert_eq!(messages.len(), 900);
    let sent = |messages: &[Message]| {
        let sent = |lane| of_lane(messages, lane).len();
        [sent(1), sent(2), sent(0)]
    };
    // A window more or less, for a page takes a while to come.
    let within = |sent: [usize; 3], expected: [usize; 3]| {
        let mut pairs = sent.into_iter().zip(expected);
        assert!(
            pairs.all(|(sent, expected)| sent.abs_diff(expected) <= 8),
            "{sent:?} {expected:?}"
        );
    };
    within(sent(&messages[..200]), [100, 60, 40]);
    within(sent(&messages[..500]), [250, 150, 100]);
    // Then alarms are over, and the next class has what is left.
    let before = numbers(&messages).iter().position(|of| *of == 299).unwrap();
    let after = &messages[before + 1..before + 101];
    within(sent(after), [0, 80, 20]);
}

/// And the reserve of the disk is for the class that has it.
#[test]
fn a_reserve_of_the_disk_is_taken_by_nobody_else() {
    let mut alarms = class("alarms", "alarm/#");
    alarms.reserve = 50_000;
    let rules = vec![QueueRule {
        policy: plain(),
        ..rule(vec![alarms])
    }];
    let mut world = World::with_rules(limits(), rules);
    let link = world.connect(&reader());
    world.subscribe(link, "#", 1);
    world.lose(link);
    let publisher = world.connect(&Connect::v311("publisher"));
    let mut taken = 0;
    loop {
        world.say(publisher, &publish_1("telemetry", 1, &[b'x'; 991]));
        if world.received(publisher).is_empty() {
            break;
        }
        taken += 1;
    }
    assert!((40..=50).contains(&taken), "{taken}");
    // It waits for room, and is refused in the end.
    world.pass(limits().park_max);
    assert!(world.is_closed(publisher));
    let publisher = world.connect(&Connect::v311("publisher"));
    for number in 0..40 {
        world.publish(publisher, "alarm/fire", &[number; 990]);
    }
}

/// Packet Identifiers of the whole are in flight when the first class is configured: parts are not used before they are
/// settled.
#[test]
fn a_session_with_a_backlog_is_given_classes() {
    let mut world = World::with_rules(limits(), vec![rule(Vec::new())]);
    let link = world.connect(&reader());
    world.subscribe(link, "#", 1);
    world.lose(link);
    let publisher = world.connect(&Connect::v311("publisher"));
    world.publish_all(publisher, "alarm/fire", 0..10);
    let link = world.connect(&reader());
    let sent = world.messages(link);
    assert_eq!(numbers(&sent), (0..8).collect::<Vec<_>>());

    let mut world = world.crash_into_rules(vec![rule(vec![class("alarms", "alarm/#")])]);
    let publisher = world.connect(&Connect::v311("publisher"));
    world.publish_all(publisher, "telemetry", 100..102);
    world.publish_all(publisher, "alarm/fire", 10..12);
    let link = world.connect(&reader());
    let again = world.messages(link);
    let ids = |messages: &[Message]| messages.iter().map(|of| of.packet_id).collect::<Vec<_>>();
    assert_eq!(ids(&again), ids(&sent));
    assert!(again.iter().all(|message| message.dup));
    world.acknowledge(link, &again);
    let mut rest = Vec::new();
    for _ in 0..4 {
        rest.extend(world.drain(link));
        world.pass(Duration::from_secs(2));
    }
    assert_eq!(of_lane(&rest, 0), [8, 9, 100, 101]);
    assert_eq!(of_lane(&rest, 1), [10, 11]);

    // From then on they are parts.
    publish_live(&mut world, publisher, link);
    let mut world = world.crash();
    let publisher = world.connect(&Connect::v311("publisher"));
    let link = world.connect(&reader());
    world.drain(link);
    publish_live(&mut world, publisher, link);
}

fn publish_live(world: &mut World, publisher: LinkId, link: LinkId) {
    for (topic, lane) in [("alarm/x", 1), ("telemetry", 0)] {
        world.say(publisher, &publish_1(topic, 1, b"7"));
        assert_eq!(of_lane(&world.drain(link), lane), [7]);
    }
    world.pass(Duration::from_secs(2));
    world.received(publisher);
    assert_eq!(world.gauges().queued_messages, 0);
}

/// It is delivered from, and then forgotten.
#[test]
fn a_class_that_is_configured_no_more_is_drained() {
    let classes = || vec![class("a", "a/#"), class("b", "b/#")];
    let (mut world, publisher) = with_classes(classes());
    world.publish_all(publisher, "a/x", 0..3);
    world.publish_all(publisher, "b/x", 10..13);
    world.publish_all(publisher, "c", 20..23);
    let mut world = world.crash_into_rules(vec![rule(vec![class("b", "b/#")])]);
    let publisher = world.connect(&Connect::v311("publisher"));
    world.publish_all(publisher, "a/x", 3..4);
    let link = world.connect(&reader());
    let messages = world.drain(link);
    assert_eq!(of_lane(&messages, 1), [0, 1, 2]);
    assert_eq!(of_lane(&messages, 2), [10, 11, 12]);
    assert_eq!(of_lane(&messages, 0), [20, 21, 22, 3]);
    world.pass(Duration::from_secs(2));

    let mut world = world.crash_into_rules(vec![rule(Vec::new())]);
    assert_eq!(world.drops_of("reader").len(), 1);
    let publisher = world.connect(&Connect::v311("publisher"));
    world.publish_all(publisher, "b/x", 4..6);
    let link = world.connect(&reader());
    let messages = world.drain(link);
    assert_eq!(numbers(&messages), [4, 5]);
}

/// What a session with classes was owed goes with it.
#[test]
fn a_session_that_ends_takes_its_classes_along() {
    let (mut world, publisher) = with_classes(vec![class("alarms", "alarm/#")]);
    world.publish_all(publisher, "alarm/x", 0..5);
    world.publish_all(publisher, "telemetry", 5..9);
    let link = world.connect(&Connect::v311("reader"));
    world.lose(link);
    assert_eq!(world.gauges().queued_messages, 0);
    let mut world = world.crash();
    let link = world.connect(&reader());
    assert_eq!(world.drain(link), []);
}
