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
use super::deliver::{Outgoing, Sent, send};
use super::message::Content;
use super::publish::NOBODY;
use super::retained::{Key, Next, RetainedMessages};
use super::route::{Target, Way};
use crate::record::SubscriptionRecord;
use crate::time::Now;
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

impl Walk {
    pub(super) fn is_for(&self, filter: &str) -> bool {
        *self.filter == *filter
    }
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
        if let Some(walk) = session.walks.iter_mut().find(|walk| walk.is_for(filter)) {
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
        session.walks.push_back(Walk {
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
        let has_walks = |session: &&mut super::session::Session| !session.walks.is_empty();
        if self.sessions.get_mut(place).filter(has_walks).is_none() {
            return;
        }
        let retained = std::mem::take(&mut self.retained);
        let stop = self.walk_through(&retained, place, steps, now);
        self.retained = retained;
        match stop {
            None => {
                let link = self.sessions.get_mut(place).and_then(|session| {
                    session.walks = VecDeque::new();
                    session.link
                });
                if let Some(id) = link {
                    self.note_releasable(id);
                }
            }
            Some(Stop::Enough) => self.note_dirty(place),
            Some(Stop::Link) => {}
            Some(Stop::Journal | Stop::Disk) => {
                if !self.unsettled.contains(&place) {
                    self.unsettled.push(place);
                }
            }
        }
    }

    /// `None`: all are over.
    fn walk_through(
        &mut self,
        retained: &RetainedMessages,
        place: u32,
        steps: &mut usize,
        now: Now,
    ) -> Option<Stop> {
        loop {
            let session = self.sessions.get_mut(place)?;
            let mut walk = session.walks.pop_front()?;
            let stop = self.take_walk(retained, &mut walk, place, steps, now);
            if let Some(stop) = stop {
                let session = self.sessions.get_mut(place)?;
                session.walks.push_front(walk);
                return Some(stop);
            }
        }
    }

    /// Goes on with one walk; `None`: it is over.
    fn take_walk(
        &mut self,
        retained: &RetainedMessages,
        walk: &mut Walk,
        place: u32,
        steps: &mut usize,
        now: Now,
    ) -> Option<Stop> {
        let mut topic = Vec::new();
        loop {
            if *steps == 0 {
                return Some(Stop::Enough);
            }
            let key = match retained.next(&walk.filter, walk.after.as_ref(), steps) {
                Next::Topic(key, found) => {
                    if found.is_valid(now.service) {
                        let content = found.content(key, &mut topic);
                        if let Some(stop) = self.greet(place, walk, &content, found.qos, now) {
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
            self.record_subscription(place, &walk.filter, walk.options, now);
        }
        None
    }

    /// Gives a session one retained message.
    fn greet(
        &mut self,
        place: u32,
        walk: &mut Walk,
        content: &Content,
        qos: Qos,
        now: Now,
    ) -> Option<Stop> {
        let qos = qos.min(Qos::from_u8(walk.options.qos).unwrap_or_default());
        let mut ids = Vec::new();
        if let Some(identifier) = walk.options.identifier {
            Property::SubscriptionIdentifier(identifier).encode(&mut ids);
        }
        let len = content.len() + ids.len();
        let target = Target::retained(place, self.lane_to(place, content.topic), qos);
        match self.way_to(place, target.lane, qos, len) {
            Some(Way::Offer) => self.send_retained(place, content, qos, &ids, now),
            Some(Way::Owe) => {
                match self.admit(len, 1, true, NO_MESSAGE) {
                    Admission::Admit => self.walk_waits_no_more(place),
                    Admission::Wait => return Some(Stop::Journal),
                    Admission::WaitForDisk if self.waits_for_disk(place, now) => {
                        return Some(Stop::Disk);
                    }
                    Admission::WaitForDisk => {
                        self.drop_newest(&target);
                        return None;
                    }
                }
                let message = self.journal.message(content, NOBODY);
                self.owe(&target, message, content, &ids, now);
                // The SUBACK rests on this.
                walk.to_record = true;
                None
            }
            Some(Way::Drop) | None => {
                self.drop_newest(&target);
                None
            }
        }
    }

    /// Whether a walk still waits for room on disk: no longer than a PUBLISH does.
    fn waits_for_disk(&mut self, place: u32, now: Now) -> bool {
        self.ask_disk(now);
        let park_max = self.limits.park_max;
        self.sessions.get_mut(place).is_some_and(|session| {
            let since = *session.walk_waits.get_or_insert(now.mono);
            now.mono.since(since) < park_max
        })
    }

    fn walk_waits_no_more(&mut self, place: u32) {
        if let Some(session) = self.sessions.get_mut(place) {
            session.walk_waits = None;
        }
    }

    /// Sends a message that is not owed, if nothing else waits for its session.
    fn send_retained(
        &mut self,
        place: u32,
        content: &Content,
        qos: Qos,
        ids: &[u8],
        now: Now,
    ) -> Option<Stop> {
        let session = self.sessions.get_mut(place)?;
        let Some(link) = session.link.and_then(|link| self.links.get_mut(link)) else {
            session.drops.away += 1;
            self.counters.drops.away += 1;
            return None;
        };
        if !session.transient.is_empty() || !session.uncommitted.is_empty() {
            return Some(Stop::Link);
        }
        let outgoing = Outgoing {
            qos,
            retain: true,
            topic: content.topic.as_bytes(),
            properties: content.properties,
            payload: content.payload,
            subscription_ids: ids,
            expires_at: content.expires_at,
        };
        match send(link, session, &mut self.buffers, &outgoing, now) {
            Sent::Yes => {
                self.counters.publish_sent += 1;
                let id = link.id;
                self.note_sending(id);
                None
            }
            Sent::No => Some(Stop::Link),
            Sent::Never(why) => {
                why.count(&mut session.drops);
                why.count(&mut self.counters.drops);
                None
            }
        }
    }
}
