//! The power is cut for real: the program runs on a file system that, when it is shut down, forgets what was not
//! synchronised. Publishers of QoS 1 and 2 and their subscribers come back after each cut, and hold it to all that it
//! had acknowledged.
//!
//! Needs root, loop devices and ext4. `LARDER_CUTS` is how often the power is cut, `LARDER_SEED` the seed of the
//! moments, `LARDER_BINARY` another binary than Cargo's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "this is a program of its own, with its own clock and its own standard streams"
)]

#[path = "../process/broker.rs"]
#[allow(dead_code, reason = "the process tests ask for more")]
mod broker;
#[path = "../process/client.rs"]
#[allow(dead_code, reason = "the process tests ask for more")]
mod client;
mod disk;
#[path = "../process/exactly_once.rs"]
#[allow(dead_code, reason = "the process tests ask for more")]
mod exactly_once;
#[path = "../process/load.rs"]
mod load;
#[path = "../process/random.rs"]
mod random;

use broker::{Broker, Setup, require};
use disk::Disk;
use random::{Random, seed};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// In each of the two tests, if `LARDER_CUTS` says nothing.
const CUTS: u32 = 20;
/// The power is on for up to so long.
const LIFE_MAX_MS: u64 = 400;
/// A checkpoint is cut after up to so many pages: it has at least as many.
const PAGES_MAX: u64 = 60;
/// How much slower a checkpoint writes a page, so that the cut meets it.
const PAGE_DELAY: Duration = Duration::from_millis(1);
/// A checkpoint comes within this time.
const PATIENCE: Duration = Duration::from_secs(30);

/// A rig that kept everything would find no fault in anything.
#[test]
fn what_was_not_synchronised_is_gone_after_a_cut() {
    let mut disk = Disk::new();
    let (kept, lost) = (disk.path().join("kept"), disk.path().join("lost"));
    fs::write(&kept, "kept").unwrap();
    fs::File::open(&kept).unwrap().sync_all().unwrap();
    fs::write(&lost, "lost").unwrap();
    disk.cut();
    disk.restore();
    assert_eq!(fs::read(&kept).unwrap(), b"kept");
    assert_ne!(fs::read(&lost).unwrap_or_default(), b"lost");
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_at_any_moment() {
    let (seed, cuts) = (seed(), cuts());
    let mut random = Random(seed);
    let mut disk = Disk::new();
    let setup = Setup::new("");
    disk.serve(&setup.beside("data"));
    survive(setup.start(), &mut disk, cuts, |disk| {
        std::thread::sleep(Duration::from_millis(random.next() % LIFE_MAX_MS));
        disk.cut();
    });
    println!("power: cut {cuts} times at random moments (LARDER_SEED={seed})");
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_in_a_checkpoint() {
    require("strace");
    let (seed, cuts) = (seed(), cuts());
    let mut random = Random(seed);
    let mut disk = Disk::new();
    let setup = Setup::new("");
    disk.serve(&setup.beside("data"));
    // Of the database itself: it is written to by checkpoints only.
    let pipe = setup.beside("pages");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let pages = lines(&pipe);
    let delay = format!("inject=pwrite64:delay_enter={}", PAGE_DELAY.as_micros());
    let words = [
        "strace",
        "-D",
        "-f",
        "-e",
        "trace=pwrite64,fsync,fdatasync",
        "-e",
        &delay,
    ];
    let database = disk.path().join("larder.db");
    let setup = setup.wrapped(words.iter().map(Into::into).chain([
        "-P".into(),
        database.into_os_string(),
        "-o".into(),
        pipe.into_os_string(),
    ]));
    let mut longest = 0;
    survive(setup.start(), &mut disk, cuts, |disk| {
        // Those of the start, and of the life before.
        while pages.try_recv().is_ok() {}
        let mut left = 1 + random.next() % PAGES_MAX;
        let mut written = 0;
        while left > 0 {
            let line = pages
                .recv_timeout(PATIENCE)
                .expect("a checkpoint within its time");
            if line.contains("pwrite64(") {
                left -= 1;
                written += 1;
            } else {
                // It is over: the next one is met earlier.
                left = 1;
                written = 0;
            }
        }
        disk.cut();
        longest = longest.max(written);
    });
    println!(
        "power: cut {cuts} times in a checkpoint, after up to {longest} pages (LARDER_SEED={seed})"
    );
}

/// Cuts the power so often under a load, and starts again on what is left.
fn survive(mut broker: Broker, disk: &mut Disk, cuts: u32, mut cut: impl FnMut(&mut Disk)) {
    let mut slowest = Duration::ZERO;
    load::survives(&mut broker, |broker| {
        exactly_once::survives(broker, |broker| {
            for _ in 0..cuts {
                cut(disk);
                broker.kill();
                disk.restore();
                slowest = slowest.max(broker.start());
                let set_aside = fs::read_dir(disk.path())
                    .unwrap()
                    .map(|file| file.unwrap().file_name())
                    .find(|name| name.to_string_lossy().contains("corrupt"));
                assert_eq!(set_aside, None, "the database was taken for damaged");
            }
        });
    });
    println!("power: the slowest start took {slowest:.1?}");
}

/// The lines that come out of a named pipe, whoever writes to it.
fn lines(pipe: &Path) -> Receiver<String> {
    let (sender, receiver) = channel();
    let pipe = pipe.to_owned();
    std::thread::spawn(move || {
        while let Ok(end) = fs::File::open(&pipe) {
            for line in BufReader::new(end).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        }
    });
    receiver
}

fn cuts() -> u32 {
    match std::env::var("LARDER_CUTS") {
        Ok(cuts) => cuts.parse().expect("LARDER_CUTS is a number"),
        Err(_) => CUTS,
    }
}
