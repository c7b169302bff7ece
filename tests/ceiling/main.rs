//! The memory ceiling: the program in a memory cgroup that is hardly larger than the sum that `larder check` prints,
//! under every flood that strangers and clients can make. It is never killed, whoever is refused is told why, and is
//! counted, and others are served on.
//!
//! Needs root and cgroup v1 with its memory controller. `LARDER_HALF_OPEN` and `LARDER_BACKLOG` say how many connections
//! are left half-open and how many messages are queued, `LARDER_BINARY` names another binary than Cargo's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "this is a program of its own, with its own clock and its own standard streams"
)]

#[path = "../process/broker.rs"]
#[allow(dead_code, reason = "the process tests ask for more")]
mod broker;
mod cgroup;
#[path = "../process/client.rs"]
#[allow(dead_code, reason = "the process tests ask for more")]
mod client;
mod floods;

use broker::{Broker, Setup, next_figure, outcome};
use cgroup::Cgroup;
use client::{Client, Identity};
use floods::Refusals;
use larder_packet::{Qos, ReasonCode, Version};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SETTINGS: &str = "
[limits]
memory_max = \"48 MiB\"
[store]
park_max = \"1 s\"
[sys]
interval = \"1 s\"
[[bridge]]
name = \"cloud\"
url = \"mqtt://127.0.0.1:9\"
client_id = \"site\"
forward = [{ filter = \"backlog/#\" }]
";
/// What normal clients wait for at most, once in a hundred times.
const P99_MAX: Duration = Duration::from_secs(2);

#[test]
fn no_flood_makes_it_take_more_memory_than_its_budget_or_keeps_it_from_serving() {
    let setup = Setup::alone(SETTINGS);
    let budget = budget(&setup);
    let cgroup = Cgroup::new(budget + budget / 10);
    let broker = setup.wrapped(cgroup.wrapper()).start();
    let pid = broker.pid();

    let subscriber = Identity::stored("normal-subscriber", Version::V5);
    let mut subscriber = broker.connect(&subscriber);
    subscriber.subscribe("normal", Qos::AtLeastOnce).unwrap();
    let mut publisher = broker.connect(&Identity::volatile("normal-publisher", Version::V5));
    let watched = ["refused", "connects/shed", "subscriptions/shed"];
    let mut watchers = watched.map(|figure| broker.watch(&format!("$SYS/larder/{figure}")));

    let done = AtomicBool::new(false);
    let mut refusals = Refusals::default();
    let times = std::thread::scope(|scope| {
        let normal = scope.spawn(|| serve(&done, &mut publisher, &mut subscriber));
        // Whatever fails here, the others are told to end.
        let _end = End(&done);
        for (name, flood) in floods::ALL {
            let began = Instant::now();
            let before = refusals.publishes;
            let told = flood(&broker, &mut refusals);
            println!(
                "ceiling: {name}: {told}; {} PUBLISHes refused; {:.1?}; resident {} KiB, in the cgroup {} KiB at most",
                refusals.publishes - before,
                began.elapsed(),
                broker.resident() >> 10,
                cgroup.peak() >> 10
            );
        }
        done.store(true, Ordering::Relaxed);
        normal.join().unwrap()
    });

    let due = [refusals.publishes, refusals.connects, refusals.filters];
    for (watcher, due) in watchers.iter_mut().zip(due) {
        while next_figure(watcher) < due {}
    }
    let resident = broker.resident_at_most();
    println!(
        "ceiling: budget {} KiB, ceiling {} KiB; resident at most {} KiB; {refusals:?}",
        budget >> 10,
        (budget + budget / 10) >> 10,
        resident >> 10
    );
    hold(times);
    assert_eq!((broker.pid(), cgroup.kills()), (pid, 0));
    assert!(
        resident <= budget,
        "{resident} bytes were resident, and the budget is {budget}"
    );
    let counted = watchers.each_mut().map(next_figure);
    assert_eq!(counted, due, "every refusal is counted");
}

/// What `larder check` sums.
fn budget(setup: &Setup) -> u64 {
    let file = setup.beside("check.toml");
    std::fs::write(&file, format!("data_dir = \"/var/lib/larder\"\n{SETTINGS}")).unwrap();
    let check = outcome(&["check", "--config", file.to_str().unwrap()]);
    let sum = check
        .stdout
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("sum "));
    sum.and_then(|bytes| bytes.trim().parse().ok())
        .unwrap_or_else(|| panic!("{}{}", check.stdout, check.stderr))
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A message now and then from one client to another, and how long each took.
fn serve(done: &AtomicBool, publisher: &mut Client, subscriber: &mut Client) -> Vec<Duration> {
    let mut times = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let began = Instant::now();
        let payload = times.len().to_string();
        let reason = publisher
            .publish_acknowledged("normal", payload.as_bytes())
            .unwrap();
        assert_eq!(reason, ReasonCode::Success, "a normal client is refused");
        assert_eq!(
            subscriber.next_message().unwrap().payload,
            payload.as_bytes()
        );
        subscriber.ping().unwrap();
        times.push(began.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
    times
}

fn hold(mut times: Vec<Duration>) {
    times.sort_unstable();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    let longest = times[times.len() - 1];
    println!(
        "ceiling: normal clients: {} messages, p50 {p50:.1?}, p99 {p99:.1?}, longest {longest:.1?}",
        times.len()
    );
    assert!(p99 < P99_MAX, "normal clients wait");
}

impl Broker {
    /// The most that was resident so far, in bytes.
    fn resident_at_most(&self) -> u64 {
        self.figure("status", "VmHWM:") * 1024
    }
}
