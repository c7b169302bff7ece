//! What a bridge is told, checked once.

use crate::client::{Address, Target};
use crate::relay::WINDOW_MAX;
use crate::rule::{self, Rule, RuleError};
use crate::tls::{TimeFloor, Tls, TlsFault};
use crate::tunnel::Far;
use larder_packet::{Qos, Version};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// MQTT's ports, without and with TLS [IANA].
const PORT: u16 = 1883;
const TLS_PORT: u16 = 8883;
/// rumqttc takes none below.
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(5);
/// rumqttc reads so many packets, the one that it is in the middle of included, before the first is looked at.
const PACKETS_PER_READ: u64 = 10;
/// Room for a full set of headers beside a useful payload.
const PACKET_MAX_MIN: u32 = 1_024;

/// One bridge.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name: part of log lines, and of its Client Identifier at the local broker, `$larder/bridge/NAME`.
    pub name: String,
    /// The cloud's addresses, `mqtt://host:port` or `mqtts://host:port`, tried in this order.
    pub urls: Vec<String>,
    /// For those that begin with `mqtts://`.
    pub tls: Tls,
    /// The version spoken with the cloud.
    pub version: Version,
    /// Client Identifier at the cloud; its session there must be nobody else's.
    pub client_id: String,
    /// User Name at the cloud.
    pub username: Option<String>,
    /// Password at the cloud: UTF-8, and only with a user name.
    pub password: Option<Vec<u8>>,
    /// What goes to the cloud. The local broker's session has the subscriptions for it; the bridge itself subscribes to
    /// nothing there.
    pub forward: Vec<Rule>,
    /// What comes from the cloud.
    pub receive: Vec<Rule>,
    /// Most QoS 1 messages that are in the relay at a time, in each direction: 1 to [`WINDOW_MAX`]. Usual: 64.
    pub window: u16,
    /// Largest packet in bytes taken from either side: at least 1,024. The local broker sends none that is larger, so it
    /// must be no less than what that broker accepts. A 3.1.1 cloud is not told, and a larger packet ends its link.
    pub packet_max: u32,
    /// Keep Alive of both links: 5 s to 65,535 s.
    pub keep_alive: Duration,
    /// The first delay between attempts to connect. Usual: 1 s.
    pub reconnect_min: Duration,
    /// The longest. Usual: 60 s.
    pub reconnect_max: Duration,
    /// How often, with a link to another address than the first, to see whether the first answers; if so, the link is ended
    /// and made there. Usual: 10 min.
    pub return_after: Duration,
}

/// Where the local broker listens.
#[derive(Clone, Debug)]
pub enum LocalAddress {
    /// The path of its private Unix socket.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

/// Why a configuration cannot be run. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// An address of the cloud cannot be used.
    Url {
        /// The address.
        url: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The rules cannot be run.
    Rules(RuleError),
    /// TLS cannot be made with what is there.
    Tls(TlsFault),
    /// Another value cannot be used.
    Value {
        /// Its key.
        key: &'static str,
        /// What it must be.
        must: &'static str,
    },
}

impl Config {
    /// An upper bound in bytes of what the bridge holds in messages: in each direction a window of QoS 1 in the relay and
    /// one in the client's table of what is unacknowledged, a window of QoS 0, and what was read at one go, all of the
    /// largest packets.
    #[must_use]
    pub fn messages_bytes_max(&self) -> u64 {
        let packets = 3 * u64::from(self.window) + PACKETS_PER_READ;
        2 * packets * u64::from(self.packet_max)
    }

    /// Whether it can be run.
    ///
    /// # Errors
    /// The first value that cannot.
    pub fn check(&self) -> Result<(), ConfigError> {
        let value = |key, must| Err(ConfigError::Value { key, must });
        if self.name.is_empty() || self.name.contains(['/', '+', '#', '\0']) {
            return value("name", "be there, without `/`, `+` and `#`");
        }
        if self.urls.is_empty() {
            return value(
                "urls",
                "have at least one address such as mqtt://broker.example:1883",
            );
        }
        if self.client_id.is_empty() {
            return value(
                "client_id",
                "be there: the cloud keeps the bridge's session under it",
            );
        }
        if !(1..=WINDOW_MAX).contains(&self.window) {
            return value("window", "be from 1 to 1024");
        }
        if self.packet_max < PACKET_MAX_MIN {
            return value("packet_max", "be at least 1024 bytes");
        }
        if self.keep_alive < KEEP_ALIVE_MIN || self.keep_alive.as_secs() > u64::from(u16::MAX) {
            return value("keep_alive", "be from 5 s to 65535 s");
        }
        if self.reconnect_min.is_zero() || self.reconnect_min > self.reconnect_max {
            return value("reconnect_min", "be more than 0 and at most reconnect_max");
        }
        self.credentials()?;
        for url in &self.urls {
            address(url)?;
        }
        if self.has_tls() {
            self.tls.check().map_err(ConfigError::Tls)?;
        }
        rule::check(&self.forward, &self.receive, self.version).map_err(ConfigError::Rules)
    }

    /// Whether one of its addresses wants TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.urls.iter().any(|url| url.starts_with(TLS_SCHEME))
    }

