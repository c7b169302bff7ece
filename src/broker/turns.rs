//! Whose turn it is: in what order the lanes of a session are delivered from.
//!
//! What was sent on an earlier link comes first. Then the lanes come in the order of the classes, and the session's own
//! queue last; but whoever has been passed over [`LANE_SHARE`] times has its turn, so that none starves.

use super::journal::Journal;
use super::lanes::Lane;
use super::queue::Queue;
use super::window::Window;
use crate::limits::{LANE_SHARE, SESSION_LANES};

/// The turns of one delivery. A lane is named by its index; the session's own queue by the one after the last.
#[derive(Default)]
pub(super) struct Turns {
    /// Those that cannot go on now.
    waits: [bool; SESSION_LANES + 1],
}

impl Turns {
    /// Whose turn it is, and how many rows it may read ahead; `None`: nobody's.
    pub(super) fn next(
        &self,
        own: &Queue,
        lanes: &[Lane],
        is_open: bool,
        window: &Window,
        journal: &Journal,
    ) -> Option<(usize, Option<u16>)> {
        let queues = || {
            let queues = lanes.iter().map(|lane| &lane.queue);
            queues.chain(std::iter::once(own)).enumerate()
        };
        let is_resending = queues().any(|(_, queue)| queue.is_resending(window));
        let may = |index: usize, queue: &Queue| {
            !self.waits[index]
                && (is_open || index == lanes.len())
                && queue.is_resending(window) == is_resending
                && !queue.is_drained(journal)
        };
        let mut first = None;
        let mut others = false;
        let mut due = None;
        for (index, queue) in queues().filter(|(index, queue)| may(*index, queue)) {
            others |= first.is_some();
            first.get_or_insert(index);
            if queue.passed_over >= LANE_SHARE {
                due.get_or_insert(index);
            }
        }
        match due {
            // It has one row before the others go on.
            Some(index) if others => Some((index, Some(1))),
            _ => first.map(|index| (index, None)),
        }
    }

    /// It cannot go on now.
    pub(super) fn waits(&mut self, index: usize) {
        self.waits[index] = true;
    }

    /// It has had its turn: others with something were passed over.
    pub(super) fn passed(
        &self,
        index: usize,
        own: &mut Queue,
        lanes: &mut [Lane],
        journal: &Journal,
    ) {
        let queues = lanes.iter_mut().map(|lane| &mut lane.queue);
        for (other, queue) in queues.chain(std::iter::once(own)).enumerate() {
            queue.passed_over = if other == index || queue.is_drained(journal) {
                0
            } else {
                queue.passed_over.saturating_add(1)
            };
        }
    }
}
