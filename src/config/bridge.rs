//! The checks of a `[[bridge]]`.

use super::check::Checker;
use super::error::ConfigError;
use super::file::{self, Key, Urls};
use super::value::ShownDuration;
use super::{BridgeConfig, Limits, Password, StoreConfig};
use larder_bridge::Tls;
use larder_bridge::relay::WINDOW_MAX;
use larder_packet::Version;
use std::fs;
use std::net::Ipv6Addr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;

/// A bridge may take one part of the disk in so many.
const DISK_PART: u64 = 2;
const WINDOW: u16 = 64;
const RECONNECT_MIN: Duration = Duration::from_secs(1);
const RECONNECT_MAX: Duration = Duration::from_secs(60);
const RECONNECT_CEILING: Duration = Duration::from_secs(24 * 60 * 60);
const RETURN_AFTER: Duration = Duration::from_secs(10 * 60);
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Below this a mobile link would be declared dead by a single lost segment.
const KEEP_ALIVE_MIN_SECONDS: u64 = 5;
/// Names stand in topics, in Client Identifiers and in log lines.
const NAME_BYTES_MAX: usize = 64;

impl Checker<'_> {
    pub(super) fn bridges(
        &self,
        tables: Vec<Spanned<file::Bridge>>,
        limits: &Limits,
        store: &StoreConfig,
    ) -> Result<Vec<BridgeConfig>, ConfigError> {
        let mut bridges: Vec<BridgeConfig> = Vec::with_capacity(tables.len());
        for table in tables {
            let at = table.span();
            let table = table.into_inner();
            let name_at = table.name.as_ref().map_or(at.clone(), Spanned::span);
            let client_id_at = table.client_id.as_ref().map_or(at.clone(), Spanned::span);
            let bridge = self.bridge(table, &at, limits, store)?;
            for other in &bridges {
                if other.name == bridge.name {
                    let fault = format!(
                        "{:?} is the name of another bridge already; choose another",
                        bridge.name
                    );
                    return Err(self.fault_at(&name_at, fault));
                }
                let same_cloud = other.urls.iter().any(|url| bridge.urls.contains(url));
                if same_cloud && other.client_id == bridge.client_id {
                    let fault = format!(
                        "{:?} is the client_id of bridge {:?} at the same cloud, which would disconnect one of them \
                         whenever the other connects; choose another",
                        bridge.client_id, other.name
                    );
                    return Err(self.fault_at(&client_id_at, fault));
                }
            }
            bridges.push(bridge);
            if bridges.len() >= limits.sessions as usize {
                let fault = format!(
                    "each bridge needs a session, and limits.sessions ({}) leaves none for a client; raise it",
                    limits.sessions
                );
                return Err(self.fault_at(&at, fault));
            }
        }
        Ok(bridges)
    }

    fn bridge(
        &self,
        table: file::Bridge,
        at: &Range<usize>,
        limits: &Limits,
        store: &StoreConfig,
    ) -> Result<BridgeConfig, ConfigError> {
        let name = self.plain_name(table.name, at, "cloud", NAME_BYTES_MAX)?;
        let urls = self.urls(table.url, at)?;
        let tls = self.tls(
            TlsKeys {
                ca: table.ca,
                cert: table.cert,
                key: table.key,
                server_name: table.server_name,
                alpn: table.alpn,
            },
            &urls,
            at,
        )?;
        let version = self.version(table.version)?;
        let Some(client_id) = self.text(table.client_id)? else {
            return Err(self.fault_at(
                at,
                "has no client_id, under which the cloud keeps the bridge's session; write for example client_id = \
                 \"site42\"",
            ));
        };
        let username = self.text(table.username)?;
        let password = self.password(table.password, table.password_file, username.is_some())?;
        let (forward, receive) = self.rules(&table.forward, &table.receive, version, at)?;

        let disk_max = self.size(table.disk_max, store.disk_max / DISK_PART, 1..=u64::MAX)?;
        let disk_at = disk_max.at.as_ref().unwrap_or(at);
        self.queue_fits(
            "disk_max",
            disk_max.value,
            Some(disk_at),
            store.disk_max,
            limits.packet_max,
        )?;

        let reconnect = Duration::from_millis(1)..=RECONNECT_CEILING;
        let reconnect_min = self.span(table.reconnect_min, RECONNECT_MIN, reconnect.clone())?;
        let reconnect_max = self.span(table.reconnect_max, RECONNECT_MAX, reconnect)?;
        if reconnect_min.value > reconnect_max.value {
            return Err(self.fault_of(
                [&reconnect_min.at, &reconnect_max.at],
                format!(
                    "reconnect_min ({}) must be at most reconnect_max ({})",
                    ShownDuration(reconnect_min.value),
                    ShownDuration(reconnect_max.value)
                ),
            ));
        }
        let return_after = Duration::from_secs(1)..=RECONNECT_CEILING;
        let return_after = self.span(table.return_after, RETURN_AFTER, return_after)?;
        Ok(BridgeConfig {
            name,
            urls,
            tls,
            version,
            client_id,
            username,
            password,
            forward,
            receive,
            disk_max: disk_max.value,
            window: self.number(table.window, WINDOW, 1..=WINDOW_MAX)?.value,
            reconnect_min: reconnect_min.value,
            reconnect_max: reconnect_max.value,
            return_after: return_after.value,
            keep_alive: self.seconds(
                table.keep_alive,
                KEEP_ALIVE,
                KEEP_ALIVE_MIN_SECONDS..=u64::from(u16::MAX),
            )?,
        })
    }

    /// A name of at most `bytes_max` letters, digits, `-`, `_`, `.`.
    pub(super) fn plain_name(
        &self,
        key: Key<String>,
        at: &Range<usize>,
        example: &str,
        bytes_max: usize,
    ) -> Result<String, ConfigError> {
        let Some(key) = key else {
            let fault = format!("has no name; write for example name = \"{example}\"");
            return Err(self.fault_at(at, fault));
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if (1..=bytes_max).contains(&key.get_ref().len()) && key.get_ref().bytes().all(plain) {
            return Ok(key.into_inner());
        }
        let fault = format!(
            "{:?} is no name; take 1 to {bytes_max} of A-Z a-z 0-9 - _ .",
            key.get_ref()
        );
        Err(self.fault(&key, fault))
    }

    fn urls(&self, key: Key<Urls>, at: &Range<usize>) -> Result<Vec<String>, ConfigError> {
        let missing = "has no url; write for example url = \"mqtt://broker.example:1883\"";
        let Some(key) = key else {
            return Err(self.fault_at(at, missing));
        };
        let span = key.span();
        let urls = match key.into_inner() {
            Urls::One(url) => vec![Spanned::new(span, url)],
            Urls::Several(urls) if urls.is_empty() => return Err(self.fault_at(&span, missing)),
            Urls::Several(urls) => urls,
        };
        let checked = |url: Spanned<String>| match url_fault(url.get_ref()) {
            None => Ok(url.into_inner()),
            Some(fault) => Err(self.fault(&url, format!("{:?}: {fault}", url.get_ref()))),
        };
        urls.into_iter().map(checked).collect()
    }

    /// The keys of TLS, and the files that they name.
    fn tls(&self, keys: TlsKeys, urls: &[String], at: &Range<usize>) -> Result<Tls, ConfigError> {
        let places = [
            ("ca", &keys.ca),
            ("cert", &keys.cert),
            ("key", &keys.key),
            ("server_name", &keys.server_name),
            ("alpn", &keys.alpn),
        ]
        .map(|(name, key)| (name, key.as_ref().map(Spanned::span)));
        let place = |name: &str| {
            let mut places = places.iter();
            places.find_map(|(key, place)| place.clone().filter(|_| *key == name))
        };
        if !urls.iter().any(|url| url.starts_with(TLS_SCHEME)) {
            return match places.into_iter().find_map(|(_, place)| place) {
                None => Ok(Tls::default()),
                Some(place) => Err(self.fault_at(
                    &place,
                    "is for TLS, and no url begins with mqtts://; change the url, or leave this out",
                )),
            };
        }
        let file = |key: Key<String>| key.map(|file| self.beside(file.get_ref()));
        let tls = Tls {
            ca: file(keys.ca),
            cert: file(keys.cert),
            key: file(keys.key),
            server_name: keys.server_name.map(Spanned::into_inner),
            alpn: keys.alpn.map(Spanned::into_inner),
        };
        match tls.check() {
            Ok(()) => Ok(tls),
            Err(error) => Err(self.fault_at(place(error.key).as_ref().unwrap_or(at), error.fault)),
        }
    }

    fn version(&self, key: Key<u64>) -> Result<Version, ConfigError> {
        match key {
            None => Ok(Version::V5),
            Some(key) => match key.get_ref() {
                5 => Ok(Version::V5),
                4 => Ok(Version::V311),
                other => Err(self.fault(
                    &key,
                    format!("{other} is no version; write 5 (MQTT 5.0) or 4 (MQTT 3.1.1)"),
                )),
            },
        }
    }

    /// A string that MQTT can carry [MQTT 1.5.4], and that says something.
    fn text(&self, key: Key<String>) -> Result<Option<String>, ConfigError> {
        let Some(key) = key else { return Ok(None) };
        let length = key.get_ref().len();
        if (1..=STRING_BYTES_MAX).contains(&length) && !key.get_ref().contains('\0') {
            return Ok(Some(key.into_inner()));
        }
        let fault =
            format!("must have 1 to {STRING_BYTES_MAX} bytes (it has {length}) and no U+0000");
        Err(self.fault(&key, fault))
    }

    fn password(
        &self,
        password: Key<String>,
        file: Key<String>,
        has_username: bool,
    ) -> Result<Option<Password>, ConfigError> {
        let (password, at) = match (password, file) {
            (None, None) => return Ok(None),
            (Some(_), Some(file)) => {
                return Err(self.fault(&file, "password says it already; leave one of the two out"));
            }
            (Some(password), None) => {
                let at = password.span();
                (password.into_inner(), at)
            }
            (None, Some(file)) => (self.password_in(&file)?, file.span()),
        };
        if !has_username {
            return Err(self.fault_at(&at, "a password needs a username beside it"));
        }
        if !(1..=STRING_BYTES_MAX).contains(&password.len()) {
            let fault = format!(
                "the password must have 1 to {STRING_BYTES_MAX} bytes, and has {}",
                password.len()
            );
            return Err(self.fault_at(&at, fault));
        }
        Ok(Some(Password(password)))
    }

    /// A file's name: a relative one is meant beside the configuration.
    fn beside(&self, file: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(file)
    }

    fn password_in(&self, file: &Spanned<String>) -> Result<String, ConfigError> {
        let path = self.beside(file.get_ref());
        match fs::read_to_string(&path) {
            Ok(mut password) => {
                let line = password.strip_suffix('\n').unwrap_or(&password);
                let length = line.strip_suffix('\r').unwrap_or(line).len();
                password.truncate(length);
                Ok(password)
            }
            Err(error) => {
                Err(self.fault(file, format!("{} cannot be read: {error}", path.display())))
            }
        }
    }
}

