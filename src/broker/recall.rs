//! Recalling: where the newest of a backlog go first, its last rows are owed by another lane, from which they are sent.
//!
//! A row goes from the stack to the lane of what was recalled in one batch, so that a crash finds it in one of them, and it is
//! sent from there when it is on disk. While rows are recalled, what comes is live: so they always are the last of the stack,
//! and no hole is left in it.

use super::Broker;
use super::lanes::Part;
use crate::record::{Page, PageRow};
use crate::time::Now;

impl Broker {
    /// Recalls rows of a session's stacks, where its client has taken most of those recalled before.
    pub(super) fn recall(&mut self, place: u32) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let Some(link) = session.link.and_then(|id| self.links.get(id)) else {
            return;
        };
        let enough = u64::from(session.window.takes(link.receive_maximum));
        for index in 0..session.lanes.len() {
            let lane = &session.lanes[index];
            if lane.queue.part != Part::Stack {
                continue;
            }
            let recalled = session.part(lane.of, Part::Recalled);
            let wants = recalled.is_some_and(|lane| lane.queue.messages() < enough);
            let stack = &mut session.lanes[index].queue;
            stack.set_recalled(wants && stack.messages() > 0);
            if stack.is_recalled() {
                self.reads.extend(stack.read_last(&self.journal));
            }
        }
    }

    /// The last rows of a stack have been read.
    pub(super) fn recall_page(&mut self, place: u32, stack: u8, page: &Page, now: Now) {
        let Some(session) = self.sessions.get(place) else {
            return;
        };
        let lane = session.lanes.iter().find(|lane| lane.queue.lane == stack);
        let recalled = lane.and_then(|lane| session.part(lane.of, Part::Recalled));
        let Some(recalled) = recalled.map(|lane| lane.queue.lane) else {
            return;
        };
        let is_done = page
            .rows
            .iter()
            .all(|row| self.recall_row(place, (stack, recalled), row, &page.bytes, now));
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        if !is_done {
            self.unsettled.push(place);
        } else if let Some(queue) = session.queue_of_mut(stack) {
            queue.ends_below(page.read_up_to);
        }
        self.note_committing(place);
    }

    /// A row is owed by the lane of what was recalled from now on; `false`: the journal has no room for that.
    fn recall_row(
        &mut self,
        place: u32,
        (stack, recalled): (u8, u8),
        row: &PageRow,
        bytes: &[u8],
        now: Now,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(place) else {
            return false;
        };
        let journal = &mut self.journal;
        let is_taken = session
            .queue_of_mut(recalled)
            .is_some_and(|queue| queue.take_over(place, row, bytes, None, journal, now));
        if !is_taken {
            return false;
        }
        let ticket = session
            .queue_of_mut(stack)
            .map(|queue| queue.take_out_last(row, journal, now));
        if let (Some(queue), Some(ticket)) = (session.queue_of_mut(recalled), ticket) {
            queue.receives(ticket);
        }
        true
    }
}
