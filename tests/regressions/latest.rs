//! Queues that keep the latest message of every topic.

use crate::packets::{Connect, Message, numbers, puback, publish_1};
use crate::world::World;
use larder::broker::{QueueClass, QueuePolicy, QueueRule, WhenFull};
use larder::limits::Limits;
use larder::net::LinkId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const WINDOW: u16 = 8;

fn limits() -> Limits {
    Limits {
        window: WINDOW,
        ..Limits::default()
    }
}

fn keep_latest(messages_max: u64) -> QueuePolicy {
    QueuePolicy {
        messages_max,
        when_full: WhenFull::KeepLatest,
        ..QueuePolicy::drop_oldest(1 << 20)
    }
}

fn rule(policy: QueuePolicy) -> Vec<QueueRule> {
    vec![QueueRule {
        client_id: "reader".to_owned(),
        policy,
        classes: Vec::new(),
    }]
}

fn reader() -> Connect {
    Connect::v311("reader").unclean()
}

/// A world in which "reader" has subscribed to everything and is away; and a publisher.
fn with_rules(rules: Vec<QueueRule>) -> (World, LinkId) {
    let mut world = World::with_rules(limits(), rules);
    let link = world.connect(&reader());
    world.subscribe(link, "#", 1);
    world.lose(link);
    let publisher = world.connect(&Connect::v311("publisher"));
    (world, publisher)
}

fn number(message: &Message) -> u64 {
    String::from_utf8_lossy(&message.payload).parse().unwrap()
}

#[test]
fn the_latest_of_every_topic_stays() {
    let (mut world, publisher) = with_rules(rule(keep_latest(32)));
    for topic in 0..10 {
        world.publish_all(publisher, &format!("rare/{topic}"), topic..topic + 1);
    }
    world.publish_all(publisher, "often", 100..1000);
    assert!(world.gauges().queued_messages <= 33);
    let drops = world.counters().drops;
    assert_eq!(drops.queue_full, 0);
    assert_eq!(drops.superseded + world.gauges().queued_messages, 910);
    let told = world.drops_of("reader");
    assert_eq!(told[0].1.superseded, drops.superseded);

    let mut world = world.crash();
    let link = world.connect(&reader());
    let delivered = numbers(&world.drain(link));
    assert_eq!(delivered.len() as u64, 910 - drops.superseded);
    let rare: Vec<_> = delivered.iter().filter(|of| **of < 10).collect();
    assert_eq!(rare.len(), 10, "{delivered:?}");
    let often: Vec<_> = delivered.iter().filter(|of| **of >= 100).collect();
    assert!(
        often.is_sorted() && often.last() == Some(&&999),
        "{often:?}"
    );
    assert_eq!(world.gauges().queued_messages, 0);
    assert_eq!(world.gauges().queued_bytes, 0);
}

/// What the topics have does not fit: the oldest go, and as many at once as with any other policy.
#[test]
fn the_oldest_go_if_the_latest_of_all_topics_do_not_fit() {
    let (mut world, publisher) = with_rules(rule(keep_latest(32)));
    for topic in 0..100 {
        world.publish_all(publisher, &format!("{topic}"), topic..topic + 1);
        assert!(world.gauges().queued_messages <= 33);
    }
    let drops = world.counters().drops;
    assert_eq!(drops.superseded, 0);
    assert_eq!(drops.queue_full + world.gauges().queued_messages, 100);
    let link = world.connect(&reader());
    let delivered: BTreeSet<_> = numbers(&world.drain(link)).into_iter().collect();
    assert_eq!(delivered.len() as u64, 100 - drops.queue_full);
    assert!(
        (75..100).all(|number| delivered.contains(&number)),
        "{delivered:?}"
    );
}

