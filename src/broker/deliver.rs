//! From queues through windows to outboxes, as far as there is room.

use super::alias::Naming;
use super::journal::{Journal, RestsOn, RowNo};
use super::link::{Link, Phase};
use super::outbox::AckOf;
use super::queue::{Next, Queue};
use super::session::{Drops, Session};
use super::timers::Timer;
use super::window::{Standing, is_in_span, packet_id};
use super::{Broker, buffers::Buffers};
use crate::limits::{PAGE_WAIT, SETTLEMENT_WAIT, WALK_STEPS};
use crate::record::{Change, Page, PageRequest, Seq};
use crate::time::{Mono, Now, ServiceSeconds};
use larder_packet::{Delivery, Qos, ReasonCode};

/// A message as it is to leave.
pub(super) struct Outgoing<'a> {
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) topic: &'a [u8],
    pub(super) properties: &'a [u8],
    pub(super) payload: &'a [u8],
    pub(super) subscription_ids: &'a [u8],
    pub(super) expires_at: Option<ServiceSeconds>,
}

/// Why a message is never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Never {
    Expired,
    TooLarge,
    /// Queued for longer than the queue's policy allows.
    Aged,
}

impl Never {
    pub(super) fn count(self, drops: &mut Drops) {
        match self {
            Never::Expired => drops.expired += 1,
            Never::TooLarge => drops.too_large += 1,
            Never::Aged => drops.aged += 1,
        }
    }
}

/// What became of a message that was to be sent.
pub(super) enum Sent {
    Yes,
    /// No room now.
    No,
    Never(Never),
}

/// Sends a message of QoS 0, or of a volatile session, which numbers it now.
pub(super) fn send(
    link: &mut Link,
    session: &mut Session,
    buffers: &mut Buffers,
    out: &Outgoing,
    now: Now,
) -> Sent {
    if out.qos == Qos::AtMostOnce {
        return encode(link, buffers, out, None, now);
    }
    let seq = session.volatile_seq + 1;
    let oldest = session.window.first().unwrap_or(seq);
    if !session.window.has_room(link.receive_maximum) || !is_in_span(oldest, seq) {
        return Sent::No;
    }
    let number = Number {
        seq,
        dup: false,
        begun: false,
    };
    let sent = encode(link, buffers, out, Some(number), now);
    if matches!(sent, Sent::Yes) {
        session.volatile_seq = seq;
        session.window.push(seq, RowNo::NONE, out.qos, 0);
    }
    sent
}

/// The number of a message of QoS 1 or 2.
#[derive(Clone, Copy)]
struct Number {
    seq: Seq,
    /// It may have been sent before.
    dup: bool,
    /// Its delivery has begun, and it does not expire any more [MQTT-3.3.2-5, MQTT-4.3.3-7].
    begun: bool,
}

/// Encodes a message into a link's outbox.
fn encode(
    link: &mut Link,
    buffers: &mut Buffers,
    out: &Outgoing,
    number: Option<Number>,
    now: Now,
) -> Sent {
    if link.phase != Phase::Connected {
        return Sent::No;
    }
    let (dup, begun) = number.map_or((false, false), |number| (number.dup, number.begun));
    let left = out.expires_at.map(|at| at.0.saturating_sub(now.service.0));
    if left == Some(0) && !begun {
        return Sent::Never(Never::Expired);
    }
    let topic = std::str::from_utf8(out.topic).unwrap_or_default();
    let mut naming = link.aliases.to_client.naming(topic, &buffers.aliases);
    let mut delivery = Delivery {
        dup,
        qos: out.qos,
        retain: out.retain,
        topic: naming.topic(topic),
        topic_alias: naming.alias(),
        packet_id: number.map(|number| packet_id(number.seq)),
        message_expiry: left.map(|left| u32::try_from(left).unwrap_or(u32::MAX)),
        subscription_ids: out.subscription_ids,
        properties: out.properties,
        payload: out.payload,
    };
    if naming.is_longer() && delivery.encoded_len(link.version) > link.packet_max as usize {
        naming = Naming::InFull;
        delivery.topic_alias = None;
    }
    // A message that the client cannot take is as good as delivered [MQTT-3.1.2-25].
    if delivery.encoded_len(link.version) > link.packet_max as usize {
        return Sent::Never(Never::TooLarge);
    }
    if link.outbox.deliver(&delivery, link.version, buffers) {
        let aliases = &mut link.aliases.to_client;
        aliases.sent(naming, topic, &mut buffers.aliases);
        Sent::Yes
    } else {
        Sent::No
    }
}

