//! PUBLISH from a client: routed, admitted, copied into the journal once, and owed to whom it goes [MQTT 3.3].

use super::acks::AckOf;
use super::admit::Admission;
use super::deliver::{Outgoing, Sent};
use super::journal::{MessageNo, RestsOn};
use super::lanes::queue_of_mut;
use super::message::{Content, Identifiers, Kept, Transient};
use super::receive::Flow;
use super::retain::Retaining;
use super::route::{Target, Targets, Way};
use super::router::Subscriber;
use super::rules::may_publish;
use super::session::Drops;
use super::{Broker, note_dirty};
use crate::limits::{SESSION_TRANSIENT_MESSAGES, TOPIC_BYTES};
use crate::net::LinkId;
use crate::record::{ShareKey, Ticket};
use crate::time::{Now, ServiceSeconds};
use larder_packet::property::id as property_id;
use larder_packet::{Malformed, PacketId, Properties, Publish, Qos, ReasonCode, Version};
use std::rc::Rc;

/// A message, and who publishes it.
pub(super) struct Publication<'a> {
    pub(super) content: Content<'a>,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    /// `None`: the server itself, or a client whose session has ended.
    pub(super) publisher: Option<Publisher>,
    /// Nobody has it with QoS 2 before this is committed.
    pub(super) after: Option<Ticket>,
    /// Whether it is a Will. From a stored session's record it goes in the same batch; nobody is there to keep it.
    pub(super) is_will: bool,
}

/// The client that publishes.
#[derive(Clone, Copy)]
pub(super) struct Publisher {
    /// Its link, whose acknowledgement may wait.
    pub(super) link: LinkId,
    /// Its session.
    pub(super) place: u32,
    pub(super) packet_id: Option<PacketId>,
}

/// No link: nobody waits for an acknowledgement.
pub(super) const NOBODY: LinkId = LinkId {
    index: u32::MAX,
    generation: 0,
};

/// What became of a message.
pub(super) enum Published {
    /// It was taken.
    Taken {
        /// Whether there was anybody to take it.
        matched: bool,
        rests_on: RestsOn,
    },
    /// There is no room for it now, in the journal or on disk.
    Wait(Admission),
    /// A queue is full, and its policy lets the publisher keep the message; or it is to be retained, and there is no room
    /// for that.
    Rejected,
}

impl Broker {
    pub(super) fn handle_publish(&mut self, id: LinkId, publish: &Publish, now: Now) -> Flow {
        let Some((version, place)) = self
            .links
            .get(id)
            .and_then(|link| Some((link.version, link.session?)))
        else {
            return Flow::HangUp;
        };
        if let Err(fault) = allowed(publish, version) {
            return Flow::Fault(fault);
        }
        if let Some(flow) = self.is_held(id, place, publish) {
            return flow;
        }
        if publish.topic.len() > TOPIC_BYTES {
            return self.refuse_publish(id, publish, ReasonCode::TopicNameInvalid);
        }
        if !may_publish(publish.topic) {
            return self.refuse_publish(id, publish, ReasonCode::NotAuthorized);
        }

        let mut travelling = std::mem::take(&mut self.travelling);
        let content = Content {
            topic: publish.topic,
            properties: travelling_properties(publish.properties, &mut travelling),
            payload: publish.payload,
            expires_at: publish
                .properties
                .message_expiry_interval()
                .map(|seconds| ServiceSeconds(now.service.0 + u64::from(seconds))),
        };
        let publication = Publication {
            content,
            qos: publish.qos,
            retain: publish.retain,
            publisher: Some(Publisher {
                link: id,
                place,
                packet_id: publish.packet_id,
            }),
            after: None,
            is_will: false,
        };
        let published = self.publish(&publication, now);
        self.travelling = travelling;

        let (matched, rests_on) = match published {
            Published::Taken { matched, rests_on } => (matched, rests_on),
            Published::Wait(_) => return Flow::Park { refuse: true },
            Published::Rejected => {
                return self.refuse_publish(id, publish, ReasonCode::QuotaExceeded);
            }
        };
        self.counters.publish_received += 1;
        self.counters.publish_bytes_received += publish.payload.len() as u64;
        if let (Some(packet_id), Some(ack)) = (publish.packet_id, ack_of(publish.qos)) {
            let reason = if matched {
                ReasonCode::Success
            } else {
                ReasonCode::NoMatchingSubscribers
            };
            self.acknowledge(id, ack, packet_id, reason, rests_on);
        }
        Flow::Taken
    }

