//! Memory is a number, and who wants too much of it is the only one to notice.

use crate::packets::{
    self, CONNACK, Connect, PINGREQ, PINGRESP, announce, puback, publish_0, publish_1, subscribe,
};
use crate::world::World;
use larder::limits::{
    BUFFER_MIN_BYTES, CONNECT_BYTES, LINK_OTHER_ACKS, LINK_OUTBOX_BYTES, Limits, PACKET_WAIT,
    SCARCE_WAIT, SUBSCRIBE_FILTERS, TRANSIENT_BYTES,
};
use larder::net::LinkId;
use std::time::Duration;

/// A pool of four of the smallest buffers, and four clients that have begun a packet: it is used up.
fn without_buffers() -> (World, Vec<LinkId>) {
    let mut world = World::new(Limits {
        buffer_pool_bytes: 4 * BUFFER_MIN_BYTES,
        ..Limits::default()
    });
    let holders = ["h1", "h2", "h3", "h4"].map(|id| world.connect(&Connect::v311(id)));
    (world, holders.to_vec())
}

fn use_up(world: &mut World, holders: &[LinkId]) {
    for holder in holders {
        world.say(*holder, &announce(0x30, 100));
    }
    assert_eq!(world.gauges().buffers_lent, 4 * BUFFER_MIN_BYTES as u64);
}

#[test]
fn a_connect_of_a_quarter_of_a_megabyte_is_not_waited_for() {
    let mut world = World::new(Limits::default());
    let strangers: Vec<_> = (0..16).map(|_| world.open()).collect();
    for stranger in &strangers {
        world.say(*stranger, &announce(0x10, 262_128));
    }
    assert!(strangers.iter().all(|stranger| world.is_closed(*stranger)));
    assert_eq!(world.gauges().buffers_lent, 0);
}

#[test]
fn strangers_that_begin_a_connect_leave_room_for_everybody_else() {
    let mut world = World::new(Limits::default());
    let good = world.connect(&Connect::v311("good"));
    for _ in 0..900 {
        let stranger = world.open();
        world.say(stranger, &announce(0x10, CONNECT_BYTES - 4));
    }
    // Three quarters of the pool are lent, and no more for packets of this size.
    assert_eq!(world.gauges().buffers_lent, 3 << 20);

    let packet = publish_1("t", 1, b"x");
    world.say(good, &packet[..3]);
    world.say(good, &packet[3..]);
    assert_eq!(world.received(good), puback(1));
    let newcomer = world.open_with(&Connect::v311("new"));
    world.settle();
    assert_eq!(world.received(newcomer), CONNACK);
}

#[test]
fn large_packets_that_were_only_begun_leave_room_for_small_ones_and_are_given_up_in_time() {
    let mut world = World::new(Limits::default());
    let good = world.connect(&Connect::v311("good"));
    let ids = [
        "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12",
    ];
    let greedy = ids.map(|id| world.connect(&Connect::v311(id)));
    let whole = announce(0x30, 200_000).len() + 200_000;
    for link in greedy {
        world.say(link, &announce(0x30, 200_000));
    }
    assert_eq!(world.gauges().buffers_lent, 12 * 256 * 1024);
    world.say(good, &PINGREQ);
    assert_eq!(world.received(good), PINGRESP);
    world.say(good, &PINGREQ[..1]);
    assert!(!world.is_closed(good));
    world.say(good, &PINGREQ[1..]);
    assert_eq!(world.received(good), PINGRESP);

    let deadline = PACKET_WAIT + Duration::from_millis(whole as u64);
    world.pass(deadline - Duration::from_millis(1));
    assert!(greedy.iter().all(|link| !world.is_closed(*link)));
    world.pass(Duration::from_millis(1));
    assert!(greedy.iter().all(|link| world.is_closed(*link)));
    assert_eq!(world.gauges().buffers_lent, 0);
    assert!(!world.is_closed(good));
}

