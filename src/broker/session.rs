//! Sessions: what outlives a link, and the table of them.

use super::bucket::Pace;
use super::classes::Class;
use super::few::Few;
use super::handover::Handover;
use super::journal::Journal;
use super::lanes::Lane;
use super::message::Transient;
use super::qos2::Held;
use super::queue::Queue;
use super::rare::Rare;
use super::walk::Walks;
use super::will::Will;
use super::window::Window;
use crate::net::LinkId;
use crate::record::{Dropped, Seq, SessionKey, Ticket};
use crate::time::{Mono, Now, ServiceSeconds};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher;
use std::rc::Rc;
use std::time::Duration;

/// Why messages to a session were dropped, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// Oldest unsent messages of a full queue.
    pub queue_full: u64,
    /// What overflowed in memory (QoS 0 and volatile sessions).
    pub overflow: u64,
    /// Expired before they could be sent.
    pub expired: u64,
    /// Larger than the client takes.
    pub too_large: u64,
    /// QoS 0 while the session had no link.
    pub away: u64,
    /// Rows whose checksum did not fit.
    pub damaged: u64,
    /// Queued for longer than the queue's policy allows, and never sent.
    pub aged: u64,
    /// Of a full queue, there was a later one with the same topic.
    pub superseded: u64,
    /// Owed by a Shared Subscription to a session that has ended, with no other member left.
    pub no_member: u64,
}

impl Drops {
    /// What the store has dropped of a queue.
    pub(super) fn of(dropped: &Dropped) -> Drops {
        let mut drops = Drops::default();
        if dropped.aged {
            drops.aged = dropped.messages;
        } else {
            drops.queue_full = dropped.messages;
        }
        drops
    }

    /// Each reason by its name under `$SYS`, with how many it dropped.
    #[must_use]
    pub fn by_reason(&self) -> [(&'static str, u64); 9] {
        [
            ("queue-full", self.queue_full),
            ("overflow", self.overflow),
            ("expired", self.expired),
            ("too-large", self.too_large),
            ("away", self.away),
            ("damaged", self.damaged),
            ("aged", self.aged),
            ("superseded", self.superseded),
            ("no-member", self.no_member),
        ]
    }

    pub(super) const NONE: Drops = Drops {
        queue_full: 0,
        overflow: 0,
        expired: 0,
        too_large: 0,
        away: 0,
        damaged: 0,
        aged: 0,
        superseded: 0,
        no_member: 0,
    };

    /// All of them together.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.by_reason().iter().map(|(_, count)| count).sum()
    }

    pub(super) fn add(&mut self, other: Drops) {
        self.queue_full += other.queue_full;
        self.overflow += other.overflow;
        self.expired += other.expired;
        self.too_large += other.too_large;
        self.away += other.away;
        self.damaged += other.damaged;
        self.aged += other.aged;
        self.superseded += other.superseded;
        self.no_member += other.no_member;
    }

    /// Without those of a part.
    pub(super) fn without(&self, part: Drops) -> Drops {
        Drops {
            queue_full: self.queue_full.saturating_sub(part.queue_full),
            overflow: self.overflow.saturating_sub(part.overflow),
            expired: self.expired.saturating_sub(part.expired),
            too_large: self.too_large.saturating_sub(part.too_large),
            away: self.away.saturating_sub(part.away),
            damaged: self.damaged.saturating_sub(part.damaged),
            aged: self.aged.saturating_sub(part.aged),
            superseded: self.superseded.saturating_sub(part.superseded),
            no_member: self.no_member.saturating_sub(part.no_member),
        }
    }
}

/// Places for messages in memory that a session keeps once it has needed them.
pub(super) const TRANSIENT_PLACES: usize = 8;

