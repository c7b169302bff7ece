//! Lanes: queues that a session has beside its own, for classes of messages, and where a queue is not to leave in order.
//!
//! A lane is a queue of its own on disk, in order, with its part of the Packet Identifiers. A message goes to the lane of the
//! first class with a matching filter, else to the session's own queue. So all messages of a topic keep their order, and
//! nothing is written at delivery. What is owed by a Shared Subscription always goes to the session's own queue, from where
//! it may be handed over.
//!
//! What is in one class, or in none, may have several lanes ([`Part`]) by its [`Order`]: one for what comes while the client
//! keeps up, which goes before its backlog; and for newest first a stack, the backlog, of which nothing is sent, but recalled
//! from its end into a lane (`recall.rs`). So every lane that is sent from is sent from in order.

use super::Broker;
use super::classes::{Class, Tally};
use super::handover::is_ended;
use super::journal::Journal;
use super::packet_ids::{OWN, PacketIds};
use super::policy::{Order, QueuePolicy};
use super::queue::Queue;
use super::session::{Drops, Session};
use crate::limits::{LIVE_BYTES, LIVE_MESSAGES, SESSION_LANES};
use crate::record::{Change, LaneRecord, RecoveredLane, RecoveredSession, SessionKey};
use crate::time::Now;
use std::rc::Rc;

/// A queue that a session has beside its own.
pub(super) struct Lane {
    /// The name of its class, if it has one, and behind a `/` the part that it is.
    name: Box<str>,
    pub(super) of: Of,
    pub(super) queue: Queue,
}

/// Whose messages a lane takes. In this order lanes have their turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Of {
    /// Those of the class at this place.
    Class(usize),
    /// Nobody's: the configuration names it no more. What it holds is delivered.
    Nobody,
    /// Those of no class.
    Rest,
}

/// Which of these messages. In this order too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// Those that come while the client keeps up.
    Live,
    /// What was recalled of a backlog.
    Recalled,
    /// All, or all others: they leave as they came.
    Queue,
    /// All others, to be recalled newest first. Nothing is sent from here.
    Stack,
}

impl Part {
    /// What its lane's name has behind that of the class.
    fn suffix(self) -> &'static str {
        match self {
            Part::Live => "/live",
            Part::Recalled => "/recalled",
            Part::Queue => "",
            Part::Stack => "/stack",
        }
    }
}

/// The end of the name of what was a stack: it may have been sent from since, and is none again.
const LEFT: &str = "/left";

impl Order {
    fn parts(self) -> &'static [Part] {
        match self {
            Order::Fifo => &[Part::Queue],
            Order::LiveFirst => &[Part::Live, Part::Queue],
            Order::NewestFirst => &[Part::Live, Part::Recalled, Part::Stack],
        }
    }

    /// The same of what is in no class: the session's own queue is there already.
    fn parts_of_rest(self) -> impl Iterator<Item = Part> {
        let parts = self.parts().iter().copied();
        parts.filter(|part| *part != Part::Queue)
    }

    /// Lanes that a class with this order takes.
    #[must_use]
    pub fn lanes(self) -> usize {
        self.parts().len()
    }

    /// Lanes that what is in no class takes beside the session's own queue.
    #[must_use]
    pub fn lanes_of_rest(self) -> usize {
        self.parts_of_rest().count()
    }
}

/// A lane that a session is to have.
struct Wanted<'a> {
    of: Of,
    part: Part,
    class: &'a str,
    policy: &'a Rc<QueuePolicy>,
    tally: Option<&'a Rc<Tally>>,
}

impl Wanted<'_> {
    fn is_named(&self, name: &str) -> bool {
        name.strip_prefix(self.class) == Some(self.part.suffix())
    }
}

