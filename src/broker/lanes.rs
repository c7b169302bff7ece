//! Lanes: queues that a session has beside its own, one for each class of messages.
//!
//! A lane is a queue of its own on disk, in order, with its part of the Packet Identifiers. A message goes to the lane of the
//! first class with a matching filter, else to the session's own queue. So all messages of a topic keep their order, and
//! nothing is written at delivery. What is owed by a Shared Subscription always goes to the session's own queue, from where
//! it may be handed over.

use super::Broker;
use super::classes::Class;
use super::handover::is_ended;
use super::packet_ids::{OWN, PacketIds};
use super::queue::Queue;
use super::session::{Drops, Session};
use crate::limits::SESSION_LANES;
use crate::record::{Change, LaneRecord, RecoveredSession, SessionKey};
use crate::time::Now;
use std::rc::Rc;

/// A queue that a session has beside its own.
pub(super) struct Lane {
    name: Box<str>,
    /// Its place among the classes; `None`: the configuration names it no more. What it holds is delivered.
    pub(super) class: Option<usize>,
    pub(super) queue: Queue,
}

impl Session {
    /// The lane that a message on this topic goes to; [`OWN`]: the session's own queue.
    pub(super) fn lane_of(&self, topic: &str) -> u8 {
        let class = self.classes.iter().position(|class| class.has(topic));
        class
            .and_then(|class| self.lanes.iter().find(|lane| lane.class == Some(class)))
            .map_or(OWN, |lane| lane.queue.lane)
    }

    /// Its queue with this number.
    pub(super) fn queue_of(&self, lane: u8) -> Option<&Queue> {
        match lane {
            OWN => self.queue.as_deref(),
            _ => self.queues().find(|queue| queue.lane == lane),
        }
    }

    /// The same, to be changed.
    pub(super) fn queue_of_mut(&mut self, lane: u8) -> Option<&mut Queue> {
        queue_of_mut(&mut self.queue, &mut self.lanes, lane)
    }

    /// The number of its queue with this key.
    pub(super) fn lane_of_key(&self, key: SessionKey) -> Option<u8> {
        let queue = self.queues().find(|queue| queue.key == key)?;
        Some(queue.lane)
    }

    /// The name of the class whose lane has this key.
    pub(super) fn class_name(&self, key: SessionKey) -> Option<&str> {
        let lane = self.lanes.iter().find(|lane| lane.queue.key == key)?;
        Some(&lane.name)
    }

    /// Its own queue, and its lanes.
    pub(super) fn queues(&self) -> impl Iterator<Item = &Queue> {
        let lanes = self.lanes.iter().map(|lane| &lane.queue);
        self.queue.as_deref().into_iter().chain(lanes)
    }

    /// The same, to be changed.
    pub(super) fn queues_mut(&mut self) -> impl Iterator<Item = &mut Queue> {
        let lanes = self.lanes.iter_mut().map(|lane| &mut lane.queue);
        self.queue.as_deref_mut().into_iter().chain(lanes)
    }

    /// Counts what was dropped of this lane.
    pub(super) fn count_drops(&mut self, number: u8, drops: Drops) {
        self.drops.add(drops);
        if let Some(queue) = self.queue_of_mut(number) {
            queue.count(drops);
        }
    }
}

/// The queue with this number, where a session is borrowed in parts.
pub(super) fn queue_of_mut<'a>(
    own: &'a mut Option<Box<Queue>>,
    lanes: &'a mut [Lane],
    lane: u8,
) -> Option<&'a mut Queue> {
    match lane {
        OWN => own.as_deref_mut(),
        _ => lanes
            .iter_mut()
            .map(|of| &mut of.queue)
            .find(|queue| queue.lane == lane),
    }
}

impl Broker {
    /// What was dropped on its way to a session since the start, by class: the first, `None`, is what is in none.
    #[must_use]
    pub fn drops_of(&self, client_id: &str) -> Vec<(Option<&str>, Drops)> {
        let place = self.sessions.find(client_id);
        let Some(session) = place.and_then(|place| self.sessions.get(place)) else {
            return Vec::new();
        };
        let mut own = *session.drops;
        let mut all = vec![(None, own)];
        for lane in &session.lanes {
            own = own.without(lane.queue.drops);
            all.push((Some(&*lane.name), lane.queue.drops));
        }
        all[0].1 = own;
        all
    }

