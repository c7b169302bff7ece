//! The broker under test: a process of its own on a free port with a fresh data directory, or one that runs already.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
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
                // Between finding a free port and using it another program may take it.
                let mut last = String::new();
                for _ in 0..3 {
                    match process
                        .start(free_port().map_err(|error| format!("no free port: {error}"))?)
                    {
                        Ok(address) => {
                            return Ok(Broker {
                                address,
                                process: Some(process),
                            });
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }
}

pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    process: Option<Process>,
}

impl Broker {
    /// Kills the broker and starts it again on the same port and data.
    pub(crate) fn restart(&mut self) -> Result<(), String> {
        let process = self
            .process
            .as_mut()
            .ok_or("only a broker that was started here can be restarted")?;
        process.kill();
        process.start(self.address).map(drop)
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

    /// Starts it and waits until it accepts a connection.
    fn start(&mut self, address: SocketAddr) -> Result<SocketAddr, String> {
        self.spawn(address)
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
            if TcpStream::connect(address).is_ok() {
                return Ok(address);
            }
            // Nothing tells when a port begins to accept, so it is asked again.
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
        Err(format!(
            "the broker did not accept on {address} within {:?}; its log ends:\n{}",
            self.patience,
            self.log_tail()
        ))
    }

    fn spawn(&mut self, address: SocketAddr) -> io::Result<()> {
        let configuration = self.directory.join("larder.toml");
        fs::write(&configuration, self.configuration(address))?;
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
    fn configuration(&self, address: SocketAddr) -> String {
        let data = self.directory.join("data").display().to_string();
        format!(
            "data_dir = {data:?}\n{}\n\n[[listener]]\nbind = \"{address}\"\n",
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

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
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

fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}
