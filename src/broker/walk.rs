//! What a new subscription gets of the retained messages [MQTT 3.3.1.3, 3.8.4]: it walks through the topics that match, and
//! takes from each what is there when it comes by.
//!
//! A walk goes on as far as there is room, and from there when there is more; a client with a thousand matches needs no
//! memory for them. It hurries nobody: of a link it takes what nothing else waits for, and of a turn [`WALK_STEPS`].
//!
//! The subscription itself holds from the first step on, so that no change is missed behind the walk's back. For a stored
//! session what it is to get at QoS 1 or 2 is owed, and the subscription is recorded *behind* that, with its SUBACK resting
//! on the record: a crash in between leaves a client that was told nothing, and a subscription that does not exist. A walk
//! that has begun goes on without its link.
//!
//! The SUBACK of a volatile session leaves before the first retained message, if it waits for nothing else. That of a stored
//! one comes after the last: it waits for the disk, and what does not is not held back.
//!
//! [`WALK_STEPS`]: crate::limits::WALK_STEPS

use super::Broker;
use super::admit::{Admission, NO_MESSAGE};
use super::deliver::{Outgoing, Sent};
use super::levels::{Key, topic_of};
use super::message::Content;
use super::publish::NOBODY;
use super::rare::{Empty, Rare};
use super::retained::{Next, Retained, RetainedMessages};
use super::route::{Target, Way};
use super::timers::Timer;
use crate::limits::{SETTLEMENT_WAIT, SUBSCRIBE_WALK_STEPS};
use crate::record::{RecoveredRetained, SubscriptionRecord};
use crate::time::{Mono, Now};
use larder_packet::{Property, Qos, topic};
use std::collections::VecDeque;
use std::rc::Rc;

/// A subscription's way through the retained messages.
pub(super) struct Walk {
    filter: Rc<str>,
    options: SubscriptionRecord,
    /// It has passed this topic.
    after: Option<Key>,
    /// The subscription is recorded when it is over.
    to_record: bool,
}

/// A session's walks.
#[derive(Default)]
pub(super) struct Walks {
    pub(super) all: VecDeque<Walk>,
    /// Since when there is no room on disk for what they bring.
    waits: Option<Mono>,
    /// The topic whose message is being read for them.
    reads: Option<Key>,
}

impl Walks {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

impl Empty for Walks {
    const EMPTY: &'static Walks = &Walks {
        all: VecDeque::new(),
        waits: None,
        reads: None,
    };
}

impl Walk {
    pub(super) fn is_for(&self, filter: &str) -> bool {
        *self.filter == *filter
    }
}

/// What walks go through, and with.
struct Tour<'a> {
    retained: &'a RetainedMessages,
    /// A message that was read for them; `None` in it: it is not there, or damaged.
    read: Option<(&'a Key, Option<&'a RecoveredRetained>)>,
    steps: &'a mut usize,
    /// Memory for a Topic Name.
    topic: Vec<u8>,
    now: Now,
}

/// Whether a session may be given a message.
enum May {
    Go,
    /// Not this one.
    Pass,
    /// Not now.
    Wait(Stop),
}

/// Why a walk stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// It has done enough for now.
    Enough,
    /// The link takes no more now.
    Link,
    /// There is no room in the journal now.
    Journal,
    /// There is no room on disk now.
    Disk,
    /// A message is being read.
    Read,
}

impl Broker {
    /// A subscription was made, or made again. Begins its walk, if it has one: retained messages are sent as its Retain
    /// Handling says [MQTT-3.3.1-9, MQTT-3.3.1-10, MQTT-3.3.1-11], and not for a Shared Subscription. `true`: the
    /// subscription is recorded when the walk is over.
    pub(super) fn begin_walk(
        &mut self,
        place: u32,
        filter: &str,
        options: SubscriptionRecord,
        is_new: bool,
        to_record: bool,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(place) else {
            return false;
        };
        let is_wanted = match options.retain_handling {
            0 => true,
            1 => is_new,
            _ => false,
        };
        let begins = is_wanted && self.retained.len() > 0 && topic::shared(filter).is_none();
        if session.walks.is_empty() && !begins {
            return false;
        }
        if let Some(walk) = session
            .walks
            .all
            .iter_mut()
            .find(|walk| walk.is_for(filter))
        {
            walk.options = options;
            walk.to_record |= to_record;
            if begins {
                walk.after = None;
            }
            return true;
        }
        let known = session.filters.iter().find(|known| ***known == *filter);
        let Some(filter) = known.filter(|_| begins).cloned() else {
            return false;
        };
        session.walks.all.push_back(Walk {
            filter,
            options,
            after: None,
            to_record,
        });
        self.note_dirty(place);
        true
    }