/// Neither what is in flight is touched, nor what may have been before the start.
#[test]
fn what_may_have_been_sent_stays() {
    let (mut world, publisher) = with_rules(rule(keep_latest(32)));
    world.publish_all(publisher, "t", 0..20);
    let link = world.connect(&reader());
    let sent = numbers(&world.messages(link));
    assert_eq!(sent, (0..8).collect::<Vec<_>>());
    world.publish_all(publisher, "t", 20..100);
    let superseded = world.counters().drops.superseded;
    assert!(superseded > 60);
    let mut world = world.crash();
    let publisher = world.connect(&Connect::v311("publisher"));
    world.publish_all(publisher, "t", 100..200);
    let link = world.connect(&reader());
    let again = world.messages(link);
    assert_eq!(numbers(&again), sent);
    assert!(again.iter().all(|message| message.dup));
    world.acknowledge(link, &again);
    let rest = numbers(&world.drain(link));
    assert!(rest.is_sorted() && rest.last() == Some(&199), "{rest:?}");
    assert_eq!(world.gauges().queued_messages, 0);
}

/// A queue that had another policy, or a version that did not remember topics: what it holds is not known by its topic.
#[test]
fn a_queue_that_did_not_keep_the_latest_begins_to() {
    let (mut world, publisher) = with_rules(rule(QueuePolicy::drop_oldest(1 << 20)));
    world.publish_all(publisher, "t", 0..30);
    world.publish_all(publisher, "u", 30..31);
    let mut world = world.crash_into_rules(rule(keep_latest(64)));
    let publisher = world.connect(&Connect::v311("publisher"));
    world.publish_all(publisher, "v", 31..35);
    world.publish_all(publisher, "t", 35..100);
    let drops = world.counters().drops;
    assert_eq!(drops.queue_full, 0);
    assert!(drops.superseded > 30);
    let link = world.connect(&reader());
    let delivered = numbers(&world.drain(link));
    assert_eq!(delivered.len() as u64, 100 - drops.superseded);
    let others: Vec<_> = delivered
        .iter()
        .filter(|of| (30..35).contains(*of))
        .collect();
    assert_eq!(others, [&30, &34]);
    assert_eq!(world.gauges().queued_messages, 0);
}

#[test]
fn a_class_keeps_the_latest_by_itself() {
    let state = QueueClass {
        name: "state".to_owned(),
        filters: vec!["state/#".to_owned()],
        policy: keep_latest(20),
        reserve: 0,
    };
    let rules = vec![QueueRule {
        classes: vec![state],
        ..rule(QueuePolicy::drop_oldest(1 << 20)).remove(0)
    }];
    let (mut world, publisher) = with_rules(rules);
    world.publish_all(publisher, "event", 0..40);
    for round in 0..20 {
        for topic in 0..10 {
            let number = 1000 + round * 10 + topic;
            world.publish_all(publisher, &format!("state/{topic}"), number..number + 1);
        }
    }
    let [(None, own), (Some("state"), state)] = world.drops_of("reader")[..] else {
        panic!()
    };
    assert_eq!((own.sum(), state.queue_full), (0, 0));
    let link = world.connect(&reader());
    let delivered = numbers(&world.drain(link));
    assert_eq!(delivered.len() as u64, 240 - state.superseded);
    assert!(
        (0..40)
            .chain(1190..1200)
            .all(|number| delivered.contains(&number))
    );
}

/// A random life: bursts, links that break, crashes, a disk that stalls.
struct Life {
    random: u64,
    world: Option<World>,
    publisher: LinkId,
    reader: Option<LinkId>,
    published: BTreeMap<u64, String>,
    /// Whether a number was delivered, acknowledged or not.
    delivered: BTreeSet<u64>,
    /// Of each topic the last number that was delivered for the first time.
    last: BTreeMap<String, u64>,
    dropped: u64,
    unacknowledged: Vec<Message>,
    /// Acknowledgements are recorded before a crash. One that is not may bring back a message that is then superseded.
    is_quiet: bool,
}

const TOPICS: u64 = 12;
/// With what is in flight they fit into fifteen sixteenths.
const MESSAGES_MAX: u64 = 32;

impl Life {
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    fn world(&mut self) -> &mut World {
        self.world.as_mut().unwrap()
    }

