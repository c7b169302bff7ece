//! `larder.toml` → [`Config`], checked once: whoever holds a `Config` need not check it again.
//!
//! A configuration that cannot be run is one error, with the file, the line, the key and what to do. `systemd/larder.toml`
//! lists every key with its default and meaning.

mod bridge;
mod check;
mod classes;
mod error;
mod file;
mod queue;
mod rules;
mod value;

pub use error::ConfigError;
pub use value::{ShownDuration, ShownSize};

use larder_bridge::{Rule, Tls};
use larder_packet::Version;
use log::LevelFilter;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Everything that can be configured, with defaults in place of what the file leaves out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the sessions, their queues and what is retained are kept.
    pub data_dir: PathBuf,
    /// Where clients connect; at least one.
    pub listeners: Vec<Listener>,
    /// What clients may use.
    pub limits: Limits,
    /// What is written, and when.
    pub store: StoreConfig,
    /// What the queues of certain sessions may take. The first that names a client holds.
    pub queues: Vec<QueueConfig>,
    /// The cloud brokers with which topics are exchanged.
    pub bridges: Vec<BridgeConfig>,
    /// What is logged.
    pub log: LogConfig,
    /// What is told under `$SYS/`.
    pub sys: SysConfig,
}

/// A place where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its address.
    pub bind: Bind,
    /// Whether clients are let in that do not say who they are.
    pub anonymous: bool,
}

/// The address of a [`Listener`]: in text `127.0.0.1:1883`, `[::1]:1883` or `unix:/run/larder/larder.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// A TCP port; port 0 takes any that is free.
    Tcp(SocketAddr),
    /// The path of a Unix socket, 1 to 107 bytes.
    Unix(PathBuf),
}

/// What clients may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory that the whole program may use; it does not start if its budget is higher.
    pub memory_max: u64,
    /// Connections at a time.
    pub links: u32,
    /// Sessions, with and without a connection.
    pub sessions: u32,
    /// The largest packet in bytes that is taken from a client, fixed header included [MQTT-3.2.2-15]; at most
    /// `memory_max`.
    pub packet_max: u32,
    /// QoS 1 and 2 messages that a client may have unacknowledged [MQTT 3.2.2.3.3], and that are sent to it
    /// unacknowledged at most.
    pub receive_maximum: u16,
    /// The longest Session Expiry Interval, in whole seconds; also for 3.1.1 sessions with Clean Session 0.
    pub session_expiry_max: Duration,
    /// The longest Keep Alive, in whole seconds; a client that asks for more, or for none, is told this one
    /// [MQTT 3.2.2.3.14]. `None`: as the client wishes.
    pub keep_alive_max: Option<Duration>,
    /// Subscriptions that one session may hold.
    pub subscriptions_per_session: u32,
    /// Messages that one client may publish in a second; `None`: as many as it wishes.
    pub publish_rate: Option<u32>,
    /// Bytes of PUBLISH packets that one client may send in a second; `None`: as many as it wishes.
    pub publish_bytes_rate: Option<u64>,
}

/// What is written, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Bytes that the store may take on disk.
    pub disk_max: u64,
    /// Bytes of queue after which a session loses its oldest unsent message; at least `packet_max`, at most `disk_max`.
    pub session_disk_max: u64,
    /// How long a message that is on its way to all to whom it is owed may wait for their acknowledgements before it is
    /// written.
    pub settle_wait: Duration,
    /// How long a PUBLISH may wait for room in the journal before it is refused.
    pub park_max: Duration,
}

/// Queues that one session has beside its own: one for a class that is `fifo`, two for one that is `live-first`, three for
/// `newest-first`; and for what is in no class, one less where its order is not `newest-first`.
pub const LANES_MAX: usize = 7;

/// What the queues of certain sessions may take, and what becomes of what does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// The Client Identifier of the sessions; a `*` at its end stands for any rest.
    pub client_id: String,
    /// Bytes queued at most; at least `packet_max`, at most the store's `disk_max`.
    pub max_bytes: u64,
    /// Messages queued at most; `None`: as many as fit.
    pub max_messages: Option<u64>,
    /// How long a message may be queued without being sent; `None`: for ever.
    pub max_age: Option<Duration>,
    /// What becomes of a message for a full queue.
    pub when_full: WhenFull,
    /// Whether messages of QoS 0 are queued too while the session is away.
    pub qos0: bool,
    /// Messages a second with which a backlog leaves at most.
    pub rate: Option<u64>,
    /// Bytes a second with which a backlog leaves at most.
    pub rate_bytes: Option<u64>,
    /// The least part of the messages that leave which those in no class get while there are some: percent. With those of
    /// the classes at most 100.
    pub share: u8,
    /// In what order messages leave that are in no class.
    pub order: Order,
    /// Messages that are queued apart from the others, and go before them, in this order. The first with a filter that
    /// matches holds.
    pub classes: Vec<ClassConfig>,
}

