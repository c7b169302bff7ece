//! A queue of a stored session, its own or that of a lane: rows on disk, then rows in the committing batch, then rows in the filling one.
//!
//! In memory it is a few numbers and at most one page. `cursor` is the last row that went into the window of the present
//! link. As long as it is below `disk_tail`, the next row comes from the disk; after that from the journal's chain.

mod compaction;
mod moving;
mod room;
mod stack;

pub(super) use compaction::{COMPACTION_BYTES, Progress};

use super::classes::{Backlog, Tally};
use super::journal::{CommittedRow, Journal, MessageNo, NewRow, RowNo};
use super::lanes::Part;
use super::packet_ids::{OWN, PacketIds};
use super::policy::{QueuePolicy, WhenFull};
use super::session::Drops;
use super::window::Window;
use crate::limits::{LANE_SEQ_RESERVE, PAGE_BYTES, SEQ_RESERVE};
use crate::record::{
    Change, End, Extent, Page, PageRequest, PageRow, RecoveredLane, RecoveredSession, Seq,
    SessionKey, ShareKey, Ticket,
};
use crate::time::{Mono, Now, ServiceSeconds};
use compaction::Compaction;
use larder_packet::Qos;
use std::rc::Rc;

/// Where the next row of a queue is.
pub(super) enum Next {
    /// In the page: the index of its row.
    Page(usize),
    /// In the journal.
    Journal(RowNo),
    /// On disk: this is to be read first.
    Read(PageRequest),
    /// On disk, and read a little later.
    Later,
    /// Not to be had now: a page, a commit or a drop is under way.
    Wait,
    /// There is none.
    Empty,
}

/// A queue of a stored session.
pub(super) struct Queue {
    pub(super) key: SessionKey,
    /// Its number among the lanes, or [`OWN`].
    pub(super) lane: u8,
    /// Which part it is of what is in its class.
    pub(super) part: Part,
    /// The number of the next row.
    next_seq: Seq,
    /// So many numbers are reserved at a time.
    seq_reserve: u64,
    /// Numbers up to this one may be sent: it is on disk.
    reserved: Seq,
    /// A higher reserve that is recorded, and its ticket.
    reserving: Option<(Seq, Ticket)>,
    /// No row below this one is on disk: their Packet Identifiers may be used again.
    released: Seq,
    /// A higher one that is recorded, and its ticket.
    releasing: Option<(Seq, Ticket)>,
    /// The highest row on disk.
    disk_tail: Seq,
    /// The last row that was offered to the present link.
    cursor: Seq,
    /// Rows up to this one were offered to a link since the start: those not settled are in the window.
    passed: Seq,
    /// So many of the first rows on disk may have been sent before the start: those that stood in the window, and before
    /// them those whose settlement was not committed.
    maybe_sent: u32,
    /// Of these so many of QoS 2 whose receiver may have begun with them: those that stood in the window. What was settled
    /// before them is on disk as received.
    maybe_begun: u16,
    /// So many stood in the window.
    window: u16,
    /// The last row that was on disk at the start.
    found_tail: Seq,
    /// The first row in the journal after the cursor, and the last of all.
    journal_next: RowNo,
    journal_last: RowNo,
    pub(super) page: Page,
    page_at: usize,
    /// The request that is under way. An answer to any other is stale.
    reading: Option<PageRequest>,
    /// When it is read on though little of the window is free.
    pub(super) read_at: Option<Mono>,
    /// Rows are being taken out under this ticket, dropped or owed elsewhere, or come from elsewhere; until then no row is
    /// sent.
    dropping: Option<Ticket>,
    /// A stack: its last rows are being recalled.
    is_recalled: bool,
    /// No row after this one is owed by a Shared Subscription.
    last_shared: Seq,
    /// Backlog: what is queued and not settled.
    backlog: Backlog,
    messages_ever: u64,
    bytes_ever: u64,
    /// Whether the backlog is known exactly: a start takes for queued what was taken out behind its first rows.
    is_counted: bool,
    policy: Rc<QueuePolicy>,
    /// It is being compacted.
    compaction: Option<Box<Compaction>>,
    /// What it has coming of its share while others are sent: hundredths of messages.
    pub(super) credit: u32,
    /// What was dropped of it since the start.
    pub(super) drops: Drops,
}

