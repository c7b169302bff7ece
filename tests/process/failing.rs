//! A disk that fails, and is well again: nothing acknowledged is lost, live traffic goes on, one line tells of it, and
//! nobody has to start anything again.

use crate::broker::{Broker, Setup, next_figure};
use crate::client::{Client, Identity, Received, packet_id};
use larder_packet::{Qos, ReasonCode, Version};
use std::time::{Duration, Instant};

/// Calls that fail, one after the other: the waits between two attempts become longer.
const FAILURES: u32 = 12;
/// Calls of a thread before these: more than the start needs, and fewer than the messages do.
const SYNCS_BEFORE: u32 = 40;
const WRITES_BEFORE: u32 = 200;
const MESSAGES: u32 = 120;
/// Live traffic waits for no disk.
const LIVE_MAX: Duration = Duration::from_millis(500);

#[test]
fn a_disk_whose_fsync_fails_for_a_while_delays_qos_1_and_loses_nothing() {
    recovers("fsync,fdatasync", SYNCS_BEFORE, "EIO", "disk I/O error");
}

#[test]
fn a_disk_whose_writes_fail_for_a_while_delays_qos_1_and_loses_nothing() {
    recovers("pwrite64", WRITES_BEFORE, "EIO", "disk I/O error");
}

#[test]
fn a_disk_without_space_for_a_while_delays_qos_1_and_loses_nothing() {
    recovers("pwrite64", WRITES_BEFORE, "ENOSPC", "full");
}

fn recovers(calls: &str, before: u32, error: &str, told: &str) {
    let mut broker = on_a_disk_that_fails(calls, before, error);
    let away = Identity::stored("away", Version::V5);
    let mut subscriber = broker.connect(&away);
    subscriber.subscribe("t", Qos::AtLeastOnce).unwrap();
    subscriber.disconnect().unwrap();
    let mut stalls = broker.watch("$SYS/larder/disk/stalls");
    let mut live = broker.connect(&Identity::volatile("live", Version::V311));
    live.subscribe("live", Qos::AtMostOnce).unwrap();
    let mut publisher = broker.connect(&Identity::volatile("publisher", Version::V5));

    let (mut slowest, mut slowest_live) = (Duration::ZERO, Duration::ZERO);
    for number in 1..=MESSAGES {
        let began = Instant::now();
        let payload = number.to_string();
        publisher.queue_publish("t", payload.as_bytes(), Some(packet_id(number)), false);
        publisher.flush().unwrap();
        let received = loop {
            slowest_live = slowest_live.max(exchange(&mut live));
            let within = Duration::from_millis(5);
            if let Some(received) = publisher.receive_within(within).unwrap() {
                break received;
            }
        };
        assert_eq!(
            received,
            Received::PubAck(packet_id(number), ReasonCode::Success)
        );
        slowest = slowest.max(began.elapsed());
    }
    // The store reports it once for each stretch, however often it tries.
    let told_line = broker.wait_for_log("cannot write");
    assert!(told_line.contains(told), "{told_line}");
    let stretches = next_figure(&mut stalls);
    let lines = broker.log_lines("cannot write");
    println!(
        "failing: {calls} with {error}: {FAILURES} failures in {stretches} stretches, {lines} lines told of them; the slowest PUBACK took \
         {slowest:.1?}, the slowest QoS 0 {slowest_live:.1?}"
    );
    assert!((1..=3).contains(&lines), "{lines} lines");
    assert!(slowest > Duration::from_millis(100), "it did not fail");
    assert!(slowest_live < LIVE_MAX);

    broker.kill();
    broker.start();
    let mut subscriber = broker.connect(&away);
    for number in 1..=MESSAGES {
        let message = subscriber.next_message().unwrap();
        assert_eq!(message.payload, number.to_string().into_bytes());
    }
}

fn exchange(live: &mut Client) -> Duration {
    let began = Instant::now();
    live.publish("live", b"0").unwrap();
    live.next_message().unwrap();
    began.elapsed()
}

fn on_a_disk_that_fails(calls: &str, before: u32, error: &str) -> Broker {
    let last = before + FAILURES - 1;
    Setup::new("[sys]\ninterval = \"1 s\"")
        .tampered(calls, &format!("error={error}:when={before}..{last}"))
        .start()
}
