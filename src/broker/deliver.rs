//! From queues through windows to outboxes, as far as there is room.

use super::alias::Naming;
use super::journal::RowNo;
use super::lanes::{Part, queue_of_mut};
use super::link::{Link, Phase};
use super::message::Content;
use super::packet_ids::OWN;
use super::rare::Rare;
use super::rows::Delivering;
use super::session::{Drops, Session, TRANSIENT_PLACES};
use super::timers::Timer;
use super::{Broker, buffers::Buffers};
use crate::limits::{SETTLEMENT_WAIT, WALK_STEPS};
use crate::record::{Change, Page, PageRequest};
use crate::time::Now;
use larder_packet::{Delivery, PacketId, Qos};

/// A message as it is to leave.
pub(super) struct Outgoing<'a> {
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) content: Content<'a>,
    pub(super) subscription_ids: &'a [u8],
}

impl<'a> Outgoing<'a> {
    /// The PUBLISH, without what is one client's own.
    pub(super) fn delivery(&self) -> Delivery<'a> {
        Delivery {
            dup: false,
            qos: self.qos,
            retain: self.retain,
            topic: self.content.topic,
            topic_alias: None,
            packet_id: None,
            message_expiry: None,
            subscription_ids: self.subscription_ids,
            properties: self.content.properties,
            payload: self.content.payload,
        }
    }
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
fn send(
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
    let window = &session.window;
    let oldest = window.first(OWN).unwrap_or(seq);
    if !window.has_room(link.receive_maximum) || !window.ids.is_in_span(OWN, oldest, seq) {
        return Sent::No;
    }
    let number = Number {
        packet_id: window.ids.of(OWN, seq),
        dup: false,
        begun: false,
    };
    let sent = encode(link, buffers, out, Some(number), now);
    if matches!(sent, Sent::Yes) {
        session.volatile_seq = seq;
        session.window.push(OWN, seq, RowNo::NONE, out.qos, 0);
    }
    sent
}

/// The number of a message of QoS 1 or 2.
#[derive(Clone, Copy)]
pub(super) struct Number {
    pub(super) packet_id: PacketId,
    /// It may have been sent before.
    pub(super) dup: bool,
    /// Its delivery has begun, and it does not expire any more [MQTT-3.3.2-5, MQTT-4.3.3-7].
    pub(super) begun: bool,
}

