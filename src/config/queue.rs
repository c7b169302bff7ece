//! The checks of a `[[queue]]`.

use super::check::Checker;
use super::error::ConfigError;
use super::file::{self, Key};
use super::value::{Size, Span};
use super::{LANES_MAX, Limits, Order, QueueConfig, StoreConfig, WhenFull};
use std::ops::Range;
use std::time::Duration;
use toml::Spanned;

/// Queues are looked through for what is too old sixteen times in that age, and not more often than once a second.
const AGE_MIN: Duration = Duration::from_secs(10);
const AGE_CEILING: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Messages and bytes a second above which a rate is none.
const RATE_CEILING: u64 = 1 << 40;
/// The share of messages of each class, and of those in none, in percent. Those of all classes and the rest fit together.
const SHARE_DEFAULT: u8 = 5;
pub(super) const SHARES_MAX: u8 = 100;

impl Checker<'_> {
    pub(super) fn queues(
        &self,
        tables: Vec<Spanned<file::Queue>>,
        limits: &Limits,
        store: &StoreConfig,
    ) -> Result<Vec<QueueConfig>, ConfigError> {
        let mut queues: Vec<QueueConfig> = Vec::with_capacity(tables.len());
        for table in tables {
            let at = table.span();
            let table = table.into_inner();
            let client_id_at = table.client_id.as_ref().map_or(at.clone(), Spanned::span);
            let queue = self.queue(table, &at, limits, store)?;
            if let Some(earlier) = queues.iter().find(|earlier| earlier.hides(&queue)) {
                let fault = format!(
                    "{:?} is never reached, for {:?} above names the same clients, and the first that names one holds; \
                     put it before that",
                    queue.client_id, earlier.client_id
                );
                return Err(self.fault_at(&client_id_at, fault));
            }
            queues.push(queue);
            self.reserves_fit(&queues, &at, store)?;
        }
        Ok(queues)
    }

    fn queue(
        &self,
        table: file::Queue,
        at: &Range<usize>,
        limits: &Limits,
        store: &StoreConfig,
    ) -> Result<QueueConfig, ConfigError> {
        let Some(client_id) = table.client_id else {
            return Err(self.fault_at(
                at,
                "has no client_id, which says whose queues are meant; write for example client_id = \"pump-*\"",
            ));
        };
        let (when_full, order) = self.when_full_and_order(table.when_full, table.order)?;
        let queue = QueueConfig {
            client_id: client_id.into_inner(),
            max_bytes: self.max_bytes(
                table.max_bytes,
                store.session_disk_max,
                at,
                limits,
                store,
            )?,
            max_messages: self.max_messages(table.max_messages)?,
            max_age: self.max_age(table.max_age)?,
            when_full,
            order,
            qos0: table.qos0.is_some_and(Spanned::into_inner),
            rate: self.rate(table.rate)?,
            rate_bytes: match table.rate_bytes {
                None => None,
                some => Some(self.size(some, 1, 1..=RATE_CEILING)?.value),
            },
            share: self.share(table.share)?,
            classes: Vec::new(),
        };
        let classes = self.classes(table.classes, &queue, limits, store)?;
        let queue = QueueConfig { classes, ..queue };
        if queue.lanes() > LANES_MAX {
            let fault = format!(
                "takes {} queues for each client beside its own, and there are at most {LANES_MAX}: a class takes 1, with \
                 live-first 2, with newest-first 3; what is in no class takes 1 with live-first, 3 with newest-first",
                queue.lanes()
            );
            return Err(self.fault_at(at, fault));
        }
        Ok(queue)
    }

    /// At the key, or else at the table `at`, if it does not fit.
    pub(super) fn max_bytes(
        &self,
        key: Key<Size>,
        default: u64,
        at: &Range<usize>,
        limits: &Limits,
        store: &StoreConfig,
    ) -> Result<u64, ConfigError> {
        let max_bytes = self.size(key, default, 1..=u64::MAX)?;
        let at = max_bytes.at.as_ref().unwrap_or(at);
        self.queue_fits(
            "max_bytes",
            max_bytes.value,
            Some(at),
            store.disk_max,
            limits.packet_max,
        )?;
        Ok(max_bytes.value)
    }

    pub(super) fn max_messages(&self, key: Key<u64>) -> Result<Option<u64>, ConfigError> {
        match key {
            None => Ok(None),
            some => Ok(Some(self.number(some, 1, 1..=u64::MAX)?.value)),
        }
    }

    pub(super) fn max_age(&self, key: Key<Span>) -> Result<Option<Duration>, ConfigError> {
        match key {
            None => Ok(None),
            some => Ok(Some(self.span(some, AGE_MIN, AGE_MIN..=AGE_CEILING)?.value)),
        }
    }

    fn rate(&self, key: Key<u64>) -> Result<Option<u64>, ConfigError> {
        match key {
            None => Ok(None),
            some => Ok(Some(self.number(some, 1, 1..=RATE_CEILING)?.value)),
        }
    }

    pub(super) fn share(&self, key: Key<u64>) -> Result<u8, ConfigError> {
        Ok(self.number(key, SHARE_DEFAULT, 0..=SHARES_MAX)?.value)
    }

    fn when_full(&self, key: Key<String>) -> Result<WhenFull, ConfigError> {
        self.one_of(key, WhenFull::DropOldest, WhenFull::ALL, WhenFull::name)
    }

    /// What goes from a full queue, and in what order the rest leaves.
    pub(super) fn when_full_and_order(
        &self,
        when_full: Key<String>,
        order: Key<String>,
    ) -> Result<(WhenFull, Order), ConfigError> {
        let at = order.as_ref().map(Spanned::span);
        let (when_full, order) = (self.when_full(when_full)?, self.order(order)?);
        match (when_full, order, at) {
            (WhenFull::KeepLatest, Order::NewestFirst, Some(at)) => Err(self.fault_at(
                &at,
                "\"newest-first\" does not go with when_full = \"keep-latest\", which moves messages to the end of the \
                 queue; choose live-first, or drop-oldest",
            )),
            _ => Ok((when_full, order)),
        }
    }

    fn order(&self, key: Key<String>) -> Result<Order, ConfigError> {
        self.one_of(key, Order::default(), Order::ALL, Order::name)
    }

    fn one_of<T: Copy, const N: usize>(
        &self,
        key: Key<String>,
        default: T,
        all: [T; N],
        name: fn(T) -> &'static str,
    ) -> Result<T, ConfigError> {
        let Some(key) = key else {
            return Ok(default);
        };
        let known = all.iter().find(|known| name(**known) == key.get_ref());
        known.copied().ok_or_else(|| {
            let names = all.map(name).join(", ");
            let fault = format!("{:?} is not known; choose one of {names}", key.get_ref());
            self.fault(&key, fault)
        })
    }
}

impl QueueConfig {
    /// Whether every client that `later` names is named by this one.
    fn hides(&self, later: &QueueConfig) -> bool {
        match self.client_id.strip_suffix('*') {
            Some(beginning) => later.client_id.starts_with(beginning),
            None => self.client_id == later.client_id,
        }
    }
}
