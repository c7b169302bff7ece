//! What concerns the whole process: its limit of open files, its signals.

use crate::child;
use crate::harness::{PATIENCE, now, opened, tcp, turn};
use larder::net::{Net, NetEvent};
use rustix::process::{Resource, Signal, getpid, getrlimit, kill_process, setrlimit};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

#[test]
fn accepting_recovers_when_files_are_free_again() {
    child::run("process::child_without_files");
}

#[test]
fn child_without_files() {
    if child::argument().is_none() {
        return;
    }
    log::set_logger(&WARNINGS).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let mut sockets = tcp(4);
    let (address, limits) = (sockets.address(0).unwrap(), getrlimit(Resource::Nofile));
    let waiting = TcpStream::connect(address).unwrap();
    // No number below the limit is free when the limit is the lowest free number.
    let lowest_free = std::os::fd::AsRawFd::as_raw_fd(&std::fs::File::open("/dev/null").unwrap());
    let mut none = getrlimit(Resource::Nofile);
    none.current = Some(u64::try_from(lowest_free).unwrap());
    setrlimit(Resource::Nofile, none).unwrap();

    let start = Instant::now();
    let mut turns = 0;
    while start.elapsed() < Duration::from_millis(450) {
        assert_eq!(turn(&mut sockets, PATIENCE), []);
        turns += 1;
    }
    assert!(
        (4..=6).contains(&turns),
        "a try every 100 ms, and sleep between them: {turns}"
    );
    assert_eq!(
        WARNINGS.0.load(Ordering::Relaxed),
        1,
        "one line for all tries"
    );

    setrlimit(Resource::Nofile, limits).unwrap();
    opened(&mut sockets);
    drop(waiting);
    // With nothing to try again the turn sleeps as long as it likes.
    let events = turn(&mut sockets, Duration::from_millis(300));
    assert!(matches!(events[..], [NetEvent::Readable(_)]), "{events:?}");
    let start = Instant::now();
    assert_eq!(turn(&mut sockets, Duration::from_millis(300)), []);
    assert!(start.elapsed() >= Duration::from_millis(300));
    child::done();
}

struct Warnings(AtomicU32);

static WARNINGS: Warnings = Warnings(AtomicU32::new(0));

impl log::Log for Warnings {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = record.args().to_string();
        assert!(
            line.contains("listener 0") && line.contains("LimitNOFILE"),
            "{line}"
        );
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn flush(&self) {}
}

#[test]
fn sigterm_and_sigint_end_the_sleep_and_not_the_process() {
    child::run("process::child_that_is_told_to_end");
}

#[test]
fn child_that_is_told_to_end() {
    if child::argument().is_none() {
        return;
    }
    for signal in [Signal::TERM, Signal::INT] {
        let mut sockets = tcp(1);
        sockets.catch_shutdown().unwrap();
        assert!(!sockets.shutdown_requested());
        let start = Instant::now();
        let sender = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            kill_process(getpid(), signal).unwrap();
        });
        while !sockets.shutdown_requested() {
            assert!(
                start.elapsed() < PATIENCE,
                "the signal did not end the sleep"
            );
            sockets.wait(Some(PATIENCE));
            assert_eq!(sockets.poll_event(now()), None);
        }
        sender.join().unwrap();
    }
    child::done();
}