    /// Goes on with a session's walks. Each topic that is looked at takes one of the `steps`.
    pub(super) fn walk(&mut self, place: u32, steps: &mut usize, now: Now) {
        self.walk_on(place, None, steps, now);
    }

    /// `read`: a message that was read for them.
    fn walk_on(
        &mut self,
        place: u32,
        read: Option<(&Key, Option<&RecoveredRetained>)>,
        steps: &mut usize,
        now: Now,
    ) {
        let session = self.sessions.get(place);
        if session.is_none_or(|session| session.walks.is_empty()) {
            return;
        }
        let retained = std::mem::take(&mut self.retained);
        let mut tour = Tour {
            retained: &retained,
            read,
            steps,
            topic: Vec::new(),
            now,
        };
        let stop = self.walk_through(&mut tour, place);
        self.retained = retained;
        match stop {
            None => self.walks_are_over(place),
            Some(Stop::Enough) => self.note_dirty(place),
            Some(Stop::Link | Stop::Read) => {}
            Some(Stop::Journal | Stop::Disk) => {
                if !self.unsettled.contains(&place) {
                    self.unsettled.push(place);
                }
            }
        }
    }

    fn walks_are_over(&mut self, place: u32) {
        let link = self.sessions.get_mut(place).and_then(|session| {
            session.walks = Rare::default();
            session.link
        });
        if let Some(id) = link {
            self.note_releasable(id);
        }
    }

    /// `None`: all are over.
    fn walk_through(&mut self, tour: &mut Tour, place: u32) -> Option<Stop> {
        loop {
            let session = self.sessions.get_mut(place)?;
            let mut walk = session.walks.all.pop_front()?;
            let stop = self.take_walk(tour, &mut walk, place);
            if let Some(stop) = stop {
                let session = self.sessions.get_mut(place)?;
                session.walks.all.push_front(walk);
                return Some(stop);
            }
        }
    }

    /// Goes on with one walk; `None`: it is over.
    fn take_walk(&mut self, tour: &mut Tour, walk: &mut Walk, place: u32) -> Option<Stop> {
        let mut ids = Vec::new();
        if let Some(identifier) = walk.options.identifier {
            Property::SubscriptionIdentifier(identifier).encode(&mut ids);
        }
        loop {
            if *tour.steps == 0 {
                return Some(Stop::Enough);
            }
            let next = tour
                .retained
                .next(&walk.filter, walk.after.as_ref(), tour.steps);
            let key = match next {
                Next::Topic(key, found) => {
                    if found.is_valid(tour.now.service) {
                        if let Some(stop) = self.greet(tour, walk, place, &ids, (key, found)) {
                            return Some(stop);
                        }
                    }
                    key
                }
                Next::Later(key) => key,
                Next::End => break,
            };
            walk.after = Some(Rc::clone(key));
        }
        if walk.to_record {
            if !self.journal.has_room_for_changes(walk.filter.len(), 1) {
                return Some(Stop::Journal);
            }
            self.record_subscription(place, &walk.filter, walk.options, tour.now);
        }
        None
    }

    /// Gives a session one retained message, with the walk's Subscription Identifier as `ids`.
    fn greet(
        &mut self,
        tour: &mut Tour,
        walk: &mut Walk,
        place: u32,
        ids: &[u8],
        (key, found): (&Key, &Retained),
    ) -> Option<Stop> {
        let qos = Qos::from_u8(walk.options.qos).unwrap_or_default();
        let qos = qos.min(found.qos);
        let len = key.len() + found.len() + ids.len();
        let topic = topic_of(key, &mut tour.topic);
        let target = Target::retained(place, self.lane_to(place, topic), qos);
        let way = self.way_to(place, target.lane, qos, len);
        let may = match way {
            Some(Way::Offer) => self.may_send(place, qos, found),
            Some(Way::Owe) => self.may_owe(&target, len, tour.now),
            Some(Way::Drop) | None => {
                self.drop_newest(&target);
                May::Pass
            }
        };
        match may {
            May::Go => {}
            May::Pass => return None,
            May::Wait(stop) => return Some(stop),
        }
        let read = tour.read.filter(|(of, _)| Rc::ptr_eq(of, key));
        let content = match (found.content(topic), read) {
            (Some(content), _) => content,
            (None, Some((_, Some(read)))) => Content {
                topic,
                properties: &read.message.properties,
                payload: &read.message.payload,
                expires_at: found.expires_at,
            },
            (None, Some((_, None))) => {
                self.is_damaged(place, topic);
                return None;
            }
            (None, None) => {
                self.read_for_walk(place, key);
                return Some(Stop::Read);
            }
        };
        if way == Some(Way::Offer) {
            return self.send_retained(place, &content, qos, ids, tour.now);
        }
        let message = self.journal.message(&content, NOBODY);
        self.owe(&target, message, &content, ids, tour.now);
        // The SUBACK rests on this.
        walk.to_record = true;
        None
    }