/// All lanes that a session is to have; `rest`: the policy of what is in no class.
fn wanted<'a>(rest: &'a Rc<QueuePolicy>, classes: &'a [Class]) -> impl Iterator<Item = Wanted<'a>> {
    let of_classes = classes.iter().enumerate().flat_map(|(index, class)| {
        let parts = class.policy.order.parts().iter();
        parts.map(move |part| Wanted {
            of: Of::Class(index),
            part: *part,
            class: &class.name,
            policy: &class.policy,
            tally: Some(&class.tally),
        })
    });
    of_classes.chain(rest.order.parts_of_rest().map(move |part| Wanted {
        of: Of::Rest,
        part,
        class: "",
        policy: rest,
        tally: None,
    }))
}

/// Bytes of the names of all lanes of a session.
pub(super) fn names_bytes(rest: Order, classes: &[Class]) -> usize {
    let of_classes = classes.iter().flat_map(|class| {
        let parts = class.policy.order.parts().iter();
        parts.map(|part| class.name.len() + part.suffix().len())
    });
    let of_rest = rest.parts_of_rest().map(|part| part.suffix().len());
    of_classes.sum::<usize>() + of_rest.sum::<usize>()
}

impl Lane {
    /// The name of its class; `None`: it is for what is in none.
    fn class(&self) -> Option<&str> {
        let class = self.name.split_once('/').map_or(&*self.name, |of| of.0);
        Some(class).filter(|class| !class.is_empty())
    }
}

impl Session {
    /// The lane that a message on this topic goes to; [`OWN`]: the session's own queue.
    pub(super) fn lane_of(&self, topic: &str) -> u8 {
        let class = self.classes.iter().position(|class| class.has(topic));
        class
            .and_then(|class| self.lane_for(Of::Class(class)))
            .or_else(|| self.lane_for(Of::Rest))
            .unwrap_or(OWN)
    }

    fn lane_for(&self, of: Of) -> Option<u8> {
        let lane = |part| self.part(of, part).map(|lane| &lane.queue);
        let rest = lane(Part::Queue).or(lane(Part::Stack));
        let live = lane(Part::Live).filter(|live| {
            let keeps_up = live.messages() < self.window.capacity() + LIVE_MESSAGES
                && live.bytes() < LIVE_BYTES;
            // What is recalled comes from the end of the stack: nothing is to come behind it meanwhile.
            let is_recalled = rest.is_some_and(Queue::is_recalled);
            self.link.is_some() && (keeps_up || is_recalled)
        });
        live.or(rest).map(|queue| queue.lane)
    }

    /// One of the lanes of a class.
    pub(super) fn part(&self, of: Of, part: Part) -> Option<&Lane> {
        self.lanes
            .iter()
            .find(|lane| lane.of == of && lane.queue.part == part)
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
        lane.class()
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
        let mut all: Vec<(Option<&str>, Drops)> = vec![(None, own)];
        for lane in session.lanes.iter().filter(|lane| lane.class().is_some()) {
            own = own.without(lane.queue.drops);
            match all.iter_mut().find(|(class, _)| *class == lane.class()) {
                Some((_, known)) => known.add(lane.queue.drops),
                None => all.push((lane.class(), lane.queue.drops)),
            }
        }
        all[0].1 = own;
        all
    }

    /// Gives a stored session the lanes that its classes lack, as far as there is room.
    pub(super) fn make_lanes(&mut self, place: u32, now: Now) {
        let Some(session) = self.sessions.get(place) else {
            return;
        };
        let Some(own) = &session.queue else {
            return;
        };
        if is_ended(&session.client_id) {
            return;
        }
        let (rest, classes) = (own.shared_policy(), Rc::clone(&session.classes));
        for wanted in wanted(&rest, &classes) {
            self.make_lane(place, &wanted, now);
        }
    }

