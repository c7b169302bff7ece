//! Exactly once: who waits for which commit.

use crate::packets::{Connect, puback, publish_2, pubrec};
use crate::world::World;
use larder::limits::Limits;
use std::time::Duration;

/// Another receiver's message may be settled before it is written, and then there is no commit to wait for.
#[test]
fn a_volatile_receiver_does_not_wait_for_a_commit_that_need_not_come() {
    let mut world = World::new(Limits::default());
    let stored = world.connect(&Connect::v311("stored").unclean());
    world.subscribe(stored, "t", 1);
    let volatile = world.connect(&Connect::v311("volatile"));
    world.subscribe(volatile, "t", 2);
    let publisher = world.connect(&Connect::v311("publisher"));
    world.stall();

    world.say(publisher, &publish_2("t", 1, b"x"));
    let message = world.messages(stored);
    assert_eq!(world.messages(volatile).len(), 1);
    world.say(stored, &puback(message[0].packet_id));
    // Settled everywhere, it is owed to nobody.
    assert_eq!(world.received(publisher), pubrec(1));
}

/// A crash would bring the same PUBLISH again: nobody has it before it is on disk.
#[test]
fn who_gets_a_message_exactly_once_gets_it_when_its_publishers_session_has_it() {
    let mut world = World::new(Limits::default());
    let volatile = world.connect(&Connect::v311("volatile"));
    world.subscribe(volatile, "t", 2);
    let publisher = world.connect(&Connect::v311("publisher").unclean());
    world.stall();

    world.say(publisher, &publish_2("t", 1, b"x"));
    world.pass(Duration::from_secs(3));
    assert_eq!(world.messages(volatile).len(), 0);
    assert_eq!(world.received(publisher), []);
    world.unstall();
    assert_eq!(world.messages(volatile).len(), 1);
    assert_eq!(world.received(publisher), pubrec(1));
}