impl Queue {
    /// The queue of a new session.
    pub(super) fn new(key: SessionKey, policy: Rc<QueuePolicy>) -> Queue {
        Queue {
            key,
            lane: OWN,
            part: Part::Queue,
            next_seq: 1,
            seq_reserve: SEQ_RESERVE,
            reserved: 0,
            reserving: None,
            released: 1,
            releasing: None,
            disk_tail: 0,
            cursor: 0,
            passed: 0,
            maybe_sent: 0,
            maybe_begun: 0,
            window: 0,
            found_tail: 0,
            journal_next: RowNo::NONE,
            journal_last: RowNo::NONE,
            page: Page::default(),
            page_at: 0,
            reading: None,
            read_at: None,
            dropping: None,
            is_recalled: false,
            last_shared: 0,
            backlog: Backlog::default(),
            messages_ever: 0,
            bytes_ever: 0,
            is_counted: true,
            compaction: None,
            credit: 0,
            drops: Drops::default(),
            policy,
        }
    }

    /// The queue of a session as recovery found it. `window`: messages that were in flight to it at most; `unsettled`: those
    /// acknowledged before them whose settlement was not committed, at most.
    pub(super) fn recovered(
        session: &RecoveredSession,
        policy: Rc<QueuePolicy>,
        window: u16,
        unsettled: usize,
    ) -> Queue {
        let queue = Queue::new(session.key, policy);
        queue.found(
            session.extent,
            session.seq_reserved,
            None,
            window,
            unsettled,
        )
    }

    /// The queue of a new lane.
    pub(super) fn lane(
        key: SessionKey,
        lane: u8,
        part: Part,
        policy: Rc<QueuePolicy>,
        tally: Option<Rc<Tally>>,
    ) -> Queue {
        Queue {
            lane,
            part,
            seq_reserve: LANE_SEQ_RESERVE,
            backlog: Backlog::new(0, 0, tally),
            ..Queue::new(key, policy)
        }
    }

    /// The queue of a lane as recovery found it, as [`Queue::recovered`]. Of a stack nothing was ever sent.
    pub(super) fn recovered_lane(
        found: &RecoveredLane,
        part: Part,
        policy: Rc<QueuePolicy>,
        tally: Option<Rc<Tally>>,
        window: u16,
        unsettled: usize,
    ) -> Queue {
        let queue = Queue {
            lane: found.record.number,
            part,
            seq_reserve: LANE_SEQ_RESERVE,
            ..Queue::new(found.key, policy)
        };
        let (window, unsettled) = match part {
            Part::Stack => (0, 0),
            _ => (window, unsettled),
        };
        queue.found(found.extent, found.seq_reserved, tally, window, unsettled)
    }

    fn found(
        self,
        found: Option<Extent>,
        seq_reserved: Seq,
        tally: Option<Rc<Tally>>,
        window: u16,
        unsettled: usize,
    ) -> Queue {
        let extent = found.unwrap_or_default();
        let last = extent.last.max(seq_reserved);
        Queue {
            next_seq: last + 1,
            reserved: seq_reserved,
            released: found.map_or(last + 1, |extent| extent.first),
            disk_tail: extent.last,
            cursor: extent.first.saturating_sub(1),
            maybe_sent: match found {
                Some(_) => u32::from(window) + u32::try_from(unsettled).unwrap_or(u32::MAX / 2),
                None => 0,
            },
            maybe_begun: window,
            window,
            found_tail: extent.last,
            last_shared: extent.last,
            backlog: Backlog::new(extent.messages, extent.bytes, tally),
            messages_ever: extent.messages_ever,
            bytes_ever: extent.bytes_ever,
            is_counted: found.is_none(),
            ..self
        }
    }

    /// The window was this wide before the start, if not wider.
    pub(super) fn widen_maybe_sent(&mut self, window: u16) {
        self.window = self.window.max(window);
        if self.maybe_sent > 0 {
            self.maybe_sent += u32::from(window);
            self.maybe_begun = self.maybe_begun.max(window);
        }
    }

