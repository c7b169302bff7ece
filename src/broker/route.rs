//! To whom a message goes, and how it gets there: the sessions that have subscribed to its topic, and of each group that
//! shares a filter one member.

use super::Broker;
use super::packet_ids::OWN;
use super::policy::WhenFull;
use super::publish::Publication;
use super::router::{Match, Subscriber};
use super::share::{GroupNo, Readiness};
use crate::record::ShareKey;
use larder_packet::{Property, Qos};

/// A session that a message goes to: once, however many of its subscriptions match [MQTT 3.3.4].
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) place: u32,
    /// The lower of the message's QoS and the highest of its matching subscriptions.
    pub(super) qos: Qos,
    pub(super) retain: bool,
    /// Where its Subscription Identifiers are in [`Targets::encoded`].
    pub(super) ids: (usize, usize),
    /// The Shared Subscription by virtue of which it is a target.
    pub(super) share: Option<ShareKey>,
    /// The lane of its queue that it goes to.
    pub(super) lane: u8,
    pub(super) way: Way,
}

impl Target {
    /// The session is owed a retained message.
    pub(super) fn retained(place: u32, lane: u8, qos: Qos) -> Target {
        Target {
            place,
            qos,
            retain: true,
            ids: (0, 0),
            share: None,
            lane,
            way: Way::Owe,
        }
    }
}

/// How a message gets to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// At once, or from memory.
    Offer,
    /// It is owed, through the session's queue.
    Owe,
    /// Not at all: the queue is full, and its policy drops the newest.
    Drop,
}

/// The targets of the message that is being published. The memory is used for the next one again.
#[derive(Default)]
pub(super) struct Targets {
    pub(super) targets: Vec<Target>,
    /// (index of the target, Subscription Identifier)
    identifiers: Vec<(u32, u32)>,
    /// The Subscription Identifiers of each target, as properties.
    pub(super) encoded: Vec<u8>,
    /// The groups of which one member gets the message, each a copy of its own [MQTT 4.8.2].
    groups: Vec<GroupNo>,
    /// Counts the messages that were routed.
    pub(super) number: u64,
}

impl Targets {
    fn clear(&mut self) {
        self.targets.clear();
        self.identifiers.clear();
        self.encoded.clear();
        self.groups.clear();
    }

    /// A delivery to this member of a group, and to nobody else.
    pub(super) fn choose(
        &mut self,
        member: &Subscriber,
        share: ShareKey,
        publication: &Publication,
    ) {
        self.clear();
        self.number += 1;
        self.add(member, Some(share), publication);
        self.encode_identifiers();
    }

    /// A delivery by virtue of this subscription.
    fn add(&mut self, subscriber: &Subscriber, share: Option<ShareKey>, publication: &Publication) {
        self.targets.push(Target {
            place: subscriber.place,
            qos: Qos::AtMostOnce,
            retain: false,
            ids: (0, 0),
            share,
            lane: OWN,
            way: Way::Offer,
        });
        self.widen(self.targets.len() as u32 - 1, subscriber, publication);
    }

    /// A delivery by virtue of this subscription too.
    fn widen(&mut self, target: u32, subscriber: &Subscriber, publication: &Publication) {
        let known = &mut self.targets[target as usize];
        known.qos = known.qos.max(subscriber.granted(publication.qos));
        // [MQTT-3.3.1-12, MQTT-3.3.1-13]
        known.retain |= publication.retain && subscriber.options.retain_as_published;
        if let Some(identifier) = subscriber.options.identifier {
            self.identifiers.push((target, identifier));
        }
    }

    /// Encodes the Subscription Identifiers, once all targets are there.
    fn encode_identifiers(&mut self) {
        self.identifiers.sort_unstable();
        for (target, identifier) in &self.identifiers {
            let ids = &mut self.targets[*target as usize].ids;
            if ids.1 == 0 {
                ids.0 = self.encoded.len();
            }
            Property::SubscriptionIdentifier(*identifier).encode(&mut self.encoded);
            ids.1 = self.encoded.len();
        }
    }
}