/// A session.
pub(super) struct Session {
    pub(super) client_id: Box<str>,
    pub(super) link: Option<LinkId>,
    pub(super) window: Window,
    /// Messages that wait in memory: QoS 0, and all of a volatile session.
    pub(super) transient: Rare<VecDeque<Transient>>,
    /// Those of QoS 2 that wait besides for what their publisher, or another receiver, is owed to be on disk.
    pub(super) uncommitted: Rare<VecDeque<(Ticket, Transient)>>,
    /// The next number of a volatile session.
    pub(super) volatile_seq: Seq,
    /// What its client has published with QoS 2 and not released.
    pub(super) held: Rare<Held>,
    /// The last change of what is held.
    pub(super) held_ticket: Ticket,
    /// The last record of a PUBREC.
    pub(super) received_ticket: Ticket,
    /// A stored session's queue; `None`: the session is volatile.
    pub(super) queue: Option<Box<Queue>>,
    /// Queues beside it, in the order of its classes.
    pub(super) lanes: Vec<Lane>,
    /// The classes that the configuration gives it.
    pub(super) classes: Rc<[Class]>,
    /// The last of its lanes was made under this ticket, and is not committed.
    pub(super) lanes_made: Option<Ticket>,
    /// What it was owed as a member of groups is going to others.
    pub(super) handover: Option<Box<Handover>>,
    /// Session Expiry Interval in seconds.
    pub(super) expiry_interval: u32,
    /// Named by the configuration: it does not expire.
    pub(super) configured: bool,
    pub(super) filters: Few<Rc<str>>,
    /// What new subscriptions are still to get of the retained messages.
    pub(super) walks: Rare<Walks>,
    /// When its queue is looked through for messages that are too old.
    pub(super) sweep: Option<Mono>,
    /// What is left of the rate of its backlog.
    pub(super) pace: Pace,
    /// When more of its backlog may leave.
    pub(super) backlog_due: Option<Mono>,
    pub(super) will: Option<Box<Will>>,
    /// The last change of what is stored of it.
    pub(super) ticket: Ticket,
    /// The timer that is set for it while it has no link.
    pub(super) timer: Option<Mono>,
    pub(super) left: Option<Mono>,
    /// It has ended, but that its Will is not published yet.
    pub(super) ended: bool,
    /// How long it had been away before the start.
    pub(super) away_before: Duration,
    /// Whether the record on disk says since when it is away.
    pub(super) left_noted: bool,
    /// Whether it stands on the list of sessions to deliver to.
    pub(super) is_dirty: bool,
    /// Whether it stands on the list of sessions that wait for a commit.
    pub(super) is_committing: bool,
    /// The publish whose routing met it last, and its place among the targets.
    pub(super) matched: (u64, u32),
    pub(super) drops: Rare<Drops>,
    /// How many of them had been told under `$SYS`.
    pub(super) drops_told: u64,
}

impl Session {
    /// A session that nothing is known of but whose it is: volatile, without a link.
    pub(super) fn new(client_id: &str, window: u16, classes: Rc<[Class]>) -> Session {
        Session {
            client_id: client_id.into(),
            link: None,
            window: Window::new(window, u64::MAX),
            transient: Rare::default(),
            uncommitted: Rare::default(),
            volatile_seq: 0,
            held: Rare::default(),
            held_ticket: Ticket::default(),
            received_ticket: Ticket::default(),
            queue: None,
            lanes: Vec::new(),
            classes,
            lanes_made: None,
            handover: None,
            expiry_interval: 0,
            configured: false,
            filters: Few::None,
            walks: Rare::default(),
            sweep: None,
            pace: Pace::default(),
            backlog_due: None,
            will: None,
            ticket: Ticket::default(),
            timer: None,
            left: None,
            ended: false,
            away_before: Duration::ZERO,
            left_noted: false,
            is_dirty: false,
            is_committing: false,
            matched: (0, 0),
            drops: Rare::default(),
            drops_told: 0,
        }
    }

    /// How long it has been away.
    pub(super) fn away(&self, now: Mono) -> Duration {
        self.away_before + self.left.map_or(Duration::ZERO, |left| now.since(left))
    }

    /// Whether nobody can take it up again.
    pub(super) fn is_over(&self, now: Mono) -> bool {
        let expiry = Duration::from_secs(u64::from(self.expiry_interval));
        self.ended || (self.left.is_some() && !self.configured && self.away(now) >= expiry)
    }

    /// Since when it is away, in service time.
    pub(super) fn left_at(&self, now: Now) -> ServiceSeconds {
        ServiceSeconds(now.service.0.saturating_sub(self.away(now.mono).as_secs()))
    }

    pub(super) fn key(&self) -> Option<SessionKey> {
        self.queue.as_ref().map(|queue| queue.key)
    }

    /// A commit came.
    pub(super) fn ticket_committed(&mut self, ticket: Ticket) {
        self.lanes_made.take_if(|of| *of <= ticket);
        for queue in self.queues_mut() {
            queue.ticket_committed(ticket);
        }
        while self
            .uncommitted
            .front()
            .is_some_and(|(of, _)| *of <= ticket)
        {
            let committed = self.uncommitted.pop_front();
            self.transient
                .extend(committed.map(|(_, transient)| transient));
        }
    }

