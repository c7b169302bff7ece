//! A store in memory: for volatile use, and the disk that the simulator crashes. It does nothing unless told, so that
//! one seed always gives one course of events.

mod queue;

use super::Noted;
use crate::record::{
    Batch, Change, Dropped, Event, LaneRecord, Page, PageRequest, Recovered, RecoveredLane,
    RecoveredMessage, RecoveredRetained, RecoveredSession, RecoveredWill, Seq, SessionKey,
    SessionRecord, Span, Store, SubscriptionRecord,
};
use larder_packet::PacketId;
use queue::{Queue, nothing, nothing_left};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A [`Store`] that commits, reads and fails when told.
#[derive(Debug, Default)]
pub struct MemoryStore {
    disk: Disk,
    pending: Option<Arc<Batch>>,
    requests: VecDeque<PageRequest>,
    topics: VecDeque<String>,
    events: VecDeque<Event>,
    failures: VecDeque<String>,
    stalled: bool,
    written: u64,
}

/// What was committed: all that outlives a crash.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    sessions: BTreeMap<SessionKey, StoredSession>,
    lanes: BTreeMap<SessionKey, StoredLane>,
    /// By topic.
    retained: BTreeMap<String, RecoveredRetained>,
    noted: Noted,
    last_session: SessionKey,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// A store that starts from what a crash left, and what it finds there.
    #[must_use]
    pub fn recover(disk: Disk) -> (MemoryStore, Recovered) {
        let recovered = disk.recovered();
        (
            MemoryStore {
                disk,
                ..MemoryStore::default()
            },
            recovered,
        )
    }

    /// The power goes: the batch that is not committed, questions and events are lost.
    #[must_use]
    pub fn crash(self) -> Disk {
        self.disk
    }

    /// Commits the batch that was submitted, if there is one, or fails to as [`MemoryStore::fail_next`] demanded.
    pub fn step(&mut self) {
        let Some(batch) = self.pending.take() else {
            return;
        };
        if let Some(error) = self.failures.pop_front() {
            self.pending = Some(batch);
            if !self.stalled {
                self.stalled = true;
                self.events.push_back(Event::Stalled { error });
            }
            return;
        }
        self.stalled = false;
        let dropped = self.disk.apply(&batch);
        self.written += batch.bytes.len() as u64;
        let disk_used = self.disk.used();
        self.events.push_back(Event::Committed {
            batch,
            dropped,
            disk_used,
            written: self.written,
        });
    }

    /// Answers the questions asked so far.
    pub fn step_reads(&mut self) {
        for topic in self.topics.drain(..) {
            let message = Ok(self.disk.retained.get(&topic).cloned());
            self.events
                .push_back(Event::RetainedRead { topic, message });
        }
        for request in self.requests.drain(..) {
            let page = Ok(self.disk.read(&request));
            self.events.push_back(Event::PageRead { request, page });
        }
    }

    /// Makes the next attempt to commit fail with `error`; the batch is kept, and [`Event::Stalled`] sent for the first
    /// of several failures in a row. Adds to failures demanded before.
    pub fn fail_next(&mut self, error: impl Into<String>) {
        self.failures.push_back(error.into());
    }
}

impl Store for MemoryStore {
    fn is_idle(&self) -> bool {
        // A batch that is committed but not yet told of still counts, as with the store on disk.
        self.pending.is_none()
            && !self
                .events
                .iter()
                .any(|event| matches!(event, Event::Committed { .. }))
    }

    fn submit(&mut self, batch: Arc<Batch>) {
        debug_assert!(
            self.is_idle(),
            "a batch is submitted only when the store is idle"
        );
        self.pending = Some(batch);
    }

    fn read(&mut self, request: PageRequest) {
        self.requests.push_back(request);
    }

