//! Where a queue is not to leave in order: what of it is a backlog, and how a stack loses its last rows.

use super::super::journal::Journal;
use super::super::lanes::Part;
use super::super::policy::Order;
use super::Queue;
use crate::limits::{PAGE_BYTES, RECALL_ROWS};
use crate::record::{End, PageRequest, PageRow, Seq, Ticket};
use crate::time::Now;

impl Queue {
    /// Whether what it holds is a backlog, which newer messages may overtake.
    pub(in super::super) fn is_backlog(&self) -> bool {
        match self.part {
            Part::Live => false,
            Part::Queue => self.policy.order != Order::Fifo,
            Part::Recalled | Part::Stack => true,
        }
    }

    /// Whether its last rows are being recalled.
    pub(in super::super) fn is_recalled(&self) -> bool {
        self.is_recalled
    }

    pub(in super::super) fn set_recalled(&mut self, is_recalled: bool) {
        self.is_recalled = is_recalled;
    }

    /// Asks for its last rows; `None`: they cannot be read now.
    pub(in super::super) fn read_last(&mut self, journal: &Journal) -> Option<PageRequest> {
        // Those in the journal are the last, and come first.
        if !self.may_be_read() || journal.row(self.journal_next).is_some() {
            return None;
        }
        let request = PageRequest {
            session: self.key,
            from: End::Newest,
            after: 0,
            up_to: self.disk_tail,
            rows_max: RECALL_ROWS,
            bytes_max: PAGE_BYTES,
            recency: false,
        };
        self.asked(request);
        Some(request)
    }

    /// Takes out its last row. What it ever queued is counted without it, so that its length still follows from its first and
    /// last row.
    pub(in super::super) fn take_out_last(
        &mut self,
        row: &PageRow,
        journal: &mut Journal,
        now: Now,
    ) -> Ticket {
        self.messages_ever = self.messages_ever.saturating_sub(1);
        self.bytes_ever = self.bytes_ever.saturating_sub(u64::from(row.size));
        self.disk_tail = row.seq - 1;
        self.take_out(row, journal, now)
    }

    /// Down to this row none is left.
    pub(in super::super) fn ends_below(&mut self, seq: Seq) {
        self.disk_tail = seq.saturating_sub(1).max(self.cursor).min(self.disk_tail);
    }

    /// Rows come from elsewhere under this ticket.
    pub(in super::super) fn receives(&mut self, ticket: Ticket) {
        self.dropping = Some(ticket);
    }
}