#[test]
fn what_waited_for_memory_leaves_as_soon_as_there_is_some() {
    let (mut world, holders) = without_buffers();
    let subscriber = world.connect(&Connect::v311("subscriber"));
    world.subscribe(subscriber, "t", 0);
    let publisher = world.connect(&Connect::v311("publisher"));
    use_up(&mut world, &holders);

    world.say(publisher, &publish_0("t", b"x"));
    world.say(publisher, &publish_1("nobody", 1, b"x"));
    world.say(subscriber, &PINGREQ);
    assert_eq!(world.received(subscriber), []);
    assert_eq!(world.received(publisher), []);
    assert_eq!(world.counters().acknowledged, 0);

    for holder in holders {
        world.lose(holder);
    }
    let mut received = world.received(subscriber);
    received.sort_unstable();
    let mut due = [&publish_0("t", b"x")[..], &PINGRESP].concat();
    due.sort_unstable();
    assert_eq!(received, due);
    assert_eq!(world.received(publisher), puback(1));
    assert_eq!(world.counters().acknowledged, 1);
    assert_eq!(world.gauges().buffers_lent, 0);
}

/// Nine hundred peers that never read once kept everybody from being answered for two minutes.
#[test]
fn who_holds_memory_and_takes_or_completes_nothing_is_closed_when_others_wait_for_it() {
    let (mut world, holders) = without_buffers();
    let publisher = world.connect(&Connect::v311("publisher"));
    for holder in &holders[..2] {
        world.subscribe(*holder, "t", 0);
        world.read_only(*holder, 0);
    }
    world.say(publisher, &publish_0("t", b"x"));
    for holder in &holders[2..] {
        world.say(*holder, &announce(0x30, 100));
    }
    assert_eq!(
        world.gauges().buffers_lent,
        4 * BUFFER_MIN_BYTES as u64,
        "two wait to be read, and two to be completed"
    );
    world.pass(10 * SCARCE_WAIT);
    assert!(
        !world.is_closed(holders[0]),
        "nobody waits for what it holds"
    );

    world.say(publisher, &publish_1("nobody", 1, b"x"));
    assert_eq!(world.received(publisher), []);
    world.pass(SCARCE_WAIT + Duration::from_millis(1));
    assert_eq!(world.received(publisher), puback(1));
    let closed = holders.iter().filter(|holder| world.is_closed(**holder));
    assert_eq!(closed.count(), 1, "no more than it needs");
    assert_eq!(world.counters().links_shed, 1);
}

/// [MQTT-3.2.0-1]
#[test]
fn nothing_leaves_before_a_connack_that_waits_for_memory() {
    let (mut world, holders) = without_buffers();
    use_up(&mut world, &holders);
    let link = world.open_with(&Connect::v311("c"));
    world.settle();
    world.say(link, &PINGREQ);
    world.say(link, &publish_1("nobody", 1, b"x"));
    assert_eq!(world.received(link), []);
    assert_eq!(world.counters().publish_received, 0);

    world.lose(holders[0]);
    let due = [&CONNACK[..], &PINGRESP, &puback(1)].concat();
    assert_eq!(world.received(link), due);
}

#[test]
fn a_message_that_waits_in_memory_costs_what_it_takes_there_however_short_it_is() {
    let pool = 64 * 1024;
    let mut world = World::new(Limits {
        transient_pool_bytes: pool,
        ..Limits::default()
    });
    let subscriber = world.connect(&Connect::v311("subscriber"));
    world.subscribe(subscriber, "a", 0);
    world.read_only(subscriber, 0);
    let publisher = world.connect(&Connect::v311("publisher"));
    // This one fills the outbox.
    world.say(publisher, &publish_0("a", &[b'x'; LINK_OUTBOX_BYTES]));

    let fit = pool / (TRANSIENT_BYTES + "a".len());
    let flood = |world: &mut World| {
        for _ in 0..fit + 100 {
            world.say(publisher, &publish_0("a", b""));
        }
    };
    flood(&mut world);
    assert_eq!(world.counters().drops.overflow, 100);

    // Read, they give all of it back.
    world.read_only(subscriber, usize::MAX);
    assert_eq!(world.messages(subscriber).len(), 1 + fit);
    world.read_only(subscriber, 0);
    world.say(publisher, &publish_0("a", &[b'x'; LINK_OUTBOX_BYTES]));
    flood(&mut world);
    assert_eq!(world.counters().drops.overflow, 200);
}

