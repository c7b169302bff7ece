//! The file as it is written: every key that there is, with its place in the text.

use super::error::ConfigError;
use super::value::{Size, Span};
use serde::Deserialize;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;
use toml::Spanned;

/// Reads the text of a file. Types and names of keys are checked here, values in [`super::check`].
///
/// # Errors
/// What is not TOML, a key that does not exist, a value of the wrong type.
pub(super) fn parse(path: &Path, text: &str) -> Result<File, ConfigError> {
    toml::from_str(text).map_err(|error| {
        // A parser's sentence may have several lines.
        let fault = error.message().trim_end().replace('\n', ", ");
        ConfigError::in_file(path, text, error.span().as_ref(), fault)
    })
}

/// A key that may be left out.
pub(super) type Key<T> = Option<Spanned<T>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) data_dir: Key<String>,
    #[serde(default)]
    pub(super) listener: Tables<Listener>,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) store: Store,
    #[serde(default)]
    pub(super) queue: Tables<Queue>,
    #[serde(default)]
    pub(super) bridge: Tables<Bridge>,
    #[serde(default)]
    pub(super) log: Log,
    #[serde(default)]
    pub(super) sys: Sys,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    pub(super) bind: Key<String>,
    pub(super) anonymous: Key<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) memory_max: Key<Size>,
    pub(super) links: Key<u64>,
    pub(super) sessions: Key<u64>,
    pub(super) packet_max: Key<Size>,
    pub(super) receive_maximum: Key<u64>,
    pub(super) session_expiry_max: Key<Span>,
    pub(super) keep_alive_max: Key<Span>,
    pub(super) subscriptions_per_session: Key<u64>,
    pub(super) publish_rate: Key<u64>,
    pub(super) publish_bytes_rate: Key<Size>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Store {
    pub(super) disk_max: Key<Size>,
    pub(super) session_disk_max: Key<Size>,
    pub(super) settle_wait: Key<Span>,
    pub(super) park_max: Key<Span>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Queue {
    pub(super) client_id: Key<String>,
    pub(super) max_bytes: Key<Size>,
    pub(super) max_messages: Key<u64>,
    pub(super) max_age: Key<Span>,
    pub(super) when_full: Key<String>,
    pub(super) qos0: Key<bool>,
    pub(super) rate: Key<u64>,
    pub(super) rate_bytes: Key<Size>,
    pub(super) share: Key<u64>,
    pub(super) order: Key<String>,
    #[serde(default)]
    pub(super) classes: Vec<Spanned<Class>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Class {
    pub(super) name: Key<String>,
    pub(super) filters: Option<Vec<Spanned<String>>>,
    pub(super) max_bytes: Key<Size>,
    pub(super) max_messages: Key<u64>,
    pub(super) max_age: Key<Span>,
    pub(super) when_full: Key<String>,
    pub(super) share: Key<u64>,
    pub(super) order: Key<String>,
    pub(super) reserve: Key<Size>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bridge {
    pub(super) name: Key<String>,
    pub(super) url: Key<Urls>,
    pub(super) version: Key<u64>,
    pub(super) client_id: Key<String>,
    pub(super) username: Key<String>,
    pub(super) password: Key<String>,
    pub(super) password_file: Key<String>,
    pub(super) ca: Key<String>,
    pub(super) cert: Key<String>,
    pub(super) key: Key<String>,
    pub(super) server_name: Key<String>,
    pub(super) alpn: Key<String>,
    #[serde(default)]
    pub(super) forward: Vec<Spanned<Forward>>,
    #[serde(default)]
    pub(super) receive: Vec<Spanned<Receive>>,
    pub(super) disk_max: Key<Size>,
    pub(super) window: Key<u64>,
    pub(super) reconnect_min: Key<Span>,
    pub(super) reconnect_max: Key<Span>,
    pub(super) return_after: Key<Span>,
    pub(super) keep_alive: Key<Span>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Forward {
    pub(super) filter: Key<String>,
    pub(super) strip_prefix: Key<String>,
    pub(super) remote_prefix: Key<String>,
    pub(super) qos: Key<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Receive {
    pub(super) filter: Key<String>,
    pub(super) strip_prefix: Key<String>,
    pub(super) local_prefix: Key<String>,
    pub(super) qos: Key<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) level: Key<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sys {
    pub(super) interval: Key<Span>,
}

/// One address, or several in a list.
#[derive(Debug)]
pub(super) enum Urls {
    One(String),
    Several(Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for Urls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Urls, D::Error> {
        deserializer.deserialize_any(UrlsVisitor)
    }
}

struct UrlsVisitor;

impl<'de> Visitor<'de> for UrlsVisitor {
    type Value = Urls;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address such as \"mqtt://broker.example:1883\", or a list of them")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Urls, E> {
        Ok(Urls::One(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Urls, A::Error> {
        Deserialize::deserialize(SeqAccessDeserializer::new(items)).map(Urls::Several)
    }
}

/// The tables under one name in double brackets.
#[derive(Debug)]
pub(super) struct Tables<T>(pub(super) Vec<Spanned<T>>);

impl<T> Default for Tables<T> {
    fn default() -> Tables<T> {
        Tables(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Tables<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tables<T>, D::Error> {
        deserializer.deserialize_seq(TablesVisitor(PhantomData))
    }
}

struct TablesVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for TablesVisitor<T> {
    type Value = Tables<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table in double brackets, such as [[listener]] or [[bridge]]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Tables<T>, A::Error> {
        Deserialize::deserialize(SeqAccessDeserializer::new(items)).map(Tables)
    }
}
