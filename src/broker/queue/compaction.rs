//! How a full queue that keeps the latest is looked through: what goes, what goes to its tail, and what stays.

use super::super::journal::{Journal, RestsOn};
use super::super::window::Window;
use super::Queue;
use crate::limits::{COMPACTION_ROWS, COMPACTION_TOPICS, PAGE_BYTES};
use crate::record::{End, Page, PageRequest, Passed, Recency, Seq, Ticket};
use crate::time::Now;
use foldhash::fast::FixedState;
use std::hash::BuildHasher;

/// How far a round has come.
#[derive(Default)]
pub(in super::super) struct Compaction {
    /// Rows up to this one have been looked at.
    at: Seq,
    /// And up to this one they are to be; `None`: it has not begun.
    end: Option<Seq>,
    /// What the queue held when it began: messages and bytes.
    began: (u64, u64),
    /// At its end the store was asked what the queue holds; so much was taken out of it by then.
    counted: Option<(u64, u64)>,
    /// What of those that were looked at may have been sent before the start.
    passed: Passed,
    /// Messages and bytes that have gone.
    gone: (u64, u64),
    /// Topics, hashed, of rows that a page under way may not know of; `None`: there were too many.
    newer: Option<Vec<u64>>,
    /// What the next row waits for is committed with this: newer messages with its topic, or room.
    waits: Option<Ticket>,
    /// A page could not be read, and is asked for again after a while.
    failed: bool,
}

/// Bytes of it, and of its place on the list.
pub(in super::super) const COMPACTION_BYTES: usize = size_of::<Compaction>() + 64;

/// What a queue that is to be compacted can do now.
pub(in super::super) enum Progress {
    /// It is compacted, or loses its oldest messages.
    Done,
    /// This is read first.
    Read(PageRequest),
    /// A page is under way.
    Reading,
    /// Another round begins.
    Again,
    /// Nothing: something else of it is under way.
    Wait,
}

/// What became of a row that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It was superseded.
    Gone,
    /// It is at the tail now, or stays where it is.
    Kept,
    /// It cannot be said yet, or there is no room.
    Wait,
}

impl Queue {
    /// It is above its maximum. `true`: it is to be compacted from now on.
    pub(super) fn begin_compaction(&mut self) -> bool {
        let begins = self.compaction.is_none();
        self.compaction.get_or_insert_default();
        begins
    }

    /// A row has been appended, or stands in the journal, that a page under way may not know of.
    pub(super) fn note_newer(&mut self, topic: &[u8]) {
        let compaction = self.compaction.as_mut();
        let newer = compaction.and_then(|compaction| compaction.newer.as_mut());
        if let Some(topics) = newer {
            topics.push(hash(topic));
            if topics.len() > COMPACTION_TOPICS {
                self.forget_newer();
            }
        }
    }

    fn forget_newer(&mut self) {
        if let Some(compaction) = &mut self.compaction {
            compaction.newer = None;
        }
    }

    /// What is to be done next.
    pub(in super::super) fn compact(
        &mut self,
        place: u32,
        window: &Window,
        journal: &mut Journal,
        now: Now,
    ) -> Progress {
        if self.reading.is_some_and(|request| request.recency) {
            return Progress::Reading;
        }
        if self.waits_to_be_compacted(journal) {
            return Progress::Wait;
        }
        if self.is_compact() || !self.has_round() {
            return self.end_compaction();
        }
        let Some(compaction) = &self.compaction else {
            return Progress::Done;
        };
        let (began, end) = (compaction.began, compaction.end.unwrap_or_default());
        if self.is_beyond(began) {
            self.drop_oldest_to_fit(window, journal, now);
            return self.end_compaction();
        }
        let after = compaction.at.max(self.cursor).max(self.passed);
        let up_to = end.min(self.disk_tail);
        if after < up_to {
            return Progress::Read(self.ask_compaction(place, after, up_to, journal));
        }
        let mut uncommitted = journal.rows_of((place, self.lane));
        if uncommitted.any(|(_, seq)| after < seq && seq <= end) {
            return Progress::Wait;
        }
        drop(uncommitted);
        self.end_round(window, journal, now)
    }

    fn waits_to_be_compacted(&mut self, journal: &Journal) -> bool {
        let waits = |of: Ticket| !journal.is_done(RestsOn::Ticket(of)) && !journal.is_saved();
        let compaction = self.compaction.as_ref();
        compaction.is_some_and(|of| of.failed || of.waits.is_some_and(waits))
            || self.reading.is_some()
            || self.dropping.is_some()
            || !journal.has_room_to_settle()
    }

    /// Whether a round has begun, or begins now: the queue is above its maximum.
    fn has_round(&mut self) -> bool {
        let (is_above_max, holds) = (self.is_above_max(), (self.messages(), self.bytes()));
        let Some(compaction) = &mut self.compaction else {
            return false;
        };
        if compaction.end.is_none() && is_above_max {
            (compaction.began, compaction.end) = (holds, Some(self.next_seq - 1));
        }
        compaction.end.is_some()
    }