fn filters(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("t/{number}")).collect()
}

#[test]
fn a_subscribe_of_more_filters_than_are_looked_at_ends_its_link() {
    let mut world = World::new(Limits::default());
    let too_many = filters(SUBSCRIBE_FILTERS + 1);
    let link = world.connect(&Connect::v311("old"));
    world.say(link, &subscribe(false, 1, &too_many, 1));
    assert!(world.is_closed(link));
    assert_eq!(world.received(link), []);

    let link = world.connect(&Connect::v5("new"));
    world.say(link, &subscribe(true, 1, &too_many, 1));
    assert!(world.is_closed(link));
    // Quota exceeded.
    assert_eq!(world.received(link), [0xE0, 1, 0x97]);
    assert_eq!(world.gauges().subscriptions, 0);
}

#[test]
fn a_subscribe_of_many_filters_is_answered_even_where_few_sessions_are_allowed() {
    for stored in [false, true] {
        let mut world = World::new(Limits {
            sessions: 10,
            links: 20,
            ..Limits::default()
        });
        let connect = Connect::v311("c");
        let link = world.connect(&if stored { connect.unclean() } else { connect });
        let many = filters(SUBSCRIBE_FILTERS);
        world.say(link, &subscribe(false, 1, &many, 1));
        let suback = [&announce(0x90, 2 + many.len())[..], &[0, 1]].concat();
        let granted = vec![1; many.len()];
        assert_eq!(world.received(link), [suback, granted].concat());
    }
}

#[test]
fn few_subacks_wait_for_a_stalled_disk_and_the_rest_stays_unread() {
    let mut world = World::new(Limits::default());
    let link = world.connect(&Connect::v311("c").unclean());
    world.stall();
    let count = 3 * LINK_OTHER_ACKS as u16;
    for packet_id in 1..=count {
        let filter = format!("t/{packet_id}");
        world.say(link, &subscribe(false, packet_id, &[filter], 1));
    }
    assert_eq!(world.gauges().subscriptions, LINK_OTHER_ACKS as u64);
    assert_eq!(world.received(link), []);

    world.unstall();
    let subacks: Vec<u8> = (1..=count)
        .flat_map(|packet_id| [0x90, 3, 0, packet_id as u8, 1])
        .collect();
    assert_eq!(world.received(link), subacks);
    assert_eq!(world.gauges().subscriptions, u64::from(count));
}

/// The most that a client may leave unacknowledged, and one SUBACK in front of them that waits for the disk.
#[test]
fn as_many_pubacks_wait_as_the_largest_receive_maximum_allows() {
    let mut world = World::new(Limits {
        receive_maximum: u16::MAX,
        ..Limits::default()
    });
    let link = world.connect(&Connect::v311("c").unclean());
    world.stall();
    world.say(link, &subscribe(false, 1, &filters(1), 1));
    for packet_id in 1..=u16::MAX {
        world.send(link, &publish_1("nobody", packet_id, b""));
    }
    world.settle();
    assert_eq!(world.counters().publish_received, u64::from(u16::MAX));
    assert_eq!(world.received(link), []);

    world.unstall();
    let pubacks = (1..=u16::MAX).flat_map(packets::puback);
    let due: Vec<u8> = [0x90, 3, 0, 1, 1].into_iter().chain(pubacks).collect();
    assert!(world.received(link) == due, "all of them, in their order");
}