pub(super) const TLS_SCHEME: &str = "mqtts://";

/// What a bridge says of TLS.
struct TlsKeys {
    ca: Key<String>,
    cert: Key<String>,
    key: Key<String>,
    server_name: Key<String>,
    alpn: Key<String>,
}

/// The longest string that MQTT can carry [MQTT 1.5.4].
const STRING_BYTES_MAX: usize = 65_535;

/// What is wrong with a cloud's address, and what to do.
fn url_fault(url: &str) -> Option<&'static str> {
    const FORM: &str =
        "is no address; write for example \"mqtt://broker.example:1883\", an IPv6 host in brackets";
    let Some((scheme, authority)) = url.split_once("://") else {
        return Some(FORM);
    };
    match scheme {
        "mqtt" | "mqtts" => {}
        "ssl" | "tls" => return Some("the scheme for TLS is mqtts://"),
        "ws" | "wss" => {
            return Some("WebSocket is not supported by this version; use mqtt:// or mqtts://");
        }
        _ => return Some("the scheme is not known; use mqtt:// or mqtts://"),
    }
    if authority.contains('@') {
        return Some(
            "the user name and the password have keys of their own: username, password or password_file",
        );
    }
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let (host, port) = match authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((host, rest)) if host.parse::<Ipv6Addr>().is_ok() => (host, rest),
        Some(_) => return Some(FORM),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let host_is_plain = !host.is_empty() && !host.contains(['/', '?', '#', ' ', '[', ']', '\0']);
    let port_is_valid = match port.strip_prefix(':') {
        Some(port) => port.parse::<u16>().is_ok_and(|port| port != 0),
        None => port.is_empty(),
    };
    (!host_is_plain || !port_is_valid).then_some(FORM)
}
