//! Retained messages: what is written, what a crash leaves, and what goes.

use crate::packets::{
    self, Connect, Message, message_expiry, puback, publish_0, publish_1, publish_v5, retained,
    subscribe,
};
use crate::world::World;
use larder::limits::{Limits, RETAINED_BYTES, RETAINED_SWEEP, RETAINED_WAIT};
use larder::net::LinkId;
use std::time::Duration;

pub(crate) const MANY: usize = 5000;
pub(crate) const FEW: Duration = Duration::from_secs(2);
const DAY: Duration = Duration::from_secs(86_400);

/// A world with so many retained messages of QoS 1, on disk: `t/NUMBER`, with the number for a payload.
pub(crate) fn with_retained(limits: Limits, count: usize) -> (World, LinkId) {
    let mut world = World::new(limits);
    let publisher = world.connect(&Connect::v311("publisher"));
    for number in 0..count {
        retain(&mut world, publisher, number, &number.to_string());
    }
    (world, publisher)
}

pub(crate) fn retain(world: &mut World, publisher: LinkId, number: usize, payload: &str) {
    let topic = format!("t/{number}");
    let publish = retained(publish_1(&topic, 1, payload.as_bytes()));
    world.say(publisher, &publish);
    assert_eq!(world.received(publisher), puback(1));
}

/// Sends a SUBSCRIBE for everything below `t`.
pub(crate) fn ask(world: &mut World, link: LinkId, qos: u8) {
    world.say(link, &subscribe(false, 9, &["t/#".to_owned()], qos));
}

/// The messages that came with a SUBACK or without, and how many bytes came before it.
pub(crate) fn answer(world: &mut World, link: LinkId) -> (Vec<Message>, Option<usize>) {
    let received = world.received(link);
    let (rest, before) = packets::without_suback(&received);
    (packets::messages(false, &rest), before)
}

/// Takes and acknowledges what comes until nothing does; says what of it came before the SUBACK.
pub(crate) fn take_all(world: &mut World, link: LinkId) -> (Vec<Message>, Option<usize>) {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let (messages, suback) = answer(world, link);
        if suback.is_some() {
            before = Some(all.len() + suback.unwrap_or_default());
        }
        if messages.is_empty() && suback.is_none() {
            return (all, before);
        }
        for message in messages.iter().filter(|message| message.packet_id > 0) {
            world.send(link, &puback(message.packet_id));
        }
        world.settle();
        all.extend(messages);
    }
}

/// All numbers came once, and as retained messages.
pub(crate) fn assert_all(messages: &[Message], count: usize) {
    assert!(messages.iter().all(|message| message.retain));
    let text = |message: &Message| String::from_utf8_lossy(&message.payload).into_owned();
    let mut numbers: Vec<usize> = messages
        .iter()
        .map(|message| text(message).parse().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..count).collect::<Vec<_>>());
}

#[test]
fn a_puback_of_a_retained_message_waits_for_the_disk_and_a_topic_is_written_once_in_a_batch() {
    let mut world = World::new(Limits::default());
    let publisher = world.connect(&Connect::v311("publisher"));
    // One batch that does not end, and behind it another.
    world.stall();
    world.say(publisher, &retained(publish_1("other", 1, b"x")));
    assert_eq!(world.received(publisher), []);
    for number in 0..50_u8 {
        world.say(
            publisher,
            &retained(publish_1("t", 2, &[b'a' + number % 20])),
        );
    }
    world.say(publisher, &retained(publish_1("t", 2, b"last")));
    assert_eq!(world.received(publisher), []);
    world.unstall();
    assert_eq!(world.received(publisher).len(), 52 * puback(1).len());
    assert_eq!(world.flash().retained, 2);

    let mut world = world.crash();
    assert_eq!(world.gauges().retained_messages, 2);
    let link = world.connect(&Connect::v311("reader"));
    world.say(link, &subscribe(false, 9, &["t".to_owned()], 0));
    assert_eq!(answer(&mut world, link).0[0].payload, b"last");
}

#[test]
fn what_was_removed_stays_removed_and_a_second_removal_rests_on_the_first() {
    let (mut world, publisher) = with_retained(Limits::default(), 1);
    let other = world.connect(&Connect::v311("other"));
    world.stall();
    world.say(publisher, &retained(publish_1("t/0", 1, b"")));
    assert_eq!(world.gauges().retained_messages, 0);
    world.say(other, &retained(publish_1("t/0", 1, b"")));
    assert_eq!(world.received(other), [], "a crash would bring it back");
    world.unstall();
    assert_eq!(world.received(publisher), puback(1));
    assert_eq!(world.received(other), puback(1));
    assert_eq!(world.crash().gauges().retained_messages, 0);
}