    fn burst(&mut self) {
        let count = 1 + self.below(40);
        let mut bytes = Vec::new();
        for id in 1..=count {
            let number = self.published.len() as u64;
            // Some topics are rare.
            let topic = format!("t/{}", self.below(TOPICS) * self.below(TOPICS) / TOPICS);
            bytes.extend(publish_1(&topic, id as u16, number.to_string().as_bytes()));
            self.published.insert(number, topic);
        }
        let publisher = self.publisher;
        match self.below(3) {
            0 => {
                let world = self.world();
                world.stall();
                world.say(publisher, &bytes);
                world.commit_one();
                world.unstall();
            }
            _ => self.world().say(publisher, &bytes),
        }
        // What is on its way to the reader waits so long for it.
        self.world().pass(limits().settle_wait);
        let acknowledged = self.world().received(publisher);
        assert_eq!(acknowledged.len() as u64, 4 * count);
    }

    fn read(&mut self) {
        let reader = match self.reader {
            Some(reader) => reader,
            None => {
                self.unacknowledged.clear();
                let link = self.world().connect(&reader());
                self.reader = Some(link);
                link
            }
        };
        for _ in 0..self.below(8) {
            let messages = self.world().messages(reader);
            for message in &messages {
                let (number, topic) = (number(message), message.topic.clone());
                assert_eq!(self.published[&number], topic);
                if self.delivered.insert(number) {
                    let last = self.last.insert(topic, number);
                    assert!(
                        last.is_none_or(|last| last < number),
                        "{number} behind {last:?}"
                    );
                }
            }
            self.unacknowledged.extend(messages);
            let count = self.below(1 + self.unacknowledged.len() as u64) as usize;
            for message in self.unacknowledged.drain(..count).collect::<Vec<_>>() {
                self.world().say(reader, &puback(message.packet_id));
            }
        }
    }

    fn crash(&mut self) {
        if self.is_quiet {
            self.world().pass(Duration::from_secs(2));
        }
        let world = self.world.take().unwrap();
        self.dropped += drops(&world);
        let mut world = world.crash();
        self.publisher = world.connect(&Connect::v311("publisher"));
        self.reader = None;
        self.world = Some(world);
    }

    fn step(&mut self) {
        match self.below(12) {
            0..=4 => self.burst(),
            5..=7 => self.read(),
            8 | 9 => {
                if let Some(reader) = self.reader.take() {
                    self.world().lose(reader);
                }
            }
            10 => self.crash(),
            _ => self.world().pass(Duration::from_secs(2)),
        }
    }

    fn end(mut self) {
        if self.reader.is_none() {
            self.read();
        }
        for _ in 0..100 {
            self.read();
        }
        let reader = self.reader.unwrap();
        let rest = std::mem::take(&mut self.unacknowledged);
        self.world().acknowledge(reader, &rest);
        let mut latest: BTreeMap<&String, u64> = BTreeMap::new();
        for (number, topic) in &self.published {
            latest.insert(topic, *number);
        }
        for (topic, number) in latest {
            assert!(
                self.delivered.contains(&number),
                "{number} on {topic} is lost"
            );
        }
        let world = self.world.unwrap();
        assert_eq!(world.gauges().queued_messages, 0);
        assert_eq!(world.gauges().queued_bytes, 0);
        let dropped = self.dropped + drops(&world);
        let counted = self.delivered.len() as u64 + dropped;
        let published = self.published.len() as u64;
        assert!(counted >= published, "{counted} of {published}");
        assert!(
            counted == published || !self.is_quiet,
            "{counted} of {published}"
        );
    }
}

/// Only what is superseded may go.
fn drops(world: &World) -> u64 {
    let drops = world.counters().drops;
    assert_eq!(drops.sum(), drops.superseded, "{drops:?}");
    drops.superseded
}

#[test]
fn the_latest_stays_and_topics_keep_their_order_whatever_happens() {
    for seed in 1..=200 {
        let (world, publisher) = with_rules(rule(keep_latest(MESSAGES_MAX)));
        let mut life = Life {
            random: 0x9e37_79b9_7f4a_7c15 ^ (seed << 40),
            world: Some(world),
            publisher,
            reader: None,
            published: BTreeMap::new(),
            delivered: BTreeSet::new(),
            last: BTreeMap::new(),
            dropped: 0,
            unacknowledged: Vec::new(),
            is_quiet: seed % 2 == 0,
        };
        for _ in 0..60 {
            life.step();
        }
        life.end();
    }
}
