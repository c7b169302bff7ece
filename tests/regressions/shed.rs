//! Too much of anything is shed by a rule, and counted; beside it a client goes on that notices nothing.

use crate::packets::{
    self, CONNACK, Connect, announce, puback, publish_0, publish_1, retained, subscribe,
};
use crate::world::World;
use larder::limits::{
    CONNECT_WAIT, Limits, PACKET_WAIT, RETAINED_BYTES, SESSION_TRANSIENT_MESSAGES, STUCK_WAIT,
};
use larder::net::LinkId;
use std::time::Duration;

/// A client that talks to itself.
struct Normal(LinkId);

impl Normal {
    fn new(world: &mut World) -> Normal {
        let link = world.connect(&Connect::v311("normal"));
        world.subscribe(link, "normal", 1);
        Normal(link)
    }

    /// It is served as ever.
    fn goes_on(&self, world: &mut World) {
        world.say(self.0, &publish_1("normal", 9, b"x"));
        let received = world.received(self.0);
        let echo = publish_1("normal", 0, b"x").len();
        assert_eq!(received.len(), echo + puback(9).len(), "{received:02x?}");
        let echoed = received.iter().position(|byte| *byte == 0x32).unwrap();
        let id = u16::from_be_bytes([received[echoed + 10], received[echoed + 11]]);
        world.say(self.0, &puback(id));
    }
}

#[test]
fn a_slow_reader_loses_what_does_not_fit_and_is_closed_when_it_reads_nothing() {
    let mut world = World::new(Limits::default());
    let normal = Normal::new(&mut world);
    let reader = world.connect(&Connect::v311("reader"));
    world.subscribe(reader, "flood", 0);
    world.read_only(reader, 0);
    let publisher = world.connect(&Connect::v311("publisher"));
    // The outbox, and then the places in memory.
    for _ in 0..2 * SESSION_TRANSIENT_MESSAGES {
        world.say(publisher, &publish_0("flood", &[b'x'; 100]));
    }
    let dropped = world.counters().drops.overflow;
    assert!(
        (1..SESSION_TRANSIENT_MESSAGES as u64).contains(&dropped),
        "{dropped}"
    );
    normal.goes_on(&mut world);
    world.pass(STUCK_WAIT);
    assert!(world.is_closed(reader));
    assert_eq!(world.counters().links_stuck, 1);
    normal.goes_on(&mut world);
}

#[test]
fn new_clients_above_the_number_of_sessions_are_refused_and_old_ones_are_not() {
    let mut world = World::new(Limits {
        sessions: 3,
        ..Limits::default()
    });
    let normal = Normal::new(&mut world);
    let stored = Connect::v311("stored").unclean();
    let link = world.connect(&stored);
    world.lose(link);
    world.connect(&Connect::v311("third"));
    for _ in 0..100 {
        let link = world.open_with(&Connect::v311("new"));
        world.settle();
        // Server unavailable.
        assert_eq!(world.received(link), [0x20, 2, 0, 3]);
        assert!(world.is_closed(link));
        let link = world.open_with(&Connect::v5("new"));
        world.settle();
        let refusal = world.received(link);
        assert_eq!((refusal[0], refusal[3]), (0x20, 0x97));
        assert!(world.is_closed(link));
    }
    assert_eq!(world.counters().connects_shed, 200);
    let link = world.open_with(&stored);
    world.settle();
    assert_eq!(world.received(link), packets::CONNACK_PRESENT);
    normal.goes_on(&mut world);
}

#[test]
fn strangers_that_say_nothing_are_closed() {
    let mut world = World::new(Limits::default());
    let normal = Normal::new(&mut world);
    let strangers: Vec<_> = (0..900).map(|_| world.open()).collect();
    world.pass(CONNECT_WAIT);
    assert!(strangers.iter().all(|link| world.is_closed(*link)));
    assert_eq!(world.counters().links_late, 900);
    normal.goes_on(&mut world);
    let link = world.open_with(&Connect::v311("new"));
    world.settle();
    assert_eq!(world.received(link), CONNACK);
}

#[test]
fn subscriptions_without_end_are_refused_one_by_one() {
    let mut world = World::new(Limits {
        subscription_pool_bytes: 64 * 1024,
        ..Limits::default()
    });
    let normal = Normal::new(&mut world);
    let greedy = world.connect(&Connect::v5("greedy"));
    for number in 0..1000 {
        world.say(greedy, &subscribe(true, 1, &[format!("t/{number}")], 1));
    }
    let granted = world.gauges().subscriptions - 1;
    let shed = world.counters().subscriptions_shed;
    assert!(
        granted > 50 && granted + shed == 1000,
        "{granted} granted, {shed} shed"
    );
    // Those that were granted are there still, and may be made again.
    world.received(greedy);
    world.say(greedy, &subscribe(true, 1, &["t/0".to_owned()], 0));
    assert_eq!(world.received(greedy), [0x90, 4, 0, 1, 0, 0]);
    normal.goes_on(&mut world);
}

#[test]
fn retained_topics_without_end_are_refused_or_not_retained() {
    let mut world = World::new(Limits {
        retained_pool_bytes: 100 * (RETAINED_BYTES + 20),
        ..Limits::default()
    });
    let normal = Normal::new(&mut world);
    let greedy = world.connect(&Connect::v311("greedy"));
    for number in 0..300 {
        let publish = publish_0(&format!("t/{number}"), b"x");
        world.say(greedy, &retained(publish));
    }
    assert!(world.gauges().retained_messages >= 100);
    assert!(world.counters().not_retained >= 100);
    world.say(greedy, &retained(publish_1("one/more", 1, b"x")));
    assert!(world.is_closed(greedy));
    assert_eq!(world.counters().refused, 1);
    normal.goes_on(&mut world);
}

#[test]
fn large_packets_that_never_become_whole_are_closed_or_given_up() {
    let mut world = World::new(Limits::default());
    let normal = Normal::new(&mut world);
    let ids: Vec<&'static str> = (0..40).map(|n| &*format!("large-{n}").leak()).collect();
    let greedy: Vec<_> = ids
        .iter()
        .map(|id| world.connect(&Connect::v311(id)))
        .collect();
    for link in &greedy {
        world.say(*link, &announce(0x30, 200_000));
    }
    let shed = world.counters().links_shed;
    assert_eq!(shed, 40 - 12, "three quarters of the pool hold twelve");
    normal.goes_on(&mut world);
    world.pass(PACKET_WAIT + Duration::from_secs(201));
    assert_eq!(world.counters().links_late, 12);
    assert!(greedy.iter().all(|link| world.is_closed(*link)));
    assert_eq!(world.gauges().buffers_lent, 0);
    normal.goes_on(&mut world);
}
