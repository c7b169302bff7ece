//! What the store is asked, and what it has to say: batches, commits, pages.

use super::levels::topic_of;
use super::session::Drops;
use super::{Broker, note_dirty};
use crate::limits::{PAGES, SERVICE_NOTE};
use crate::record::{Batch, Dropped, Event, PageRequest};
use crate::time::{Mono, Now};
use std::sync::Arc;

impl Broker {
    /// What the store has to say.
    pub fn handle_store(&mut self, event: Event, now: Now) {
        match event {
            Event::Committed {
                batch,
                dropped,
                disk_used,
                written,
            } => {
                (self.disk_used, self.disk_written) = (disk_used, written);
                self.batch_committed(batch, &dropped);
            }
            Event::Stalled { error } => {
                self.counters.store_stalls += 1;
                log::error!(
                    "store: cannot write: {error}. Messages of QoS 1 and 2 wait until it can; nothing that was acknowledged is lost"
                );
            }
            Event::PageRead { request, page } => self.page_read(request, page, now),
            Event::RetainedRead { message, .. } => self.retained_read(message, now),
        }
    }

    fn batch_committed(&mut self, batch: Arc<Batch>, dropped: &[Dropped]) {
        let ticket = batch.ticket;
        let (sessions, dirty) = (&mut self.sessions, &mut self.dirty);
        self.journal.committed(batch, |committed| {
            let place = committed.row.place;
            if let Some(queue) = sessions
                .get_mut(place)
                .and_then(|session| session.queue_of_mut(committed.row.lane))
            {
                queue.row_committed(committed);
                if !committed.row.sent {
                    note_dirty(sessions, dirty, place);
                }
            }
        });
        self.retained.committed(ticket);
        for dropped in dropped {
            let drops = Drops::of(dropped);
            self.counters.drops.add(drops);
            let place = self.sessions.find_key(dropped.session);
            if let Some(session) = place.and_then(|place| self.sessions.get_mut(place)) {
                if dropped.messages > 0 {
                    let class = session.class_name(dropped.session);
                    log::warn!(
                        "session {}: its {}: the {} oldest messages ({} bytes){} were dropped",
                        session.client_id,
                        if dropped.aged {
                            "queued messages became too old"
                        } else {
                            "queue is full"
                        },
                        dropped.messages,
                        dropped.bytes,
                        class.map_or(String::new(), |class| format!(" of class {class}")),
                    );
                }
                if let Some(lane) = session.lane_of_key(dropped.session) {
                    session.count_drops(lane, drops);
                    let in_flight = session.window.load(lane);
                    if let Some(queue) = session.queue_of_mut(lane) {
                        queue.dropped(dropped, in_flight);
                    }
                }
            }
        }
        let mut committing = std::mem::take(&mut self.committing);
        committing.retain(|place| {
            let Some(session) = self.sessions.get_mut(*place) else {
                return false;
            };
            session.ticket_committed(ticket);
            session.is_committing = session.waits_for_commit();
            let waits = session.is_committing;
            note_dirty(&mut self.sessions, &mut self.dirty, *place);
            waits
        });
        self.committing = committing;
        self.releasable.append(&mut self.waiting);
        for id in &self.releasable {
            if let Some(link) = self.links.get_mut(*id) {
                link.is_waiting = false;
            }
        }
    }

    /// The next page to be read.
    pub fn poll_read(&mut self) -> Option<PageRequest> {
        if self.pages_out >= PAGES {
            return None;
        }
        let request = self.reads.pop_front()?;
        self.pages_out += 1;
        Some(request)
    }

    /// The next topic whose retained message is to be read.
    pub fn poll_read_retained(&mut self) -> Option<String> {
        if self.pages_out >= PAGES {
            return None;
        }
        let (place, key) = self.retained_reads.pop_front()?;
        let topic = topic_of(&key, &mut Vec::new()).to_owned();
        self.pages_out += 1;
        self.retained_out.push_back((place, key));
        Some(topic)
    }

    /// The filling batch, if the store is free and something in it is due.
    pub fn poll_batch(&mut self, now: Now) -> Option<Arc<Batch>> {
        if self.hurried {
            self.tell_all(now);
        }
        if self.journal.is_committing() || self.batch_due()? > now.mono {
            return None;
        }
        if self.note_due <= now.mono {
            self.journal.note();
        }
        self.disk_asked = None;
        self.note_due = now.mono.after(SERVICE_NOTE);
        Some(self.journal.submit(now))
    }

    /// When the filling batch is to be submitted. An empty one costs no write, and tells how full the disk is.
    pub(super) fn batch_due(&mut self) -> Option<Mono> {
        let due = self.journal.due(self.limits.settle_wait);
        let note = self.sessions.has_stored().then_some(self.note_due);
        [due, self.disk_asked, note].into_iter().flatten().min()
    }

    /// Whether everything recorded is committed, settlements included, and no Will waits that is nowhere on disk.
    #[must_use]
    pub fn is_saved(&self) -> bool {
        self.journal.is_saved() && !self.wills.has_left() && !self.retained.is_stale()
    }

    /// Makes everything recorded due at once, and the service time: the program is about to end.
    pub fn hurry(&mut self) {
        self.hurried = true;
        self.journal.note();
    }
}
