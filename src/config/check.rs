//! What the types of the file cannot say: ranges, and what must fit to something else.

use super::error::ConfigError;
use super::file;
use super::value::{ShownDuration, ShownSize, Size, Span};
use super::{Bind, Config, Limits, Listener, LogConfig, StoreConfig, SysConfig};
use log::LevelFilter;
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;

/// Where systemd's `StateDirectory=larder` is, too.
const DATA_DIR: &str = "/var/lib/larder";
/// What an unauthenticated broker may listen on without being asked to.
const BIND: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 1883);

/// The default of `memory_max` is a quarter of the machine, and not more than this;
const MEMORY_MAX_DEFAULT_CEILING: u64 = 128 << 20;
/// nor less than this, as long as it is no more than three eighths: on a small machine Larder is what it is there for.
const MEMORY_MAX_DEFAULT_FLOOR: u64 = 24 << 20;
/// Of `memory_max`, what is left for links and sessions by default: without this, and without what the pools take, at so
/// much for a link and two sessions. `budget` has the exact terms, and a test that these are enough.
const FIXED_MEMORY: u64 = 73 << 17;
const POOLS_MEMORY: (u64, u64) = (17, 64);
const LINK_MEMORY: u64 = 53 << 9;
const BRIDGE_MEMORY: u64 = 5 << 19;
const LINKS: u32 = 1_000;
const SESSIONS: u32 = 2_000;
const PACKET_MAX: u64 = 256 << 10;
const RECEIVE_MAXIMUM: u16 = 64;
const SESSION_EXPIRY_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const SUBSCRIPTIONS_PER_SESSION: u32 = 1_000;
const DISK_MAX: u64 = 2 << 30;
const SETTLE_WAIT: Duration = Duration::from_millis(20);
const PARK_MAX: Duration = Duration::from_secs(5);
const SYS_INTERVAL: Duration = Duration::from_secs(10);

/// A session may take one part of the disk in so many.
const SESSION_DISK_PART: u64 = 8;

/// Room for a CONNECT with everything that it can carry beside a will.
const PACKET_MAX_MIN: u64 = 1 << 10;
/// The largest packet that MQTT knows: a Remaining Length of four bytes, and the fixed header [MQTT 2.1.4].
const PACKET_MAX_MAX: u64 = 268_435_455 + 5;
/// Below this a database has no room for its own tables and its write-ahead log.
const DISK_MAX_MIN: u64 = 1 << 20;
const TABLE_MAX: u32 = 1_000_000;
const PUBLISH_RATE_MAX: u32 = 1_000_000;

/// The file under check; an error names a place in it.
pub(super) struct Checker<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
    pub(super) machine_memory: u64,
}

/// A checked value, and where the file has it; `None`: it is the default.
pub(super) struct Setting<T> {
    pub(super) value: T,
    pub(super) at: Option<Range<usize>>,
}