#[test]
fn at_qos_0_a_topic_is_written_at_once_and_then_once_a_minute() {
    let mut world = World::new(Limits::default());
    let publisher = world.connect(&Connect::v311("publisher"));
    let say = |world: &mut World, payload: &[u8]| {
        world.say(publisher, &retained(publish_0("t/0", payload)));
        world.pass(FEW);
    };
    say(&mut world, b"1");
    assert_eq!(world.flash().retained, 1);
    for _ in 0..10 {
        say(&mut world, b"2");
    }
    assert_eq!(world.flash().retained, 1);
    world.pass(RETAINED_WAIT);
    assert_eq!(world.flash().retained, 2);
    // It rests for a minute: then it is written at once again. Its removal waits like any other change.
    world.pass(RETAINED_WAIT);
    say(&mut world, b"3");
    say(&mut world, b"");
    assert_eq!(world.flash().retained, 3);
    assert_eq!(world.gauges().retained_messages, 0);
    world.pass(RETAINED_WAIT);
    assert_eq!(world.flash().retained, 4);
    world.pass(RETAINED_WAIT);
    assert_eq!(world.gauges().retained_bytes, 0);
    assert_eq!(world.crash().gauges().retained_messages, 0);
}

#[test]
fn the_end_of_the_program_writes_what_a_crash_loses_of_qos_0() {
    let publish = |world: &mut World, payload: &[u8]| {
        let publisher = world.connect(&Connect::v311("publisher"));
        world.say(publisher, &retained(publish_0("t/0", payload)));
        world.pass(FEW);
    };
    let found = |world: &mut World| {
        let link = world.connect(&Connect::v311("reader"));
        ask(world, link, 0);
        answer(world, link).0[0].payload.clone()
    };
    let mut world = World::new(Limits::default());
    publish(&mut world, b"1");
    publish(&mut world, b"2");
    let mut world = world.crash();
    assert_eq!(found(&mut world), b"1");
    publish(&mut world, b"3");
    publish(&mut world, b"4");
    let mut world = world.restart();
    assert_eq!(found(&mut world), b"4");
}

#[test]
fn what_has_expired_is_removed_from_memory_and_from_disk() {
    let mut world = World::new(Limits::default());
    let publisher = world.connect(&Connect::v5("publisher"));
    for (topic, expiry) in [("t/0", 5 * FEW), ("t/1", 500 * FEW)] {
        let publish = retained(publish_v5(topic, 1, &message_expiry(expiry), b"0"));
        world.say(publisher, &publish);
    }
    assert_eq!(world.gauges().retained_messages, 2);
    world.pass(5 * FEW + RETAINED_SWEEP);
    assert_eq!(world.gauges().retained_messages, 1);
    world.pass(FEW);
    let mut world = world.crash();
    assert_eq!(world.gauges().retained_messages, 1);
    world.pass(500 * FEW + RETAINED_WAIT);
    assert_eq!(world.gauges().retained_messages, 0);
    assert_eq!(world.gauges().retained_bytes, 0);
    // Nothing is left to be looked for.
    let written = world.flash().retained;
    world.pass(DAY);
    assert_eq!(world.flash().retained, written);
    assert_eq!(world.crash().gauges().retained_messages, 0);
}

#[test]
fn what_there_is_no_room_for_after_a_start_stays_on_disk_until_it_is_removed() {
    let (world, _) = with_retained(Limits::default(), 10);
    let mut world = world.crash_into(Limits {
        retained_pool_bytes: 5 * (RETAINED_BYTES + 11),
        ..Limits::default()
    });
    assert_eq!(world.gauges().retained_messages, 5);
    let publisher = world.connect(&Connect::v311("publisher"));
    for number in 0..10 {
        retain(&mut world, publisher, number, "");
    }
    assert_eq!(
        world
            .crash_into(Limits::default())
            .gauges()
            .retained_messages,
        0
    );
}

#[test]
fn a_client_of_3_1_1_whose_message_cannot_be_retained_keeps_it() {
    let mut world = World::new(Limits {
        retained_pool_bytes: RETAINED_BYTES + 11,
        ..Limits::default()
    });
    let publisher = world.connect(&Connect::v311("publisher"));
    let watcher = world.connect(&Connect::v311("watcher"));
    world.subscribe(watcher, "t/#", 0);
    retain(&mut world, publisher, 0, "0");
    world.say(publisher, &retained(publish_1("t/1", 1, b"1")));
    assert!(world.is_closed(publisher));
    assert_eq!(world.messages(watcher).len(), 1);

    // At QoS 0 nobody can be told: it is delivered, and what is out of date is not kept.
    let publisher = world.connect(&Connect::v311("publisher"));
    world.say(publisher, &retained(publish_0("t/0", &[b'1'; 100])));
    assert_eq!(world.messages(watcher).len(), 1);
    assert_eq!(world.gauges().retained_messages, 0);
    assert_eq!(world.counters().not_retained, 1);
}