    /// What becomes of a message of QoS 2 whose Packet Identifier is held, or can be held no more.
    fn is_held(&mut self, id: LinkId, place: u32, publish: &Publish) -> Option<Flow> {
        let packet_id = publish
            .packet_id
            .filter(|_| publish.qos == Qos::ExactlyOnce)?;
        let session = self.sessions.get(place)?;
        if session.held.contains(packet_id) {
            // It was taken, and is not taken again. The FIFO keeps the order on this link; what was said on an earlier one
            // rests on the record.
            let rests_on = RestsOn::Ticket(session.held_ticket);
            self.acknowledge(id, AckOf::Receipt, packet_id, ReasonCode::Success, rests_on);
            return Some(Flow::Taken);
        }
        // [MQTT-3.3.4-7]
        (!self.may_hold(place)).then_some(Flow::Close(ReasonCode::ReceiveMaximumExceeded))
    }

    /// Refuses a PUBLISH: 5.0 with a Reason Code where the QoS allows one. 3.1.1 has no word for it; what is not
    /// authorised is acknowledged and dropped, else the link is closed, and the client keeps the message.
    pub(super) fn refuse_publish(
        &mut self,
        id: LinkId,
        publish: &Publish,
        reason: ReasonCode,
    ) -> Flow {
        self.counters.refused += 1;
        let Some(link) = self.links.get_mut(id) else {
            return Flow::HangUp;
        };
        let (Some(packet_id), Some(ack)) = (publish.packet_id, ack_of(publish.qos)) else {
            return Flow::Taken;
        };
        let reason = match link.version {
            Version::V5 => reason,
            Version::V311 if reason == ReasonCode::NotAuthorized => ReasonCode::Success,
            Version::V311 => return Flow::Close(reason),
        };
        self.acknowledge(id, ack, packet_id, reason, RestsOn::Nothing);
        Flow::Taken
    }

    /// Publishes a message of the server's own, at QoS 0, and retains it.
    pub(super) fn publish_own(&mut self, topic: &str, payload: &[u8], now: Now) {
        let content = Content {
            topic,
            properties: &[],
            payload,
            expires_at: None,
        };
        let publication = Publication {
            content,
            qos: Qos::AtMostOnce,
            retain: true,
            publisher: None,
            after: None,
            is_will: false,
        };
        self.publish(&publication, now);
    }

    /// The one way through for a message: to whom it goes, whether there is room, and then all or nothing.
    pub(super) fn publish(&mut self, publication: &Publication, now: Now) -> Published {
        let retaining = match self.retaining(publication) {
            Ok(retaining) => retaining,
            Err(refused) => return refused,
        };
        let mut targets = std::mem::take(&mut self.targets);
        self.route(publication, &mut targets);
        let published = self.publish_to(&mut targets, publication, retaining, now);
        self.targets = targets;
        published
    }

    /// Gives a message to this member of a group alone.
    pub(super) fn publish_to_member(
        &mut self,
        member: &Subscriber,
        share: ShareKey,
        publication: &Publication,
        now: Now,
    ) -> Published {
        let mut targets = std::mem::take(&mut self.targets);
        targets.choose(member, share, publication);
        let published = self.publish_to(&mut targets, publication, Retaining::Nothing, now);
        self.targets = targets;
        published
    }

