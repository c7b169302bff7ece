//! Wills: published once, whatever becomes of the server, and never lost for want of room.

use crate::packets::{
    CONNACK, Connect, messages, publish_0, publish_1, retained, subscribe, without_suback,
};
use crate::world::World;
use larder::limits::Limits;
use larder::net::LinkId;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// A client with a stored session.
fn client() -> Connect {
    Connect::v5("client").unclean().expiry(DAY)
}

fn reader() -> Connect {
    Connect::v311("reader").unclean()
}

/// A stored session that has subscribed to the Will is there, and is away.
fn world_with_a_reader() -> World {
    let mut world = World::new(Limits::default());
    let link = world.connect(&reader());
    world.subscribe(link, "w", 2);
    world.lose(link);
    world
}

/// How many Wills have come for the reader.
fn wills(world: &mut World) -> usize {
    let link = world.connect(&reader());
    let messages = world.drain(link);
    world.lose(link);
    let wills = messages.iter().filter(|message| message.payload == b"gone");
    wills.count()
}

/// Publishes until the journal is full, to the byte.
fn fill_the_journal(world: &mut World) {
    let publishers = ["a", "b", "c", "d", "e", "f"];
    let links = publishers.map(|client_id| world.connect(&Connect::v311(client_id)));
    world.stall();
    for (link, len) in links.into_iter().zip([100_000, 10_000, 1000, 100, 10, 0]) {
        for packet_id in 1..=64 {
            world.say(link, &publish_1("w", packet_id, &vec![0; len]));
        }
    }
}

/// The disk is full, and the server knows.
fn fill_the_disk(world: &mut World) {
    world.flash().claims_used = Some(u64::MAX / 4);
    let link = world.connect(&Connect::v311("other").unclean());
    world.subscribe(link, "other", 1);
}

/// What ends a link that has a Will.
struct Ending {
    name: &'static str,
    /// Whether a new link takes up the session.
    resumes: bool,
    /// Whether no session of the client is left.
    ends: bool,
    end: fn(&mut World, LinkId),
}

const ENDINGS: [Ending; 6] = [
    Ending {
        name: "it is lost",
        resumes: false,
        ends: false,
        end: |world, link| world.lose(link),
    },
    Ending {
        name: "it is taken over",
        resumes: true,
        ends: false,
        end: |world, _| {
            world.open_with(&client());
            world.settle();
        },
    },
    Ending {
        name: "it is taken over with Clean Start",
        resumes: false,
        ends: false,
        end: |world, _| {
            world.open_with(&Connect::v5("client"));
            world.settle();
        },
    },
    Ending {
        name: "it is lost, and the client is back",
        resumes: true,
        ends: false,
        end: |world, link| {
            world.lose(link);
            world.open_with(&client());
            world.settle();
        },
    },
    Ending {
        name: "it ends the session",
        resumes: false,
        ends: true,
        // Disconnect with Will Message, Session Expiry Interval 0.
        end: |world, link| world.say(link, &[0xE0, 7, 4, 5, 0x11, 0, 0, 0, 0]),
    },
    Ending {
        name: "it is lost, and the session expires",
        resumes: false,
        ends: true,
        end: |world, link| {
            world.lose(link);
            world.pass(DAY + MINUTE);
        },
    },
];

/// So many batches are committed before the power goes, or all.
const COMMITS: [Option<u32>; 5] = [Some(0), Some(1), Some(2), Some(3), None];

/// [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.1.3-9]
#[test]
fn a_will_is_published_once_whenever_the_power_goes() {
    for ending in &ENDINGS {
        for delay in [Duration::ZERO, MINUTE] {
            for commits in COMMITS {
                for is_full in [false, true] {
                    let case = format!("{}, {delay:?}, {commits:?}, {is_full}", ending.name);
                    let mut world = world_with_a_reader();
                    let will = client().will("w", b"gone", 2).will_delay(delay);
                    let link = world.connect(&will);
                    if is_full {
                        fill_the_journal(&mut world);
                    }
                    world.stall();
                    (ending.end)(&mut world, link);
                    match commits {
                        Some(batches) => (0..batches).for_each(|_| world.commit_one()),
                        None => world.unstall(),
                    }
                    let mut world = world.crash();
                    world.pass(2 * DAY);
                    let is_cancelled = ending.resumes && !delay.is_zero();
                    match wills(&mut world) {
                        0 => assert!(is_cancelled && commits != Some(0), "{case}: it is lost"),
                        1 => assert!(
                            !is_cancelled || commits.is_some(),
                            "{case}: it was cancelled"
                        ),
                        more => panic!("{case}: {more} of it"),
                    }
                }
            }
        }
    }
}

#[test]
fn a_will_that_finds_no_room_is_published_when_there_is_some() {
    for ending in &ENDINGS {
        for full in [fill_the_journal, fill_the_disk] {
            let mut world = world_with_a_reader();
            let link = world.connect(&client().will("w", b"gone", 1));
            full(&mut world);
            let sessions = world.gauges().sessions;
            (ending.end)(&mut world, link);
            world.flash().claims_used = None;
            world.unstall();
            world.pass(2 * SECOND);
            let left = sessions - u64::from(ending.ends);
            assert!(world.gauges().sessions <= left, "{}", ending.name);
            assert_eq!(wills(&mut world), 1, "{}", ending.name);
            assert_eq!(world.counters().wills_dropped, 0);
            world.pass(2 * SECOND);
            let mut world = world.crash();
            world.pass(2 * DAY);
            assert_eq!(wills(&mut world), 0, "{}", ending.name);
        }
    }
}