impl Checker<'_> {
    pub(super) fn config(&self, file: file::File) -> Result<Config, ConfigError> {
        let data_dir = self.data_dir(file.data_dir)?;
        let listeners = self.listeners(file.listener.0)?;
        let limits = self.limits(file.limits, file.bridge.0.len())?;
        let store = self.store(file.store, limits.packet_max)?;
        let queues = self.queues(file.queue.0, &limits, &store)?;
        let bridges = self.bridges(file.bridge.0, &limits, &store)?;
        let log = self.log(file.log)?;
        let sys = self.sys(file.sys)?;
        Ok(Config {
            data_dir,
            listeners,
            limits,
            store,
            queues,
            bridges,
            log,
            sys,
        })
    }

    fn data_dir(&self, key: file::Key<String>) -> Result<PathBuf, ConfigError> {
        match key {
            None => Ok(PathBuf::from(DATA_DIR)),
            Some(dir) if Path::new(dir.get_ref()).is_absolute() => {
                Ok(PathBuf::from(dir.into_inner()))
            }
            Some(dir) => Err(self.fault(
                &dir,
                "must begin with /, for a service starts in no certain directory",
            )),
        }
    }

    fn listeners(
        &self,
        tables: Vec<Spanned<file::Listener>>,
    ) -> Result<Vec<Listener>, ConfigError> {
        let mut listeners: Vec<Listener> = Vec::with_capacity(tables.len().max(1));
        for table in tables {
            let at = table.span();
            let table = table.into_inner();
            let Some(bind_key) = table.bind else {
                return Err(self.fault_at(
                    &at,
                    "has no address; write for example bind = \"127.0.0.1:1883\"",
                ));
            };
            let bind: Bind = bind_key
                .get_ref()
                .parse()
                .map_err(|fault| self.fault(&bind_key, fault))?;
            if matches!(&bind, Bind::Unix(path) if !path.is_absolute()) {
                return Err(self.fault(
                    &bind_key,
                    "the path must begin with /, as in \"unix:/run/larder/larder.sock\"",
                ));
            }
            if listeners.iter().any(|earlier| earlier.bind == bind) {
                return Err(self.fault(
                    &bind_key,
                    format!("{bind} has a [[listener]] already; leave one out"),
                ));
            }
            let anonymous = table
                .anonymous
                .as_ref()
                .map_or(bind.is_local(), |key| *key.get_ref());
            if !anonymous {
                let at = table
                    .anonymous
                    .as_ref()
                    .map_or(bind_key.span(), Spanned::span);
                return Err(self.fault_at(
                    &at,
                    "nobody could connect, for this version knows no passwords; set anonymous = true if the network \
                     is yours",
                ));
            }
            listeners.push(Listener { bind, anonymous });
        }
        if listeners.is_empty() {
            listeners.push(Listener {
                bind: Bind::Tcp(BIND.into()),
                anonymous: true,
            });
        }
        Ok(listeners)
    }

    fn limits(&self, table: file::Limits, bridges: usize) -> Result<Limits, ConfigError> {
        let floor = MEMORY_MAX_DEFAULT_FLOOR.min(self.machine_memory / 8 * 3);
        let memory_default = (self.machine_memory / 4).clamp(floor, MEMORY_MAX_DEFAULT_CEILING);
        let memory_max = self.size(table.memory_max, memory_default, 1..=u64::MAX)?;
        if memory_max.value > self.machine_memory {
            let machine = ShownSize(self.machine_memory);
            return Err(self.fault_of(
                [&memory_max.at],
                format!("this machine has no more than {machine}; a quarter of it is a good share"),
            ));
        }
        let packet_max = self.size(
            table.packet_max,
            PACKET_MAX,
            PACKET_MAX_MIN..=PACKET_MAX_MAX,
        )?;
        if packet_max.value > memory_max.value {
            return Err(self.fault_of(
                [&packet_max.at, &memory_max.at],
                format!(
                    "limits.packet_max ({}) must be smaller than limits.memory_max ({})",
                    ShownSize(packet_max.value),
                    ShownSize(memory_max.value)
                ),
            ));
        }
        // A small machine gets as many as fit; what the file says is taken as it is.
        let pools = memory_max.value / POOLS_MEMORY.1 * POOLS_MEMORY.0;
        let fixed = FIXED_MEMORY + pools + bridges as u64 * BRIDGE_MEMORY;
        let fits = memory_max.value.saturating_sub(fixed) / LINK_MEMORY;
        let links = u32::try_from(fits).unwrap_or(LINKS).clamp(1, LINKS);
        Ok(Limits {
            memory_max: memory_max.value,
            links: self.number(table.links, links, 1..=TABLE_MAX)?.value,
            sessions: self
                .number(table.sessions, (2 * links).min(SESSIONS), 1..=TABLE_MAX)?
                .value,
            // At most PACKET_MAX_MAX.
            packet_max: packet_max.value as u32,
            receive_maximum: self
                .number(table.receive_maximum, RECEIVE_MAXIMUM, 1..=u16::MAX)?
                .value,
            session_expiry_max: self.seconds(
                table.session_expiry_max,
                SESSION_EXPIRY_MAX,
                // The highest value means "never" [MQTT 3.1.2.11.2].
                1..=u64::from(u32::MAX - 1),
            )?,
            keep_alive_max: match table.keep_alive_max {
                None => None,
                some => Some(self.seconds(some, Duration::ZERO, 1..=u64::from(u16::MAX))?),
            },
            subscriptions_per_session: self
                .number(
                    table.subscriptions_per_session,
                    SUBSCRIPTIONS_PER_SESSION,
                    1..=TABLE_MAX,
                )?
                .value,
            publish_rate: match table.publish_rate {
                None => None,
                some => Some(self.number(some, 0, 1..=PUBLISH_RATE_MAX)?.value),
            },
            publish_bytes_rate: match table.publish_bytes_rate {
                None => None,
                some => Some(self.size(some, 0, 1 << 10..=1 << 30)?.value),
            },
        })
    }

    fn store(&self, table: file::Store, packet_max: u32) -> Result<StoreConfig, ConfigError> {
        // SQLite counts its pages in 31 bits: far above this ceiling.
        let disk_max = self.size(table.disk_max, DISK_MAX, DISK_MAX_MIN..=1 << 42)?;
        let session_default = disk_max.value / SESSION_DISK_PART;
        let session_disk_max = self.size(table.session_disk_max, session_default, 1..=u64::MAX)?;
        let at = session_disk_max.at.as_ref().or(disk_max.at.as_ref());
        self.queue_fits(
            "store.session_disk_max",
            session_disk_max.value,
            at,
            disk_max.value,
            packet_max,
        )?;
        Ok(StoreConfig {
            disk_max: disk_max.value,
            session_disk_max: session_disk_max.value,
            settle_wait: self
                .span(
                    table.settle_wait,
                    SETTLE_WAIT,
                    Duration::ZERO..=Duration::from_secs(1),
                )?
                .value,
            park_max: self
                .span(
                    table.park_max,
                    PARK_MAX,
                    Duration::from_millis(1)..=Duration::from_secs(60),
                )?
                .value,
        })
    }

    /// A queue's share of the disk must hold one packet, and lie within the whole.
    pub(super) fn queue_fits(
        &self,
        name: &str,
        share: u64,
        at: Option<&Range<usize>>,
        disk_max: u64,
        packet_max: u32,
    ) -> Result<(), ConfigError> {
        let (relation, bound) = if share < u64::from(packet_max) {
            (
                "must hold at least one packet of limits.packet_max",
                u64::from(packet_max),
            )
        } else if share > disk_max {
            ("must be at most store.disk_max", disk_max)
        } else {
            return Ok(());
        };
        let fault = format!(
            "{name} ({}) {relation} ({})",
            ShownSize(share),
            ShownSize(bound)
        );
        Err(ConfigError::in_file(self.path, self.text, at, fault))
    }

    fn log(&self, table: file::Log) -> Result<LogConfig, ConfigError> {
        let Some(key) = table.level else {
            return Ok(LogConfig {
                level: LevelFilter::Info,
            });
        };
        match key.get_ref().parse() {
            Ok(level) => Ok(LogConfig { level }),
            Err(_) => Err(self.fault(
                &key,
                format!(
                    "{:?} is not a level; choose one of error, warn, info, debug, trace, off",
                    key.get_ref()
                ),
            )),
        }
    }

    fn sys(&self, table: file::Sys) -> Result<SysConfig, ConfigError> {
        let day = 24 * 60 * 60;
        let interval = match table.interval {
            Some(key) if key.get_ref().0.is_zero() => None,
            key => Some(self.seconds(key, SYS_INTERVAL, 1..=day)?),
        };
        Ok(SysConfig { interval })
    }
}