/// Messages that are queued apart from the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassConfig {
    /// Its name, in its queue the only one of that name: letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// Topic Filters; at least one.
    pub filters: Vec<String>,
    /// Bytes queued at most; at least `packet_max`, at most the store's `disk_max`.
    pub max_bytes: u64,
    /// Messages queued at most; `None`: as many as fit.
    pub max_messages: Option<u64>,
    /// How long a message may be queued without being sent; `None`: for ever.
    pub max_age: Option<Duration>,
    /// What becomes of a message for a full queue.
    pub when_full: WhenFull,
    /// The least part of the messages that leave which it gets while it has some: percent.
    pub share: u8,
    /// In what order messages leave.
    pub order: Order,
    /// Bytes of the disk that other messages cannot take, for all sessions of the queue together.
    pub reserve: u64,
}

/// In what order the messages of a queue leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As they came.
    #[default]
    Fifo,
    /// What comes while the client keeps up goes before a backlog.
    LiveFirst,
    /// The same, and the backlog leaves newest first.
    NewestFirst,
}

impl Order {
    /// All of them.
    pub const ALL: [Order; 3] = [Order::Fifo, Order::LiveFirst, Order::NewestFirst];

    /// As the configuration writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Order::Fifo => "fifo",
            Order::LiveFirst => "live-first",
            Order::NewestFirst => "newest-first",
        }
    }

    /// Queues that a class with this order takes.
    #[must_use]
    pub fn lanes(self) -> usize {
        match self {
            Order::Fifo => 1,
            Order::LiveFirst => 2,
            Order::NewestFirst => 3,
        }
    }

    /// Queues that a session with this order has beside its own.
    #[must_use]
    pub fn lanes_of_rest(self) -> usize {
        match self {
            Order::NewestFirst => 3,
            other => other.lanes() - 1,
        }
    }
}

impl QueueConfig {
    /// Queues that each session has beside its own; at most [`LANES_MAX`].
    #[must_use]
    pub fn lanes(&self) -> usize {
        let of_classes = self.classes.iter().map(|class| class.order.lanes());
        of_classes.sum::<usize>() + self.order.lanes_of_rest()
    }
}

/// What becomes of a message for a full queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest unsent messages make room for it.
    DropOldest,
    /// Unsent messages make room for it on whose topics there are later ones; then the oldest.
    KeepLatest,
    /// It is dropped.
    DropNewest,
    /// Its publisher is refused.
    Reject,
}

impl WhenFull {
    /// All of them.
    pub const ALL: [WhenFull; 4] = [
        WhenFull::DropOldest,
        WhenFull::KeepLatest,
        WhenFull::DropNewest,
        WhenFull::Reject,
    ];

    /// As the configuration writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            WhenFull::DropOldest => "drop-oldest",
            WhenFull::KeepLatest => "keep-latest",
            WhenFull::DropNewest => "drop-newest",
            WhenFull::Reject => "reject",
        }
    }
}

/// A cloud broker with which topics are exchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeConfig {
    /// Its name in logs, in `$SYS/` and in the Client Identifier of its local session: letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// The cloud's addresses, `mqtt://host[:port]` or `mqtts://host[:port]`, to be tried in this order; at least one.
    pub urls: Vec<String>,
    /// What TLS is made with, where the address begins with `mqtts://`.
    pub tls: Tls,
    /// The version spoken with the cloud.
    pub version: Version,
    /// Client Identifier at the cloud.
    pub client_id: String,
    /// User Name at the cloud.
    pub username: Option<String>,
    /// Password at the cloud; only with a user name.
    pub password: Option<Password>,
    /// What goes to the cloud.
    pub forward: Vec<Rule>,
    /// What comes from the cloud.
    pub receive: Vec<Rule>,
    /// Bytes of queue after which the bridge's session loses its oldest unsent message; at least `packet_max`, at most
    /// the store's `disk_max`.
    pub disk_max: u64,
    /// QoS 1 messages that are under way at a time, in each direction: 1 to 1,024.
    pub window: u16,
    /// The first delay between attempts to connect.
    pub reconnect_min: Duration,
    /// The longest delay between attempts to connect.
    pub reconnect_max: Duration,
    /// How often it sees whether the first address answers, while it is linked to another; if so, it returns there.
    pub return_after: Duration,
    /// Keep Alive of the bridge's connections, in whole seconds: 5 to 65,535 s.
    pub keep_alive: Duration,
}

