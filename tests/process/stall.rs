//! The disk never stalls live traffic.

use crate::broker::{Broker, Setup};
use crate::client::{Client, Identity};
use larder_packet::{Qos, Version};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long each fsync takes, once it does.
const STALL: Duration = Duration::from_secs(2);
/// The first fsyncs of a thread take as long as they take: the start, and a backlog.
const SWIFT_SYNCS: u32 = 40;
/// Commits that stall while the others are measured.
const STALLS: u32 = 4;
const P99_MAX: Duration = Duration::from_millis(50);
/// How often the others do something.
const PERIOD: Duration = Duration::from_millis(5);
const BACKLOG: u32 = 1000;

/// All of this is over by then.
const MEASURED_MAX: Duration = Duration::from_secs(60);

#[test]
fn a_disk_that_stalls_is_felt_only_by_those_who_wait_for_it() {
    let broker = on_a_stalling_disk();
    let (away, returning) = (
        Identity::stored("away", Version::V5),
        Identity::stored("returning", Version::V5),
    );
    for (identity, filter) in [(&away, "durable"), (&returning, "backlog")] {
        let mut subscriber = broker.connect(identity);
        subscriber.subscribe(filter, Qos::AtLeastOnce).unwrap();
        subscriber.disconnect().unwrap();
    }
    let mut durable = broker.connect(&Identity::volatile("durable", Version::V5));
    durable
        .publish_all("backlog", 1..=BACKLOG, 64, |number| {
            number.to_string().into_bytes()
        })
        .unwrap();

    let mut pinger = broker.connect(&Identity::volatile("pinger", Version::V5));
    let mut live = broker.connect(&Identity::volatile("live", Version::V311));
    live.subscribe("live", Qos::AtMostOnce).unwrap();
    let mut neighbour = broker.connect(&Identity::volatile("neighbour", Version::V5));
    neighbour.subscribe("neighbour", Qos::AtLeastOnce).unwrap();
    let mut publisher = broker.connect(&Identity::volatile("publisher", Version::V311));

    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pings = scope.spawn(|| measure(&done, || pinger.ping().unwrap()));
        let qos_0 = scope.spawn(|| {
            measure(&done, || {
                live.publish("live", b"0").unwrap();
                live.next_message().unwrap();
            })
        });
        // A message that is owed to no stored session rests on no write.
        let qos_1 = scope.spawn(|| {
            measure(&done, || {
                publisher.publish_acknowledged("neighbour", b"1").unwrap();
                neighbour.next_message().unwrap();
                neighbour.flush().unwrap();
            })
        });

        let mut catching_up = None;
        let mut stalls = 0;
        for _ in 0..SWIFT_SYNCS + STALLS {
            let began = Instant::now();
            durable.publish_acknowledged("durable", b"1").unwrap();
            stalls += u32::from(began.elapsed() > STALL / 2);
            if stalls == 1 && catching_up.is_none() {
                // What is on disk already can be delivered in the midst of the stalls.
                catching_up = Some(scope.spawn(|| catch_up(broker.connect(&returning))));
            }
            if stalls == STALLS {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
        assert_eq!(stalls, STALLS, "the disk did not stall");
        for (what, times) in [
            ("PINGREQ", pings),
            ("QoS 0", qos_0),
            ("QoS 1, volatile", qos_1),
        ] {
            hold(what, times.join().unwrap());
        }
        let took = catching_up.unwrap().join().unwrap();
        println!("stall: a backlog of {BACKLOG} came in {took:.1?}");
        assert!(took < STALL / 2);
    });
}

fn on_a_stalling_disk() -> Broker {
    let how = format!("delay_enter={}:when={SWIFT_SYNCS}+", STALL.as_micros());
    Setup::new("").tampered("fsync,fdatasync", &how).start()
}

/// Does something every now and then, and says how long it took each time.
fn measure(done: &AtomicBool, mut exchange: impl FnMut()) -> Vec<Duration> {
    let until = Instant::now() + MEASURED_MAX;
    let mut times = Vec::new();
    while !done.load(Ordering::Relaxed) && Instant::now() < until {
        let began = Instant::now();
        exchange();
        times.push(began.elapsed());
        std::thread::sleep(PERIOD);
    }
    times
}

fn hold(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100];
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "stall: {what}: {} times, p50 {median:.1?}, p99 {p99:.1?}, longest {longest:.1?}",
        times.len()
    );
    // One that waited for the disk would not show in the p99 of thousands.
    assert!(p99 < P99_MAX && longest < STALL, "{what}");
}

fn catch_up(mut subscriber: Client) -> Duration {
    let began = Instant::now();
    for number in 1..=BACKLOG {
        assert_eq!(
            subscriber.next_message().unwrap().payload,
            number.to_string().into_bytes()
        );
    }
    began.elapsed()
}
