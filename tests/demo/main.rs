//! `larder demo` as a visitor runs it, but without a terminal.
//!
//! `LARDER_BINARY` names another binary than Cargo's, such as a released one.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and waits with a clock of its own"
)]

use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const TIME_MAX: Duration = Duration::from_secs(120);

#[test]
fn nothing_is_missing() {
    let begin = Instant::now();
    let place = Place::make("whole");
    let output = demo(&place).output().unwrap();
    let (said, complaint) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}{complaint}");
    assert_eq!(complaint, "");
    assert!(begin.elapsed() < TIME_MAX, "{:?}", begin.elapsed());

    let controls = said
        .chars()
        .filter(|char| char.is_control() && *char != '\n');
    assert_eq!(controls.count(), 0, "{said}");
    assert!(said.lines().all(|line| line.chars().count() < 80), "{said}");

    let value = |name: &str| -> u64 {
        let row = said
            .lines()
            .rev()
            .find_map(|line| line.trim_start().strip_prefix(name));
        let value = row.unwrap().split_whitespace().next().unwrap();
        value.replace(',', "").parse().unwrap()
    };
    assert_eq!(value("missing "), 0, "{said}");
    assert_eq!(value("out of order "), 0, "{said}");
    assert!(value("published ") > 1_000, "{said}");
    assert_eq!(value("acknowledged "), value("published "), "{said}");
    assert_eq!(value("arrived "), value("published "), "{said}");
    assert!(value("backlog ") > 1_000, "{said}");
    place.assert_empty();
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    let place = Place::make("interrupt");
    let mut demo = demo(&place).spawn().unwrap();
    let mut pids = Vec::new();
    let mut said = BufReader::new(demo.stdout.take().unwrap()).lines();
    while pids.len() < 2 {
        let line = said.next().unwrap().unwrap();
        let mut words = line.split([' ', ',']).skip_while(|word| *word != "pid");
        pids.extend(words.nth(1).map(str::to_owned));
    }
    let pid = Pid::from_raw(i32::try_from(demo.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(130));
    for pid in pids {
        // Waited for, they are gone, unless others have their numbers by now.
        let program = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!text(&program).contains("gateway.toml"), "{pid} is alive");
        assert!(!text(&program).contains("cloud.toml"), "{pid} is alive");
    }
    place.assert_empty();
}

#[test]
fn a_cloud_that_is_not_there_is_told_at_once() {
    let place = Place::make("nobody");
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("mqtt://{address}");
    let output = demo(&place).args(["--cloud", &url]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let complaint = text(&output.stderr);
    assert!(
        complaint.starts_with(&format!("larder: demo: --cloud {url}: ")),
        "{complaint}"
    );
    assert_eq!(
        (complaint.lines().count(), text(&output.stdout)),
        (1, String::new())
    );
    place.assert_empty();
}

fn demo(place: &Place) -> Command {
    let program = std::env::var_os("LARDER_BINARY")
        .unwrap_or_else(|| OsString::from(env!("CARGO_BIN_EXE_larder")));
    let mut command = Command::new(program);
    command
        .arg("demo")
        .env("TMPDIR", &place.0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Where the demo makes its directory. Removed when dropped.
struct Place(PathBuf);

impl Place {
    fn make(name: &str) -> Place {
        let name = format!("larder-demo-test-{name}-{}", std::process::id());
        let place = Place(std::env::temp_dir().join(name));
        fs::create_dir(&place.0).unwrap();
        place
    }

    fn assert_empty(&self) {
        let left: Vec<_> = fs::read_dir(&self.0).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Nothing that is still there is needed.
        let _ = fs::remove_dir_all(&self.0);
    }
}
