//! How long a link may be silent, stuck or busy.

use crate::packets::{CONNACK, Connect, PINGREQ, PINGRESP, publish_0, publish_1};
use crate::world::World;
use larder::limits::{LINK_PACKETS, Limits, STUCK_WAIT};
use larder::net::LinkId;
use std::time::Duration;

const MILLISECOND: Duration = Duration::from_millis(1);

/// A subscriber that took nothing of a message of 200,000 bytes.
fn stopped_reader(connect: &Connect) -> (World, LinkId) {
    let mut world = World::new(Limits::default());
    let reader = world.connect(connect);
    world.subscribe(reader, "t", 0);
    world.read_only(reader, 0);
    let publisher = world.connect(&Connect::v311("publisher"));
    world.say(publisher, &publish_0("t", &vec![b'x'; 200_000]));
    assert_eq!(world.gauges().buffers_lent, 256 * 1024);
    (world, reader)
}

/// Asserts that the server closes a link exactly after so long a time, and not earlier.
fn assert_closes_after(world: &mut World, link: LinkId, time: Duration) {
    world.pass(time - MILLISECOND);
    assert!(!world.is_closed(link), "before {time:?}");
    world.pass(MILLISECOND);
    assert!(world.is_closed(link), "after {time:?}");
    assert_eq!(world.gauges().buffers_lent, 0);
}

/// [MQTT-3.1.2-22]
#[test]
fn a_reader_that_stopped_is_closed_by_its_keep_alive() {
    let (mut world, reader) = stopped_reader(&Connect::v311("reader").keep_alive(10));
    assert_closes_after(&mut world, reader, Duration::from_secs(15));
}

#[test]
fn a_reader_that_stopped_is_closed_without_a_keep_alive_too() {
    let (mut world, reader) = stopped_reader(&Connect::v311("reader"));
    assert_closes_after(&mut world, reader, STUCK_WAIT);
}

#[test]
fn a_reader_is_as_slow_as_it_likes_while_it_reads() {
    let (mut world, reader) = stopped_reader(&Connect::v311("reader"));
    for _ in 0..20 {
        world.pass(STUCK_WAIT - MILLISECOND);
        world.read_only(reader, 1000);
        assert!(!world.is_closed(reader));
    }
    assert_eq!(world.received(reader).len(), 20_000);
    world.read_only(reader, usize::MAX);
    world.pass(2 * STUCK_WAIT);
    assert!(!world.is_closed(reader));
    assert_eq!(world.gauges().buffers_lent, 0);
}

/// 3.1.1 has no Server Keep Alive: its client cannot know of another Keep Alive than its own.
#[test]
fn keep_alive_max_binds_only_clients_that_can_be_told() {
    let mut world = World::new(Limits {
        keep_alive_max: Some(60),
        ..Limits::default()
    });
    let old = world.connect(&Connect::v311("old").keep_alive(300));
    assert_closes_after(&mut world, old, Duration::from_secs(450));
    let silent = world.connect(&Connect::v311("silent"));

    // [MQTT-3.2.2-21]
    for keep_alive in [0, 300] {
        let new = world.open_with(&Connect::v5("new").keep_alive(keep_alive));
        world.settle();
        let connack = world.received(new);
        assert_eq!(connack[connack.len() - 3..], [0x13, 0, 60]);
        assert_closes_after(&mut world, new, Duration::from_secs(90));
    }
    assert!(!world.is_closed(silent));
}

#[test]
fn a_link_with_many_packets_takes_turns_with_the_others() {
    let mut world = World::new(Limits::default());
    let busy = world.connect(&Connect::v311("busy"));
    let other = world.connect(&Connect::v311("other"));
    let packets = 4 * LINK_PACKETS;
    world.send(busy, &PINGREQ.repeat(packets));
    world.send(other, &PINGREQ);
    world.turn();
    assert_eq!(world.received(busy), PINGRESP.repeat(LINK_PACKETS));
    assert_eq!(world.received(other), PINGRESP);
    world.settle();
    assert_eq!(
        world.received(busy),
        PINGRESP.repeat(packets - LINK_PACKETS)
    );
}

#[test]
fn a_full_journal_and_a_stalled_disk_keep_no_client_without_a_stored_session_from_connecting() {
    let mut world = World::new(Limits {
        batch_bytes: 4000,
        packet_max: 2000,
        ..Limits::default()
    });
    let away = world.connect(&Connect::v311("away").unclean());
    world.subscribe(away, "t", 1);
    world.lose(away);
    let publisher = world.connect(&Connect::v311("publisher"));
    world.stall();
    for packet_id in 1..=20 {
        world.say(publisher, &publish_1("t", packet_id, &[b'x'; 900]));
    }
    // What was taken waits in two batches, and the next one with its link.
    assert!(world.counters().publish_received < 20);
    let newcomer = world.open_with(&Connect::v311("newcomer"));
    world.settle();
    assert_eq!(world.received(newcomer), CONNACK);
    world.subscribe(newcomer, "live", 0);
    world.say(newcomer, &publish_0("live", b"x"));
    assert_eq!(world.received(newcomer), publish_0("live", b"x"));
}

/// Rows of an ended session are purged without a commit, and room comes back without an event.
#[test]
fn a_full_disk_is_asked_whether_it_is_full_still() {
    let mut world = World::new(Limits::default());
    let away = world.connect(&Connect::v311("away").unclean());
    world.subscribe(away, "t", 1);
    world.lose(away);
    let publisher = world.connect(&Connect::v311("publisher"));
    world.flash().claims_used = Some(Limits::default().disk_max);
    world.publish(publisher, "t", b"the last for which there was room");
    world.say(publisher, &publish_1("t", 1, b"x"));
    world.pass(Duration::from_secs(3));
    assert_eq!(world.received(publisher), []);

    world.flash().claims_used = None;
    world.pass(Duration::from_secs(1));
    assert_eq!(world.received(publisher), [0x40, 2, 0, 1]);
    assert_eq!(world.counters().refused, 0);
}
