//! What a queue may hold under its policy, and what goes when that is too much or too old.

use super::super::journal::Journal;
use super::super::lanes::Part;
use super::super::policy::{QueuePolicy, WhenFull};
use super::super::window::Window;
use super::Queue;
use crate::limits::{COMPACTION_ROWS, PAGE_BYTES};
use crate::record::{Change, DropOldest, Dropped};
use crate::time::{Now, ServiceSeconds};
use std::rc::Rc;

impl Queue {
    pub(in super::super) fn set_policy(&mut self, policy: QueuePolicy) {
        self.policy = Rc::new(policy);
    }

    pub(in super::super) fn shared_policy(&self) -> Rc<QueuePolicy> {
        Rc::clone(&self.policy)
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

    /// If the queue holds more than it may, makes room. `true`: it is to be compacted for that.
    pub(in super::super) fn make_room(
        &mut self,
        window: &Window,
        journal: &mut Journal,
        now: Now,
    ) -> bool {
        if !self.is_above_max() {
            return false;
        }
        // A stack has no tail to which its oldest could go.
        if self.policy.when_full == WhenFull::KeepLatest && self.part != Part::Stack {
            return self.begin_compaction();
        }
        self.drop_oldest_to_fit(window, journal, now);
        false
    }

    /// Whether it holds more than it may.
    pub(super) fn is_above_max(&self) -> bool {
        self.bytes() > self.policy.bytes_max || self.messages() > self.policy.messages_max
    }

    /// Whether it has room for so many more that it is worth to have made it.
    pub(super) fn is_compact(&self) -> bool {
        let fits = |is: u64, max: u64| is <= max - max / 16;
        fits(self.bytes(), self.policy.bytes_max) && fits(self.messages(), self.policy.messages_max)
    }

    /// Whether more has come since a round began, with so many messages and bytes, than may come meanwhile.
    pub(super) fn is_beyond(&self, began: (u64, u64)) -> bool {
        let is_beyond = |is: u64, began: u64, max: u64, page: u32| {
            is > began.saturating_add((max / 16).max(page.into()))
        };
        let policy = &self.policy;
        is_beyond(
            self.messages(),
            began.0,
            policy.messages_max,
            COMPACTION_ROWS,
        ) || is_beyond(self.bytes(), began.1, policy.bytes_max, PAGE_BYTES)
    }

    /// Drops the oldest messages that were never sent: by a sixteenth more than is needed, so that this is done once for
    /// many. What is in flight counts and stays, but leaves at least half of it to the newest.
    pub(super) fn drop_oldest_to_fit(&mut self, window: &Window, journal: &mut Journal, now: Now) {
        let policy = &self.policy;
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
        if self.cursor.max(self.passed) >= self.disk_tail {
            return;
        }
        let change = Change::DropOldest(DropOldest {
            bytes_keep,
            messages_keep,
            queued_before,
            ..self.drop_nothing()
        });
        self.drop_page();
        self.dropping = Some(journal.record(change, true, now));
    }

    /// Lets the store tell what the backlog is: by a drop of nothing. `false`: nothing is on disk that it could tell.
    pub(super) fn count_backlog(&mut self, journal: &mut Journal, now: Now) -> bool {
        self.drop_oldest(u64::MAX, u64::MAX, None, journal, now);
        self.dropping.is_some()
    }

    /// A drop that lets all stay.
    pub(super) fn drop_nothing(&self) -> DropOldest {
        DropOldest {
            session: self.key,
            after: self.cursor.max(self.passed),
            maybe_sent: self.maybe_sent,
            keep: u32::from(self.window),
            keep_up_to: self.found_tail,
            up_to: self.disk_tail,
            bytes_ever: self.bytes_ever,
            bytes_keep: u64::MAX,
            messages_ever: self.messages_ever,
            messages_keep: u64::MAX,
            queued_before: None,
        }
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
