//! The core: MQTT without I/O. Time, randomness and the outcome of I/O come in as arguments; what is to be done goes out
//! through `poll_…` and is done by the turn.
//!
//! One way through for a message: `receive` takes a PUBLISH from a link's bytes; `publish` routes it, asks `admit`, and
//! copies it into the `journal` once, with a row in the `queue` of each stored session that it is owed to; `deliver` moves
//! rows into `window`s and encodes them into `outbox`es; the journal's batch goes to the store; its commit, or the
//! settlement of every row before it, lets the PUBACK leave.

mod acknowledge;
mod acks;
mod admit;
mod alias;
mod bucket;
mod buffers;
mod classes;
mod close;
mod commit;
mod compact;
mod connect;
mod copies;
mod counters;
mod deliver;
mod few;
mod handover;
mod journal;
mod lanes;
mod levels;
mod link;
mod load;
mod message;
mod outbox;
mod packet_ids;
mod policy;
mod publish;
mod qos2;
mod queue;
mod rare;
mod rate;
mod reason_string;
mod recall;
mod receive;
mod recover;
mod retain;
mod retained;
mod route;
mod router;
mod rows;
mod rules;
mod scarce;
mod session;
mod share;
mod subscribe;
mod sys;
mod timeout;
mod timers;
mod turns;
mod walk;
mod will;
mod window;

pub(crate) use acks::{ACK_BYTES, acks_max};
pub use classes::QueueClass;
pub(crate) use copies::COPIES_BYTES;
pub use counters::{Counters, Gauges};
/// Bytes of a link, without its buffers and acknowledgements.
pub(crate) const LINK_BYTES: usize =
    size_of::<link::Link>() + size_of::<link::HeldUp>() + size_of::<rate::Rate>() + 64;
/// Bytes of a session without its window, Client Identifier and subscriptions.
pub(crate) const SESSION_BYTES: usize = size_of::<Option<session::Session>>()
    + size_of::<queue::Queue>()
    + size_of::<Drops>()
    + size_of::<walk::Walks>()
    + session::TRANSIENT_PLACES * size_of::<message::Transient>()
    + 128;
/// Bytes of a lane of a session.
pub(crate) const LANE_BYTES: usize = size_of::<lanes::Lane>() + 64;
/// Bytes of a queue that is being compacted; and of the topics that are noted meanwhile, of one queue at a time.
pub(crate) const COMPACTION_BYTES: usize = queue::COMPACTION_BYTES;
pub(crate) const COMPACTION_TOPICS_BYTES: usize =
    size_of::<u64>() * crate::limits::COMPACTION_TOPICS;
/// Bytes of a row in the journal, beside its change.
pub(crate) const JOURNAL_ROW_BYTES: usize = size_of::<journal::Row>();
pub use policy::{Order, QueuePolicy, QueueRule, Rate, WhenFull};
pub use recover::ConfiguredSession;
pub use session::Drops;
/// Bytes of a client of which `$SYS` tells what was dropped.
pub(crate) const SYS_CLIENT_BYTES: usize = sys::SYS_CLIENT_BYTES;
pub(crate) use window::window_bytes;

use crate::limits::{Limits, SERVICE_NOTE};
use crate::net::{LinkId, Origin};
use crate::record::{Change, PageRequest, SessionKey, SessionRecord, Ticket};
use crate::time::{Mono, Now};
use acks::AckPool;
use buffers::Buffers;
use copies::Copies;
use journal::Journal;
use levels::Key;
use link::{Link, Links};
use message::Spare;
use policy::Policies;
use rare::Rare;
use retain::Sweep;
use retained::RetainedMessages;
use route::Targets;
use router::Router;
use session::Sessions;
use std::collections::VecDeque;
use sys::Sys;
use timers::{Timer, Timers};
use will::Wills;