    /// Whether a session may be owed one of so many bytes now.
    fn may_owe(&mut self, target: &Target, len: usize, now: Now) -> May {
        match self.admit(len, 1, true, NO_MESSAGE) {
            Admission::Admit => {
                if let Some(session) = self.sessions.get_mut(target.place) {
                    session.walks.waits = None;
                }
                May::Go
            }
            Admission::Wait => May::Wait(Stop::Journal),
            Admission::WaitForDisk if self.waits_for_disk(target.place, now) => {
                May::Wait(Stop::Disk)
            }
            Admission::WaitForDisk => {
                self.drop_newest(target);
                May::Pass
            }
        }
    }

    /// Whether a walk still waits for room on disk: no longer than a PUBLISH does.
    fn waits_for_disk(&mut self, place: u32, now: Now) -> bool {
        self.ask_disk(now);
        let park_max = self.limits.park_max;
        self.sessions.get_mut(place).is_some_and(|session| {
            let since = *session.walks.waits.get_or_insert(now.mono);
            now.mono.since(since) < park_max
        })
    }

    /// Whether a session may be sent a message now that it is not owed: if nothing else waits for it. One that has to be read
    /// is read when it can leave at once, for it is not kept.
    fn may_send(&mut self, place: u32, qos: Qos, found: &Retained) -> May {
        let Some(session) = self.sessions.get_mut(place) else {
            return May::Pass;
        };
        let Some(link) = session.link.and_then(|link| self.links.get_mut(link)) else {
            session.drops.away += 1;
            self.counters.drops.away += 1;
            return May::Pass;
        };
        if found.len() > link.packet_max as usize {
            session.drops.too_large += 1;
            self.counters.drops.too_large += 1;
            return May::Pass;
        }
        let waits = !session.transient.is_empty() || !session.uncommitted.is_empty();
        let is_free = link.outbox.pending().is_empty()
            && (qos == Qos::AtMostOnce || session.window.has_room(link.receive_maximum));
        if waits || (found.is_on_disk() && !is_free) {
            May::Wait(Stop::Link)
        } else {
            May::Go
        }
    }

    fn send_retained(
        &mut self,
        place: u32,
        content: &Content,
        qos: Qos,
        ids: &[u8],
        now: Now,
    ) -> Option<Stop> {
        let outgoing = Outgoing {
            qos,
            retain: true,
            content: *content,
            subscription_ids: ids,
        };
        let sent = self.send_now(place, &outgoing, now);
        matches!(sent, Sent::No).then_some(Stop::Link)
    }

    // --- What is not in memory ---

    /// Has the message of a topic read for a session.
    fn read_for_walk(&mut self, place: u32, key: &Key) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        // One at a time; if it is another one by now, this is asked for when that has come.
        if session.walks.reads.is_none() {
            session.walks.reads = Some(Rc::clone(key));
            self.retained_reads.push_back((place, Rc::clone(key)));
        }
    }

    /// The message of the topic has come that was asked for first.
    pub(super) fn retained_read(
        &mut self,
        message: Result<Option<RecoveredRetained>, String>,
        now: Now,
    ) {
        self.pages_out = self.pages_out.saturating_sub(1);
        let Some((place, key)) = self.retained_out.pop_front() else {
            return;
        };
        let session = self.sessions.get_mut(place);
        let is_wanted =
            session.and_then(|session| session.walks.reads.take_if(|of| Rc::ptr_eq(of, &key)));
        if is_wanted.is_none() {
            return;
        }
        match message {
            Ok(read) => {
                let mut steps = SUBSCRIBE_WALK_STEPS;
                self.walk_on(place, Some((&key, read.as_ref())), &mut steps, now);
            }
            Err(error) => {
                self.counters.read_errors += 1;
                log::error!("a retained message cannot be read: {error}. Trying again");
                self.timers
                    .set(now.mono.after(SETTLEMENT_WAIT), Timer::Read(place));
            }
        }
    }

    fn is_damaged(&mut self, place: u32, topic: &str) {
        log::error!(
            "the retained message of {topic:?} is damaged (its checksum does not fit) and was skipped"
        );
        self.counters.drops.damaged += 1;
        if let Some(session) = self.sessions.get_mut(place) {
            session.drops.damaged += 1;
        }
    }
}