impl Broker {
    /// Lets acknowledgements leave, and fills windows and outboxes.
    pub fn deliver(&mut self, now: Now) {
        if self.buffers.take_relieved() {
            self.retry_all();
        }
        self.release_acks(now);
        self.hand_over(now);
        let mut steps = WALK_STEPS;
        for _ in 0..self.dirty.len() {
            let Some(place) = self.dirty.pop_front() else {
                break;
            };
            if let Some(session) = self.sessions.get_mut(place) {
                session.is_dirty = false;
                self.deliver_to(place, now);
                self.walk(place, &mut steps, now);
            }
        }
        // PUBRELs that go out again.
        self.release_acks(now);
    }

    /// There was no memory for some link, and there is again.
    fn retry_all(&mut self) {
        let places: Vec<u32> = self.sessions.iter().map(|(place, _)| place).collect();
        for place in places {
            self.note_dirty(place);
        }
        self.releasable.extend(self.links.ids());
    }

    fn deliver_to(&mut self, place: u32, now: Now) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let Some(id) = session.link else { return };
        let Some(link) = self
            .links
            .get_mut(id)
            .filter(|link| link.phase == Phase::Connected)
        else {
            return;
        };
        let mut sent = 0;
        while let Some(transient) = session.transient.pop_front() {
            let out = Outgoing {
                qos: transient.qos,
                retain: transient.retain,
                topic: transient.message.topic(),
                properties: transient.message.properties(),
                payload: transient.message.payload(),
                subscription_ids: &transient.subscription_ids,
                expires_at: transient.message.expires_at,
            };
            match send(link, session, &mut self.buffers, &out, now) {
                Sent::Yes => sent += 1,
                Sent::No => {
                    session.transient.push_front(transient);
                    break;
                }
                Sent::Never(why) => {
                    why.count(&mut session.drops);
                    why.count(&mut self.counters.drops);
                }
            }
            self.transient_bytes -= transient.cost();
        }
        if let Some(mut queue) = session.queue.take() {
            let mut delivering = Delivering {
                link,
                session,
                journal: &mut self.journal,
                buffers: &mut self.buffers,
                sent: 0,
                drops: Drops::default(),
                no_room_to_settle: false,
                reads_later: false,
                released: false,
                backlog_due: None,
                now,
            };
            let waited = queue.waits_for_commit();
            let read = delivering.queue(&mut queue, place);
            sent += delivering.sent;
            let (drops, no_room_to_settle) = (delivering.drops, delivering.no_room_to_settle);
            if delivering.reads_later && queue.read_at.is_none() {
                let at = now.mono.after(PAGE_WAIT);
                queue.read_at = Some(at);
                self.timers.set(at, Timer::Read(place));
            }
            if read.is_some() {
                if let Some(at) = queue.read_at.take() {
                    self.timers.clear(at, Timer::Read(place));
                }
            }
            let backlog_due = delivering.backlog_due;
            if delivering.released {
                self.releasable.push(id);
            }
            session.drops.add(drops);
            self.counters.drops.add(drops);
            if no_room_to_settle {
                self.unsettled.push(place);
            }
            queue.drop_page();
            if !waited && queue.waits_for_commit() {
                self.committing.push(place);
            }
            if session.is_drained_with(&queue, &self.journal) {
                queue.empty();
            }
            session.queue = Some(queue);
            if let Some(at) = backlog_due.filter(|_| session.backlog_due.is_none()) {
                session.backlog_due = Some(at);
                self.timers.set(at, Timer::Backlog(place));
            }
            self.reads.extend(read);
        }
        self.counters.publish_sent += sent;
        if sent > 0 {
            self.note_sending(id);
        }
    }

    /// A page of a queue has been read.
    pub(super) fn page_read(&mut self, request: PageRequest, page: Result<Page, String>, now: Now) {
        self.pages_out = self.pages_out.saturating_sub(1);
        let Some(place) = self.sessions.find_key(request.session) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let Some(queue) = &mut session.queue else {
            return;
        };
        match page {
            Ok(mut page) => {
                let bad = std::mem::take(&mut page.bad);
                let (is_awaited, others) = match session.handover {
                    Some(_) => (queue.answered(request), Some(page)),
                    None => (queue.page_read(request, Some(page)), None),
                };
                if !is_awaited {
                    return;
                }
                if !bad.is_empty() {
                    log::error!(
                        "session {}: {} stored messages are damaged (their checksum does not fit) and were skipped",
                        session.client_id,
                        bad.len()
                    );
                }
                for seq in bad {
                    session.window.give_up(seq);
                    session.drops.damaged += 1;
                    self.counters.drops.damaged += 1;
                    queue.settled(0);
                    self.journal.record(
                        Change::Settle {
                            session: request.session,
                            seq,
                        },
                        false,
                        now,
                    );
                }
                self.note_dirty(place);
                if let Some(page) = others {
                    self.hand_over_page(place, &page, now);
                }
            }
            Err(error) => {
                if queue.page_read(request, None) {
                    if let Some(handover) = &mut session.handover {
                        handover.failed = true;
                    }
                    self.counters.read_errors += 1;
                    log::error!(
                        "session {}: stored messages cannot be read: {error}. Trying again",
                        session.client_id
                    );
                    self.timers
                        .set(now.mono.after(SETTLEMENT_WAIT), Timer::Read(place));
                }
            }
        }
    }
}