    fn read_retained(&mut self, topic: String) {
        self.topics.push_back(topic);
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

#[derive(Clone, Debug, Default)]
struct StoredSession {
    client_id: String,
    record: SessionRecord,
    seq_reserved: Seq,
    subscriptions: BTreeMap<String, SubscriptionRecord>,
    queue: Queue,
    held: BTreeSet<PacketId>,
    will: Option<RecoveredWill>,
}

#[derive(Clone, Debug)]
struct StoredLane {
    session: SessionKey,
    name: String,
    record: LaneRecord,
    seq_reserved: Seq,
    queue: Queue,
}

impl Disk {
    fn apply(&mut self, batch: &Batch) -> Vec<Dropped> {
        let mut messages = vec![None; batch.messages.len()];
        let mut dropped = Vec::new();
        for change in &batch.changes {
            match *change {
                Change::Cancelled => {}
                Change::Owe(ref owe) => {
                    if let Some(queue) = self.queue_mut(owe.session) {
                        queue.owe(owe, batch, &mut messages);
                    }
                }
                Change::Settle { session, seq } => {
                    if let Some(queue) = self.queue_mut(session) {
                        queue.settle(seq);
                    }
                }
                Change::Received { session, seq } => {
                    if let Some(queue) = self.queue_mut(session) {
                        queue.received(seq);
                    }
                }
                Change::Hold { session, packet_id } => {
                    if let Some(stored) = self.sessions.get_mut(&session) {
                        stored.held.insert(packet_id);
                    }
                }
                Change::Release { session, packet_id } => {
                    if let Some(stored) = self.sessions.get_mut(&session) {
                        stored.held.remove(&packet_id);
                    }
                }
                Change::Retain { message, qos } => {
                    let message = copy(message, batch);
                    let retained = RecoveredRetained {
                        message,
                        qos,
                        left_out: None,
                    };
                    self.retained
                        .insert(retained.message.topic.clone(), retained);
                }
                Change::Unretain { topic } => {
                    self.retained.remove(&text(topic, batch));
                }
                Change::SaveWill { session, will } => {
                    if let Some(stored) = self.sessions.get_mut(&session) {
                        stored.will = will.map(|will| RecoveredWill {
                            message: copy(will.message, batch),
                            record: will.record,
                        });
                    }
                }
                Change::DropOldest(ref oldest) => {
                    dropped.push(match self.queue_mut(oldest.session) {
                        Some(queue) => queue.drop_oldest(oldest),
                        None => nothing(oldest),
                    })
                }
                Change::SaveSession {
                    session,
                    client_id,
                    record,
                } => {
                    let stored = self.sessions.entry(session).or_default();
                    stored.client_id = text(client_id, batch);
                    stored.record = record;
                    self.key_given(session, batch);
                }
                Change::SaveLane {
                    lane,
                    session,
                    record,
                    name,
                } => self.save_lane(lane, session, record, text(name, batch), batch),
                Change::DropLane { lane } => {
                    self.lanes.remove(&lane);
                }
                Change::Reserve {
                    session,
                    seq_reserved,
                } => {
                    if let Some(stored) = self.sessions.get_mut(&session) {
                        stored.seq_reserved = seq_reserved;
                    } else if let Some(lane) = self.lanes.get_mut(&session) {
                        lane.seq_reserved = seq_reserved;
                    }
                }
                Change::DropSession { session } => {
                    self.sessions.remove(&session);
                    self.lanes.retain(|_, lane| lane.session != session);
                }
                Change::Subscribe {
                    session,
                    filter,
                    record,
                } => {
                    if let Some(stored) = self.sessions.get_mut(&session) {
                        stored.subscriptions.insert(text(filter, batch), record);
                    }
                }
                Change::Unsubscribe { session, filter } => {
                    if let Some(stored) = self.sessions.get_mut(&session) {
                        stored.subscriptions.remove(&text(filter, batch));
                    }
                }
            }
        }
        if self.noted.is_due(batch) {
            self.noted = Noted::of(batch);
        }
        dropped
    }

    fn queue(&self, key: SessionKey) -> Option<&Queue> {
        let session = self.sessions.get(&key).map(|session| &session.queue);
        session.or_else(|| self.lanes.get(&key).map(|lane| &lane.queue))
    }

    fn queue_mut(&mut self, key: SessionKey) -> Option<&mut Queue> {
        let session = self
            .sessions
            .get_mut(&key)
            .map(|session| &mut session.queue);
        session.or_else(|| self.lanes.get_mut(&key).map(|lane| &mut lane.queue))
    }

    fn key_given(&mut self, key: SessionKey, batch: &Batch) {
        if key > self.last_session {
            self.last_session = key;
            self.noted = Noted::of(batch);
        }
    }

    fn save_lane(
        &mut self,
        lane: SessionKey,
        session: SessionKey,
        record: LaneRecord,
        name: String,
        batch: &Batch,
    ) {
        if let Some(known) = self.lanes.get_mut(&lane) {
            known.name = name;
        } else if self.sessions.contains_key(&session) {
            let stored = StoredLane {
                session,
                name,
                record,
                seq_reserved: 0,
                queue: Queue::default(),
            };
            self.lanes.insert(lane, stored);
            self.key_given(lane, batch);
        }
    }

    fn read(&self, request: &PageRequest) -> Page {
        match self.queue(request.session) {
            Some(queue) => queue.read(request),
            None => nothing_left(request),
        }
    }

    fn recovered(&self) -> Recovered {
        let sessions = self.sessions.iter().map(|(&key, stored)| RecoveredSession {
            key,
            client_id: stored.client_id.clone(),
            record: stored.record,
            seq_reserved: stored.seq_reserved,
            subscriptions: stored.subscriptions.clone().into_iter().collect(),
            extent: stored.queue.extent(),
            lanes: self.recovered_lanes(key),
            held: stored.held.iter().copied().collect(),
            will: stored.will.clone(),
        });
        let retained = self.retained.values().cloned();
        let retained = retained.map(RecoveredRetained::without_large_parts);
        Recovered {
            sessions: sessions.collect(),
            retained: retained.collect(),
            last_session: self.last_session,
            service: self.noted.service,
            wall: self.noted.wall,
            disk_used: self.used(),
            salvaged: None,
        }
    }

    fn recovered_lanes(&self, session: SessionKey) -> Vec<RecoveredLane> {
        let lanes = self
            .lanes
            .iter()
            .filter(|(_, lane)| lane.session == session);
        lanes
            .map(|(&key, lane)| RecoveredLane {
                key,
                name: lane.name.clone(),
                record: lane.record,
                seq_reserved: lane.seq_reserved,
                extent: lane.queue.extent(),
            })
            .collect()
    }

    /// Bytes of all messages, as if each stood in every queue that holds it.
    fn used(&self) -> u64 {
        let sessions = self.sessions.values().map(|stored| &stored.queue);
        let lanes = self.lanes.values().map(|lane| &lane.queue);
        let queues = sessions.chain(lanes).filter_map(Queue::extent);
        let wills = self
            .sessions
            .values()
            .filter_map(|stored| stored.will.as_ref());
        let retained = self.retained.values().map(|retained| &retained.message);
        let copies = wills.map(|will| &will.message).chain(retained);
        queues.map(|extent| extent.bytes).sum::<u64>() + copies.map(size).sum::<u64>()
    }
}

fn copy(message: u32, batch: &Batch) -> RecoveredMessage {
    let message = &batch.messages[message as usize];
    RecoveredMessage {
        topic: text(message.topic, batch),
        properties: message.properties.of(&batch.bytes).to_vec(),
        payload: message.payload.of(&batch.bytes).to_vec(),
        expires_at: message.expires_at,
    }
}

fn size(message: &RecoveredMessage) -> u64 {
    (message.topic.len() + message.properties.len() + message.payload.len()) as u64
}

fn text(span: Span, batch: &Batch) -> String {
    String::from_utf8_lossy(span.of(&batch.bytes)).into_owned()
}
