//! The broker under test: a process of its own on a free port with a fresh data directory, or one that runs already.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How to come by a broker, from the environment.
pub(crate) enum Setup {
    /// One that runs already (`LARDER_SPEC_BROKER`).
    Running(SocketAddr),
    /// A binary to start: Cargo's, or `LARDER_SPEC_BINARY`, through the words of `LARDER_SPEC_RUNNER`.
    Binary {
        runner: Vec<String>,
        binary: PathBuf,
    },
}

impl Setup {
    pub(crate) fn from_environment() -> Result<Self, String> {
        if let Ok(place) = std::env::var("LARDER_SPEC_BROKER") {
            let address = place
                .to_socket_addrs()
                .ok()
                .and_then(|mut addresses| addresses.next());
            return address
                .map(Setup::Running)
                .ok_or_else(|| format!("LARDER_SPEC_BROKER=`{place}` is not host:port"));
        }
        let runner = std::env::var("LARDER_SPEC_RUNNER").unwrap_or_default();
        Ok(Setup::Binary {
            runner: runner.split_whitespace().map(str::to_owned).collect(),
            binary: std::env::var_os("LARDER_SPEC_BINARY")
                .map_or_else(|| env!("CARGO_BIN_EXE_larder").into(), PathBuf::from),
        })
    }

    /// A reply or a start that takes longer than this has failed. An emulated processor is given more.
    pub(crate) fn patience(&self) -> Duration {
        match self {
            Setup::Binary { runner, .. } if !runner.is_empty() => Duration::from_secs(60),
            _ => Duration::from_secs(5),
        }
    }

    /// A broker whose configuration has these lines of TOML beside the defaults.
    pub(crate) fn broker(&self, settings: &[String]) -> Result<Broker, String> {
        match self {
            Setup::Running(address) => Ok(Broker {
                address: *address,
                process: None,
            }),
            Setup::Binary { runner, binary } => {
                let mut process = Process::new(runner, binary, settings, self.patience())?;
                Ok(Broker {
                    address: process.start()?,
                    process: Some(process),
                })
            }
        }
    }
}

pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    process: Option<Process>,
}

impl Broker {
    /// Kills the broker and starts it again on the same data, on another port.
    pub(crate) fn restart(&mut self) -> Result<(), String> {
        let process = self
            .process
            .as_mut()
            .ok_or("only a broker that was started here can be restarted")?;
        process.kill();
        self.address = process.start()?;
        Ok(())
    }

    /// What became of the process, if it is gone: its status and the end of its log.
    pub(crate) fn obituary(&mut self) -> Option<String> {
        let process = self.process.as_mut()?;
        let status = process.child.as_mut()?.try_wait().ok()??;
        Some(format!(
            "the broker ended ({status}); its log ends:\n{}",
            process.log_tail()
        ))
    }
}

struct Process {
    command: Vec<String>,
    settings: String,
    directory: PathBuf,
    patience: Duration,
    child: Option<Child>,
}

impl Process {
    fn new(
        runner: &[String],
        binary: &Path,
        settings: &[String],
        patience: Duration,
    ) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "larder-spec-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(directory.join("data"))
            .map_err(|error| format!("{}: {error}", directory.display()))?;
        let command = runner
            .iter()
            .cloned()
            .chain([binary.display().to_string()])
            .collect();
        Ok(Process {
            command,
            settings: settings.join("\n"),
            directory,
            patience,
            child: None,
        })
    }

    /// Starts it and waits until it says where it listens. The system chooses the port: one that is looked for before
    /// may be another's when it is used.
    fn start(&mut self) -> Result<SocketAddr, String> {
        let before = self.log().len();
        self.spawn()
            .map_err(|error| format!("{}: {error}", self.command.join(" ")))?;
        let deadline = Instant::now() + self.patience;
        while Instant::now() < deadline {
            if let Some(status) = self
                .child
                .as_mut()
                .and_then(|child| child.try_wait().ok().flatten())
            {
                return Err(format!(
                    "the broker ended at its start ({status}); its log ends:\n{}",
                    self.log_tail()
                ));
            }
            if let Some(address) = listening_address(&self.log()[before..]) {
                return Ok(address);
            }
            // Nothing tells that the log has grown, so it is read again.
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
        Err(format!(
            "the broker did not listen within {:?}; its log ends:\n{}",
            self.patience,
            self.log_tail()
        ))
    }

    fn spawn(&mut self) -> io::Result<()> {
        let configuration = self.directory.join("larder.toml");
        fs::write(&configuration, self.configuration())?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("log"))?;
        let (program, arguments) = self.command.split_first().expect("a command has a program");
        let child = Command::new(program)
            .args(arguments)
            .args(["run", "--config"])
            .arg(configuration)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// The defaults, on one port, with data of its own and what the conversation asks for.
    fn configuration(&self) -> String {
        let data = self.directory.join("data").display().to_string();
        format!(
            "data_dir = {data:?}\n{}\n\n[[listener]]\nbind = \"127.0.0.1:0\"\n",
            self.settings
        )
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error means that it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn log(&self) -> String {
        let log = fs::read(self.directory.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines = log.lines().collect::<Vec<_>>();
        lines[lines.len().saturating_sub(15)..]
            .iter()
            .map(|line| format!("    | {line}\n"))
            .collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The address in the line "… listens on 127.0.0.1:1883; …", once that is whole.
fn listening_address(log: &str) -> Option<SocketAddr> {
    let (_, after) = log.split_once(" listens on ")?;
    after.split_once(';')?.0.parse().ok()
}
