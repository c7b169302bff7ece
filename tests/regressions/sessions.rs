//! How long a session lives, and what of that a crash leaves.

use crate::packets::{Connect, disconnect, puback, publish_1};
use crate::world::World;
use larder::limits::Limits;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// Ages on disk count whole seconds.
const ROUNDING: Duration = Duration::from_secs(2);

#[test]
fn a_session_expires_after_its_time_away_however_often_the_machine_boots_meanwhile() {
    let days = 3;
    let mut world = World::new(Limits {
        session_expiry_max: 3 * 86_400,
        ..Limits::default()
    });
    let link = world.connect(&Connect::v311("c").unclean());
    world.lose(link);
    for _ in 1..days {
        world.pass(DAY);
        world = world.reboot();
        assert_eq!(world.gauges().sessions, 1);
    }
    world.pass(DAY - ROUNDING);
    assert_eq!(world.gauges().sessions, 1);
    world.pass(2 * ROUNDING);
    assert_eq!(world.gauges().sessions, 0);
    assert_eq!(world.reboot().gauges().sessions, 0);
}

#[test]
fn a_session_expiry_max_that_was_lowered_binds_the_sessions_that_are_found() {
    let mut world = World::new(Limits::default());
    let link = world.connect(&Connect::v311("c").unclean());
    world.lose(link);
    world.pass(2 * HOUR);
    let mut world = world.crash_into(Limits {
        session_expiry_max: 86_400,
        ..Limits::default()
    });
    world.pass(22 * HOUR - ROUNDING);
    assert_eq!(world.gauges().sessions, 1);
    world.pass(2 * ROUNDING);
    assert_eq!(world.gauges().sessions, 0);
}

#[test]
fn the_session_expiry_interval_of_a_disconnect_outlives_a_crash() {
    let mut world = World::new(Limits::default());
    let link = world.connect(&Connect::v5("c").unclean().expiry(MINUTE));
    world.subscribe(link, "t", 1);
    world.say(link, &disconnect(DAY));
    let publisher = world.connect(&Connect::v311("publisher"));
    world.publish(publisher, "t", b"x");

    let mut world = world.crash();
    world.pass(DAY - ROUNDING);
    assert_eq!(world.gauges().sessions, 1);
    assert_eq!(world.gauges().queued_messages, 1);
    world.pass(2 * ROUNDING);
    assert_eq!(world.gauges().sessions, 0);
}

/// [MQTT-3.14.2-2]
#[test]
fn a_session_that_was_resumed_to_end_with_its_link_cannot_be_kept_by_a_disconnect() {
    let mut world = World::new(Limits::default());
    let link = world.connect(&Connect::v5("c").unclean().expiry(DAY));
    world.lose(link);
    let link = world.connect(&Connect::v5("c").unclean());
    world.say(link, &disconnect(DAY));
    // Protocol error.
    assert_eq!(world.received(link), [0xE0, 1, 0x82]);
    assert!(world.is_closed(link));
    assert_eq!(world.gauges().sessions, 0);
}

#[test]
fn a_message_to_more_sessions_than_the_configuration_allows_by_now_is_taken() {
    let many = 1500;
    let mut world = World::new(Limits {
        sessions: 2 * many,
        ..Limits::default()
    });
    for number in 0..many {
        let client_id = format!("c{number}").leak();
        let link = world.connect(&Connect::v311(client_id).unclean());
        world.subscribe(link, "t", 1);
        world.lose(link);
    }
    // One more than are there, so that the publisher finds a place.
    let mut world = world.crash_into(Limits {
        sessions: many + 1,
        ..Limits::default()
    });
    let publisher = world.connect(&Connect::v311("publisher"));
    world.publish(publisher, "t", b"x");

    // None of them is left for a new session; those that are there come and go.
    let mut world = world.crash_into(Limits {
        sessions: 10,
        ..Limits::default()
    });
    let publisher = world.connect(&Connect::v311("c0").unclean());
    world.messages(publisher);
    world.say(publisher, &publish_1("t", 1, b"y"));
    // The message itself comes behind its acknowledgement: its number has to be reserved first.
    assert!(world.received(publisher).starts_with(&puback(1)));
    assert_eq!(world.gauges().queued_messages, 2 * u64::from(many));
}