    // --- The tail ---

    /// Records the first reserve of numbers.
    pub(super) fn reserve(&mut self, journal: &mut Journal, urgent: bool, now: Now) {
        let seq_reserved = self.next_seq + self.seq_reserve;
        let ticket = journal.record(
            Change::Reserve {
                session: self.key,
                seq_reserved,
            },
            urgent,
            now,
        );
        self.reserving = Some((seq_reserved, ticket));
    }

    /// Appends a message of `len` bytes: the session owes it from now on.
    #[expect(clippy::too_many_arguments, reason = "a row is what it is")]
    pub(super) fn append(
        &mut self,
        journal: &mut Journal,
        place: u32,
        message: MessageNo,
        len: u64,
        (qos, retain): (Qos, bool),
        subscription_ids: &[u8],
        share: Option<ShareKey>,
        queued_at: ServiceSeconds,
        now: Now,
    ) {
        let recorded = self.reserving.map_or(self.reserved, |(seq, _)| seq);
        if self.next_seq + self.seq_reserve / 2 > recorded {
            self.reserve(journal, self.next_seq > recorded, now);
        }
        let row = NewRow {
            place,
            lane: self.lane,
            session: self.key,
            seq: self.next_seq,
            message,
            qos,
            retain,
            subscription_ids,
            share,
            queued_at,
            messages_before: self.messages_ever,
            bytes_before: self.bytes_ever,
            indexed: self.policy.when_full == WhenFull::KeepLatest,
        };
        let no = journal.owe(&row, self.journal_last, now.mono);
        self.journal_last = no;
        if let Some(view) = journal.row(no).filter(|_| self.compaction.is_some()) {
            self.note_newer(view.message.topic.of(view.bytes));
        }
        if share.is_some() {
            self.last_shared = self.next_seq;
        }
        if self.journal_next == RowNo::NONE {
            self.journal_next = no;
        }
        self.next_seq += 1;
        self.backlog
            .set(self.backlog.messages() + 1, self.backlog.bytes() + len);
        self.messages_ever += 1;
        self.bytes_ever += len;
    }

    /// It has only a part of the Packet Identifiers from now on: numbers are reserved in smaller blocks, so that a start,
    /// which leaves out a block, seldom makes identifiers scarce.
    pub(super) fn has_a_part(&mut self) {
        self.seq_reserve = LANE_SEQ_RESERVE;
    }

    /// The number of the next row.
    pub(super) fn next_seq(&self) -> Seq {
        self.next_seq
    }

    /// Messages that are queued and not settled.
    pub(super) fn messages(&self) -> u64 {
        self.backlog.messages()
    }

