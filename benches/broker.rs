//! The brokers: how each is started, and what is asked of it while it runs.

use crate::link::Client;
use crate::machine::{self, Core};
use crate::{Result, options::Options};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a broker may take to listen.
const START_WAIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Larder,
    Mosquitto,
    /// The same bytes, reads and writes without a broker: see `relay.rs`.
    Relay,
}

impl Kind {
    pub(crate) const ALL: [Kind; 3] = [Kind::Larder, Kind::Mosquitto, Kind::Relay];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Larder => "larder",
            Kind::Mosquitto => "mosquitto",
            Kind::Relay => "relay",
        }
    }
}

/// What a row needs beyond the defaults.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Needs {
    /// Thousands of links, or of subscriptions.
    pub(crate) crowd: bool,
    /// A backlog that is larger than a session may have by default.
    pub(crate) backlog: bool,
}

/// A broker in a directory of its own. It ends, and the directory goes, with this.
pub(crate) struct Broker {
    kind: Kind,
    command: Vec<String>,
    directory: PathBuf,
    address: SocketAddr,
    child: Option<Child>,
}

impl Broker {
    pub(crate) fn start(kind: Kind, needs: Needs, options: &Options) -> Result<Broker> {
        let directory = std::path::absolute(options.directory.join(kind.name()))?;
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir_all(directory.join("data"))?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = directory.join("config");
        let data = directory.join("data").display().to_string();
        let config_name = config.display().to_string();
        let mut command = options.under.clone();
        match kind {
            Kind::Larder => {
                let extra = &options.larder_config;
                fs::write(&config, larder_config(&data, address, needs, extra))?;
                command.extend([options.larder.clone(), "run".into(), "--config".into()]);
                command.push(config_name);
            }
            Kind::Mosquitto => {
                fs::write(&config, mosquitto_config(&data, address))?;
                command.extend([options.mosquitto.clone(), "-c".into(), config_name]);
            }
            Kind::Relay => {
                let own = std::env::current_exe()?.display().to_string();
                command.extend([own, "--relay".into(), address.to_string()]);
            }
        }
        let mut broker = Broker {
            kind,
            command,
            directory,
            address,
            child: None,
        };
        broker.resume()?;
        Ok(broker)
    }

    /// Starts it again on what it has left; gives back the time to its first CONNACK.
    pub(crate) fn resume(&mut self) -> Result<Duration> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("log"))?;
        let (program, arguments) = self.command.split_first().ok_or("no command")?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let began = Instant::now();
        machine::pin(Core::Broker)?;
        let child = command.spawn();
        machine::pin(Core::Generator)?;
        self.child = Some(child.map_err(|error| format!("{program}: {error}"))?);
        while TcpStream::connect(self.address).is_err() {
            let child = self.child.as_mut().ok_or("no child")?;
            if let Some(status) = child.try_wait()? {
                return Err(format!("{} ended with {status}; {}", program, self.log()).into());
            }
            if began.elapsed() > START_WAIT {
                return Err(format!("{program} does not listen; {}", self.log()).into());
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        Client::publisher("probe".into()).connect(self.address)?;
        Ok(began.elapsed())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn directory(&self) -> &PathBuf {
        &self.directory
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Ends it by SIGTERM, as only that makes Mosquitto save its sessions.
    pub(crate) fn stop(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            kill_process(Pid::from_child(&child), Signal::TERM)?;
            child.wait()?;
        }
        Ok(())
    }

    /// Ends it by SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // What is left over is in the way of nobody.
        let _ = self.stop();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn larder_config(data: &str, address: SocketAddr, needs: Needs, extra: &str) -> String {
    let mut config = format!("data_dir = {data:?}\nlog.level = \"warn\"\n{extra}");
    if needs.crowd {
        config +=
            "limits.links = 10100\nlimits.sessions = 10200\nlimits.memory_max = \"1800 MiB\"\n";
    }
    if needs.backlog {
        config += "store.disk_max = \"24 GiB\"\nstore.session_disk_max = \"12 GiB\"\n";
    }
    config + &format!("[[listener]]\nbind = \"{address}\"\n")
}

fn mosquitto_config(data: &str, address: SocketAddr) -> String {
    format!(
        "listener {} {}\nallow_anonymous true\nuser root\npersistence true\npersistence_location {data}/\n\
         max_queued_messages 0\nmax_inflight_messages 1000\nset_tcp_nodelay true\nlog_type error\n",
        address.port(),
        address.ip()
    )
}
