//! The simulator: the real core, turn and relay with a fake network, a crashable disk and virtual time.
//!
//! One seed replays one life: `SIM_SEED=123 cargo test --test simulator` prints its conversation. Otherwise so many
//! seeds are run as `SIM_SEEDS` says. What must hold is in `oracle.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::needless_range_loop,
    missing_docs,
    unreachable_pub
)]

mod bridge;
mod client;
mod clock;
mod disk;
mod group;
mod net;
mod oracle;
mod plan;
mod random;
mod wire;
mod world;

use larder_packet::Version;
use oracle::GATEWAY;
use plan::{Blow, Few, Plan, What};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;
use world::World;

/// Seeds that are run, if `SIM_SEEDS` does not say how many.
const SEEDS: u64 = 10_000;

/// Two blows are close together if so many steps are between them at most.
const CLOSE: u64 = 8;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Lives a life; gives back what is wrong with it, with the last lines of its conversation.
fn live(plan: Plan, echo: bool) -> Result<World, String> {
    let seed = plan.seed;
    let mut world = World::new(plan, echo);
    let panicked = catch_unwind(AssertUnwindSafe(|| world.run())).err();
    if let Some(panic) = panicked {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        world
            .oracle
            .object(format!("panic: {}", text.unwrap_or_default()));
    }
    match &world.oracle.verdict {
        None => Ok(world),
        Some(verdict) => {
            let lines: Vec<&str> = world.oracle.lines.iter().map(String::as_str).collect();
            Err(format!(
                "{}\nseed {seed}: {verdict}\n  SIM_SEED={seed} cargo test --test simulator seeds -- --nocapture",
                lines.join("\n")
            ))
        }
    }
}

#[test]
fn seeds() {
    if let Some(seed) = number("SIM_SEED") {
        live(Plan::of_seed(seed), true).unwrap_or_else(|failure| panic!("{failure}"));
        return;
    }
    let first = number("SIM_FIRST").unwrap_or(0);
    let count = number("SIM_SEEDS").unwrap_or(SEEDS);
    let start = Instant::now();
    let (mut acknowledged, mut delivered, mut steps) = (0, 0, 0);
    let mut failures = Vec::new();
    for seed in first..first + count {
        match live(Plan::of_seed(seed), false) {
            Ok(world) => {
                acknowledged += world.oracle.acknowledged;
                delivered += world.oracle.delivered;
                steps += world.steps;
            }
            Err(failure) => failures.push(failure),
        }
        if failures.len() >= 3 {
            break;
        }
    }
    println!(
        "{count} lives in {:.1} s: {steps} turns and commits, {acknowledged} messages acknowledged, {delivered} delivered",
        start.elapsed().as_secs_f32()
    );
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Small worlds, completely: one publisher, one stored subscriber, few messages of QoS 1 and 2, and at every step the gateway
/// killed, with and without what it had just given to the disk, or a link cut; the same twice, close together; and the
/// gateway killed with the bridge and the cloud.
#[test]
fn a_crash_at_every_step() {
    let two = Few {
        messages: 2,
        exactly_once_in: 0,
        window: 1,
        version: Version::V5,
        expiry: 0,
    };
    let mut lives = strike_at_every_step(true, two, 0) + strike_at_every_step(false, two, CLOSE);
    for version in [Version::V311, Version::V5] {
        for (exactly_once_in, messages, window) in [(1, 2, 1), (2, 4, 4)] {
            for expiry in [0, u32::MAX] {
                let few = Few {
                    messages,
                    exactly_once_in,
                    window,
                    version,
                    expiry,
                };
                lives += strike_at_every_step(false, few, CLOSE);
            }
        }
    }
    println!("{lives} lives with one blow each, or two");
}

/// Lives a small world with each blow at each step, and with a second one up to `close` steps later; says how many lives
/// that were.
fn strike_at_every_step(bridge: bool, few: Few, close: u64) -> u64 {
    let clients = plan::one_of_each(bridge, few);
    let live_with = |blows: &[Blow]| {
        live(Plan::quiet(clients.clone(), bridge, blows.to_vec()), false)
            .unwrap_or_else(|failure| panic!("{failure}\n{blows:?}, bridge: {bridge}, {few:?}"))
    };
    let whole = live_with(&[]);
    let delivered = whole.oracle.delivered;
    assert!(delivered >= u64::from(few.messages), "nothing of {few:?}");
    let kills = [false, true].map(|commits| What::Kill {
        server: GATEWAY,
        commits,
    });
    let cuts = [0, 1].map(|client| What::Cut { client });
    let all = [kills, cuts].concat();
    let mut lives = 0;
    for step in 1..=whole.steps {
        for what in &all {
            let first = Blow { step, what: *what };
            live_with(&[first]);
            lives += 1;
            for step in step + 1..=step + close {
                for what in &all {
                    live_with(&[first, Blow { step, what: *what }]);
                    lives += 1;
                }
            }
        }
    }
    lives
}
