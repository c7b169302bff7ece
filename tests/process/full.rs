//! Full is a decision: a full disk, and a full queue.

use crate::broker::{Setup, next_figure};
use crate::client::{Client, Identity, Received, packet_id};
use larder_packet::{Qos, ReasonCode, Version};
use std::time::{Duration, Instant};

const PARK_MAX: Duration = Duration::from_secs(1);
/// More than the disk holds.
const FLOOD: u32 = 20_000;
const PAYLOAD_BYTES: usize = 1000;
/// After the backlog is drained; the broker asks its disk about once a second.
const RECOVERY_MAX: Duration = Duration::from_secs(15);

#[test]
fn a_full_disk_refuses_qos_1_lets_qos_0_through_and_recovers_when_it_is_drained() {
    let broker = Setup::new(
        "[limits]\npacket_max = \"16 KiB\"\n[store]\ndisk_max = \"2 MiB\"\nsession_disk_max = \"2 MiB\"\npark_max = \"1 s\"",
    )
    .start();
    let away = Identity::stored("away", Version::V5);
    let mut subscriber = broker.connect(&away);
    subscriber.subscribe("t", Qos::AtLeastOnce).unwrap();
    subscriber.disconnect().unwrap();
    let mut live = broker.connect(&Identity::volatile("live", Version::V5));
    live.subscribe("live", Qos::AtMostOnce).unwrap();

    let mut v5 = broker.connect(&Identity::volatile("publisher-5", Version::V5));
    let mut accepted = 0;
    let waited = loop {
        assert!(accepted < FLOOD, "the disk does not fill");
        let began = Instant::now();
        match publish(&mut v5, accepted + 1) {
            ReasonCode::Success => accepted += 1,
            ReasonCode::QuotaExceeded => break began.elapsed(),
            other => panic!("{other:?} after {accepted} messages"),
        }
    };
    println!(
        "full: {accepted} messages of {PAYLOAD_BYTES} bytes fit into 2 MiB; the next one was refused after {waited:.1?}"
    );
    assert!(
        waited >= PARK_MAX,
        "refused after {waited:?}: a passing shortage must be waited for"
    );

    // 3.1.1 has no word for a refusal: the link is closed, and the client keeps the message.
    let mut v311 = broker.connect(&Identity::volatile("publisher-311", Version::V311));
    let began = Instant::now();
    v311.queue_publish("t", &payload(0), Some(packet_id(0)), false);
    v311.flush().unwrap();
    // While that one waits, live traffic does not.
    for _ in 0..100 {
        live.publish("live", b"0").unwrap();
        live.next_message().unwrap();
    }
    assert!(
        began.elapsed() < PARK_MAX,
        "QoS 0 took {:?}",
        began.elapsed()
    );
    v311.expect_end().unwrap();
    assert!(began.elapsed() >= PARK_MAX);

    let mut subscriber = broker.connect(&away);
    for number in 1..=accepted {
        assert_eq!(subscriber.next_message().unwrap().payload, payload(number));
    }
    subscriber.ping().unwrap();
    let began = Instant::now();
    while publish(&mut v5, accepted + 1) != ReasonCode::Success {
        assert!(began.elapsed() < RECOVERY_MAX, "there is still no room");
    }
    println!(
        "full: drained, and served again after {:.1?}",
        began.elapsed()
    );
    assert_eq!(
        subscriber.next_message().unwrap().payload,
        payload(accepted + 1)
    );
}

#[test]
fn a_full_queue_drops_its_oldest_and_counts_them() {
    const MESSAGES: u32 = 3000;
    let broker = Setup::new(
        "[limits]\npacket_max = \"16 KiB\"\n[store]\nsession_disk_max = \"1 MiB\"\n[sys]\ninterval = \"1 s\"",
    )
    .start();
    let away = Identity::stored("away", Version::V311);
    let mut subscriber = broker.connect(&away);
    subscriber.subscribe("t", Qos::AtLeastOnce).unwrap();
    subscriber.disconnect().unwrap();
    let mut publisher = broker.connect(&Identity::volatile("publisher", Version::V311));
    publisher
        .publish_all("t", 1..=MESSAGES, 16, payload)
        .unwrap();

    let dropped = next_figure(&mut broker.watch("$SYS/larder/dropped/queue-full"));
    let dropped = u32::try_from(dropped).unwrap();
    println!(
        "full: of {MESSAGES} messages of {PAYLOAD_BYTES} bytes {dropped} were dropped for a queue of 1 MiB"
    );
    assert!((1..MESSAGES).contains(&dropped));
    let kept = u64::from(MESSAGES - dropped) * PAYLOAD_BYTES as u64;
    assert!(
        (1 << 19..=1 << 20).contains(&kept),
        "{kept} bytes were kept"
    );
    let mut subscriber = broker.connect(&away);
    for number in dropped + 1..=MESSAGES {
        assert_eq!(subscriber.next_message().unwrap().payload, payload(number));
    }
}

fn publish(publisher: &mut Client, number: u32) -> ReasonCode {
    publisher.queue_publish("t", &payload(number), Some(packet_id(number)), false);
    publisher.flush().unwrap();
    match publisher.receive().unwrap() {
        Received::PubAck(id, reason) if id == packet_id(number) => reason,
        other => panic!("{other:?}"),
    }
}

fn payload(number: u32) -> Vec<u8> {
    format!("{number:0PAYLOAD_BYTES$}").into_bytes()
}
