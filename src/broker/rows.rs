//! From the queues of a stored session through its window into its link's outbox, row by row.

use super::acks::AckOf;
use super::buffers::Buffers;
use super::deliver::{Never, Number, Outgoing, Sent, encode};
use super::journal::{Journal, RestsOn, RowNo};
use super::lanes::{Lane, Part};
use super::link::{Link, Phase};
use super::message::Content;
use super::packet_ids::{OWN, PacketIds};
use super::policy::Rate;
use super::queue::{Next, Queue};
use super::retained::RetainedMessages;
use super::session::{Drops, Session};
use super::timers::{Timer, Timers};
use super::turns::Turns;
use super::window::Standing;
use crate::limits::PAGE_WAIT;
use crate::record::{PageRequest, Seq};
use crate::time::{Mono, Now};
use larder_packet::{Qos, ReasonCode};
use std::collections::VecDeque;

/// What it takes to deliver from a stored session's queues.
pub(super) struct Delivering<'a> {
    pub(super) place: u32,
    pub(super) link: &'a mut Link,
    pub(super) session: &'a mut Session,
    pub(super) journal: &'a mut Journal,
    pub(super) buffers: &'a mut Buffers,
    pub(super) retained: &'a mut RetainedMessages,
    pub(super) timers: &'a mut Timers,
    pub(super) reads: &'a mut VecDeque<PageRequest>,
    pub(super) sent: u64,
    pub(super) drops: Drops,
    /// There was something to settle, and the journal was full.
    pub(super) no_room_to_settle: bool,
    /// A PUBREL was put into the link's FIFO.
    pub(super) released: bool,
    /// When more of the backlog may leave.
    pub(super) backlog_due: Option<Mono>,
    pub(super) now: Now,
}