    /// What an acknowledgement rests on that waits for the end of its walks.
    pub(super) fn walked(&self) -> Option<Ticket> {
        self.walks.is_empty().then_some(self.ticket)
    }

    /// A delivery is over: pages are not held.
    pub(super) fn end_delivery(&mut self, journal: &Journal) {
        let lanes = self.lanes.iter_mut().map(|lane| &mut lane.queue);
        for queue in self.queue.as_deref_mut().into_iter().chain(lanes) {
            queue.drop_page();
            if is_drained(&self.window, queue, journal) {
                queue.empty();
            }
        }
    }

    /// Whether a commit is waited for.
    pub(super) fn waits_for_commit(&self) -> bool {
        self.lanes_made.is_some()
            || !self.uncommitted.is_empty()
            || self.queues().any(Queue::waits_for_commit)
    }

    /// Nothing of this queue is in flight, and nothing is left in it.
    pub(super) fn is_drained_with(&self, queue: &Queue, journal: &Journal) -> bool {
        is_drained(&self.window, queue, journal)
    }
}

fn is_drained(window: &Window, queue: &Queue, journal: &Journal) -> bool {
    let is_idle = window.is_empty() || window.first(queue.lane).is_none();
    is_idle && queue.is_drained(journal)
}

/// All sessions, by place and by Client Identifier.
pub(super) struct Sessions {
    /// As long as it was ever needed; it does not move when it becomes longer.
    places: Vec<Option<Session>>,
    free: Vec<u32>,
    by_client_id: HashTable<u32>,
    by_key: BTreeMap<SessionKey, u32>,
    hasher: FixedState,
    max: u32,
}

impl Sessions {
    pub(super) fn new(max: u32, seed: u64) -> Sessions {
        Sessions {
            places: Vec::with_capacity(max as usize),
            free: Vec::new(),
            by_client_id: HashTable::new(),
            by_key: BTreeMap::new(),
            hasher: FixedState::with_seed(seed),
            max,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_client_id.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.max as usize
    }

    pub(super) fn find(&self, client_id: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(client_id);
        self.by_client_id
            .find(hash, |place| self.client_id(*place) == Some(client_id))
            .copied()
    }

    /// Whether any session is stored.
    pub(super) fn has_stored(&self) -> bool {
        !self.by_key.is_empty()
    }

    /// The session at this place has a lane with this key.
    pub(super) fn name_key(&mut self, key: SessionKey, place: u32) {
        self.by_key.insert(key, place);
    }

    /// The stored session with this key, or with a lane that has it.
    pub(super) fn find_key(&self, key: SessionKey) -> Option<u32> {
        self.by_key.get(&key).copied()
    }

    pub(super) fn get(&self, place: u32) -> Option<&Session> {
        self.places.get(place as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut Session> {
        self.places.get_mut(place as usize)?.as_mut()
    }

    pub(super) fn insert(&mut self, session: Session) -> u32 {
        let hash = self.hasher.hash_one(&*session.client_id);
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
        });
        for queue in session.queues() {
            self.by_key.insert(queue.key, place);
        }
        self.places[place as usize] = Some(session);
        let (places, hasher) = (&self.places, &self.hasher);
        self.by_client_id.insert_unique(hash, place, |place| {
            hasher.hash_one(
                places[*place as usize]
                    .as_ref()
                    .map_or("", |session| &*session.client_id),
            )
        });
        place
    }

    /// Gives the session at this place another Client Identifier; it keeps its place.
    pub(super) fn rename(&mut self, place: u32, client_id: &str) {
        if let Some(mut session) = self.remove(place) {
            session.client_id = client_id.into();
            // The place that was left last is taken first.
            self.insert(session);
        }
    }

    pub(super) fn remove(&mut self, place: u32) -> Option<Session> {
        let hash = self.hasher.hash_one(self.client_id(place)?);
        if let Ok(entry) = self.by_client_id.find_entry(hash, |other| *other == place) {
            entry.remove();
        }
        self.free.push(place);
        let session = self.places[place as usize].take()?;
        for queue in session.queues() {
            self.by_key.remove(&queue.key);
        }
        Some(session)
    }

    /// All sessions with their places, by place.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Session)> {
        (0..)
            .zip(&self.places)
            .filter_map(|(place, session)| Some((place, session.as_ref()?)))
    }

    fn client_id(&self, place: u32) -> Option<&str> {
        self.get(place).map(|session| &*session.client_id)
    }
}
