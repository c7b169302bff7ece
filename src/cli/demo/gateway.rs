//! Brokers as processes: this same program, started, measured, killed.

use super::client::{Client, Login};
use larder_packet::Version;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a broker may take from its start to its first CONNACK.
const START_MAX: Duration = Duration::from_secs(20);
const START_POLL: Duration = Duration::from_millis(1);

/// A `larder run` with its configuration, its data and its log in one directory. Killed when dropped.
#[derive(Debug)]
pub(super) struct Broker {
    name: &'static str,
    directory: PathBuf,
    address: SocketAddr,
    child: Child,
    /// Bytes that processes before this one have written.
    written_before: u64,
}

impl Broker {
    /// Starts a broker that keeps all it has below `directory`: `NAME.toml` with its address and these
    /// `settings`, `NAME.log`, and its data in `NAME/`.
    pub(super) fn start(
        directory: &Path,
        name: &'static str,
        address: SocketAddr,
        settings: &str,
    ) -> Result<Broker, String> {
        let config = directory.join(format!("{name}.toml"));
        let text = format!("[[listener]]\nbind = \"{address}\"\n\n{settings}");
        fs::write(&config, text).map_err(|error| format!("{}: {error}", config.display()))?;
        let mut broker = Broker {
            name,
            directory: directory.to_owned(),
            address,
            child: spawn(directory, name)?,
            written_before: 0,
        };
        broker.first_connack(Instant::now())?;
        Ok(broker)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL. Returns when the process is gone.
    pub(super) fn kill(&mut self) {
        self.written_before += self.written_now().unwrap_or(0);
        end(&mut self.child);
    }

    /// Starts it again after [`Broker::kill`]: the time until its first CONNACK.
    pub(super) fn start_again(&mut self) -> Result<Duration, String> {
        let begin = Instant::now();
        self.child = spawn(&self.directory, self.name)?;
        self.first_connack(begin)
    }

    /// Fails if it has ended by itself.
    pub(super) fn check(&mut self) -> Result<(), String> {
        match self.ended() {
            None => Ok(()),
            Some(status) => Err(format!("the {} has ended by itself: {status}", self.name)),
        }
    }

    /// Resident memory in bytes (proc_pid_status(5)).
    pub(super) fn rss(&self) -> Option<u64> {
        let kibibytes = self.field("status", "VmRSS:")?;
        Some(kibibytes * 1024)
    }

    /// Bytes that it has caused to be written to the disk since it was first started (proc_pid_io(5)).
    pub(super) fn written(&self) -> Option<u64> {
        Some(self.written_before + self.written_now()?)
    }

    fn written_now(&self) -> Option<u64> {
        self.field("io", "write_bytes:")
    }

    fn field(&self, file: &str, name: &str) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.pid())).ok()?;
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        value.split_whitespace().next()?.parse().ok()
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    fn first_connack(&mut self, begin: Instant) -> Result<Duration, String> {
        let login = Login {
            version: Version::V5,
            client_id: "first-connack",
            clean_start: true,
            session_expiry: 0,
            receive_maximum: 1,
        };
        loop {
            let error = match Client::connect(self.address, login) {
                Ok(_) => return Ok(begin.elapsed()),
                Err(error) => error,
            };
            if let Some(status) = self.ended() {
                return Err(format!("the {} does not start: {status}", self.name));
            }
            if begin.elapsed() > START_MAX {
                return Err(format!(
                    "the {} does not answer on {}: {error}",
                    self.name, self.address
                ));
            }
            thread::sleep(START_POLL);
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    // Both fail only if it has been waited for already.
    let _ = child.kill();
    let _ = child.wait();
}

fn spawn(directory: &Path, name: &str) -> Result<Child, String> {
    let log = directory.join(format!("{name}.log"));
    let log_of = |error: io::Error| format!("{}: {error}", log.display());
    let file: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .map_err(log_of)?;
    let program = std::env::current_exe()
        .map_err(|error| format!("this program cannot find itself: {error}"))?;
    Command::new(&program)
        // Names relative to the directory stay short enough for a Unix socket, however long its own is.
        .current_dir(directory)
        .args(["run", "--config", &format!("{name}.toml"), "--data", name])
        .stdin(Stdio::null())
        .stdout(file.try_clone().map_err(log_of)?)
        .stderr(file)
        .spawn()
        .map_err(|error| format!("{} cannot be started: {error}", program.display()))
}

/// Addresses on the loopback interface that are free, below the ports that the system hands out by itself: there, a
/// client that tries again and again while nobody listens could come to be connected to itself.
pub(super) fn free_addresses<const N: usize>() -> io::Result<[SocketAddr; N]> {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 10_000;
    let mut held = Vec::with_capacity(N);
    for offset in 0..COUNT {
        let port = FIRST + (std::process::id() * 16 + offset) % COUNT;
        let Ok(port) = u16::try_from(port) else { break };
        // Another program may have it.
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
        if held.len() == N {
            break;
        }
    }
    let addresses: Result<Vec<SocketAddr>, io::Error> =
        held.iter().map(TcpListener::local_addr).collect();
    addresses?
        .try_into()
        .map_err(|_| io::Error::new(ErrorKind::AddrInUse, "no port is free from 20000 to 29999"))
}
