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
use plan::{Few, Kill, Plan};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;
use world::World;

/// Seeds that are run, if `SIM_SEEDS` does not say how many.
const SEEDS: u64 = 6000;

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

/// Small worlds, completely: one publisher, one stored subscriber, few messages of QoS 1 and 2, and the gateway killed at
/// every step, with and without what it had just given to the disk; the same with the bridge and the cloud.
#[test]
fn a_crash_at_every_step() {
    let mut lives = 0;
    let two = Few {
        messages: 2,
        exactly_once_in: 0,
        window: 1,
        version: Version::V5,
        expiry: 0,
    };
    let mut worlds = vec![(false, two), (true, two)];
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
                worlds.push((false, few));
            }
        }
    }
    for (bridge, few) in worlds {
        let clients = plan::one_of_each(bridge, few);
        let whole = live(Plan::quiet(clients.clone(), bridge, Vec::new()), false);
        let steps = whole.unwrap_or_else(|failure| panic!("{failure}")).steps;
        for step in 1..=steps {
            for commits in [false, true] {
                let kill = Kill {
                    step,
                    server: GATEWAY,
                    commits,
                };
                let life = live(Plan::quiet(clients.clone(), bridge, vec![kill]), false);
                if let Err(failure) = life {
                    panic!(
                        "{failure}\nkilled at step {step} of {steps}, commits: {commits}, bridge: {bridge}, {few:?}"
                    );
                }
                lives += 1;
            }
        }
    }
    println!("{lives} lives with one crash each");
}