    /// Gives a stored session the lanes that its classes lack, as far as there is room.
    pub(super) fn make_lanes(&mut self, place: u32, now: Now) {
        let Some(session) = self.sessions.get(place) else {
            return;
        };
        if session.queue.is_none() || is_ended(&session.client_id) {
            return;
        }
        let classes = Rc::clone(&session.classes);
        for (index, class) in classes.iter().enumerate() {
            self.make_lane(place, index, class, now);
        }
    }

    fn make_lane(&mut self, place: u32, index: usize, class: &Class, now: Now) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let Some(own) = &mut session.queue else {
            return;
        };
        if session.lanes.iter().any(|lane| lane.class == Some(index)) {
            return;
        }
        let mut numbers = 1..=SESSION_LANES as u8;
        let is_free = |number: &u8| session.lanes.iter().all(|lane| lane.queue.lane != *number);
        let Some(number) = numbers.find(is_free) else {
            log::warn!(
                "session {}: class {:?} waits for the classes that the configuration names no more: they still hold \
                 messages",
                session.client_id,
                class.name
            );
            return;
        };
        if !self.journal.has_room_for_changes(class.name.len(), 2) {
            return;
        }
        if session.lanes.is_empty() {
            session.window.ids = PacketIds {
                start: own.next_seq(),
            };
        }
        own.has_a_part();
        let key = self.next_key;
        self.next_key = SessionKey(key.0 + 1);
        let record = LaneRecord {
            number,
            start: session.window.ids.start,
        };
        let change = Change::SaveLane {
            lane: key,
            session: own.key,
            record,
            name: self.journal.bytes(class.name.as_bytes()),
        };
        let ticket = self.journal.record(change, true, now);
        session.lanes_made = Some(ticket);
        session.ticket = ticket;
        let mut queue = Queue::of_class(key, number, class);
        queue.reserve(&mut self.journal, true, now);
        let lane = Lane {
            name: class.name.clone(),
            class: Some(index),
            queue,
        };
        session.lanes.push(lane);
        session.sort_lanes();
        self.sessions.name_key(key, place);
        if !self.committing.contains(&place) {
            self.committing.push(place);
        }
    }

    /// Gives a session that recovery has found the lanes that were found, and those that its classes lack. One that holds
    /// nothing and that the configuration names no more is forgotten, but for the last while it divides Packet Identifiers.
    pub(super) fn recover_lanes(&mut self, place: u32, found: &RecoveredSession, now: Now) {
        let policies = &self.policies;
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let mut left = found.lanes.len();
        for lane in &found.lanes {
            let class = session
                .classes
                .iter()
                .position(|class| *class.name == *lane.name);
            let is_needed = found.extent.is_some() && left == 1;
            let is_unknown = usize::from(lane.record.number) > SESSION_LANES;
            if (class.is_none() && lane.extent.is_none() && !is_needed) || is_unknown {
                let change = Change::DropLane { lane: lane.key };
                self.journal.record(change, false, now);
                left -= 1;
                continue;
            }
            let class_of = class.and_then(|class| session.classes.get(class));
            let policy =
                class_of.map_or_else(|| policies.other(), |class| Rc::clone(&class.policy));
            let queue = Queue::recovered_lane(
                lane,
                policy,
                class_of.map(|class| Rc::clone(&class.tally)),
                self.limits.window,
                2 * self.limits.batch_changes(),
            );
            session.window.ids = PacketIds {
                start: lane.record.start,
            };
            if let Some(own) = &mut session.queue {
                own.has_a_part();
            }
            session.lanes.push(Lane {
                name: lane.name.as_str().into(),
                class,
                queue,
            });
        }
        session.sort_lanes();
        let keys: Vec<SessionKey> = session.lanes.iter().map(|lane| lane.queue.key).collect();
        for key in keys {
            self.sessions.name_key(key, place);
        }
        self.make_lanes(place, now);
    }
}

impl Session {
    /// In the order of the classes; those that are named no more come last of them.
    fn sort_lanes(&mut self) {
        self.lanes
            .sort_by_key(|lane| lane.class.unwrap_or(usize::MAX));
    }
}
