//! What is asked of a queue whose rows go elsewhere, and how they go.

use super::super::journal::Journal;
use super::super::message::Content;
use super::super::publish::NOBODY;
use super::Queue;
use crate::record::{Change, PageRow, Seq, ShareKey, Ticket};
use crate::time::Now;

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

    /// A row that was read goes: it is owed by another queue instead, or by none. No row is sent until that is committed.
    pub(in super::super) fn take_out(
        &mut self,
        row: &PageRow,
        journal: &mut Journal,
        now: Now,
    ) -> Ticket {
        let change = Change::Settle {
            session: self.key,
            seq: row.seq,
        };
        let ticket = journal.record(change, true, now);
        self.settled(u64::from(row.size));
        self.dropping = Some(ticket);
        ticket
    }

    /// Owes a row that was read in another place, from where it is taken out in the same batch: a crash finds it in one of
    /// them. `false`: the journal has no room for it. It takes no more of the disk than it frees.
    pub(in super::super) fn take_over(
        &mut self,
        place: u32,
        row: &PageRow,
        bytes: &[u8],
        share: Option<ShareKey>,
        journal: &mut Journal,
        now: Now,
    ) -> bool {
        let content = Content::of(&row.message, bytes);
        let subscription_ids = row.subscription_ids.of(bytes);
        let len = content.len();
        if !journal.has_room_to_settle() || !journal.has_room(len + subscription_ids.len(), 1) {
            return false;
        }
        let message = journal.message(&content, NOBODY);
        self.append(
            journal,
            place,
            message,
            len as u64,
            (row.qos, row.retain),
            subscription_ids,
            share,
            row.queued_at,
            now,
        );
        true
    }
}