    fn publish_to(
        &mut self,
        targets: &mut Targets,
        publication: &Publication,
        retaining: Retaining,
        now: Now,
    ) -> Published {
        let content = &publication.content;
        let Some(rows) = self.choose_ways(targets, publication) else {
            return Published::Rejected;
        };
        let hold = publication
            .publisher
            .and_then(|publisher| Some((publisher.place, publisher.packet_id?)))
            .filter(|_| publication.qos == Qos::ExactlyOnce);
        let holds = hold.is_some_and(|(place, _)| self.is_stored(place));
        let stored_will = publication
            .publisher
            .map(|publisher| publisher.place)
            .filter(|place| publication.is_will && self.is_stored(*place));
        // A Will that was on disk stays there as what its topic retains.
        let retains = retaining != Retaining::Nothing
            && (publication.qos > Qos::AtMostOnce || stored_will.is_some());
        let is_recorded = rows > 0 || holds || retains;
        if stored_will.is_some() && !self.journal.has_room_to_settle() {
            return Published::Wait(Admission::Wait);
        }
        let bytes = content.len() + targets.encoded.len();
        let admission = self.admit(bytes, rows, is_recorded, targets.number);
        if admission == Admission::WaitForDisk {
            self.ask_disk(now);
        }
        if admission != Admission::Admit {
            return Published::Wait(admission);
        }
        let link = publication
            .publisher
            .map_or(NOBODY, |publisher| publisher.link);
        let owed = (rows > 0).then(|| self.journal.message(content, link));
        // Exactly once needs to be on disk before anybody has it, where a crash could bring the same message again.
        // What else is recorded may be settled before it is written, and then nothing would be committed.
        let is_final = |target: &Target| target.way == Way::Owe && target.qos == Qos::ExactlyOnce;
        let commits = holds || stored_will.is_some() || targets.targets.iter().any(is_final);
        let commit = commits
            .then(|| self.journal.filling())
            .or(publication.after);
        let mut kept = None;
        self.copies.begin(content.len(), targets.targets.len());
        for target in &targets.targets {
            let ids = &targets.encoded[target.ids.0..target.ids.1];
            match (target.way, owed) {
                (Way::Owe, Some(message)) => self.owe(target, message, content, ids, now),
                (Way::Drop, _) => self.drop_newest(target),
                _ => {
                    let commit = commit.filter(|_| target.qos == Qos::ExactlyOnce);
                    self.offer(target, content, ids, commit, &mut kept, now);
                }
            }
        }
        self.copies.end();
        if let Some(place) = stored_will {
            self.remove_stored_will(place, now);
        }
        let held = hold.is_some_and(|(place, packet_id)| self.hold(place, packet_id, now));
        let retained = self.retain(publication, retaining, owed, retains, now);
        Published::Taken {
            matched: !targets.targets.is_empty(),
            rests_on: match (owed, commit.filter(|_| held).or(retained)) {
                (_, Some(ticket)) => RestsOn::Ticket(ticket),
                (Some(message), None) => RestsOn::Message(message),
                (None, None) => RestsOn::Nothing,
            },
        }
    }

    pub(super) fn is_stored(&self, place: u32) -> bool {
        self.sessions
            .get(place)
            .is_some_and(|session| session.queue.is_some())
    }

    pub(super) fn drop_newest(&mut self, target: &Target) {
        let drops = Drops {
            queue_full: 1,
            ..Drops::default()
        };
        self.counters.drops.add(drops);
        if let Some(session) = self.sessions.get_mut(target.place) {
            session.count_drops(target.lane, drops);
        }
    }

    /// Owes the message to a stored session.
    pub(super) fn owe(
        &mut self,
        target: &Target,
        message: MessageNo,
        content: &Content,
        ids: &[u8],
        now: Now,
    ) {
        let place = target.place;
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let queue = queue_of_mut(&mut session.queue, &mut session.lanes, target.lane);
        let Some(queue) = queue else {
            return;
        };
        queue.append(
            &mut self.journal,
            place,
            message,
            content.len() as u64,
            (target.qos, target.retain),
            ids,
            target.share,
            now.service,
            now,
        );
        let key = queue.key;
        let is_compacted = queue.make_room(&session.window, &mut self.journal, now);
        self.note_committing(place);
        if is_compacted {
            self.begin_compaction(key);
        }
        self.set_sweep_timer(place, now);
        note_dirty(&mut self.sessions, &mut self.dirty, place);
    }