    /// All has been looked at, and the queue is not compact. What it holds was perhaps not known when the round began.
    fn end_round(&mut self, window: &Window, journal: &mut Journal, now: Now) -> Progress {
        let taken_out = (
            self.messages_ever.saturating_sub(self.messages()),
            self.bytes_ever.saturating_sub(self.bytes()),
        );
        let Some(compaction) = &mut self.compaction else {
            return Progress::Done;
        };
        let (gone, counted) = (compaction.gone, compaction.counted);
        if !self.is_counted && counted.is_none() {
            compaction.counted = Some(taken_out);
            if self.count_backlog(journal, now) {
                return Progress::Wait;
            }
        }
        self.is_counted |= counted.is_some();
        let was_wrong = counted.is_some_and(|counted| counted != taken_out);
        if !was_wrong && !self.was_worth_it(gone) {
            self.drop_oldest_to_fit(window, journal, now);
        } else if self.is_above_max() {
            self.compaction = Some(Box::default());
            return Progress::Again;
        }
        self.end_compaction()
    }

    fn end_compaction(&mut self) -> Progress {
        self.compaction = None;
        Progress::Done
    }

    /// Whether a round has freed as much as there was above fifteen sixteenths when it began. Otherwise the latest of all
    /// topics do not fit into that, and it would be done again for every few messages.
    fn was_worth_it(&self, gone: (u64, u64)) -> bool {
        let (messages_max, bytes_max) = (self.policy.messages_max, self.policy.bytes_max);
        let enough =
            |gone: u64, is: u64, max: u64| is <= max - max / 16 || gone >= (max / 16).max(1);
        enough(gone.0, self.messages(), messages_max) && enough(gone.1, self.bytes(), bytes_max)
    }

    fn ask_compaction(
        &mut self,
        place: u32,
        after: Seq,
        up_to: Seq,
        journal: &Journal,
    ) -> PageRequest {
        if let Some(compaction) = &mut self.compaction {
            compaction.newer = Some(Vec::new());
        }
        for (no, _) in journal.rows_of((place, self.lane)) {
            if let Some(view) = journal.row(no) {
                self.note_newer(view.message.topic.of(view.bytes));
            }
        }
        let request = PageRequest {
            session: self.key,
            from: End::Oldest,
            after,
            up_to,
            rows_max: COMPACTION_ROWS,
            bytes_max: PAGE_BYTES,
            recency: true,
        };
        self.drop_page();
        self.asked(request);
        request
    }

    /// Looks at the rows of a page. Says how many have gone.
    pub(in super::super) fn compact_page(
        &mut self,
        place: u32,
        page: &Page,
        journal: &mut Journal,
        now: Now,
    ) -> u64 {
        let Some(mut compaction) = self.compaction.take() else {
            return 0;
        };
        let mut newer = compaction.newer.take();
        if let Some(topics) = &mut newer {
            topics.sort_unstable();
        }
        let before = compaction.gone.0;
        let oldest = self.drop_nothing();
        let mut is_whole = true;
        for row in &page.rows {
            if self.is_compact() {
                is_whole = false;
                break;
            }
            let mut passed = compaction.passed;
            let topic = row.message.topic.of(&page.bytes);
            let is_newest = || {
                let topics = newer.as_ref();
                topics.is_some_and(|topics| topics.binary_search(&hash(topic)).is_err())
            };
            let stays = self.was_passed(row.seq)
                || row.seq <= self.cursor
                || oldest.keeps(&mut passed, row.seq, || Some((row.qos, row.received)));
            let step = match row.recency {
                _ if stays => Step::Kept,
                Recency::Unknown => Step::Kept,
                _ if !journal.has_room_to_settle() => Step::Wait,
                Recency::Superseded => {
                    self.take_out(row, journal, now);
                    Step::Gone
                }
                Recency::Latest if is_newest() => {
                    if self.take_over(place, row, &page.bytes, row.share, journal, now) {
                        self.take_out(row, journal, now);
                        Step::Kept
                    } else {
                        Step::Wait
                    }
                }
                Recency::Latest => Step::Wait,
            };
            match step {
                Step::Wait => {
                    compaction.waits = Some(journal.filling());
                    is_whole = false;
                    break;
                }
                Step::Gone => {
                    compaction.gone.0 += 1;
                    compaction.gone.1 += u64::from(row.size);
                }
                Step::Kept => {}
            }
            compaction.passed = passed;
            compaction.at = row.seq;
        }
        if is_whole {
            compaction.at = compaction.at.max(page.read_up_to);
        }
        let gone = compaction.gone.0 - before;
        self.compaction = Some(compaction);
        gone
    }

    /// A page could not be read: it is asked for again when [`Queue::retry_compaction`] is called.
    pub(in super::super) fn compaction_failed(&mut self) {
        if let Some(compaction) = &mut self.compaction {
            compaction.failed = true;
        }
    }

    pub(in super::super) fn retry_compaction(&mut self) {
        if let Some(compaction) = &mut self.compaction {
            compaction.failed = false;
        }
    }
}

fn hash(topic: &[u8]) -> u64 {
    FixedState::with_seed(0).hash_one(topic)
}