/// The broker's core.
pub struct Broker {
    limits: Limits,
    links: Links,
    sessions: Sessions,
    router: Router,
    journal: Journal,
    timers: Timers,
    buffers: Buffers,
    /// When links are closed for the memory that they hold, while it is used up.
    scarce: Option<Mono>,
    counters: Counters,
    random: Random,
    policies: Policies,
    retained: RetainedMessages,
    /// When they are looked through for what has expired, and from where on.
    retained_sweep: Sweep,
    /// Those that are to be read, with the place of the session that gets them; and those that are being read.
    retained_reads: VecDeque<(u32, Key)>,
    retained_out: VecDeque<(u32, Key)>,
    /// The last removal of one: whoever is told that there is none rests on it.
    retained_removed: Ticket,
    targets: Targets,
    copies: Copies,
    /// The properties of the message that is being published, without those that do not travel.
    travelling: Vec<u8>,
    /// The Topic Name of the message that is being published, if a Topic Alias stands for it.
    aliased: String,
    /// The next session's key.
    next_key: SessionKey,
    disk_used: u64,
    disk_written: u64,
    /// The disk was full for a message; then the store is asked again how full it is, for it may purge meanwhile.
    disk_asked: Option<Mono>,
    /// When nothing was committed for so long that the age of what is stored would be forgotten.
    note_due: Mono,
    /// Bytes of messages that wait in memory.
    transient_bytes: usize,
    spare: Spare,
    /// Packet Identifiers of messages of QoS 2 that are held, of all sessions.
    held: usize,
    wills: Wills,
    /// Sessions that may have something to deliver.
    dirty: VecDeque<u32>,
    /// Links whose acknowledgements may be able to leave.
    releasable: Vec<LinkId>,
    /// Links with acknowledgements that wait for a commit.
    waiting: Vec<LinkId>,
    /// Sessions with something that waits for a commit.
    committing: Vec<u32>,
    /// Sessions with something to settle for which the journal had no room.
    unsettled: Vec<u32>,
    /// Sessions whose queue is being handed over.
    handing: VecDeque<u32>,
    /// Queues that are being compacted.
    compacting: VecDeque<SessionKey>,
    /// The last end of a stored session: whoever is told that there is none rests on it.
    ended: Ticket,
    /// The program is about to end.
    hurried: bool,
    /// Links that were not done with what they sent in the last turn stand among the parked ones.
    again: bool,
    /// Links that hold a packet that could not be taken, in the order of their parking.
    parked: VecDeque<LinkId>,
    /// Links with bytes to send, the first of them first: what a link that is taken over has left precedes what its
    /// successor is sent again.
    sending: VecDeque<LinkId>,
    /// Links to be closed once their outbox has been offered to the socket.
    closing: Vec<LinkId>,
    /// Links to be read again.
    rearm: Vec<LinkId>,
    /// Pages to be read.
    reads: VecDeque<PageRequest>,
    /// Pages that are being read.
    pages_out: usize,
    /// Sessions that have a link.
    connected: u64,
    sys: Sys,
}

impl Broker {
    /// An empty core. `seed` decides all that is random: assigned Client Identifiers and hash tables.
    #[must_use]
    pub fn new(limits: Limits, seed: u64, now: Now) -> Broker {
        let mut random = Random(seed);
        Broker {
            links: Links::new(limits.links),
            sessions: Sessions::new(limits.sessions, random.next()),
            router: Router::new(random.next(), limits.subscription_pool_bytes),
            journal: Journal::new(limits.batch_bytes, limits.batch_changes()),
            timers: Timers::default(),
            scarce: None,
            buffers: Buffers::new(
                limits.buffer_pool_bytes,
                limits.alias_pool_bytes,
                AckPool::new(limits.links, limits.receive_maximum),
            ),
            counters: Counters::default(),
            random,
            policies: Policies::new(QueuePolicy::drop_oldest(limits.session_disk_max)),
            retained: RetainedMessages::new(limits.retained_pool_bytes),
            retained_sweep: Sweep::default(),
            retained_reads: VecDeque::new(),
            retained_out: VecDeque::new(),
            retained_removed: Ticket::default(),
            hurried: false,
            targets: Targets::default(),
            copies: Copies::new(),
            travelling: Vec::new(),
            aliased: String::new(),
            next_key: SessionKey(1),
            disk_used: 0,
            disk_written: 0,
            disk_asked: None,
            note_due: now.mono.after(SERVICE_NOTE),
            transient_bytes: 0,
            spare: Spare::default(),
            held: 0,
            wills: Wills::default(),
            dirty: VecDeque::new(),
            releasable: Vec::new(),
            waiting: Vec::new(),
            committing: Vec::new(),
            unsettled: Vec::new(),
            handing: VecDeque::new(),
            compacting: VecDeque::new(),
            ended: Ticket::default(),
            again: false,
            parked: VecDeque::new(),
            sending: VecDeque::new(),
            closing: Vec::new(),
            rearm: Vec::new(),
            reads: VecDeque::new(),
            pages_out: 0,
            connected: 0,
            sys: Sys::new(now.mono),
            limits,
        }
    }

    // --- Links ---

