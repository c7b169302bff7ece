//! Handing over: what a member of a group was to get goes to the others [MQTT 4.8.2].
//!
//! When its link ends, what was never sent to it goes to members that are connected. When its session ends, that goes to any
//! member, and so does what was in flight with QoS 1; what was in flight with QoS 2 goes to nobody else [MQTT-4.8.2-5].
//!
//! What waits in memory is handed over at once. A queue is read back from the disk page by page, after its last row has got
//! there: so there is one way for all of it, and a row is owed to its new session in the batch that settles the old one. A
//! session that ends keeps its place until its last row has been looked at, under a name that no client can have: if there
//! is a crash before, recovery finds it and goes on.

use super::Broker;
use super::admit::{Admission, NO_MESSAGE};
use super::journal::RestsOn;
use super::message::{Content, Transient};
use super::packet_ids::OWN;
use super::publish::{Publication, Published};
use super::router::Subscriber;
use super::share::{GroupNo, Readiness};
use super::window::Standing;
use crate::limits::{HANDOVER_ROWS, PAGE_BYTES};
use crate::record::{Change, End, Page, PageRequest, PageRow, Seq, ShareKey, Ticket};
use crate::time::Now;
use larder_packet::{Qos, topic};
use std::rc::Rc;

/// Client Identifiers of sessions that have ended begin with this.
const ENDED_CLIENT_IDS: &str = "$larder/ended/";

/// Whether a Client Identifier is that of a session that has ended.
pub(super) fn is_ended(client_id: &str) -> bool {
    client_id.starts_with(ENDED_CLIENT_IDS)
}

/// How far the handing over of a queue has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handover {
    /// The session has ended, or else only its link.
    ended: bool,
    /// Rows up to this one have been looked at.
    at: Seq,
    /// And up to this one they are to be.
    up_to: Seq,
    /// They are on disk once this is committed.
    ticket: Ticket,
    /// So many of the next rows may have been sent before the start.
    maybe_sent: u32,
    /// Rows that are shared stay: nobody takes them, or they may have been sent.
    leaves: bool,
    /// A page could not be read, and is asked for again after a while.
    pub(super) failed: bool,
}

/// What becomes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Another member is owed it now.
    Moved,
    /// It stays where it is.
    Stays,
    /// There is no room to move it now.
    Wait,
}

/// Who may be handed a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heirs {
    /// Those with a stored session, a link, and room.
    Connected,
    /// Those with a stored session.
    Stored,
    /// Anybody to whom it would not be lost.
    Any,
}

impl Broker {
    // --- What waits in memory ---