    fn make_lane(&mut self, place: u32, wanted: &Wanted, now: Now) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let Some(own) = &mut session.queue else {
            return;
        };
        let is_it = |lane: &Lane| (lane.of, lane.queue.part) == (wanted.of, wanted.part);
        if session.lanes.iter().any(is_it) {
            return;
        }
        let mut numbers = 1..=SESSION_LANES as u8;
        let is_free = |number: &u8| session.lanes.iter().all(|lane| lane.queue.lane != *number);
        let Some(number) = numbers.find(is_free) else {
            log::warn!(
                "session {}: class {:?} waits for the classes that the configuration names no more: they still hold \
                 messages",
                session.client_id,
                wanted.class
            );
            return;
        };
        let name = [wanted.class, wanted.part.suffix()].concat();
        if !self.journal.has_room_for_changes(name.len(), 2) {
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
            name: self.journal.bytes(name.as_bytes()),
        };
        let ticket = self.journal.record(change, true, now);
        session.lanes_made = Some(ticket);
        session.ticket = ticket;
        let mut queue = Queue::lane(
            key,
            number,
            wanted.part,
            Rc::clone(wanted.policy),
            wanted.tally.cloned(),
        );
        queue.reserve(&mut self.journal, true, now);
        let lane = Lane {
            name: name.into(),
            of: wanted.of,
            queue,
        };
        session.lanes.push(lane);
        session.sort_lanes();
        self.sessions.name_key(key, place);
        self.note_committing(place);
    }

    /// Gives a session that recovery has found the lanes that were found, and those that its classes lack. One that holds
    /// nothing and that the configuration names no more is forgotten, but for the last while it divides Packet Identifiers.
    pub(super) fn recover_lanes(&mut self, place: u32, found: &RecoveredSession, now: Now) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let Some(rest) = session.queue.as_ref().map(|queue| queue.shared_policy()) else {
            return;
        };
        let classes = Rc::clone(&session.classes);
        let mut left = found.lanes.len();
        for lane in &found.lanes {
            let wanted = wanted(&rest, &classes).find(|wanted| wanted.is_named(&lane.name));
            let is_needed = found.extent.is_some() && left == 1;
            let is_unknown = usize::from(lane.record.number) > SESSION_LANES;
            if (wanted.is_none() && lane.extent.is_none() && !is_needed) || is_unknown {
                let change = Change::DropLane { lane: lane.key };
                self.journal.record(change, false, now);
                left -= 1;
                continue;
            }
            let queue = Queue::recovered_lane(
                lane,
                wanted.as_ref().map_or(Part::Queue, |wanted| wanted.part),
                match &wanted {
                    Some(wanted) => Rc::clone(wanted.policy),
                    None => self.policies.other(),
                },
                wanted.as_ref().and_then(|wanted| wanted.tally.cloned()),
                self.limits.window,
                2 * self.limits.batch_changes(),
            );
            let name = match &wanted {
                Some(_) => lane.name.as_str().into(),
                None => name_left(lane, found.key, &mut self.journal, now),
            };
            let of = wanted.map_or(Of::Nobody, |wanted| wanted.of);
            session.window.ids = PacketIds {
                start: lane.record.start,
            };
            if let Some(own) = &mut session.queue {
                own.has_a_part();
            }
            session.lanes.push(Lane { name, of, queue });
        }
        session.sort_lanes();
        let keys: Vec<SessionKey> = session.lanes.iter().map(|lane| lane.queue.key).collect();
        for key in keys {
            self.sessions.name_key(key, place);
        }
        self.make_lanes(place, now);
    }
}

/// Names a lane that the configuration names no more: what was a stack may be sent from now on, and is never one again.
fn name_left(
    found: &RecoveredLane,
    session: SessionKey,
    journal: &mut Journal,
    now: Now,
) -> Box<str> {
    let Some(class) = found.name.strip_suffix(Part::Stack.suffix()) else {
        return found.name.as_str().into();
    };
    let name = [class, LEFT].concat();
    let change = Change::SaveLane {
        lane: found.key,
        session,
        record: found.record,
        name: journal.bytes(name.as_bytes()),
    };
    journal.record(change, true, now);
    name.into()
}

impl Session {
    /// In the order of their turns.
    fn sort_lanes(&mut self) {
        self.lanes.sort_by_key(|lane| (lane.of, lane.queue.part));
    }
}