/// Values within their range, or the default.
impl Checker<'_> {
    pub(super) fn number<T>(
        &self,
        key: file::Key<u64>,
        default: T,
        range: RangeInclusive<T>,
    ) -> Result<Setting<T>, ConfigError>
    where
        T: TryFrom<u64> + PartialOrd + Display,
    {
        let Some(key) = key else {
            return Ok(Setting {
                value: default,
                at: None,
            });
        };
        match T::try_from(*key.get_ref()) {
            Ok(value) if range.contains(&value) => Ok(Setting {
                value,
                at: Some(key.span()),
            }),
            _ => Err(self.out_of_range(&key, key.get_ref(), range.start(), range.end())),
        }
    }

    pub(super) fn size(
        &self,
        key: file::Key<Size>,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<Setting<u64>, ConfigError> {
        let Some(key) = key else {
            return Ok(Setting {
                value: default,
                at: None,
            });
        };
        let Size(value) = *key.get_ref();
        if range.contains(&value) {
            return Ok(Setting {
                value,
                at: Some(key.span()),
            });
        }
        Err(self.out_of_range(
            &key,
            ShownSize(value),
            ShownSize(*range.start()),
            ShownSize(*range.end()),
        ))
    }

    pub(super) fn span(
        &self,
        key: file::Key<Span>,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Result<Setting<Duration>, ConfigError> {
        let Some(key) = key else {
            return Ok(Setting {
                value: default,
                at: None,
            });
        };
        let Span(value) = *key.get_ref();
        if range.contains(&value) {
            return Ok(Setting {
                value,
                at: Some(key.span()),
            });
        }
        let (min, max) = (ShownDuration(*range.start()), ShownDuration(*range.end()));
        Err(self.out_of_range(&key, ShownDuration(value), min, max))
    }

    /// A span that MQTT counts in seconds.
    pub(super) fn seconds(
        &self,
        key: file::Key<Span>,
        default: Duration,
        range: RangeInclusive<u64>,
    ) -> Result<Duration, ConfigError> {
        let range = Duration::from_secs(*range.start())..=Duration::from_secs(*range.end());
        let setting = self.span(key, default, range)?;
        if setting.value.subsec_nanos() == 0 {
            return Ok(setting.value);
        }
        Err(self.fault_of(
            [&setting.at],
            "must be whole seconds, for MQTT counts it in these",
        ))
    }

    fn out_of_range<T>(
        &self,
        key: &Spanned<T>,
        value: impl Display,
        min: impl Display,
        max: impl Display,
    ) -> ConfigError {
        self.fault(
            key,
            format!("{value} is out of range; choose {min} to {max}"),
        )
    }
}

/// Errors and their places.
impl Checker<'_> {
    pub(super) fn fault<T>(&self, key: &Spanned<T>, fault: impl Into<String>) -> ConfigError {
        self.fault_at(&key.span(), fault)
    }

    pub(super) fn fault_at(&self, at: &Range<usize>, fault: impl Into<String>) -> ConfigError {
        ConfigError::in_file(self.path, self.text, Some(at), fault.into())
    }

    /// At the first of these settings that the file has.
    pub(super) fn fault_of<const N: usize>(
        &self,
        places: [&Option<Range<usize>>; N],
        fault: impl Into<String>,
    ) -> ConfigError {
        let at = places.into_iter().find_map(Option::as_ref);
        ConfigError::in_file(self.path, self.text, at, fault.into())
    }
}