    /// A peer has connected.
    pub fn link_opened(&mut self, id: LinkId, origin: Origin, now: Now) {
        self.counters.links_opened += 1;
        self.links.insert(Link::new(id, origin, now.mono));
        self.watch(id);
    }

    /// A peer was turned away.
    pub fn link_refused(&mut self) {
        self.counters.links_refused += 1;
    }

    /// The link is gone without a DISCONNECT of either side, or the turn has closed it.
    pub fn link_lost(&mut self, id: LinkId, now: Now) {
        self.detach(id, now);
        let Some(mut link) = self.links.remove(id) else {
            return;
        };
        if let Some(at) = link.timer {
            self.timers.clear(at, Timer::Link(id));
        }
        if let Some(parked) = link.held_up.parked.filter(|parked| parked.refuse) {
            self.timers
                .clear(parked.since.after(self.limits.park_max), Timer::Parked(id));
        }
        if let Some(at) = link.rate.as_ref().and_then(|rate| rate.timer) {
            self.timers.clear(at, Timer::Rate(id));
        }
        self.buffers.give(std::mem::take(&mut link.inbox));
        link.outbox.discard(&mut self.buffers);
        link.acks.discard(&mut self.buffers.acks);
        link.aliases.discard(&mut self.buffers.aliases);
    }

    fn note_sending(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(id).filter(|link| !link.is_sending) {
            link.is_sending = true;
            self.sending.push_back(id);
        }
    }

    fn note_releasable(&mut self, id: LinkId) {
        self.releasable.push(id);
    }

    // --- Sessions ---

    /// Takes a link's session from it: a stored one stays, a volatile one ends. Its Will is due, if it has one.
    fn detach(&mut self, id: LinkId, now: Now) {
        let Some(place) = self.links.get_mut(id).and_then(|link| link.session.take()) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        session.link = None;
        self.connected -= 1;
        for in_flight in session.window.iter() {
            self.journal.unsent(in_flight.row);
        }
        session.window.link_ended();
        let lanes = session.lanes.iter_mut().map(|lane| &mut lane.queue);
        for queue in session.queue.as_deref_mut().into_iter().chain(lanes) {
            let first = session.window.first(queue.lane);
            queue.link_ended(place, first, &self.journal);
        }
        self.hand_over_transient(place, now);
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        session.left = Some(now.mono);
        if session.is_over(now.mono) {
            self.end_session(place, now);
            return;
        }
        if !session.walks.is_empty() {
            // They go on without a link.
            self.note_dirty(place);
        }
        self.set_away_timer(place);
        self.hand_over_unsent(place);
        self.will_after_link(place, now);
    }

    /// Ends a session: its subscriptions go, its Will is published, and it is owed nothing any more. `false`: its Will
    /// finds no room yet, and it ends when that does.
    fn end_session(&mut self, place: u32, now: Now) -> bool {
        let Some(session) = self.sessions.get_mut(place) else {
            return true;
        };
        session.ended = true;
        let timers = [
            session.timer.take().map(|at| (at, Timer::Away(place))),
            session.sweep.take().map(|at| (at, Timer::Sweep(place))),
            session
                .backlog_due
                .take()
                .map(|at| (at, Timer::Backlog(place))),
        ];
        for (at, timer) in timers.into_iter().flatten() {
            self.timers.clear(at, timer);
        }
        let held = std::mem::take(&mut session.held);
        self.held -= held.len();
        session.walks = Rare::default();
        for filter in session.filters.iter() {
            self.router.unsubscribe(filter, place);
        }
        if !self.will_leaves(place, now) {
            return false;
        }
        let session = self.sessions.get_mut(place);
        let filters = session.map(|session| std::mem::take(&mut session.filters));
        if self.hand_over_all(place, &filters.unwrap_or_default(), now) {
            return true;
        }
        let Some(session) = self.sessions.remove(place) else {
            return true;
        };
        if let Some(queue) = &session.queue {
            self.journal.disown(place);
            self.ended = self
                .journal
                .record(Change::DropSession { session: queue.key }, true, now);
        }
        true
    }

    /// Ends a session that is over, and waited for its Will.
    fn end_if_over(&mut self, place: u32, now: Now) {
        let session = self.sessions.get(place);
        if session.is_some_and(|session| session.is_over(now.mono)) {
            self.end_session(place, now);
        }
    }