/// Lasting fullness keeps no client out: its Will waits without its session.
#[test]
fn a_client_gets_in_while_its_last_will_finds_no_room_on_disk() {
    let mut world = world_with_a_reader();
    world.connect(&client().will("w", b"gone", 1));
    fill_the_disk(&mut world);
    let link = world.connect(&client().will("w", b"gone", 1));
    world.connect(&Connect::v5("client").will("w", b"gone", 1));
    assert!(world.is_closed(link));
    world.flash().claims_used = None;
    world.pass(2 * SECOND);
    assert_eq!(wills(&mut world), 2);
}

#[test]
fn a_will_that_waits_for_the_disk_stays_with_its_session_over_a_crash() {
    let mut world = world_with_a_reader();
    let link = world.connect(&client().will("w", b"gone", 1));
    fill_the_disk(&mut world);
    world.lose(link);
    let mut world = world.crash();
    world.settle();
    assert_eq!(wills(&mut world), 1);
}

/// What waits goes before a client is refused, counted.
#[test]
fn wills_that_wait_give_way_to_clients() {
    let mut world = World::new(Limits {
        will_pool_bytes: 2000,
        ..Limits::default()
    });
    let link = world.connect(&reader());
    world.subscribe(link, "w", 1);
    fill_the_disk(&mut world);
    let with_will = |client_id| Connect::v311(client_id).will("w", &[0; 500], 1);
    for client_id in ["a", "b", "c"] {
        let link = world.connect(&with_will(client_id));
        world.lose(link);
    }
    assert_eq!(world.counters().wills_dropped, 0);
    for (client_id, dropped) in [("d", 1), ("e", 2), ("f", 3)] {
        world.connect(&with_will(client_id));
        assert_eq!(world.counters().wills_dropped, dropped);
    }
    // Now they are of clients that are there.
    let refused = world.open_with(&with_will("g"));
    world.settle();
    assert_eq!(world.received(refused), [0x20, 2, 0, 3]);
    let again = world.open_with(&with_will("f"));
    world.settle();
    assert_eq!(world.received(again), CONNACK);
}

/// [MQTT-3.1.3-9]
#[test]
fn a_link_that_flaps_within_the_delay_of_its_will_writes_nothing() {
    let mut world = world_with_a_reader();
    let client = client().will("w", b"gone", 1).will_delay(MINUTE);
    let mut link = world.connect(&client);
    let written = world.gauges().disk_written;
    for _ in 0..20 {
        world.lose(link);
        world.pass(MINUTE / 2);
        link = world.connect(&client);
        world.pass(MINUTE);
    }
    assert_eq!(world.gauges().disk_written, written);
    world.lose(link);
    world.pass(2 * MINUTE);
    assert_eq!(wills(&mut world), 1);
}

/// A volatile session is no reason to write, but the Will's own is.
#[test]
fn a_will_of_qos_2_is_sent_to_nobody_before_a_crash_could_not_bring_it_again() {
    let mut world = World::new(Limits::default());
    let subscriber = world.connect(&Connect::v311("subscriber"));
    world.subscribe(subscriber, "w", 2);
    let link = world.connect(&client().will("w", b"gone", 2));
    world.stall();
    world.lose(link);
    assert_eq!(world.messages(subscriber), []);
    world.unstall();
    assert_eq!(world.messages(subscriber).len(), 1);
}

#[test]
fn a_shutdown_publishes_the_wills_that_have_no_delay() {
    let mut world = world_with_a_reader();
    world.connect(&client().will("w", b"gone", 1));
    world.connect(&Connect::v311("volatile").will("w", b"gone", 1));
    let late = Connect::v5("late").unclean().expiry(DAY);
    world.connect(&late.will("w", b"gone", 1).will_delay(MINUTE));
    let mut world = world.shut_down();
    world.settle();
    assert_eq!(wills(&mut world), 2);
    world.pass(2 * MINUTE);
    assert_eq!(wills(&mut world), 1);
}

/// The Will of a stored session is on disk, and stays there as what its topic retains, whatever its QoS. [MQTT-3.1.2-15]
#[test]
fn a_retained_will_is_on_disk_however_often_its_topic_changes() {
    let mut world = World::new(Limits::default());
    let will = client().will("w", b"gone", 0).will_retain();
    let link = world.connect(&will);
    let publisher = world.connect(&Connect::v311("publisher"));
    world.say(publisher, &retained(publish_0("w", b"here")));
    world.lose(link);
    let mut world = world.crash();
    let reader = world.connect(&reader());
    world.say(reader, &subscribe(false, 1, &["w".to_owned()], 0));
    let received = world.received(reader);
    let (retained, _) = without_suback(&received);
    let retained = messages(false, &retained);
    assert_eq!(retained.len(), 1);
    assert_eq!(retained[0].payload, b"gone");
}
