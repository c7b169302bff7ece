//! The disk: prompt, or as slow, full and damaged as a test wants it.

use larder::record::{Batch, Change, Event, PageRequest, Recovered, Seq, Store};
use larder::store::MemoryStore;
use std::sync::Arc;

/// What the disk does of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// It commits and reads at once.
    Prompt,
    /// It reads at once, and commits one batch more.
    OneBatch,
    /// It reads at once, and commits nothing.
    ReadsOnly,
}

/// A store in memory that works while the turn looks away.
pub(crate) struct Flash {
    store: MemoryStore,
    pub(crate) pace: Pace,
    /// What is told to be in use, if not what is.
    pub(crate) claims_used: Option<u64>,
    /// Pages that were asked for.
    pub(crate) pages: u64,
    /// Retained messages that were asked for.
    pub(crate) topics_asked: u64,
    /// Records of retained messages, and of their removal.
    pub(crate) retained: u64,
    /// The row whose checksum does not fit any more.
    pub(crate) damaged: Option<Seq>,
    /// The topic whose retained message does not fit its checksum any more.
    pub(crate) damaged_topic: Option<&'static str>,
    /// So many retained messages cannot be read.
    pub(crate) unreadable: u32,
    committing: bool,
    reading: u32,
    /// Whether anything was told since this was last asked.
    was_busy: bool,
}

impl Flash {
    pub(crate) fn new(store: MemoryStore) -> Flash {
        Flash {
            store,
            pace: Pace::Prompt,
            claims_used: None,
            pages: 0,
            topics_asked: 0,
            retained: 0,
            damaged: None,
            damaged_topic: None,
            unreadable: 0,
            committing: false,
            reading: 0,
            was_busy: false,
        }
    }

    /// The power goes, and comes back.
    pub(crate) fn crash(self) -> (Flash, Recovered) {
        let (store, recovered) = MemoryStore::recover(self.store.crash());
        (Flash::new(store), recovered)
    }

    pub(crate) fn take_was_busy(&mut self) -> bool {
        std::mem::take(&mut self.was_busy)
    }

    /// Whether it will tell something of itself.
    pub(crate) fn is_due(&self) -> bool {
        self.reading > 0 || (self.committing && self.pace != Pace::ReadsOnly)
    }
}

impl Store for Flash {
    fn is_idle(&self) -> bool {
        self.store.is_idle()
    }

    fn submit(&mut self, batch: Arc<Batch>) {
        self.committing = true;
        let of_retained =
            |change: &&Change| matches!(change, Change::Retain { .. } | Change::Unretain { .. });
        self.retained += batch.changes.iter().filter(of_retained).count() as u64;
        self.store.submit(batch);
    }

    fn read(&mut self, request: PageRequest) {
        self.pages += 1;
        self.reading += 1;
        self.store.read(request);
    }

    fn read_retained(&mut self, topic: String) {
        self.topics_asked += 1;
        self.reading += 1;
        self.store.read_retained(topic);
    }

    fn poll_event(&mut self) -> Option<Event> {
        if self.pace != Pace::ReadsOnly && self.committing {
            self.store.step();
            if self.pace == Pace::OneBatch {
                self.pace = Pace::ReadsOnly;
            }
        }
        self.store.step_reads();
        let mut event = self.store.poll_event()?;
        self.was_busy = true;
        match &mut event {
            Event::Committed { disk_used, .. } => {
                self.committing = false;
                *disk_used = self.claims_used.unwrap_or(*disk_used);
            }
            Event::PageRead { page, .. } => {
                self.reading -= 1;
                if let (Ok(page), Some(damaged)) = (page, self.damaged) {
                    let whole = page.rows.len();
                    page.rows.retain(|row| row.seq != damaged);
                    if page.rows.len() < whole {
                        page.bad.push(damaged);
                    }
                }
            }
            Event::RetainedRead { topic, message } => {
                self.reading -= 1;
                if self.damaged_topic.is_some_and(|damaged| damaged == *topic) {
                    *message = Ok(None);
                }
                if self.unreadable > 0 {
                    self.unreadable -= 1;
                    *message = Err("the flash refuses".to_owned());
                }
            }
            Event::Stalled { .. } => {}
        }
        Some(event)
    }
}