impl Broker {
    /// Finds the sessions that a message goes to.
    pub(super) fn route(&mut self, publication: &Publication, targets: &mut Targets) {
        let publisher = publication.publisher.map(|publisher| publisher.place);
        targets.clear();
        targets.number += 1;
        let number = targets.number;
        let sessions = &mut self.sessions;
        self.router
            .matches(publication.content.topic, &mut |found| {
                let subscriber = match found {
                    Match::Subscriber(subscriber) => subscriber,
                    Match::Group(no) => return targets.groups.push(no),
                };
                let options = subscriber.options;
                if options.no_local && publisher == Some(subscriber.place) {
                    return;
                }
                let Some(session) = sessions.get_mut(subscriber.place) else {
                    return;
                };
                if session.matched.0 != number {
                    session.matched = (number, targets.targets.len() as u32);
                    targets.add(subscriber, None, publication);
                } else {
                    targets.widen(session.matched.1, subscriber, publication);
                }
            });
        self.choose_members(publication, targets);
        targets.encode_identifiers();
    }

    /// Chooses a member of each group that the message goes to.
    fn choose_members(&mut self, publication: &Publication, targets: &mut Targets) {
        let (sessions, links) = (&self.sessions, &self.links);
        let (qos, len) = (publication.qos, publication.content.len() as u64);
        for index in 0..targets.groups.len() {
            let no = targets.groups[index];
            let chosen = self.router.choose(no, |member| {
                let session = sessions.get(member.place)?;
                let link = session.link.and_then(|link| links.get(link));
                Some(Readiness::of(session, link, member.granted(qos), len))
            });
            if let Some(member) = chosen {
                targets.add(&member, Some(self.router.share_key(no)), publication);
            }
        }
    }

    /// Decides how a message gets to each of its targets; says to how many it is owed. `None`: a queue is full, and rejects
    /// it.
    pub(super) fn choose_ways(
        &self,
        targets: &mut Targets,
        publication: &Publication,
    ) -> Option<usize> {
        let content = &publication.content;
        let mut rows = 0;
        for target in &mut targets.targets {
            if target.share.is_none() {
                target.lane = self.lane_to(target.place, content.topic);
            }
            target.way = match self.way_to(target.place, target.lane, target.qos, content.len()) {
                Some(way) => way,
                None if publication.is_will => Way::Drop,
                None => return None,
            };
            if target.way == Way::Owe {
                rows += 1;
                self.note_class(target.place, target.lane, targets.number);
            }
        }
        Some(rows)
    }

    /// The lane of a session's queue that a message goes to.
    pub(super) fn lane_to(&self, place: u32, topic: &str) -> u8 {
        let session = self.sessions.get(place);
        let session = session.filter(|session| !session.lanes.is_empty());
        session.map_or(OWN, |session| session.lane_of(topic))
    }

    /// The message with this number goes to this lane: what is kept for its class is for it.
    fn note_class(&self, place: u32, lane: u8, number: u64) {
        let session = self.sessions.get(place).filter(|_| lane != OWN);
        if let Some(queue) = session.and_then(|session| session.queue_of(lane)) {
            queue.note_message(number);
        }
    }

    /// How a message of `len` bytes gets to a lane of a session. `None`: its queue is full, and rejects it.
    pub(super) fn way_to(&self, place: u32, lane: u8, qos: Qos, len: usize) -> Option<Way> {
        let session = self.sessions.get(place);
        let stored = session.and_then(|session| Some((session, session.queue_of(lane)?)));
        let Some((session, queue)) = stored else {
            return Some(Way::Offer);
        };
        let policy = queue.policy();
        // Behind what is queued, so that the order stays.
        let is_queued =
            |qos0: bool| qos0 && (session.link.is_none() || !queue.is_drained(&self.journal));
        if qos == Qos::AtMostOnce && !is_queued(policy.qos0) {
            return Some(Way::Offer);
        }
        match policy.when_full {
            WhenFull::DropNewest if !queue.has_room(len as u64) => Some(Way::Drop),
            WhenFull::Reject if !queue.has_room(len as u64) => None,
            _ => Some(Way::Owe),
        }
    }
}
