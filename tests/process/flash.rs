//! Live traffic hardly wears the flash.

use crate::broker::{Broker, Setup, next_figure};
use crate::client::Identity;
use larder_packet::{Qos, Version};
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_millis(100);
const MESSAGES: u32 = 300;
const BYTES_PER_MESSAGE_MAX: u64 = 200;
const SYS: &str = "$SYS/larder/disk/written";

#[test]
fn ten_live_messages_a_second_write_less_than_200_bytes_each() {
    let broker = Setup::alone("[sys]\ninterval = \"1 s\"").start();
    let mut subscriber = broker.connect(&Identity::stored("subscriber", Version::V5));
    subscriber.subscribe("live", Qos::AtLeastOnce).unwrap();
    let mut publisher = broker.connect(&Identity::volatile("publisher", Version::V5));

    let before = written(&broker);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..MESSAGES {
                subscriber.next_message().unwrap();
                subscriber.flush().unwrap();
            }
        });
        let began = Instant::now();
        for number in 0..MESSAGES {
            // The pace is the load that is promised for.
            std::thread::sleep((PERIOD * number).saturating_sub(began.elapsed()));
            let payload = format!("{number:0100}");
            publisher
                .publish_acknowledged("live", payload.as_bytes())
                .unwrap();
        }
    });
    let after = written(&broker);

    let store = (after.store - before.store) / u64::from(MESSAGES);
    let device = (after.device - before.device) / u64::from(MESSAGES);
    println!(
        "flash: {MESSAGES} messages; bytes written for each: {store} by the store's figure, {device} by the system's"
    );
    if before.device == 0 {
        println!("flash: the system counts no writes here (a file system in memory?)");
    }
    assert!(store < BYTES_PER_MESSAGE_MAX && device < BYTES_PER_MESSAGE_MAX);
}

#[derive(Clone, Copy, Debug)]
struct Written {
    store: u64,
    device: u64,
}

/// Bytes written so far, settlements included: once the broker's own figure has not changed for two of its reports,
/// which are a second apart as are settlements.
fn written(broker: &Broker) -> Written {
    let mut watcher = broker.watch(SYS);
    let mut last = None;
    for _ in 0..30 {
        let store = next_figure(&mut watcher);
        if last.replace(store) == Some(store) {
            return Written {
                store,
                device: broker.device_written(),
            };
        }
    }
    panic!("the broker does not cease to write");
}