/// What it takes to deliver from a stored session's queue.
struct Delivering<'a> {
    link: &'a mut Link,
    session: &'a mut Session,
    journal: &'a mut Journal,
    buffers: &'a mut Buffers,
    sent: u64,
    drops: Drops,
    /// There was something to settle, and the journal was full.
    no_room_to_settle: bool,
    /// The queue is to be read on a little later.
    reads_later: bool,
    /// A PUBREL was put into the link's FIFO.
    released: bool,
    /// When more of the backlog may leave.
    backlog_due: Option<Mono>,
    now: Now,
}

impl Delivering<'_> {
    /// Sends rows until there is no room, or none is left; gives back the page that is to be read.
    fn queue(&mut self, queue: &mut Queue, place: u32) -> Option<PageRequest> {
        queue.mend_chain(place, self.journal);
        loop {
            // One of QoS 0 is settled when it is sent.
            if queue.policy().qos0 && !self.journal.has_room_to_settle() {
                self.no_room_to_settle = true;
                return None;
            }
            let next = queue.next(
                self.journal,
                &self.session.window,
                self.link.receive_maximum,
                self.now,
            );
            let (seq, row, qos, len, sent) = match next {
                Next::Wait | Next::Empty => return None,
                Next::Read(request) => {
                    if self.waits_for_rate(queue, 0) {
                        return None;
                    }
                    queue.asked(request);
                    return Some(request);
                }
                Next::Later => {
                    self.reads_later = true;
                    return None;
                }
                Next::Page(index) => {
                    let row = queue.page.rows[index];
                    if self.waits_for_rate(queue, row.size) {
                        return None;
                    }
                    self.release_packet_ids(queue, row.seq);
                    let out = Outgoing {
                        qos: row.qos,
                        retain: row.retain,
                        topic: row.message.topic.of(&queue.page.bytes),
                        properties: row.message.properties.of(&queue.page.bytes),
                        payload: row.message.payload.of(&queue.page.bytes),
                        subscription_ids: row.subscription_ids.of(&queue.page.bytes),
                        expires_at: row.message.expires_at,
                    };
                    let aged = queue.policy().aged(self.now.service);
                    let is_aged = aged.is_some_and(|before| row.queued_at < before);
                    let sent = if row.received {
                        rerelease(self.link, self.session, queue, row.seq)
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
                    let view = self.journal.row(no)?;
                    self.release_packet_ids(queue, view.row.seq);
                    let out = Outgoing {
                        qos: view.owe.qos,
                        retain: view.owe.retain,
                        topic: view.message.topic.of(view.bytes),
                        properties: view.message.properties.of(view.bytes),
                        payload: view.message.payload.of(view.bytes),
                        subscription_ids: view.owe.subscription_ids.of(view.bytes),
                        expires_at: view.message.expires_at,
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
                Offered::NoRoom => return None,
                Offered::Sent if qos == Qos::AtMostOnce => {
                    self.sent += 1;
                    queue.settled(u64::from(len));
                    self.journal.settle(queue.key, seq, row, self.now);
                }
                Offered::Sent => {
                    self.session.window.push(seq, row, qos, len);
                    self.journal.sent(row);
                    self.sent += 1;
                }
                Offered::Resent => {
                    self.session.window.resent(seq);
                    self.journal.sent(row);
                    self.sent += 1;
                }
                Offered::Released => {
                    self.session.window.push_releasing(seq, len);
                    self.released = true;
                }
                Offered::Rereleased => {
                    self.session.window.resent(seq);
                    self.released = true;
                }
                Offered::Settled => {}
                Offered::Never(why) => {
                    if !self.journal.has_room_to_settle() {
                        self.no_room_to_settle = true;
                        return None;
                    }
                    why.count(&mut self.drops);
                    self.session.window.give_up(seq);
                    queue.settled(u64::from(len));
                    self.journal.settle(queue.key, seq, row, self.now);
                }
            }
            match next {
                Next::Page(index) => queue.passed_in_page(index, self.now.mono),
                _ => queue.passed_in_journal(self.journal, seq),
            }
        }
    }

    /// Whether the backlog has to wait for its rate; then it is told when.
    fn waits_for_rate(&mut self, queue: &Queue, len: u32) -> bool {
        let at = queue.backlog_ready_at(u64::from(len));
        self.backlog_due = Some(at).filter(|at| *at > self.now.mono);
        self.backlog_due.is_some()
    }

    fn release_packet_ids(&self, queue: &mut Queue, next: Seq) {
        let oldest = self.session.window.first().unwrap_or(next);
        queue.release_packet_ids(oldest, next, self.journal);
    }
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
        match session.window.standing(seq) {
            Standing::Resend => {}
            // Received since the row was read.
            Standing::Rerelease => return rerelease(link, session, queue, seq),
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
        window.has_room(link.receive_maximum) && queue.has_packet_id(seq)
    };
    if !has_room {
        return Offered::NoRoom;
    }
    let number = Number {
        seq,
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
fn rerelease(link: &mut Link, session: &Session, queue: &Queue, seq: Seq) -> Offered {
    let again = queue.was_passed(seq);
    if again && session.window.standing(seq) != Standing::Rerelease {
        return Offered::Settled;
    }
    let has_room = again || session.window.has_room(link.receive_maximum);
    if !has_room || !link.acks.has_room() || link.phase != Phase::Connected {
        return Offered::NoRoom;
    }
    let rests_on = RestsOn::Ticket(session.received_ticket);
    link.acks.numbered(
        AckOf::Release,
        packet_id(seq),
        ReasonCode::Success,
        rests_on,
    );
    if again {
        Offered::Rereleased
    } else {
        Offered::Released
    }
}
