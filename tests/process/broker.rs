//! The broker under test: a process with a directory of its own, whose log lines are events.

use crate::client::{Client, Identity, PATIENCE};
use larder_packet::{Qos, Version};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
use std::time::{Duration, Instant};

/// Cargo's binary, or `LARDER_BINARY`.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("LARDER_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_larder").into(), PathBuf::from)
}

/// A command that runs the broker's binary with nothing of our environment that it would heed.
pub(crate) fn larder() -> Command {
    quiet(Command::new(binary()))
}

fn quiet(mut command: Command) -> Command {
    command
        .env_remove("RUST_LOG")
        .env_remove("STATE_DIRECTORY")
        .stdin(Stdio::null());
    command
}

/// An empty directory that goes with its owner; a failed test leaves it, to be looked at.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Directory {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "larder-process-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Directory(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("left to be looked at: {}", self.0.display());
        } else {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// How a broker is started. It listens on a port that the system chooses, another one at each start: so nobody can
/// take it while the broker is away.
pub(crate) struct Setup {
    /// Goes with the broker.
    _share: Share,
    directory: Directory,
    settings: String,
    wrapper: Vec<OsString>,
}

impl Setup {
    /// With these tables of TOML beside the defaults. One for each test: a second one may wait for the first.
    pub(crate) fn new(settings: &str) -> Setup {
        let share = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
        Setup::with_share(settings, Share::Some(share))
    }

    /// While no other test has a broker: for figures that depend on how prompt the clients are.
    pub(crate) fn alone(settings: &str) -> Setup {
        let share = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
        Setup::with_share(settings, Share::All(share))
    }

    fn with_share(settings: &str, share: Share) -> Setup {
        Setup {
            _share: share,
            directory: Directory::new(),
            settings: settings.to_owned(),
            wrapper: Vec::new(),
        }
    }

    /// A file beside the broker's data.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Run by this command, which must leave the broker the process that it started.
    pub(crate) fn wrapped(self, command: impl IntoIterator<Item = impl Into<OsString>>) -> Setup {
        Setup {
            wrapper: command.into_iter().map(Into::into).collect(),
            ..self
        }
    }

    /// Run under strace, which does this to its system calls of these names.
    pub(crate) fn tampered(self, calls: &str, how: &str) -> Setup {
        require("strace");
        let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:{how}"));
        let words = ["strace", "-D", "-f", "--seccomp-bpf"];
        let which = ["-e", &trace, "-e", &inject, "-o", "/dev/null"];
        self.wrapped(words.iter().chain(&which))
    }

    /// Starts it.
    pub(crate) fn start(self) -> Broker {
        let mut broker = Broker {
            setup: self,
            process: None,
            place: Arc::default(),
        };
        broker.start();
        broker
    }
}

/// The processor time that brokers and their clients share.
static MACHINE: RwLock<()> = RwLock::new(());

#[expect(dead_code, reason = "held, not read")]
enum Share {
    Some(RwLockReadGuard<'static, ()>),
    All(RwLockWriteGuard<'static, ()>),
}

/// Where the broker is to be found now: clients that outlive it ask here.
#[derive(Default)]
pub(crate) struct Place {
    address: Mutex<Option<SocketAddr>>,
    changed: Condvar,
}

impl Place {
    /// The address, as soon as there is one.
    pub(crate) fn wait(&self) -> SocketAddr {
        let guard = lock(&self.address);
        let (address, _) = self
            .changed
            .wait_timeout_while(guard, PATIENCE, |address| address.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        address.expect("the broker did not come back")
    }

    fn set(&self, address: Option<SocketAddr>) {
        *lock(&self.address) = address;
        self.changed.notify_all();
    }
}

pub(crate) struct Broker {
    setup: Setup,
    process: Option<Process>,
    place: Arc<Place>,
}

struct Process {
    child: Child,
    log: Arc<Log>,
}

/// A broker's standard error.
#[derive(Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Default)]
struct LogState {
    lines: VecDeque<String>,
    ended: bool,
}

/// Lines kept of a log.
const LOG_LINES: usize = 200;

impl Broker {
    /// Starts it on the data that it left, and says how long it took until it accepted a client: from before the
    /// process was started until the CONNACK.
    pub(crate) fn start(&mut self) -> Duration {
        assert!(self.process.is_none(), "it runs already");
        let began = Instant::now();
        self.write_configuration();
        let mut command = match self.setup.wrapper.split_first() {
            None => larder(),
            Some((program, arguments)) => {
                let mut command = quiet(Command::new(program));
                command.args(arguments).arg(binary());
                command
            }
        };
        command
            .args(["run", "--config"])
            .arg(self.setup.beside("larder.toml"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error} (see tests/setup)"));
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().expect("it is piped");
        std::thread::spawn({
            let log = Arc::clone(&log);
            move || log.read(stderr)
        });
        self.process = Some(Process { child, log });
        let line = self.wait_for_log(" listens on ");
        let address = listening_address(&line);
        let client = Client::connect(address, &Identity::volatile("", Version::V5))
            .unwrap_or_else(|error| panic!("no CONNACK after the start: {error}"));
        let took = began.elapsed();
        drop(client);
        self.place.set(Some(address));
        took
    }

    fn write_configuration(&self) {
        let text = format!(
            "data_dir = {:?}\n{}\n[[listener]]\nbind = \"127.0.0.1:0\"\n",
            self.data(),
            self.setup.settings,
        );
        fs::write(self.setup.beside("larder.toml"), text).expect("the directory is ours");
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.place.wait()
    }

    pub(crate) fn place(&self) -> Arc<Place> {
        Arc::clone(&self.place)
    }

    pub(crate) fn connect(&self, identity: &Identity) -> Client {
        Client::connect(self.address(), identity)
            .unwrap_or_else(|error| panic!("{identity:?}: {error}"))
    }

    /// A client that is told a figure of the broker's own, from now on: [`next_figure`].
    pub(crate) fn watch(&self, topic: &str) -> Client {
        let mut watcher = self.connect(&Identity::volatile("", Version::V5));
        watcher
            .subscribe(topic, Qos::AtMostOnce)
            .expect("it may be subscribed to");
        watcher
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.setup.beside("data")
    }

    /// A file beside its data.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.setup.beside(name)
    }

    /// SIGKILL: gone when this returns.
    pub(crate) fn kill(&mut self) {
        self.place.set(None);
        if let Some(mut process) = self.process.take() {
            process.child.kill().expect("it is our child");
            process.child.wait().expect("it is our child");
        }
    }

    /// Sends a signal by its name: "TERM", "INT".
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status()
            .expect("kill(1) runs");
        assert!(status.success());
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        self.place.set(None);
        // The log ends with the process (and with what wraps it): an event, where `wait` has no time limit.
        let log = &self.process.as_ref().expect("it runs").log;
        let ended = log.wait_for(|state| state.ended.then_some(()));
        assert!(ended.is_some(), "the broker did not end");
        let mut process = self.process.take().expect("it runs");
        process.child.wait().expect("it is our child")
    }

    /// Waits for a line of this start's log that has `part` in it.
    pub(crate) fn wait_for_log(&self, part: &str) -> String {
        let log = &self.process.as_ref().expect("it runs").log;
        let line =
            log.wait_for(|state| state.lines.iter().find(|line| line.contains(part)).cloned());
        line.unwrap_or_else(|| panic!("no line with {part:?}; the log ends:\n{}", log.text()))
    }

    /// How many lines of this start's log have `part` in them, of the last 200.
    pub(crate) fn log_lines(&self, part: &str) -> usize {
        let log = &self.process.as_ref().expect("it runs").log;
        let lines = log.text();
        lines.lines().filter(|line| line.contains(part)).count()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").child.id()
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        self.figure("status", "VmRSS:") * 1024
    }

    /// Bytes that the process has caused to be written to the device.
    pub(crate) fn device_written(&self) -> u64 {
        self.figure("io", "write_bytes:")
    }

    /// A figure of its process in /proc.
    pub(crate) fn figure(&self, file: &str, name: &str) -> u64 {
        let path = format!("/proc/{}/{file}", self.pid());
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|figure| figure.split_whitespace().next()?.parse().ok())
            .unwrap_or_else(|| panic!("{path} has no {name}"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Some(process) = &self.process {
                eprintln!("the broker's log ends:\n{}", process.log.text());
            }
        }
        self.kill();
    }
}

impl Log {
    fn read(&self, stderr: impl Read) {
        for line in BufReader::new(stderr).lines() {
            let Ok(line) = line else { break };
            let mut state = lock(&self.state);
            if state.lines.len() == LOG_LINES {
                state.lines.pop_front();
            }
            state.lines.push_back(line);
            self.changed.notify_all();
        }
        lock(&self.state).ended = true;
        self.changed.notify_all();
    }

    /// Waits until `find` finds something, or the log has ended without it, or for too long.
    fn wait_for<T>(&self, mut find: impl FnMut(&LogState) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = lock(&self.state);
        loop {
            let found = find(&state);
            let left = deadline.saturating_duration_since(Instant::now());
            if found.is_some() || state.ended || left.is_zero() {
                return found;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn text(&self) -> String {
        lock(&self.state)
            .lines
            .iter()
            .fold(String::new(), |text, line| text + line + "\n")
    }
}

/// What a command printed and how it ended: one that should end by itself.
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `larder` with these arguments until it ends; killed if it does not.
pub(crate) fn outcome(arguments: &[&str]) -> Outcome {
    let mut child = larder()
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let (stdout, stderr) = (Arc::new(Log::default()), Arc::new(Log::default()));
    for (log, pipe) in [
        (
            &stdout,
            Box::new(child.stdout.take().expect("it is piped")) as Box<dyn Read + Send>,
        ),
        (&stderr, Box::new(child.stderr.take().expect("it is piped"))),
    ] {
        let log = Arc::clone(log);
        std::thread::spawn(move || log.read(pipe));
    }
    for log in [&stdout, &stderr] {
        if log.wait_for(|state| state.ended.then_some(())).is_none() {
            let _ = child.kill();
        }
    }
    let status = child.wait().expect("it is our child");
    assert_ne!(status.signal(), Some(9), "larder {arguments:?} did not end");
    Outcome {
        code: status.code(),
        stdout: stdout.text(),
        stderr: stderr.text(),
    }
}

/// The next report of a figure that is being watched.
pub(crate) fn next_figure(watcher: &mut Client) -> u64 {
    let report = watcher
        .next_message()
        .expect("it is published every sys.interval");
    let figure = std::str::from_utf8(&report.payload).ok();
    figure
        .and_then(|figure| figure.parse().ok())
        .unwrap_or_else(|| panic!("{report:?}"))
}

/// The address in a start line.
pub(crate) fn listening_address(line: &str) -> SocketAddr {
    let after = line.split(" listens on ").nth(1).unwrap_or_default();
    after
        .split([';', ','])
        .next()
        .and_then(|address| address.parse().ok())
        .unwrap_or_else(|| panic!("no address in {line:?}"))
}

/// Whether a program is there; tests that need one fail loudly without it.
pub(crate) fn require(program: &str) {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|place| is_file(&place.join(program)))
    });
    assert!(
        found,
        "{program} is not installed: run `tests/setup process`"
    );
}

fn is_file(path: &Path) -> bool {
    path.is_file()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