/// What a topic may retain after a crash: what was acknowledged last, or anything that came after it.
#[derive(Clone, Default)]
struct Topic {
    now: Option<Vec<u8>>,
    possible: Vec<Option<Vec<u8>>>,
    /// Where the last one of QoS 1 stands that is not acknowledged.
    waits: Option<usize>,
}

impl Topic {
    /// All that was sent has been acknowledged.
    fn acknowledged(&mut self) {
        if let Some(last) = self.waits.take() {
            self.possible.drain(..last);
        }
    }
}

/// Numbers from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ (mixed >> 27)) % most
    }
}

fn found(world: &mut World, topics: usize) -> Vec<Option<Vec<u8>>> {
    let link = world.connect(&Connect::v311("finder"));
    let mut found = Vec::new();
    for topic in 0..topics {
        world.say(link, &subscribe(false, 9, &[format!("t/{topic}")], 0));
        let (messages, _) = answer(world, link);
        assert!(messages.len() <= 1);
        found.push(messages.into_iter().next().map(|message| message.payload));
    }
    world.lose(link);
    found
}

#[test]
fn whatever_happens_a_topic_retains_what_was_acknowledged_last_or_something_later() {
    const TOPICS: usize = 3;
    for seed in 0..200 {
        let mut dice = Dice(seed);
        let mut world = World::new(Limits::default());
        let mut publisher = world.connect(&Connect::v311("publisher"));
        let mut topics = vec![Topic::default(); TOPICS];
        topics
            .iter_mut()
            .for_each(|topic| topic.possible.push(None));
        for step in 0..100 {
            match dice.below(10) {
                0..=5 => {
                    let number = dice.below(TOPICS as u64) as usize;
                    let name = format!("t/{number}");
                    let is_removal = dice.below(4) == 0;
                    // Some are large.
                    let width = 2000 * dice.below(2) as usize;
                    let payload = (!is_removal).then(|| format!("{step:<width$}").into_bytes());
                    let bytes = payload.clone().unwrap_or_default();
                    let topic = &mut topics[number];
                    topic.now.clone_from(&payload);
                    topic.possible.push(payload.clone());
                    if dice.below(2) == 0 {
                        world.say(publisher, &retained(publish_0(&name, &bytes)));
                    } else {
                        topic.waits = Some(topic.possible.len() - 1);
                        world.say(publisher, &retained(publish_1(&name, 1, &bytes)));
                        if world.received(publisher) == puback(1) {
                            topics[number].acknowledged();
                        }
                    }
                }
                6 => world.stall(),
                7 => {
                    world.unstall();
                    world.received(publisher);
                    topics.iter_mut().for_each(Topic::acknowledged);
                }
                8 => world.pass(Duration::from_secs(dice.below(90))),
                _ => {
                    world = if dice.below(3) == 0 {
                        world.unstall();
                        topics.iter_mut().for_each(|topic| {
                            topic.possible = vec![topic.now.clone()];
                        });
                        world.restart()
                    } else {
                        world.crash()
                    };
                    for (number, found) in found(&mut world, TOPICS).into_iter().enumerate() {
                        let topic = &mut topics[number];
                        let possible = &topic.possible;
                        assert!(
                            possible.contains(&found),
                            "seed {seed}, step {step}, t/{number}: {found:?} of {possible:?}"
                        );
                        *topic = Topic {
                            possible: vec![found.clone()],
                            now: found,
                            waits: None,
                        };
                    }
                    publisher = world.connect(&Connect::v311("publisher"));
                }
            }
            let now: Vec<_> = topics.iter().map(|topic| topic.now.clone()).collect();
            if step % 10 == 0 {
                assert_eq!(found(&mut world, TOPICS), now, "seed {seed}, step {step}");
            }
        }
    }
}

#[test]
fn a_client_of_5_0_is_told_that_there_is_no_room() {
    let mut world = World::new(Limits {
        retained_pool_bytes: RETAINED_BYTES + 11,
        ..Limits::default()
    });
    let publisher = world.connect(&Connect::v5("publisher"));
    world.say(publisher, &retained(publish_v5("t/0", 1, &[], b"0")));
    // No matching subscribers.
    assert_eq!(world.received(publisher), [0x40, 3, 0, 1, 0x10]);
    world.say(publisher, &retained(publish_v5("t/1", 1, &[], b"1")));
    let refusal = world.received(publisher);
    assert_eq!((refusal[0], refusal[4]), (0x40, 0x97));
    assert_eq!(world.gauges().retained_messages, 1);
}
