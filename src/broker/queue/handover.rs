//! What handing over asks of a queue, and takes out of it.

use super::Queue;
use crate::record::{Seq, Ticket};

impl Queue {
    /// The last row that may be owed by a Shared Subscription.
    pub(in super::super) fn last_shared(&self) -> Seq {
        self.last_shared
    }

    /// Of the rows that were not offered to a link no one up to this is owed by a Shared Subscription any more.
    pub(in super::super) fn none_shared_up_to(&mut self, seq: Seq) {
        if self.last_shared <= seq {
            self.last_shared = self.passed();
        }
    }

    /// The last row on disk.
    pub(in super::super) fn disk_tail(&self) -> Seq {
        self.disk_tail
    }

    /// The last row that was offered to a link since the start.
    pub(in super::super) fn passed(&self) -> Seq {
        self.passed.max(self.cursor)
    }

    /// So many of the rows after that may have been sent before the start.
    pub(in super::super) fn maybe_sent(&self) -> u32 {
        self.maybe_sent
    }

    /// Whether a row was on disk at the start.
    pub(in super::super) fn was_found(&self, seq: Seq) -> bool {
        seq <= self.found_tail
    }

    /// Whether a page may be asked for: none is under way, and no row is being taken out.
    pub(in super::super) fn may_be_read(&self) -> bool {
        self.reading.is_none() && self.dropping.is_none()
    }

    /// A row of `len` bytes is owed to another session instead; it is gone when this ticket is committed.
    pub(in super::super) fn handed_over(&mut self, len: u64, ticket: Ticket) {
        self.settled(len);
        self.dropping = Some(ticket);
    }
}