    /// Gives the message to a session that is not owed it: at once if it can take it, else it waits in memory; in any case
    /// after the commit `after`.
    fn offer(
        &mut self,
        target: &Target,
        content: &Content,
        ids: &[u8],
        after: Option<Ticket>,
        kept: &mut Option<Rc<Kept>>,
        now: Now,
    ) {
        let Some(session) = self.sessions.get_mut(target.place) else {
            return;
        };
        // Those of QoS 2 keep their order among themselves.
        let last = session.uncommitted.back().map(|(ticket, _)| *ticket);
        let after = after.or(last.filter(|_| target.qos == Qos::ExactlyOnce));
        if session.link.is_none() {
            session.drops.away += 1;
            self.counters.drops.away += 1;
            return;
        }
        if session.transient.is_empty() && after.is_none() {
            let outgoing = Outgoing {
                qos: target.qos,
                retain: target.retain,
                content: *content,
                subscription_ids: ids,
            };
            if !matches!(self.send_now(target.place, &outgoing, now), Sent::No) {
                return;
            }
        }
        let Some(session) = self.sessions.get_mut(target.place) else {
            return;
        };
        let message = Rc::clone(kept.get_or_insert_with(|| self.spare.keep(content)));
        let transient = Transient {
            message,
            qos: target.qos,
            retain: target.retain,
            subscription_ids: Identifiers::new(ids),
            share: target.share,
        };
        let waiting = session.transient.len() + session.uncommitted.len();
        let fits = waiting < SESSION_TRANSIENT_MESSAGES
            && self.transient_bytes + transient.cost() <= self.limits.transient_pool_bytes;
        if fits {
            self.transient_bytes += transient.cost();
            if let Some(ticket) = after {
                session.uncommitted.push_back((ticket, transient));
                self.note_committing(target.place);
            } else {
                session.transient.push_back(transient);
            }
        } else {
            if session.drops.overflow == 0 {
                log::warn!(
                    "session {}: it reads more slowly than messages come, and what waits in memory for it is full; \
                     what does not fit is dropped and counted, and this is not said again",
                    session.client_id
                );
            }
            session.drops.overflow += 1;
            self.counters.drops.overflow += 1;
        }
    }
}

/// What a PUBLISH of this QoS is answered with.
fn ack_of(qos: Qos) -> Option<AckOf> {
    match qos {
        Qos::AtMostOnce => None,
        Qos::AtLeastOnce => Some(AckOf::Publish),
        Qos::ExactlyOnce => Some(AckOf::Receipt),
    }
}

/// What only a server may write into a PUBLISH.
fn allowed(publish: &Publish, version: Version) -> Result<(), Malformed> {
    if version == Version::V311 {
        return Ok(());
    }
    if publish.properties.subscription_identifier().is_some() {
        return Err(Malformed::protocol(
            "MQTT-3.3.4-6",
            "a client's PUBLISH has a Subscription Identifier",
        ));
    }
    Ok(())
}

/// The properties that go on to subscribers as they are, in their order [MQTT-3.3.2-17].
fn travelling_properties<'a>(properties: Properties<'a>, copy: &'a mut Vec<u8>) -> &'a [u8] {
    const STAYS: [u8; 2] = [
        property_id::MESSAGE_EXPIRY_INTERVAL,
        property_id::TOPIC_ALIAS,
    ];
    if !properties.iter_raw().any(|(id, _)| STAYS.contains(&id)) {
        return properties.as_bytes();
    }
    copy.clear();
    for (id, encoded) in properties.iter_raw() {
        if !STAYS.contains(&id) {
            copy.extend_from_slice(encoded);
        }
    }
    copy
}