    /// Writes a session's record.
    fn save_session(&mut self, place: u32, urgent: bool, now: Now) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let Some(key) = session.key() else { return };
        let record = SessionRecord {
            expiry_interval: session.expiry_interval,
            left_at: session.left_noted.then(|| session.left_at(now)),
            configured: session.configured,
        };
        let client_id = self.journal.bytes(session.client_id.as_bytes());
        session.ticket = self.journal.record(
            Change::SaveSession {
                session: key,
                client_id,
                record,
            },
            urgent,
            now,
        );
    }

    /// Whether something waits to be sent to it.
    fn has_unsent(&self, place: u32) -> bool {
        self.sessions.get(place).is_some_and(|session| {
            !session.transient.is_empty()
                || !session.walks.is_empty()
                || session
                    .queues()
                    .any(|queue| !queue.is_drained(&self.journal))
        })
    }

    fn note_dirty(&mut self, place: u32) {
        note_dirty(&mut self.sessions, &mut self.dirty, place);
    }

    /// Puts a session that waits for a commit on the list of those, once.
    fn note_committing(&mut self, place: u32) {
        let session = self.sessions.get_mut(place);
        let Some(session) = session.filter(|session| !session.is_committing) else {
            return;
        };
        if session.waits_for_commit() {
            session.is_committing = true;
            self.committing.push(place);
        }
    }

    // --- What the turn does for the core ---

    /// The next link with bytes to send; its outbox is offered to the socket once.
    pub fn poll_send(&mut self) -> Option<LinkId> {
        let id = self.sending.pop_front()?;
        if let Some(link) = self.links.get_mut(id) {
            link.is_sending = false;
        }
        Some(id)
    }

    /// What is to be sent on a link.
    #[must_use]
    pub fn outbox(&self, id: LinkId) -> &[u8] {
        self.links.get(id).map_or(&[], |link| link.outbox.pending())
    }

    /// So many bytes have left; 0: the socket takes none now.
    pub fn sent(&mut self, id: LinkId, bytes: usize, now: Now) {
        self.counters.bytes_sent += bytes as u64;
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let (packets, publish_bytes) = link.outbox.take_counted();
        self.counters.packets_sent += packets;
        self.counters.publish_bytes_sent += publish_bytes;
        let flooded = link.outbox.is_flooded();
        link.outbox.advance(bytes, &mut self.buffers);
        if link.outbox.pending().is_empty() {
            if link.held_up.blocked_since.is_some() {
                link.held_up.blocked_since = None;
            }
        } else if bytes > 0 || link.held_up.blocked_since.is_none() {
            link.held_up.blocked_since = Some(now.mono);
        }
        let is_blocked = link.held_up.blocked_since.is_some();
        let (session, waits) = (link.session, !link.acks.is_empty() || link.pings_owed > 0);
        if is_blocked {
            self.watch(id);
        }
        if bytes == 0 {
            return;
        }
        if flooded {
            self.rearm_if_readable(id);
        }
        if let Some(place) = session.filter(|place| self.has_unsent(*place)) {
            self.note_dirty(place);
        }
        if waits {
            self.note_releasable(id);
        }
    }

    /// The socket has room again.
    pub fn writable(&mut self, id: LinkId) {
        self.note_sending(id);
    }

    /// The next link to be closed.
    pub fn poll_close(&mut self) -> Option<LinkId> {
        self.closing.pop()
    }

    /// The next link to be read again.
    pub fn poll_rearm(&mut self) -> Option<LinkId> {
        self.rearm.pop()
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What is, now.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let mut gauges = Gauges {
            links: self.links.len() as u64,
            sessions: self.sessions.len() as u64,
            sessions_connected: self.connected,
            subscriptions: (self.router.len() - self.router.shared_len()) as u64,
            shared_subscriptions: self.router.shared_len() as u64,
            retained_messages: self.retained.len() as u64,
            retained_bytes: self.retained.bytes() as u64,
            disk_used: self.disk_used,
            disk_written: self.disk_written,
            buffers_lent: self.buffers.lent() as u64,
            ..Gauges::default()
        };
        for (_, session) in self.sessions.iter() {
            gauges.in_flight += u64::from(session.window.outstanding());
            for queue in session.queues() {
                gauges.queued_messages += queue.messages();
                gauges.queued_bytes += queue.bytes();
            }
        }
        gauges
    }
}

fn note_dirty(sessions: &mut Sessions, dirty: &mut VecDeque<u32>, place: u32) {
    if let Some(session) = sessions.get_mut(place).filter(|session| !session.is_dirty) {
        session.is_dirty = true;
        dirty.push_back(place);
    }
}

/// Randomness from a seed (SplitMix64): the simulator replays it.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}