    /// A session's link has ended: hands over what waits for it in memory, and forgets the rest.
    pub(super) fn hand_over_transient(&mut self, place: u32, now: Now) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let transient = std::mem::take(&mut session.transient).into_inner();
        let uncommitted = std::mem::take(&mut session.uncommitted).into_inner();
        let all = transient
            .into_iter()
            .map(|transient| (None, transient))
            .chain(
                uncommitted
                    .into_iter()
                    .map(|(ticket, transient)| (Some(ticket), transient)),
            );
        for (after, transient) in all {
            self.transient_bytes -= transient.cost();
            if let Some(share) = transient.share {
                self.hand_over_one(place, share, &transient, after, now);
            }
        }
    }

    fn hand_over_one(
        &mut self,
        place: u32,
        share: ShareKey,
        transient: &Transient,
        after: Option<Ticket>,
        now: Now,
    ) {
        let message = &transient.message;
        let publication = Publication {
            content: message.content(),
            qos: transient.qos,
            retain: transient.retain,
            publisher: None,
            after,
            is_will: false,
        };
        let member = self
            .router
            .group_of(share, publication.content.topic)
            .and_then(|no| self.heir(no, place, &publication, Heirs::Any));
        match member {
            None => self.count_without_member(place),
            Some(member) => {
                if !self.hand_to(&member, share, &publication, now) {
                    self.counters.drops.overflow += 1;
                }
            }
        }
    }

    // --- What is queued ---

    /// A stored session's link has ended: what it was not sent is handed over, if there is somebody who takes it.
    pub(super) fn hand_over_unsent(&mut self, place: u32) {
        let is_owed = self
            .sessions
            .get(place)
            .and_then(|session| session.queue.as_ref())
            .is_some_and(|queue| queue.last_shared() > queue.passed());
        if is_owed && self.has_connected_heirs(place) {
            self.begin_handover(place, false);
        }
    }

    /// A stored session ends, with these subscriptions: if it may be owed something as a member of a group, it stays for as
    /// long as it takes to hand that over. `false`: there is nothing of that kind.
    pub(super) fn hand_over_all(&mut self, place: u32, filters: &[Rc<str>], now: Now) -> bool {
        let Some(session) = self.sessions.get(place) else {
            return false;
        };
        let is_owed = session.queue.as_ref().is_some_and(|queue| {
            queue.last_shared() > 0 && !session.is_drained_with(queue, &self.journal)
        });
        if !is_owed || !filters.iter().any(|filter| topic::shared(filter).is_some()) {
            return false;
        }
        let Some(key) = session.key() else {
            return false;
        };
        self.sessions
            .rename(place, &format!("{ENDED_CLIENT_IDS}{}", key.0));
        if let Some(session) = self.sessions.get_mut(place) {
            (session.left, session.left_noted, session.configured) = (None, false, false);
        }
        self.begin_handover(place, true);
        self.save_session(place, true, now);
        if let Some(session) = self.sessions.get(place) {
            self.ended = session.ticket;
        }
        true
    }

    /// A session that ended before the start.
    pub(super) fn recover_ended(&mut self, place: u32) {
        self.begin_handover(place, true);
    }

    fn begin_handover(&mut self, place: u32, ended: bool) {
        let ticket = self.journal.filling();
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let Some(queue) = &mut session.queue else {
            return;
        };
        queue.forget_request();
        session.handover = Some(Box::new(Handover {
            ended,
            at: if ended { 0 } else { queue.passed() },
            up_to: queue.last_shared(),
            ticket,
            maybe_sent: queue.maybe_sent(),
            leaves: false,
            failed: false,
        }));
        if !self.handing.contains(&place) {
            self.handing.push_back(place);
        }
    }

    /// A session has a link again: what is left of its queue is its own.
    pub(super) fn stop_handover(&mut self, place: u32) {
        if let Some(session) = self.sessions.get_mut(place) {
            if let (Some(_), Some(queue)) = (session.handover.take(), &mut session.queue) {
                queue.forget_request();
            }
        }
    }

    /// A page could not be read a while ago.
    pub(super) fn retry_handover(&mut self, place: u32) {
        let session = self.sessions.get_mut(place);
        if let Some(handover) = session.and_then(|session| session.handover.as_mut()) {
            handover.failed = false;
        }
    }

    /// Asks for the next pages of the queues that are being handed over.
    pub(super) fn hand_over(&mut self, now: Now) {
        for _ in 0..self.handing.len() {
            let Some(place) = self.handing.pop_front() else {
                return;
            };
            if self.hand_over_next(place, now) {
                self.handing.push_back(place);
            }
        }
    }

    /// Asks for the next page; `false`: there is none.
    fn hand_over_next(&mut self, place: u32, now: Now) -> bool {
        let Some(session) = self.sessions.get(place) else {
            return false;
        };
        let (Some(handover), Some(queue)) = (&session.handover, &session.queue) else {
            return false;
        };
        if !handover.ended && !self.has_connected_heirs(place) {
            self.stop_handover(place);
            return false;
        }
        if handover.failed || !queue.may_be_read() {
            return true;
        }
        let up_to = handover.up_to.min(queue.disk_tail());
        if handover.at >= up_to {
            let is_done = handover.at >= handover.up_to
                || self.journal.is_done(RestsOn::Ticket(handover.ticket))
                || self.journal.is_saved();
            if is_done {
                self.end_handover(place, now);
            }
            return !is_done;
        }
        match self.admit(self.limits.packet_max as usize, 1, true, NO_MESSAGE) {
            Admission::Admit => {}
            Admission::Wait => return true,
            Admission::WaitForDisk => {
                self.ask_disk(now);
                return true;
            }
        }
        let request = PageRequest {
            session: queue.key,
            from: End::Oldest,
            after: handover.at,
            up_to,
            rows_max: HANDOVER_ROWS,
            bytes_max: PAGE_BYTES,
            recency: false,
        };
        if let Some(queue) = self
            .sessions
            .get_mut(place)
            .and_then(|session| session.queue.as_mut())
        {
            queue.asked(request);
        }
        self.reads.push_back(request);
        true
    }

    /// All rows have been looked at.
    fn end_handover(&mut self, place: u32, now: Now) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let (Some(handover), Some(queue)) = (session.handover.take(), &mut session.queue) else {
            return;
        };
        if !handover.ended {
            if !handover.leaves {
                queue.none_shared_up_to(handover.up_to);
            }
            return;
        }
        let change = Change::DropSession { session: queue.key };
        self.sessions.remove(place);
        self.journal.disown(place);
        self.journal.record(change, false, now);
    }

    /// A page has come of a queue that is being handed over.
    pub(super) fn hand_over_page(&mut self, place: u32, page: &Page, now: Now) {
        for row in &page.rows {
            match self.hand_over_row(place, row, &page.bytes, now) {
                Step::Wait => return,
                Step::Moved => self.looked_at(place, row.seq, false),
                Step::Stays => self.looked_at(place, row.seq, row.share.is_some()),
            }
        }
        self.looked_at(place, page.read_up_to, false);
    }

    /// All rows up to this one have been looked at; `leaves`: it is shared, and stays.
    fn looked_at(&mut self, place: u32, seq: Seq, leaves: bool) {
        let session = self.sessions.get_mut(place);
        if let Some(handover) = session.and_then(|session| session.handover.as_mut()) {
            handover.at = seq;
            handover.leaves |= leaves;
        }
    }

    fn hand_over_row(&mut self, place: u32, row: &PageRow, bytes: &[u8], now: Now) -> Step {
        if !self.journal.has_room_to_settle() {
            return Step::Wait;
        }
        let Some(ended) = self.is_for_others(place, row) else {
            return Step::Stays;
        };
        let Some(share) = row.share else {
            return Step::Stays;
        };
        let publication = Publication {
            content: Content::of(&row.message, bytes),
            qos: row.qos,
            retain: row.retain,
            publisher: None,
            // Exactly once: nobody has it before the old row is gone.
            after: Some(self.journal.filling()),
            is_will: false,
        };
        let group = self.router.group_of(share, publication.content.topic);
        let member = group.and_then(|no| {
            if ended {
                self.heir(no, place, &publication, Heirs::Stored)
                    .or_else(|| self.heir(no, place, &publication, Heirs::Any))
            } else {
                self.heir(no, place, &publication, Heirs::Connected)
            }
        });
        let Some(member) = member else {
            if ended {
                self.count_without_member(place);
            }
            return Step::Stays;
        };
        if !self.hand_to(&member, share, &publication, now) {
            return Step::Wait;
        }
        self.handed_over(place, row, now);
        Step::Moved
    }

    /// Whether a row goes to others: `true` if its session has ended. Counts down those that may have been sent before the
    /// start.
    fn is_for_others(&mut self, place: u32, row: &PageRow) -> Option<bool> {
        let session = self.sessions.get_mut(place)?;
        let queue = session.queue.as_ref()?;
        let handover = session.handover.as_mut()?;
        let was_passed = queue.was_passed(row.seq);
        let maybe_sent = !was_passed && handover.maybe_sent > 0 && queue.was_found(row.seq);
        if maybe_sent {
            handover.maybe_sent -= 1;
        }
        let goes = match (was_passed, handover.ended) {
            _ if row.received => false,
            (true, false) => false,
            (true, true) => {
                row.qos == Qos::AtLeastOnce
                    && session.window.standing(OWN, row.seq) == Standing::Resend
            }
            (false, false) => !maybe_sent && row.qos > Qos::AtMostOnce,
            (false, true) => !(maybe_sent && row.qos == Qos::ExactlyOnce),
        };
        goes.then_some(handover.ended)
    }

    /// A row is owed to another session from now on: the old one goes in the same batch.
    fn handed_over(&mut self, place: u32, row: &PageRow, now: Now) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let Some(queue) = &mut session.queue else {
            return;
        };
        queue.take_out(row, &mut self.journal, now);
        self.note_committing(place);
    }

    // --- To whom ---

    /// The member of a group to whom a message goes instead of the session `from`.
    fn heir(
        &mut self,
        no: GroupNo,
        from: u32,
        publication: &Publication,
        heirs: Heirs,
    ) -> Option<Subscriber> {
        let (sessions, links) = (&self.sessions, &self.links);
        let len = publication.content.len() as u64;
        self.router.choose(no, |member| {
            let session = sessions
                .get(member.place)
                .filter(|_| member.place != from)?;
            let link = session.link.and_then(|link| links.get(link));
            let qos = member.granted(publication.qos);
            let readiness = Readiness::of(session, link, qos, len);
            let queue = session.queue.as_ref().filter(|_| qos > Qos::AtMostOnce);
            let may = match heirs {
                Heirs::Connected => {
                    readiness >= Readiness::Busy && queue.is_some_and(|queue| queue.has_room(len))
                }
                Heirs::Stored => readiness > Readiness::Gone && queue.is_some(),
                Heirs::Any => readiness > Readiness::Gone,
            };
            may.then_some(readiness)
        })
    }

    /// Whether in one of its groups somebody else has a link and a stored session.
    fn has_connected_heirs(&self, place: u32) -> bool {
        let is_heir = |member: &Subscriber| {
            let session = self.sessions.get(member.place);
            member.place != place
                && session.is_some_and(|session| session.queue.is_some() && session.link.is_some())
        };
        self.sessions.get(place).is_some_and(|session| {
            session
                .filters
                .iter()
                .any(|filter| self.router.has_member(filter, is_heir))
        })
    }

    fn count_without_member(&mut self, place: u32) {
        self.counters.drops.no_member += 1;
        if let Some(session) = self.sessions.get_mut(place) {
            session.drops.no_member += 1;
        }
    }

    /// Gives a message to a member of a group; `false` if there is no room for it now.
    fn hand_to(
        &mut self,
        member: &Subscriber,
        share: ShareKey,
        publication: &Publication,
        now: Now,
    ) -> bool {
        let published = self.publish_to_member(member, share, publication, now);
        matches!(published, Published::Taken { .. })
    }
}
