//! What a queue may hold under its policy, and what goes when that is too much or too old.

use super::super::journal::Journal;
use super::super::policy::QueuePolicy;
use super::super::window::Window;
use super::Queue;
use crate::record::{Change, DropOldest, Dropped};
use crate::time::{Now, ServiceSeconds};
use std::rc::Rc;

impl Queue {
    pub(in super::super) fn set_policy(&mut self, policy: QueuePolicy) {
        self.policy = Rc::new(policy);
    }

    pub(in super::super) fn policy(&self) -> &QueuePolicy {
        &self.policy
    }

    /// The message with this number goes here: what is kept for the class is for it.
    pub(in super::super) fn note_message(&self, number: u64) {
        self.backlog.note_message(number);
    }

    /// Whether a message of `len` bytes fits.
    pub(in super::super) fn has_room(&self, len: u64) -> bool {
        self.bytes() + len <= self.policy.bytes_max && self.messages() < self.policy.messages_max
    }

    /// If the queue holds more than it may, drops the oldest messages that were never sent: by a sixteenth more than is
    /// needed, so that this is done once for many. What is in flight counts and stays, but leaves at least half of it to
    /// the newest.
    pub(in super::super) fn drop_oldest_above_max(
        &mut self,
        window: &Window,
        journal: &mut Journal,
        now: Now,
    ) {
        let policy = &self.policy;
        if self.bytes() <= policy.bytes_max && self.messages() <= policy.messages_max {
            return;
        }
        let (messages, bytes) = window.load(self.lane);
        let keep = |max: u64, in_flight: u64| {
            let keep = max - max / 16;
            keep.saturating_sub(in_flight).max(keep / 2)
        };
        let bytes_keep = keep(policy.bytes_max, bytes);
        let messages_keep = keep(policy.messages_max, messages);
        self.drop_oldest(bytes_keep, messages_keep, None, journal, now);
    }

    /// Drops the messages that were never sent and are older than they may be.
    pub(in super::super) fn drop_aged(&mut self, journal: &mut Journal, now: Now) {
        let aged = self.policy.aged(now.service);
        if aged.is_some() {
            self.drop_oldest(u64::MAX, u64::MAX, aged, journal, now);
        }
    }

    fn drop_oldest(
        &mut self,
        bytes_keep: u64,
        messages_keep: u64,
        queued_before: Option<ServiceSeconds>,
        journal: &mut Journal,
        now: Now,
    ) {
        // A page under way may hold rows that would be dropped.
        if self.dropping.is_some() || self.reading.is_some() {
            return;
        }
        let after = self.cursor.max(self.passed);
        if after >= self.disk_tail {
            return;
        }
        let change = Change::DropOldest(DropOldest {
            session: self.key,
            after,
            maybe_sent: self.maybe_sent,
            keep: u32::from(self.window),
            keep_up_to: self.found_tail,
            up_to: self.disk_tail,
            bytes_ever: self.bytes_ever,
            bytes_keep,
            messages_ever: self.messages_ever,
            messages_keep,
            queued_before,
        });
        self.drop_page();
        self.dropping = Some(journal.record(change, true, now));
    }

    /// What the store has dropped; `in_flight`: messages and bytes in the window. What is left is known exactly again.
    pub(in super::super) fn dropped(&mut self, dropped: &Dropped, in_flight: (u64, u64)) {
        match dropped.rest {
            Some((messages_before, bytes_before)) => {
                self.backlog.set(
                    in_flight.0 + dropped.kept.0 + self.messages_ever - messages_before,
                    in_flight.1 + dropped.kept.1 + self.bytes_ever - bytes_before,
                );
            }
            None => self.backlog.set(
                self.messages().saturating_sub(dropped.messages),
                self.bytes().saturating_sub(dropped.bytes),
            ),
        }
    }
}
