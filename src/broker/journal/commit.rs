//! The journal's two batches: when the one that fills is due, how it goes to the writer, and what its commit brings.

use super::{CommittedRow, Journal, RowNo};
use crate::limits::SETTLEMENT_WAIT;
use crate::record::{Batch, Ticket};
use crate::time::{Mono, Now};
use std::sync::Arc;
use std::time::Duration;

impl Journal {
    /// When the filling batch is to be submitted: `None` if it is empty.
    pub(in crate::broker) fn due(&mut self, settle_wait: Duration) -> Option<Mono> {
        if self.note {
            return Some(Mono(0));
        }
        if self.live == 0 {
            return None;
        }
        let half_full = self.batch.bytes.len() * 2 > self.bytes_max
            || self.batch.changes.len() * 2 > self.changes_max;
        if self.urgent || self.unsent > 0 || half_full {
            return Some(Mono(0));
        }
        let row = (self.unsettled > 0).then(|| {
            while self.filling.rows[self.oldest_row].settled {
                self.oldest_row += 1;
            }
            self.filling.rows[self.oldest_row].at.after(settle_wait)
        });
        let other = self.other_since.map(|since| since.after(SETTLEMENT_WAIT));
        [row, other].into_iter().flatten().min()
    }

    /// Whether a batch is being committed.
    pub(in crate::broker) fn is_committing(&self) -> bool {
        self.committing.is_some()
    }

    /// Closes the filling batch for the writer, and begins the next one.
    pub(in crate::broker) fn submit(&mut self, now: Now) -> Arc<Batch> {
        debug_assert!(self.committing.is_none());
        let (mut batch, mut next) = self.spare.take().unwrap_or_default();
        if Arc::get_mut(&mut batch).is_none() {
            // A store that keeps batches has it still.
            batch = Arc::default();
        }
        let ticket = self.batch.ticket;
        if let Some(empty) = Arc::get_mut(&mut batch) {
            std::mem::swap(empty, &mut self.batch);
            let full = empty;
            full.service = now.service;
            full.wall = now.wall_floor;
            full.note = std::mem::take(&mut self.note);
        }
        self.batch.bytes.clear();
        self.batch.messages.clear();
        self.batch.changes.clear();
        self.batch.ticket = Ticket(ticket.0 + 1);
        next.messages.clear();
        next.rows.clear();
        next.first_message = self.filling.first_message + self.filling.messages.len() as u64;
        next.first_row = self.filling.first_row + self.filling.rows.len() as u64;
        let side = std::mem::replace(&mut self.filling, next);
        self.committing = Some((Arc::clone(&batch), side));
        (self.live, self.unsent, self.unsettled, self.oldest_row) = (0, 0, 0, 0);
        (self.other_since, self.urgent, self.made_room) = (None, false, true);
        batch
    }

    /// The ticket of the batch that is being filled.
    pub(in crate::broker) fn filling(&self) -> Ticket {
        self.batch.ticket
    }

    /// The batch with which every change recorded so far, rows aside, is committed; `None` if all are.
    pub(in crate::broker) fn last_recorded(&self) -> Option<Ticket> {
        let committing = self.committing.as_ref().map(|(batch, _)| batch.ticket);
        self.other_since.map(|_| self.batch.ticket).or(committing)
    }

    /// Whether everything recorded is committed.
    pub(in crate::broker) fn is_saved(&self) -> bool {
        self.live == 0 && !self.note && self.committing.is_none()
    }

    /// The filling batch is due at once, and writes down the service time.
    pub(in crate::broker) fn note(&mut self) {
        self.note = true;
    }

    /// The batch is durable. `each` is called for its rows that are not settled, oldest first.
    pub(in crate::broker) fn committed(
        &mut self,
        batch: Arc<Batch>,
        mut each: impl FnMut(CommittedRow),
    ) {
        let Some((ours, side)) = self.committing.take() else {
            return;
        };
        self.committed = ours.ticket;
        self.made_room = true;
        drop(ours);
        for (index, row) in side.rows.iter().enumerate() {
            if !row.settled {
                each(CommittedRow {
                    no: RowNo(side.first_row + index as u64),
                    row: *row,
                });
            }
        }
        self.spare = Some((batch, side));
    }

    /// Bytes of messages that wait for their commit.
    pub(in crate::broker) fn pending_bytes(&self) -> u64 {
        let committing = self
            .committing
            .as_ref()
            .map_or(0, |(batch, _)| batch.bytes.len());
        (self.batch.bytes.len() + committing) as u64
    }
}