impl Delivering<'_> {
    /// Sends rows of a session that has one queue until there is no room, or none is left.
    pub(super) fn queue(&mut self, queue: &mut Queue) {
        queue.mend_chain(self.place, self.journal);
        while self.step(queue, None) {}
    }

    /// The same of a session with lanes, in turns.
    pub(super) fn lanes(&mut self, own: &mut Queue, lanes: &mut [Lane]) {
        let queues = lanes.iter_mut().map(|lane| &mut lane.queue);
        for queue in queues.chain(std::iter::once(&mut *own)) {
            queue.mend_chain(self.place, self.journal);
        }
        let takes = self.session.window.takes(self.link.receive_maximum);
        let mut turns = Turns::new(takes);
        loop {
            let is_open = self.open_lanes(own);
            let turn = turns.next(own, lanes, is_open, &self.session.window, self.journal);
            let Some((index, rows_max)) = turn else {
                return;
            };
            let queue = lanes
                .get_mut(index)
                .map_or(&mut *own, |lane| &mut lane.queue);
            if self.step(queue, rows_max) {
                turns.passed(index, own, lanes, self.journal);
            } else {
                turns.waits(index);
            }
        }
    }

    /// Lanes are delivered from once all is settled that has a Packet Identifier out of all: it may be one of theirs.
    fn open_lanes(&mut self, own: &mut Queue) -> bool {
        let window = &self.session.window;
        let start = window.ids.start;
        if own.has_released(start) {
            return self.session.lanes_made.is_none();
        }
        if window.first(OWN).is_none_or(|first| first >= start) && own.is_drained(self.journal) {
            own.release_up_to(start, self.journal);
        }
        self.session.lanes_made.is_none() && own.has_released(start)
    }

    /// Sends the next row, settles it or passes it over; `false`: it has to wait, or there is none. `rows_max`: so many are
    /// wanted at once.
    fn step(&mut self, queue: &mut Queue, rows_max: Option<u16>) -> bool {
        // One of QoS 0 is settled when it is sent.
        if queue.policy().qos0 && !self.journal.has_room_to_settle() {
            self.no_room_to_settle = true;
            return false;
        }
        let next = queue.next(
            self.journal,
            &self.session.window,
            self.link.receive_maximum,
            rows_max,
            self.now,
        );
        let (seq, row, qos, len, sent) = match next {
            Next::Wait | Next::Empty => return false,
            Next::Read(request) => {
                if !self.waits_for_rate(queue, 0) {
                    self.read(queue, request);
                }
                return false;
            }
            Next::Later => {
                self.read_later(queue);
                return false;
            }
            Next::Page(index) => {
                let row = queue.page.rows[index];
                if self.waits_for_rate(queue, row.size) {
                    return false;
                }
                self.release_packet_ids(queue, row.seq);
                let content = Content::of(&row.message, &queue.page.bytes);
                let out = Outgoing {
                    qos: row.qos,
                    retain: row.retain && may_retain(self.retained, queue, &content),
                    content,
                    subscription_ids: row.subscription_ids.of(&queue.page.bytes),
                };
                let aged = queue.policy().aged(self.now.service);
                let is_aged = aged.is_some_and(|before| row.queued_at < before);
                let sent = if row.received {
                    rerelease(self.link, self.session, self.buffers, queue, row.seq)
                } else if is_aged
                    && !queue.was_passed(row.seq)
                    && !queue.may_have_been_sent(row.seq)
                {
                    Offered::Never(Never::Aged)
                } else {
                    offer(
                        self.link,
                        self.session,
                        self.buffers,
                        queue,
                        row.seq,
                        &out,
                        self.now,
                    )
                };
                (row.seq, RowNo::NONE, row.qos, row.size, sent)
            }
            Next::Journal(no) => {
                let Some(view) = self.journal.row(no) else {
                    return false;
                };
                self.release_packet_ids(queue, view.row.seq);
                let content = Content::of(view.message, view.bytes);
                let out = Outgoing {
                    qos: view.owe.qos,
                    retain: view.owe.retain && may_retain(self.retained, queue, &content),
                    content,
                    subscription_ids: view.owe.subscription_ids.of(view.bytes),
                };
                let (seq, qos, len) = (view.row.seq, view.owe.qos, view.message.len());
                let sent = offer(
                    self.link,
                    self.session,
                    self.buffers,
                    queue,
                    seq,
                    &out,
                    self.now,
                );
                (seq, no, qos, len, sent)
            }
        };
        match sent {
            Offered::NoRoom => return false,
            Offered::Sent if qos == Qos::AtMostOnce => {
                self.sent += 1;
                queue.settled(u64::from(len));
                self.journal.settle(queue.key, seq, row, self.now);
            }
            Offered::Sent => {
                self.session.window.push(queue.lane, seq, row, qos, len);
                self.journal.sent(row);
                self.sent += 1;
            }
            Offered::Resent => {
                self.session.window.resent(queue.lane, seq);
                self.journal.sent(row);
                self.sent += 1;
            }
            Offered::Released => {
                self.session.window.push_releasing(queue.lane, seq, len);
                self.released = true;
            }
            Offered::Rereleased => {
                self.session.window.resent(queue.lane, seq);
                self.released = true;
            }
            Offered::Settled => {}
            Offered::Never(why) => {
                if !self.journal.has_room_to_settle() {
                    self.no_room_to_settle = true;
                    return false;
                }
                let mut drops = Drops::default();
                why.count(&mut drops);
                self.drops.add(drops);
                queue.count(drops);
                self.session.window.give_up(queue.lane, seq);
                queue.settled(u64::from(len));
                self.journal.settle(queue.key, seq, row, self.now);
            }
        }
        match next {
            Next::Page(index) => {
                let rate = rate_of(queue);
                self.session.pace.take(rate, u64::from(len), self.now.mono);
                queue.passed_in_page(index);
            }
            _ => queue.passed_in_journal(self.journal, seq),
        }
        true
    }

    /// Asks for a page.
    fn read(&mut self, queue: &mut Queue, request: PageRequest) {
        queue.asked(request);
        if let Some(at) = queue.read_at.take() {
            // One for another lane may be due at the same time.
            if self.session.window.ids == PacketIds::UNDIVIDED {
                self.timers.clear(at, Timer::Read(self.place));
            }
        }
        self.reads.push_back(request);
    }

    fn read_later(&mut self, queue: &mut Queue) {
        if queue.read_at.is_none() {
            let at = self.now.mono.after(PAGE_WAIT);
            queue.read_at = Some(at);
            self.timers.set(at, Timer::Read(self.place));
        }
    }

    /// Whether the backlog has to wait for its rate; then it is told when.
    fn waits_for_rate(&mut self, queue: &Queue, len: u32) -> bool {
        let rate = rate_of(queue);
        let at = self.session.pace.ready_at(rate, u64::from(len));
        self.backlog_due = Some(at).filter(|at| *at > self.now.mono);
        self.backlog_due.is_some()
    }

    fn release_packet_ids(&self, queue: &mut Queue, next: Seq) {
        let window = &self.session.window;
        let oldest = window.first(queue.lane).unwrap_or(next);
        queue.release_packet_ids(window.ids, oldest, next, self.journal);
    }
}

