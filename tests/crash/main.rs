//! Every power cut that the store can meet: what SQLite writes and synchronises is recorded from a process that lives a
//! life, the states that a cut can leave are made of it, and each is opened by the store itself. It must find what was
//! acknowledged, all of it and nothing else.
//!
//! `LARDER_CRASH_STATES=20000` makes so many states of each life, `LARDER_SEED` makes others.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a test waits with a clock of its own, and says what it found"
)]

#[path = "../process/calls.rs"]
mod calls;
mod disk;
#[path = "../store/harness.rs"]
#[allow(dead_code, reason = "the store's own tests say more")]
mod harness;
mod judge;
#[path = "../store/life.rs"]
mod life;
mod lives;
mod record;

use disk::Disk;
use judge::{Found, judge};
use life::Random;
use lives::Life;

#[test]
fn a_cut_at_any_write_of_the_first_start_leaves_what_can_be_opened() {
    survives(Life::First, 700);
}

#[test]
fn a_cut_at_any_write_of_a_random_life_loses_nothing() {
    survives(Life::Random, 1000);
}

#[test]
fn a_cut_at_any_write_while_a_backlog_comes_and_goes_loses_nothing() {
    survives(Life::Backlog, 500);
}

#[test]
fn a_cut_at_any_write_while_an_older_file_is_brought_up_to_date_loses_nothing() {
    survives(Life::Older, 600);
}

#[test]
fn a_cut_at_any_write_of_the_recovery_from_a_cut_loses_nothing() {
    survives(Life::Cut, 1000);
}

#[test]
fn a_cut_at_any_write_while_a_damaged_file_is_set_aside_loses_nothing_more() {
    survives(Life::Damaged, 400);
}

/// A judge that finds no fault in anything would be of no use.
#[test]
fn a_disk_that_only_says_that_it_synchronised_is_found_out() {
    let recorded = record::record(Life::Random);
    let liar = Disk::lying(recorded.disk());
    let found = judge(Life::Random, &recorded, liar, 300, &mut Random(1));
    assert!(
        found.first.is_some(),
        "{} states without a fault",
        found.states
    );
}

/// Of about so many states, if `LARDER_CRASH_STATES` says nothing else.
fn survives(life: Life, states: u64) {
    let recorded = record::record(life);
    let states = number("LARDER_CRASH_STATES").unwrap_or(states);
    let seed = number("LARDER_SEED").unwrap_or(1);
    let disk = recorded.disk();
    let Found {
        cuts,
        states,
        checkpoints,
        faults,
        first,
    } = judge(
        life,
        &recorded,
        disk,
        usize::try_from(states).unwrap(),
        &mut Random(seed),
    );
    println!(
        "crash: {life:?}: {states} states of {cuts} cuts (LARDER_SEED={seed}), {checkpoints} of them in a checkpoint: \
         {faults} faults"
    );
    if let Some(first) = first {
        panic!("{first}");
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number")),
    )
}
