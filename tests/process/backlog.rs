//! A backlog costs disk, not memory.

use crate::broker::Setup;
use crate::client::{Client, Identity};
use larder_packet::{Qos, Version};
use std::time::{Duration, Instant};

/// Messages queued, if `LARDER_BACKLOG` says nothing: what is promised with a released binary, a part of it with one
/// that was built for debugging.
const RELEASED: u32 = 1_000_000;
const UNOPTIMISED: u32 = 100_000;
/// After so many, memory is held against what it is at the end.
const WARM_UP: u32 = 20_000;
const GROWTH_MAX: u64 = 2 << 20;
const START_MAX: Duration = Duration::from_secs(1);
/// Messages that the publisher has unacknowledged: as many as the broker allows.
const WINDOW: u32 = 64;
const PAYLOAD_BYTES: usize = 100;

#[test]
fn a_backlog_changes_neither_memory_nor_the_start_and_arrives_whole_and_in_order() {
    let count = count();
    let mut broker =
        Setup::new("[store]\ndisk_max = \"4 GiB\"\nsession_disk_max = \"2 GiB\"").start();
    let away = Identity::stored("away", Version::V5);
    let mut subscriber = broker.connect(&away);
    subscriber.subscribe("backlog", Qos::AtLeastOnce).unwrap();
    subscriber.disconnect().unwrap();

    let mut publisher = broker.connect(&Identity::volatile("publisher", Version::V5));
    let began = Instant::now();
    publish(&mut publisher, 1, WARM_UP);
    let before = broker.resident();
    publish(&mut publisher, WARM_UP + 1, count);
    let after = broker.resident();
    println!(
        "backlog: {count} messages queued in {:.1?}; resident after {WARM_UP}: {} KiB, at the end: {} KiB",
        began.elapsed(),
        before >> 10,
        after >> 10
    );

    broker.kill();
    let start = broker.start();
    println!("backlog: after kill -9 a client was accepted in {start:.1?}");

    let began = Instant::now();
    let mut subscriber = broker.connect(&away);
    assert!(subscriber.session_present);
    for number in 1..=count {
        let message = subscriber.next_message().unwrap();
        assert_eq!(message.payload, payload(number), "where {number} is due");
    }
    println!(
        "backlog: drained in {:.1?}; resident then: {} KiB",
        began.elapsed(),
        broker.resident() >> 10
    );
    assert!(
        after < before + GROWTH_MAX,
        "{} KiB more are resident",
        (after - before) >> 10
    );
    assert!(start < START_MAX, "the start took {start:?}");
}

fn count() -> u32 {
    match std::env::var("LARDER_BACKLOG") {
        Ok(count) => count.parse().expect("LARDER_BACKLOG is a number"),
        Err(_) if std::env::var_os("LARDER_BINARY").is_some() => RELEASED,
        Err(_) => UNOPTIMISED,
    }
}

fn publish(publisher: &mut Client, first: u32, last: u32) {
    publisher
        .publish_all("backlog", first..=last, WINDOW, payload)
        .unwrap();
}

fn payload(number: u32) -> Vec<u8> {
    format!("{number:0PAYLOAD_BYTES$}").into_bytes()
}