    /// Their bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.backlog.bytes()
    }

    // --- The head ---

    /// Where the next row is, with what is free of a link's window. `rows_max`: so many are wanted at once, and no more.
    pub(super) fn next(
        &self,
        journal: &Journal,
        window: &Window,
        receive_maximum: u16,
        rows_max: Option<u16>,
        now: Now,
    ) -> Next {
        if self.dropping.is_some() {
            return Next::Wait;
        }
        if self.cursor < self.disk_tail {
            if self.page_at < self.page.rows.len() {
                return Next::Page(self.page_at);
            }
            let is_resending = self.cursor < self.passed;
            let room = if is_resending {
                window.free(receive_maximum)
            } else {
                window.room(receive_maximum)
            };
            if self.reading.is_some() || room == 0 {
                return Next::Wait;
            }
            let is_late = self.read_at.is_some_and(|at| at <= now.mono);
            if rows_max.is_none() && room < window.takes(receive_maximum).div_ceil(2) && !is_late {
                return Next::Later;
            }
            return Next::Read(PageRequest {
                session: self.key,
                from: End::Oldest,
                after: self.cursor,
                up_to: self.disk_tail,
                rows_max: u32::from(rows_max.map_or(room, |max| max.min(room))),
                bytes_max: PAGE_BYTES,
                recency: false,
            });
        }
        match journal.row(self.journal_next) {
            None => Next::Empty,
            // One of QoS 2 is sent when it is on disk: it must not come again under another number.
            Some(view) if view.owe.qos == Qos::ExactlyOnce => Next::Wait,
            Some(view) if view.row.seq > self.reserved => Next::Wait,
            Some(_) => Next::Journal(self.journal_next),
        }
    }

    /// The chain's next row may have been settled out of order before it was committed: the one after it is looked for.
    pub(super) fn mend_chain(&mut self, place: u32, journal: &Journal) {
        if self.journal_next != RowNo::NONE && journal.row(self.journal_next).is_none() {
            self.find_chain(place, journal);
        }
    }

    fn find_chain(&mut self, place: u32, journal: &Journal) {
        let after = self.cursor.max(self.disk_tail);
        let next = journal
            .rows_of((place, self.lane))
            .find(|(_, seq)| *seq > after);
        self.journal_next = next.map_or(RowNo::NONE, |(no, _)| no);
    }

    /// Whether the row has a Packet Identifier to itself. One whose message was settled is not used again before the
    /// settlement is committed: a crash would bring the settled message back, under the identifier of the later one.
    pub(super) fn has_packet_id(&self, ids: PacketIds, seq: Seq) -> bool {
        (ids.is_undivided(self.lane, seq) || self.lane != OWN || self.has_released(ids.start))
            && ids.is_in_span(self.lane, self.released, seq)
    }

    /// Whether no row before this one is on disk.
    pub(super) fn has_released(&self, seq: Seq) -> bool {
        self.released >= seq
    }

    /// Lets Packet Identifiers be used again once the settlements before `first`, the oldest message in flight or else the
    /// row `next` that is to be sent, are committed. They are asked for when half of all identifiers are used, so that this
    /// is waited for rarely; or when `next` has none, for each start leaves out a block of numbers.
    pub(super) fn release_packet_ids(
        &mut self,
        ids: PacketIds,
        first: Seq,
        next: Seq,
        journal: &Journal,
    ) {
        let half = ids.span(self.lane, next) / 2;
        if first >= self.released + half || !self.has_packet_id(ids, next) {
            self.release_up_to(first, journal);
        }
    }

    /// Lets the Packet Identifiers of all rows before this one be used again, once their settlements are committed.
    pub(super) fn release_up_to(&mut self, first: Seq, journal: &Journal) {
        if first <= self.released || self.releasing.is_some() {
            return;
        }
        match journal.last_recorded() {
            None => self.released = first,
            Some(ticket) => self.releasing = Some((first, ticket)),
        }
    }

    /// Notes that a page has been asked for.
    pub(super) fn asked(&mut self, request: PageRequest) {
        self.reading = Some(request);
    }

    /// A page has come; `false` if it is not the one that is waited for.
    pub(super) fn page_read(&mut self, request: PageRequest, page: Option<Page>) -> bool {
        if !self.answered(request) {
            return false;
        }
        let Some(page) = page else { return true };
        self.page_at = 0;
        self.page = page;
        if self.page.rows.is_empty() {
            self.cursor = self.cursor.max(self.page.read_up_to);
        }
        true
    }

    /// A request has been answered; `false` if another one is waited for, or none.
    pub(super) fn answered(&mut self, request: PageRequest) -> bool {
        self.reading.take_if(|asked| *asked == request).is_some()
    }

    /// The answer to what was asked is not wanted any more.
    pub(super) fn forget_request(&mut self) {
        self.reading = None;
    }

    /// What of the page could not be sent now is read again when it can: a session does not hold a page while it waits.
    pub(super) fn drop_page(&mut self) {
        self.page = Page::default();
        self.page_at = 0;
    }

    /// The row of the page has been sent, settled or passed over.
    pub(super) fn passed_in_page(&mut self, index: usize) {
        self.page_at = index + 1;
        let row = self.page.rows[index];
        let PageRow { seq, .. } = row;
        if !self.was_passed(seq) {
            self.maybe_sent = self.maybe_sent.saturating_sub(1);
            let could_have_begun = row.qos == Qos::ExactlyOnce && !row.received;
            self.maybe_begun -= u16::from(could_have_begun).min(self.maybe_begun);
        }
        if seq >= self.found_tail {
            self.maybe_sent = 0;
        }
        self.cursor = seq;
        if self.page_at == self.page.rows.len() {
            self.cursor = self.cursor.max(self.page.read_up_to);
            self.drop_page();
        }
    }

    /// The row of the journal has been sent, settled or passed over.
    pub(super) fn passed_in_journal(&mut self, journal: &Journal, seq: Seq) {
        self.cursor = seq;
        self.journal_next = journal.next(self.journal_next);
    }

    /// Whether a row may have been sent before the start, and so carries DUP.
    pub(super) fn may_have_been_sent(&self, seq: Seq) -> bool {
        self.maybe_sent > 0 && seq <= self.found_tail
    }

    /// Whether the receiver of a row of QoS 2 may have begun with it before the start: it holds the Packet Identifier until
    /// it is released.
    pub(super) fn may_have_begun(&self, seq: Seq) -> bool {
        self.maybe_begun > 0 && self.may_have_been_sent(seq)
    }

    /// Whether it has something in flight that the present link was not offered yet.
    pub(super) fn is_resending(&self, window: &Window) -> bool {
        self.cursor < self.passed && window.first(self.lane).is_some()
    }

    /// Whether a row was offered to a link since the start: it is in the window, or settled.
    pub(super) fn was_passed(&self, seq: Seq) -> bool {
        seq <= self.passed
    }

    /// A row was settled: `len` bytes less are owed.
    pub(super) fn settled(&mut self, len: u64) {
        self.backlog.set(
            self.backlog.messages().saturating_sub(1),
            self.backlog.bytes().saturating_sub(len),
        );
    }

    /// Counts what was dropped of it.
    pub(super) fn count(&mut self, drops: Drops) {
        self.drops.add(drops);
        self.backlog.count(drops);
    }

    /// Whether there is something to send, now or once it has been read or is on disk.
    pub(super) fn has_next(&self, journal: &Journal) -> bool {
        self.part != Part::Stack && !self.is_drained(journal)
    }

    /// Everything that was appended has been settled.
    pub(super) fn is_drained(&self, journal: &Journal) -> bool {
        self.cursor >= self.disk_tail && journal.row(self.journal_next).is_none()
    }

    /// Nothing is queued or in flight any more: what rounding the totals gathered is forgotten.
    pub(super) fn empty(&mut self) {
        self.backlog.set(0, 0);
    }

    // --- Links ---

    /// The link ended. `first` is the oldest message in flight: from there on rows are offered to the next link.
    pub(super) fn link_ended(&mut self, place: u32, first: Option<Seq>, journal: &Journal) {
        self.passed = self.passed.max(self.cursor);
        self.drop_page();
        self.reading = None;
        self.is_recalled = false;
        let Some(first) = first else { return };
        self.cursor = first - 1;
        self.find_chain(place, journal);
    }

    // --- Commits ---

    /// One of its rows is on disk now.
    pub(super) fn row_committed(&mut self, committed: CommittedRow) {
        self.disk_tail = self.disk_tail.max(committed.row.seq);
        if self.journal_next == committed.no {
            self.journal_next = committed.row.next;
        }
    }

    /// A commit came: reserves and drops up to this ticket are done.
    pub(super) fn ticket_committed(&mut self, ticket: Ticket) {
        if let Some((seq, _)) = self.reserving.take_if(|(_, of)| *of <= ticket) {
            self.reserved = self.reserved.max(seq);
        }
        if let Some((seq, _)) = self.releasing.take_if(|(_, of)| *of <= ticket) {
            self.released = seq;
        }
        self.dropping.take_if(|of| *of <= ticket);
    }

    /// Whether a commit is waited for: of a reserve, of a drop, or of the settlements that release Packet Identifiers.
    pub(super) fn waits_for_commit(&self) -> bool {
        self.reserving.is_some() || self.dropping.is_some() || self.releasing.is_some()
    }
}
