//! The checks of the classes of a `[[queue]]`.

use super::check::Checker;
use super::error::ConfigError;
use super::file;
use super::queue::SHARES_MAX;
use super::{ClassConfig, Limits, QueueConfig, ShownSize, StoreConfig};
use larder_packet::topic;
use std::ops::Range;
use toml::Spanned;

/// Bytes of a class's name.
const NAME_BYTES_MAX: usize = 64;
/// The least of the disk that reserves leave to everybody: one part in so many.
const RESERVES_PART: u64 = 2;

impl Checker<'_> {
    /// Checks what the queue, whose own keys are right, keeps apart.
    pub(super) fn classes(
        &self,
        tables: Vec<Spanned<file::Class>>,
        queue: &QueueConfig,
        limits: &Limits,
        store: &StoreConfig,
    ) -> Result<Vec<ClassConfig>, ConfigError> {
        let mut classes: Vec<ClassConfig> = Vec::with_capacity(tables.len());
        let mut shares = queue.share;
        for table in tables {
            let at = table.span();
            let share_at = table.get_ref().share.as_ref().map(Spanned::span);
            let class = self.class(table.into_inner(), &at, queue, limits, store)?;
            if classes.iter().any(|earlier| earlier.name == class.name) {
                let fault = format!("there are two classes {:?} in one queue", class.name);
                return Err(self.fault_at(&at, fault));
            }
            shares += class.share;
            if shares > SHARES_MAX {
                let fault = format!(
                    "the shares of all classes so far, and that of what is in none, are {shares} percent together; they \
                     must be at most {SHARES_MAX}"
                );
                return Err(self.fault_at(share_at.as_ref().unwrap_or(&at), fault));
            }
            classes.push(class);
        }
        Ok(classes)
    }

    fn class(
        &self,
        table: file::Class,
        at: &Range<usize>,
        queue: &QueueConfig,
        limits: &Limits,
        store: &StoreConfig,
    ) -> Result<ClassConfig, ConfigError> {
        let name = self.plain_name(table.name, at, "alarms", NAME_BYTES_MAX)?;
        let filters = self.class_filters(table.filters.unwrap_or_default(), at)?;
        let (when_full, order) = self.when_full_and_order(table.when_full, table.order)?;
        Ok(ClassConfig {
            name,
            filters,
            max_bytes: self.max_bytes(table.max_bytes, queue.max_bytes, at, limits, store)?,
            max_messages: self.max_messages(table.max_messages)?,
            max_age: self.max_age(table.max_age)?,
            when_full,
            share: self.share(table.share)?,
            order,
            reserve: self.size(table.reserve, 0, 0..=store.disk_max)?.value,
        })
    }

    fn class_filters(
        &self,
        filters: Vec<Spanned<String>>,
        at: &Range<usize>,
    ) -> Result<Vec<String>, ConfigError> {
        if filters.is_empty() {
            return Err(self.fault_at(
                at,
                "has no filters, which say whose messages are meant; write for example filters = [\"alarm/#\"]",
            ));
        }
        let checked = |filter: Spanned<String>| {
            let text = filter.get_ref();
            if topic::filter_is_valid(text) && topic::shared(text).is_none() {
                return Ok(filter.into_inner());
            }
            let fault =
                format!("{text:?} is no Topic Filter by which messages could be told apart");
            Err(self.fault(&filter, fault))
        };
        filters.into_iter().map(checked).collect()
    }

    /// What all queues keep for their classes must leave room for the others.
    pub(super) fn reserves_fit(
        &self,
        queues: &[QueueConfig],
        at: &Range<usize>,
        store: &StoreConfig,
    ) -> Result<(), ConfigError> {
        let classes = queues.iter().flat_map(|queue| &queue.classes);
        let reserves = classes.fold(0, |sum: u64, class| sum.saturating_add(class.reserve));
        if reserves <= store.disk_max / RESERVES_PART {
            return Ok(());
        }
        let fault = format!(
            "the reserves of all classes together ({}) must be at most half of store.disk_max ({})",
            ShownSize(reserves),
            ShownSize(store.disk_max)
        );
        Err(self.fault_at(at, fault))
    }
}