impl BridgeConfig {
    /// Whether one of its addresses wants TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.urls
            .iter()
            .any(|url| url.starts_with(bridge::TLS_SCHEME))
    }
}

/// A password, which keeps itself out of logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The least important lines that are still written.
    pub level: LevelFilter,
}

/// What is told under `$SYS/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SysConfig {
    /// How often; `None`: never.
    pub interval: Option<Duration>,
}

impl Config {
    /// Reads and checks a configuration file, and the password files that it names. `machine_memory` in bytes gives the
    /// default of `memory_max`, and its ceiling.
    ///
    /// # Errors
    /// The first thing in it that cannot be run.
    pub fn load(path: &Path, machine_memory: u64) -> Result<Config, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|error| ConfigError::unreadable(path, &error))?;
        Config::from_text(path, &text, machine_memory)
    }

    /// The defaults, with what can be said on a command line: where to listen, which if empty is 127.0.0.1:1883, and
    /// where to keep the data.
    ///
    /// # Errors
    /// As [`Config::listen_on`]; or a machine whose memory is too small for the defaults.
    pub fn without_file(
        listen: Vec<Bind>,
        data_dir: PathBuf,
        machine_memory: u64,
    ) -> Result<Config, ConfigError> {
        let mut config = Config::from_text(Path::new("the defaults"), "", machine_memory)?;
        config.data_dir = data_dir;
        if !listen.is_empty() {
            config.listen_on(listen)?;
        }
        Ok(config)
    }

    /// Replaces the listeners by these, as the command line does. One that the file had keeps what the file says of it.
    ///
    /// # Errors
    /// An address that nobody could connect to without a password, or one that is given twice. The listeners are then
    /// as they were.
    pub fn listen_on(&mut self, binds: Vec<Bind>) -> Result<(), ConfigError> {
        let mut listeners: Vec<Listener> = Vec::with_capacity(binds.len());
        for bind in binds {
            let failed = |fault: &str| ConfigError::of_argument(&format!("--listen {bind}"), fault);
            if listeners.iter().any(|earlier| earlier.bind == bind) {
                return Err(failed("is given twice; leave one out"));
            }
            let known = self.listeners.iter().find(|known| known.bind == bind);
            let anonymous = known.map_or(bind.is_local(), |known| known.anonymous);
            if !anonymous {
                return Err(failed(
                    "nobody could connect, for this version knows no passwords; if the network is yours, name this \
                     address with anonymous = true in a [[listener]] of a file, and give that with --config",
                ));
            }
            listeners.push(Listener { bind, anonymous });
        }
        self.listeners = listeners;
        Ok(())
    }

    fn from_text(path: &Path, text: &str, machine_memory: u64) -> Result<Config, ConfigError> {
        let file = file::parse(path, text)?;
        check::Checker {
            path,
            text,
            machine_memory,
        }
        .config(file)
    }
}

impl Bind {
    /// Whether only programs of this machine can connect.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Bind::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Bind::Unix(_) => true,
        }
    }
}

impl FromStr for Bind {
    type Err = String;

    /// What is wrong with the text, and what would be right.
    fn from_str(text: &str) -> Result<Bind, String> {
        let Some(path) = text.strip_prefix("unix:") else {
            let wrong = |_| {
                format!(
                    "{text:?} is not an address; write for example \"127.0.0.1:1883\", \"[::1]:1883\" or \
                     \"unix:/run/larder/larder.sock\""
                )
            };
            return text.parse().map(Bind::Tcp).map_err(wrong);
        };
        if path.is_empty() || path.contains('\0') {
            return Err(format!(
                "{text:?} names no socket; write for example \"unix:/run/larder/larder.sock\""
            ));
        }
        if path.len() > UNIX_PATH_BYTES_MAX {
            return Err(format!(
                "the path of the Unix socket has {} bytes, and the system takes {UNIX_PATH_BYTES_MAX} at most; \
                 choose a shorter one",
                path.len()
            ));
        }
        Ok(Bind::Unix(path.into()))
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bind::Tcp(address) => address.fmt(f),
            Bind::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// `sockaddr_un.sun_path` has 108 bytes, the last of them 0 (unix(7)).
const UNIX_PATH_BYTES_MAX: usize = 107;

#[cfg(test)]
mod tests;