    /// The cloud's addresses, as targets.
    pub(crate) fn cloud_targets(&self, floor: &TimeFloor) -> Result<Vec<Target>, ConfigError> {
        let credentials = self.credentials()?;
        let tls = Arc::new(self.tls.clone());
        let target = |url: &String| {
            let (host, port) = address(url)?;
            let address = if url.starts_with(TLS_SCHEME) {
                Address::Tls(Far {
                    host,
                    port,
                    tls: Arc::clone(&tls),
                    floor: floor.clone(),
                })
            } else {
                Address::Tcp { host, port }
            };
            Ok(Target {
                address,
                version: self.version,
                client_id: self.client_id.clone(),
                credentials: credentials.clone(),
                keep_alive: self.keep_alive,
                window: self.window,
                packet_max: self.packet_max,
            })
        };
        self.urls.iter().map(target).collect()
    }

    /// The local broker, as a target.
    pub(crate) fn local_target(&self, local: &LocalAddress) -> Result<Target, ConfigError> {
        let address = match local {
            LocalAddress::Unix(path) => match path.to_str() {
                Some(path) => Address::Unix(path.to_owned()),
                None => {
                    return Err(ConfigError::Value {
                        key: "local socket",
                        must: "have a path in UTF-8",
                    });
                }
            },
            LocalAddress::Tcp(authority) => {
                let (host, port) = host_and_port(authority, PORT).ok_or(ConfigError::Value {
                    key: "local address",
                    must: "be host:port",
                })?;
                Address::Tcp { host, port }
            }
        };
        Ok(Target {
            address,
            version: Version::V5,
            client_id: format!("$larder/bridge/{}", self.name),
            credentials: None,
            keep_alive: self.keep_alive,
            window: self.window,
            packet_max: self.packet_max,
        })
    }

    /// What to subscribe to at the cloud.
    pub(crate) fn cloud_filters(&self) -> Vec<(String, Qos)> {
        self.receive
            .iter()
            .map(|rule| (rule.filter.clone(), rule.qos))
            .collect()
    }

    fn credentials(&self) -> Result<Option<(String, String)>, ConfigError> {
        let password = match &self.password {
            None => String::new(),
            Some(bytes) => match String::from_utf8(bytes.clone()) {
                Ok(password) => password,
                Err(_) => {
                    return Err(ConfigError::Value {
                        key: "password",
                        must: "be UTF-8",
                    });
                }
            },
        };
        match &self.username {
            Some(username) if !username.is_empty() => Ok(Some((username.clone(), password))),
            _ if password.is_empty() => Ok(None),
            _ => Err(ConfigError::Value {
                key: "password",
                must: "come with a username",
            }),
        }
    }
}

const TLS_SCHEME: &str = "mqtts://";

/// The host and port of a cloud.
fn address(url: &str) -> Result<(String, u16), ConfigError> {
    let fault = |fault| {
        Err(ConfigError::Url {
            url: url.to_owned(),
            fault,
        })
    };
    let Some((scheme, authority)) = url.split_once("://") else {
        return fault("an address has the form mqtt://host:port");
    };
    let port = match scheme {
        "mqtt" => PORT,
        "mqtts" => TLS_PORT,
        _ => return fault("the schemes of this version are mqtt:// and mqtts://"),
    };
    if authority.contains('@') {
        return fault("user name and password have keys of their own");
    }
    match host_and_port(authority.strip_suffix('/').unwrap_or(authority), port) {
        Some(address) => Ok(address),
        None => fault("an address has the form mqtt://host:port, an IPv6 host in brackets"),
    }
}

fn host_and_port(authority: &str, default_port: u16) -> Option<(String, u16)> {
    let host_end = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, rest) = authority.split_at(host_end);
    let port = match rest.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None if rest.is_empty() => default_port,
        None => return None,
    };
    let plain = !host.is_empty() && !host.contains(['/', '?', '#', ' ']);
    plain.then(|| (host.to_owned(), port))
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { url, fault } => write!(f, "`{url}`: {fault}"),
            Self::Rules(error) => error.fmt(f),
            Self::Tls(fault) => fault.fmt(f),
            Self::Value { key, must } => write!(f, "{key} must {must}"),
        }
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Option<(String, u16)> {
        address(url).ok()
    }

    #[test]
    fn addresses_of_the_cloud() {
        assert_eq!(parsed("mqtt://a.example"), Some(("a.example".into(), 1883)));
        assert_eq!(
            parsed("mqtt://a.example:8883/"),
            Some(("a.example".into(), 8883))
        );
        assert_eq!(parsed("mqtt://[::1]:1884"), Some(("[::1]".into(), 1884)));
        assert_eq!(
            parsed("mqtts://a.example"),
            Some(("a.example".into(), 8883))
        );
        for refused in [
            "a.example",
            "http://a",
            "mqtt://",
            "mqtt://a:0",
            "mqtt://a:99999",
            "mqtt://a/b",
            "mqtt://u:p@a",
            "mqtt://[::1",
        ] {
            assert_eq!(parsed(refused), None, "{refused}");
        }
    }
}