/// Encodes a message into a link's outbox.
pub(super) fn encode(
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
    let left = out
        .content
        .expires_at
        .map(|at| at.0.saturating_sub(now.service.0));
    if left == Some(0) && !begun {
        return Sent::Never(Never::Expired);
    }
    let topic = out.content.topic;
    let mut delivery = Delivery {
        dup,
        packet_id: number.map(|number| number.packet_id),
        message_expiry: left.map(|left| u32::try_from(left).unwrap_or(u32::MAX)),
        ..out.delivery()
    };
    let packet_max = link.packet_max as usize;
    // A message that the client cannot take is as good as delivered [MQTT-3.1.2-25]. With QoS 1 or 2 an alias does not make
    // it fit: on the next link it would be too large, and its delivery has begun.
    let len_in_full = delivery.encoded_len(link.version);
    if number.is_some() && len_in_full > packet_max {
        return Sent::Never(Never::TooLarge);
    }
    let mut len = len_in_full;
    let mut naming = link.aliases.to_client.naming(topic, &buffers.aliases);
    if naming != Naming::InFull {
        delivery.topic_alias = naming.alias();
        delivery.topic = naming.topic(topic);
        len = delivery.encoded_len(link.version);
        if naming.is_longer() && len > packet_max {
            naming = Naming::InFull;
            delivery.topic_alias = None;
            len = len_in_full;
        }
    }
    if len > packet_max {
        return Sent::Never(Never::TooLarge);
    }
    let payload = out.content.payload.len();
    let encode = |bytes: &mut Vec<u8>| delivery.encode(link.version, bytes);
    if link.outbox.deliver(len, payload, encode, buffers) {
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
                self.recall(place);
                self.walk(place, &mut steps, now);
            }
        }
        // Behind what is delivered, which reads the same queues.
        self.compact(now);
        // PUBRELs that go out again.
        self.release_acks(now);
    }

    /// Sends to a session with a link what it is not owed, if it can take it now; counts what becomes of it.
    pub(super) fn send_now(&mut self, place: u32, out: &Outgoing, now: Now) -> Sent {
        let Some(session) = self.sessions.get_mut(place) else {
            return Sent::No;
        };
        let Some(link) = session.link.and_then(|link| self.links.get_mut(link)) else {
            return Sent::No;
        };
        let sent = match self.copies.of(link, out) {
            Some(packet) => {
                let copy = |bytes: &mut Vec<u8>| bytes.extend_from_slice(packet);
                let payload = out.content.payload.len();
                match link
                    .outbox
                    .deliver(packet.len(), payload, copy, &mut self.buffers)
                {
                    true => Sent::Yes,
                    false => Sent::No,
                }
            }
            None => send(link, session, &mut self.buffers, out, now),
        };
        match sent {
            Sent::Yes => {
                self.counters.publish_sent += 1;
                let id = link.id;
                self.note_sending(id);
            }
            Sent::No => {}
            Sent::Never(why) => {
                why.count(&mut session.drops);
                why.count(&mut self.counters.drops);
            }
        }
        sent
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
        while !session.transient.is_empty() {
            let Some(transient) = session.transient.pop_front() else {
                break;
            };
            let out = Outgoing {
                qos: transient.qos,
                retain: transient.retain,
                content: transient.message.content(),
                subscription_ids: transient.subscription_ids.as_bytes(),
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
            self.spare.give(transient.message);
        }
        if session.transient.is_empty() && session.transient.capacity() > TRANSIENT_PLACES {
            // What a burst took goes back to all.
            session.transient = Rare::default();
        }
        if let Some(mut queue) = session.queue.take() {
            let mut lanes = std::mem::take(&mut session.lanes);
            let mut delivering = Delivering {
                place,
                link,
                session,
                journal: &mut self.journal,
                buffers: &mut self.buffers,
                retained: &mut self.retained,
                timers: &mut self.timers,
                reads: &mut self.reads,
                sent: 0,
                drops: Drops::default(),
                no_room_to_settle: false,
                released: false,
                backlog_due: None,
                now,
            };
            if lanes.is_empty() {
                delivering.queue(&mut queue);
            } else {
                delivering.lanes(&mut queue, &mut lanes);
            }
            sent += delivering.sent;
            let (drops, no_room_to_settle) = (delivering.drops, delivering.no_room_to_settle);
            let backlog_due = delivering.backlog_due;
            if delivering.released {
                self.releasable.push(id);
            }
            if drops != Drops::NONE {
                session.drops.add(drops);
                self.counters.drops.add(drops);
            }
            if no_room_to_settle {
                self.unsettled.push(place);
            }
            session.queue = Some(queue);
            session.lanes = lanes;
            session.end_delivery(&self.journal);
            if let Some(at) = backlog_due.filter(|_| session.backlog_due.is_none()) {
                session.backlog_due = Some(at);
                self.timers.set(at, Timer::Backlog(place));
            }
            self.note_committing(place);
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
        let Some(lane) = session.lane_of_key(request.session) else {
            return;
        };
        let queue = queue_of_mut(&mut session.queue, &mut session.lanes, lane);
        let Some(queue) = queue else { return };
        let is_handed_over = session.handover.is_some() && lane == OWN;
        let is_recalled = queue.part == Part::Stack;
        match page {
            Ok(mut page) => {
                let bad = std::mem::take(&mut page.bad);
                let (is_awaited, others) = match is_handed_over || is_recalled || request.recency {
                    true => (queue.answered(request), Some(page)),
                    false => (queue.page_read(request, Some(page)), None),
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
                    session.window.give_up(lane, seq);
                    let drops = Drops {
                        damaged: 1,
                        ..Drops::default()
                    };
                    session.drops.add(drops);
                    self.counters.drops.add(drops);
                    queue.count(drops);
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
                match others {
                    Some(page) if request.recency => self.compact_page(place, lane, &page, now),
                    Some(page) if is_recalled => self.recall_page(place, lane, &page, now),
                    Some(page) => self.hand_over_page(place, &page, now),
                    None => {}
                }
            }
            Err(error) => {
                if queue.page_read(request, None) {
                    if request.recency {
                        queue.compaction_failed();
                    }
                    if let Some(handover) = session.handover.as_mut().filter(|_| is_handed_over) {
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
