//! Hostile bytes: packets, whole conversations, records on disk, configurations. Each target takes any bytes and panics
//! if a promise is broken; here they are given mutations of a corpus that is grown from the conversations of
//! tests/spec, and in `cargo-fuzz/` what libFuzzer finds.
//!
//! `LARDER_FUZZ_SECONDS` is how long each target is run, `LARDER_SEED` which mutations. What breaks a promise is kept in
//! target/fuzz; `LARDER_FUZZ_INPUT=FILE cargo test --test fuzz TARGET` runs it alone. Once mended it belongs into
//! `found/TARGET/`, and is run each time. `LARDER_FUZZ_CORPUS=DIRECTORY` writes the corpus there, for cargo-fuzz.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a test waits with a clock of its own, and says what it found"
)]

mod corpus;
#[path = "../spec/format.rs"]
#[allow(dead_code, reason = "the conversations are not played")]
mod format;
mod mutation;
#[path = "../spec/pattern.rs"]
#[allow(dead_code, reason = "the conversations are not played")]
mod pattern;
#[path = "../spec/property.rs"]
#[allow(dead_code, reason = "the conversations are not played")]
mod property;
#[path = "../process/random.rs"]
mod random;
#[path = "../spec/shorthand.rs"]
mod shorthand;
mod targets;

// What the targets are made with.
#[path = "../regressions/flash.rs"]
#[allow(dead_code, reason = "the regressions ask for more")]
mod flash;
#[path = "../store/harness.rs"]
#[allow(dead_code, reason = "the store's own tests say more")]
mod harness;
#[path = "../regressions/packets.rs"]
#[allow(dead_code, reason = "the regressions ask for more")]
mod packets;
#[path = "../regressions/wires.rs"]
#[allow(dead_code, reason = "the regressions ask for more")]
mod wires;
#[path = "../regressions/world.rs"]
#[allow(dead_code, reason = "the regressions ask for more")]
mod world;

use mutation::mutated;
use random::{Random, seed};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Of each target, if `LARDER_FUZZ_SECONDS` says nothing.
const SECONDS: u64 = 15;

#[test]
fn decode() {
    fuzz("decode", targets::decode, corpus::packets(), 2);
}

#[test]
fn conversation() {
    fuzz(
        "conversation",
        targets::conversation,
        corpus::conversations(),
        6,
    );
}

#[test]
fn stored() {
    fuzz("stored", targets::stored, targets::records(), 1);
}

#[test]
fn configuration() {
    fuzz(
        "configuration",
        targets::configuration,
        corpus::configurations(),
        3,
    );
}

/// Gives a target what was found before, its corpus, and mutations of both, up to `joined` inputs together, until
/// the time is up.
fn fuzz(name: &str, target: fn(&[u8]), mut corpus: Vec<Vec<u8>>, joined: usize) {
    if let Some(file) = std::env::var_os("LARDER_FUZZ_INPUT") {
        return target(&fs::read(file).unwrap());
    }
    if let Some(directory) = std::env::var_os("LARDER_FUZZ_CORPUS") {
        let directory = PathBuf::from(directory).join(name);
        fs::create_dir_all(&directory).unwrap();
        for (number, input) in corpus.iter().enumerate() {
            fs::write(directory.join(format!("{number:04}")), input).unwrap();
        }
        return;
    }
    let seconds = std::env::var("LARDER_FUZZ_SECONDS").map_or(SECONDS, |seconds| {
        seconds.parse().expect("LARDER_FUZZ_SECONDS is a number")
    });
    corpus.extend(found(name));
    assert!(corpus.len() > 10, "{} inputs are no corpus", corpus.len());
    for input in &corpus {
        give(name, target, input);
    }
    let seed = seed();
    let mut random = Random(seed);
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut mutations = 0;
    while Instant::now() < until {
        give(name, target, &mutated(&corpus, joined, &mut random));
        mutations += 1;
    }
    println!(
        "fuzz: {name}: {} inputs and {mutations} mutations (LARDER_SEED={seed})",
        corpus.len()
    );
}

/// What broke a promise once.
fn found(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/found");
    let Ok(files) = fs::read_dir(directory.join(name)) else {
        return Vec::new();
    };
    files
        .map(|file| fs::read(file.unwrap().path()).unwrap())
        .collect()
}

fn give(name: &str, target: fn(&[u8]), input: &[u8]) {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz");
    let file = place.join(name);
    // One that ends the process can be told from nothing else than this.
    let is_kept = name == "stored";
    if is_kept {
        fs::create_dir_all(&place).unwrap();
        fs::write(&file, input).unwrap();
    }
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        fs::create_dir_all(&place).unwrap();
        fs::write(&file, input).unwrap();
        panic!(
            "{} bytes broke a promise: LARDER_FUZZ_INPUT={} cargo test --test fuzz {name}",
            input.len(),
            file.display()
        );
    }
}