/// How fast what a queue holds may leave, once it has been on disk.
fn rate_of(queue: &Queue) -> Rate {
    match queue.part {
        Part::Live => Rate::default(),
        _ => queue.policy().rate,
    }
}

/// Whether a message may be sent with RETAIN. One of a backlog only while it is the last of its topic: a newer one may have
/// gone before it.
fn may_retain(retained: &mut RetainedMessages, queue: &Queue, content: &Content) -> bool {
    !queue.is_backlog() || retained.is_last(content)
}

/// What became of a row that was offered to a link.
enum Offered {
    /// Sent for the first time since the start.
    Sent,
    /// Sent again.
    Resent,
    /// Its PUBREL is on its way, for the first time since the start.
    Released,
    /// The same, again.
    Rereleased,
    /// It was settled meanwhile, and is passed over.
    Settled,
    NoRoom,
    Never(Never),
}

fn offer(
    link: &mut Link,
    session: &Session,
    buffers: &mut Buffers,
    queue: &Queue,
    seq: Seq,
    out: &Outgoing,
    now: Now,
) -> Offered {
    let again = queue.was_passed(seq);
    if again {
        match session.window.standing(queue.lane, seq) {
            Standing::Resend => {}
            // Received since the row was read.
            Standing::Rerelease => return rerelease(link, session, buffers, queue, seq),
            Standing::Done => return Offered::Settled,
        }
    }
    if out.qos == Qos::AtMostOnce {
        return match encode(link, buffers, out, None, now) {
            Sent::Yes => Offered::Sent,
            Sent::No => Offered::NoRoom,
            Sent::Never(why) => Offered::Never(why),
        };
    }
    let window = &session.window;
    let has_room = if again {
        window.free(link.receive_maximum) > 0
    } else {
        // Whose Packet Identifiers are divided has to be on disk.
        let is_divided = !window.ids.is_undivided(queue.lane, seq);
        window.has_room(link.receive_maximum)
            && queue.has_packet_id(window.ids, seq)
            && !(is_divided && session.lanes_made.is_some())
    };
    if !has_room {
        return Offered::NoRoom;
    }
    let number = Number {
        packet_id: window.ids.of(queue.lane, seq),
        dup: again || queue.may_have_been_sent(seq),
        begun: again || (out.qos == Qos::ExactlyOnce && queue.may_have_begun(seq)),
    };
    match encode(link, buffers, out, Some(number), now) {
        Sent::Yes if again => Offered::Resent,
        Sent::Yes => Offered::Sent,
        Sent::No => Offered::NoRoom,
        Sent::Never(why) => Offered::Never(why),
    }
}

/// Sends the PUBREL of a message of QoS 2 that its receiver has, on a link that it was not sent on yet [MQTT-4.4.0-1].
fn rerelease(
    link: &mut Link,
    session: &Session,
    buffers: &mut Buffers,
    queue: &Queue,
    seq: Seq,
) -> Offered {
    let again = queue.was_passed(seq);
    if again && session.window.standing(queue.lane, seq) != Standing::Rerelease {
        return Offered::Settled;
    }
    let has_room = again || session.window.has_room(link.receive_maximum);
    if !has_room || !link.acks.has_room(&buffers.acks) || link.phase != Phase::Connected {
        return Offered::NoRoom;
    }
    let rests_on = RestsOn::Ticket(session.received_ticket);
    link.acks.numbered(
        AckOf::Release,
        session.window.ids.of(queue.lane, seq),
        ReasonCode::Success,
        rests_on,
        &mut buffers.acks,
    );
    if again {
        Offered::Rereleased
    } else {
        Offered::Released
    }
}
