//! Keeping the latest: a full queue is compacted, where its policy says so.
//!
//! From its head on what was never sent is looked at, page by page. A message goes if a later one with its topic is in the
//! queue, and the latest of a topic goes to the tail of the same queue. So no hole is left behind, the queue's figures stay
//! exact, and the messages of a topic keep their order. A round is over when that is enough, or when all that there was at
//! its beginning has been looked at. If it freed little, the latest of all topics do not fit, and the oldest go.
//!
//! Whether a message is the latest is known as of when its page was read. What is queued while a page is under way is
//! noted, and a message whose topic is among that is looked at again later.

use super::Broker;
use super::lanes::queue_of_mut;
use super::queue::Progress;
use super::session::Drops;
use crate::record::{Page, SessionKey};
use crate::time::Now;

impl Broker {
    /// A queue is to be compacted.
    pub(super) fn begin_compaction(&mut self, key: SessionKey) {
        self.compacting.push_back(key);
    }

    /// Goes on with the queues that are being compacted, one at a time.
    pub(super) fn compact(&mut self, now: Now) {
        for _ in 0..self.compacting.len() {
            let Some(key) = self.compacting.pop_front() else {
                return;
            };
            let mut progress = self.compact_next(key, now);
            if matches!(progress, Progress::Again) {
                progress = self.compact_next(key, now);
            }
            match progress {
                Progress::Done => {}
                Progress::Wait | Progress::Again => self.compacting.push_back(key),
                Progress::Reading => return self.compacting.push_front(key),
                Progress::Read(request) => {
                    self.reads.push_back(request);
                    return self.compacting.push_front(key);
                }
            }
        }
    }

    fn compact_next(&mut self, key: SessionKey, now: Now) -> Progress {
        let Some(place) = self.sessions.find_key(key) else {
            return Progress::Done;
        };
        let Some(session) = self.sessions.get_mut(place) else {
            return Progress::Done;
        };
        if session.handover.is_some() {
            return Progress::Wait;
        }
        let Some(lane) = session.lane_of_key(key) else {
            return Progress::Done;
        };
        let window = &session.window;
        let progress = match queue_of_mut(&mut session.queue, &mut session.lanes, lane) {
            Some(queue) => queue.compact(place, window, &mut self.journal, now),
            None => Progress::Done,
        };
        self.note_committing(place);
        progress
    }

    /// A page has come of a queue that is being compacted.
    pub(super) fn compact_page(&mut self, place: u32, lane: u8, page: &Page, now: Now) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let Some(queue) = session.queue_of_mut(lane) else {
            return;
        };
        let superseded = queue.compact_page(place, page, &mut self.journal, now);
        if superseded > 0 {
            let drops = Drops {
                superseded,
                ..Drops::default()
            };
            self.counters.drops.add(drops);
            session.count_drops(lane, drops);
        }
        self.note_committing(place);
    }

    /// A page could not be read a while ago.
    pub(super) fn retry_compaction(&mut self, place: u32) {
        if let Some(session) = self.sessions.get_mut(place) {
            for queue in session.queues_mut() {
                queue.retry_compaction();
            }
        }
    }
}
