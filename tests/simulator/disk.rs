//! The crashable disk: commits and answers when the world says, and tells the oracle what each commit changed.

use crate::wire::Id;
use larder::record::{
    Batch, Change, End, Event, Extent, LaneRecord, PageRequest, Recovered, Seq, SessionKey, Store,
};
use larder::store::{Disk, MemoryStore};
use larder_packet::PacketId;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What a commit did to the queues on disk.
#[derive(Default)]
pub struct Committed {
    /// Sessions whose record was written: their Client Identifiers.
    pub sessions: Vec<(SessionKey, String)>,
    /// Rows that were written.
    pub owed: Vec<(SessionKey, Seq, Id)>,
    /// Rows of which only the PUBREL is owed from now on.
    pub received: Vec<(SessionKey, Seq, Id)>,
    /// Packet Identifiers of publishers that were held and released, in their order: `true` for held.
    pub held: Vec<(SessionKey, u16, bool)>,
    /// Rows that were removed because they were settled.
    pub settled: Vec<(SessionKey, Seq, Id)>,
    /// Of these, those with a later row on their topic in the same queue.
    pub superseded: Vec<(SessionKey, Seq, Id)>,
    /// Rows whose message went to the tail of the same queue, or of another one of the session.
    pub moved: Vec<(SessionKey, Seq, Id)>,
    /// Rows that were dropped, the oldest of a full queue.
    pub dropped: Vec<(SessionKey, Seq, Id)>,
    /// Subscriptions that were made and ended, in their order: `true` for made.
    pub subscriptions: Vec<(SessionKey, String, bool)>,
    /// Sessions that were ended.
    pub ended: Vec<SessionKey>,
}

/// In a row's number: it has its Packet Identifier out of a part, and of which lane.
const DIVIDED: u64 = 1 << 62;
const LANE_BITS: u32 = 48;
/// Packet Identifiers of a part.
pub const PART: u64 = 8191;

fn lane_of(seq: Seq) -> u64 {
    (seq & !DIVIDED) >> LANE_BITS
}

fn seq_of(seq: Seq) -> Seq {
    seq & ((1 << LANE_BITS) - 1)
}

/// The Packet Identifier of a row.
pub fn packet_id(row: Seq) -> u16 {
    let turn = seq_of(row) - 1;
    if row & DIVIDED == 0 {
        (turn % 65_535 + 1) as u16
    } else {
        (lane_of(row) * PART + turn % PART + 1) as u16
    }
}

/// What is on disk, as the oracle knows it: independent of the store's own tables.
pub type Rows = BTreeMap<(SessionKey, Seq), Row>;

/// A row.
pub struct Row {
    pub id: Id,
    topic: String,
}

/// What the server asked.
enum Question {
    Page(PageRequest),
    Retained(String),
}

/// One server's disk.
pub struct SimStore {
    store: MemoryStore,
    pending: Option<Arc<Batch>>,
    requests: VecDeque<Question>,
    events: VecDeque<Event>,
    rows: Rows,
    /// Lanes: their sessions, and how these count their rows.
    lanes: BTreeMap<SessionKey, (SessionKey, LaneRecord)>,
    /// Messages that the store has told to have dropped.
    pub dropped_told: u64,
    /// Whether the server gave it something to do in this turn.
    pub acted: bool,
    /// Events told since this was last set to zero.
    pub told: usize,
}

impl SimStore {
    /// A store that starts from what a crash left, and what it finds there.
    pub fn recover(disk: Disk, rows: Rows) -> (SimStore, Recovered) {
        let (store, recovered) = MemoryStore::recover(disk);
        let lanes = recovered.sessions.iter().flat_map(|session| {
            let lanes = session.lanes.iter();
            lanes.map(|lane| (lane.key, (session.key, lane.record)))
        });
        let store = SimStore {
            store,
            pending: None,
            requests: VecDeque::new(),
            events: VecDeque::new(),
            rows,
            lanes: lanes.collect(),
            dropped_told: 0,
            acted: false,
            told: 0,
        };
        (store, recovered)
    }

    /// What a crash leaves.
    pub fn crash(self) -> (Disk, Rows) {
        (self.store.crash(), self.rows)
    }

    /// Whether a batch waits for its commit.
    pub fn is_committing(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether questions wait for their answers.
    pub fn is_asked(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Rows on disk.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The attempt to commit fails; the batch stays.
    pub fn fail(&mut self) {
        if self.pending.is_some() {
            self.store.fail_next("the simulated disk refuses");
            self.store.step();
            self.collect();
        }
    }

    /// Commits what was submitted.
    pub fn commit(&mut self) -> Committed {
        let mut committed = Committed::default();
        let Some(batch) = self.pending.take() else {
            return committed;
        };
        self.store.step();
        self.collect();
        for (index, change) in batch.changes.iter().enumerate() {
            self.note(change, batch.changes.get(index + 1), &batch, &mut committed);
        }
        committed
    }

    /// Answers the first question, with an error if `fails`.
    pub fn answer(&mut self, fails: bool) {
        let Some(question) = self.requests.pop_front() else {
            return;
        };
        let error = || "the simulated disk cannot be read".to_owned();
        match question {
            Question::Page(request) if fails => {
                let page = Err(error());
                self.events.push_back(Event::PageRead { request, page });
            }
            Question::Retained(topic) if fails => {
                let message = Err(error());
                self.events
                    .push_back(Event::RetainedRead { topic, message });
            }
            Question::Page(request) => self.store.read(request),
            Question::Retained(topic) => self.store.read_retained(topic),
        }
        self.store.step_reads();
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(event) = self.store.poll_event() {
            self.events.push_back(event);
        }
    }

    fn note(
        &mut self,
        change: &Change,
        next: Option<&Change>,
        batch: &Batch,
        committed: &mut Committed,
    ) {
        match *change {
            Change::Owe(ref owe) => {
                let message = &batch.messages[owe.message as usize];
                let topic = String::from_utf8_lossy(message.topic.of(&batch.bytes)).into_owned();
                if let Some(id) = Id::of(message.payload.of(&batch.bytes)) {
                    let (session, seq) = self.row(owe.session, owe.seq);
                    self.rows.insert((session, seq), Row { id, topic });
                    match self.moved(owe.session, id, next) {
                        Some(from) => committed.moved.push((session, from, id)),
                        None => committed.owed.push((session, seq, id)),
                    }
                }
            }
            Change::Settle { session, seq } => {
                let (session, seq) = self.row(session, seq);
                if let Some(Row { id, topic }) = self.rows.remove(&(session, seq)) {
                    let row = (session, seq, id);
                    if committed.moved.contains(&row) {
                        return;
                    }
                    committed.settled.push(row);
                    if self.has_later(session, seq, &topic) {
                        committed.superseded.push(row);
                    }
                }
            }
            Change::Received { session, seq } => {
                let (session, seq) = self.row(session, seq);
                if let Some(row) = self.rows.get(&(session, seq)) {
                    committed.received.push((session, seq, row.id));
                }
            }
            Change::Hold { session, packet_id } => {
                committed.held.push((session, packet_id.get(), true));
            }
            Change::Release { session, packet_id } => {
                committed.held.push((session, packet_id.get(), false));
            }
            Change::DropOldest(oldest) => {
                let kept = self.read_rows(oldest.session);
                let (session, lane) = self.lane(oldest.session);
                let gone: Vec<(SessionKey, Seq, Id)> = self
                    .rows
                    .range((session, 0)..=(session, Seq::MAX))
                    .filter(|((_, seq), _)| lane_of(*seq) == lane && seq_of(*seq) <= oldest.up_to)
                    .filter(|((_, seq), _)| kept.binary_search(&seq_of(*seq)).is_err())
                    .map(|((key, seq), row)| (*key, *seq, row.id))
                    .collect();
                for (key, seq, id) in gone {
                    // What a later change of the same batch settled or ended is gone as well.
                    let goes_later = batch.changes.iter().any(|other| match *other {
                        Change::Settle { session, seq: of } => self.row(session, of) == (key, seq),
                        Change::DropSession { session } => session == key,
                        _ => false,
                    });
                    if !goes_later {
                        self.rows.remove(&(key, seq));
                        committed.dropped.push((key, seq, id));
                    }
                }
            }
            Change::SaveSession {
                session, client_id, ..
            } => {
                let client_id = String::from_utf8_lossy(client_id.of(&batch.bytes)).into_owned();
                committed.sessions.push((session, client_id));
            }
            Change::DropSession { session } => {
                self.rows.retain(|(key, _), _| *key != session);
                committed.ended.push(session);
            }
            Change::Subscribe {
                session, filter, ..
            } => {
                let filter = String::from_utf8_lossy(filter.of(&batch.bytes)).into_owned();
                committed.subscriptions.push((session, filter, true));
            }
            Change::Unsubscribe { session, filter } => {
                let filter = String::from_utf8_lossy(filter.of(&batch.bytes)).into_owned();
                committed.subscriptions.push((session, filter, false));
            }
            Change::SaveLane {
                lane,
                session,
                record,
                ..
            } => {
                self.lanes.insert(lane, (session, record));
            }
            Change::Cancelled
            | Change::DropLane { .. }
            | Change::Reserve { .. }
            | Change::Retain { .. }
            | Change::Unretain { .. }
            | Change::SaveWill { .. } => {}
        }
    }

    /// The row whose message is owed by another one of the same session from now on: it goes at once.
    fn moved(&self, queue: SessionKey, id: Id, next: Option<&Change>) -> Option<Seq> {
        let Some(Change::Settle { session, seq }) = next else {
            return None;
        };
        let from = self.row(*session, *seq);
        let is_it =
            from.0 == self.lane(queue).0 && self.rows.get(&from).is_some_and(|row| row.id == id);
        is_it.then_some(from.1)
    }

    /// Whether there is a later row on this topic in the queue of a row.
    fn has_later(&self, session: SessionKey, seq: Seq, topic: &str) -> bool {
        self.rows
            .range((session, seq + 1)..=(session, Seq::MAX))
            .any(|((_, later), row)| lane_of(*later) == lane_of(seq) && row.topic == topic)
    }

    /// The session of a queue, and the number of that among its lanes.
    fn lane(&self, key: SessionKey) -> (SessionKey, u64) {
        let lane = self.lanes.get(&key);
        lane.map_or((key, 0), |(session, of)| (*session, u64::from(of.number)))
    }

    /// A row as the oracle knows it: of the session, whichever queue of it has the row.
    fn row(&self, key: SessionKey, seq: Seq) -> (SessionKey, Seq) {
        let (session, lane) = self.lane(key);
        let mut lanes = self.lanes.values().filter(|(of, _)| *of == session);
        let is_divided = lanes
            .next()
            .is_some_and(|(_, of)| lane > 0 || seq >= of.start);
        let part = if is_divided {
            DIVIDED | lane << LANE_BITS
        } else {
            0
        };
        (session, part | seq)
    }

    /// Numbers of the rows that the store itself has.
    fn read_rows(&mut self, session: SessionKey) -> Vec<Seq> {
        let mut probe = MemoryStore::recover(self.store_disk()).0;
        probe.read(PageRequest {
            session,
            from: End::Oldest,
            after: 0,
            up_to: Seq::MAX,
            rows_max: u32::MAX,
            bytes_max: u32::MAX,
            recency: false,
        });
        probe.step_reads();
        match probe.poll_event() {
            Some(Event::PageRead { page: Ok(page), .. }) => {
                page.rows.iter().map(|row| row.seq).collect()
            }
            _ => Vec::new(),
        }
    }

    fn store_disk(&mut self) -> Disk {
        let disk = std::mem::take(&mut self.store).crash();
        self.store = MemoryStore::recover(disk.clone()).0;
        disk
    }
}

/// What recovery says of the queues that are not empty, and of Packet Identifiers that are held.
#[derive(Debug)]
pub struct Left {
    queues: Vec<(String, Extent)>,
    held: Vec<(String, Vec<PacketId>)>,
}

impl Left {
    pub fn of(disk: Disk) -> Left {
        let (_, recovered) = MemoryStore::recover(disk);
        let (mut queues, mut held) = (Vec::new(), Vec::new());
        for session in recovered.sessions {
            if let Some(extent) = session.extent {
                queues.push((session.client_id.clone(), extent));
            }
            for lane in session.lanes {
                if let Some(extent) = lane.extent {
                    queues.push((format!("{} {}", session.client_id, lane.name), extent));
                }
            }
            if !session.held.is_empty() {
                held.push((session.client_id, session.held));
            }
        }
        Left { queues, held }
    }

    pub fn is_empty(&self) -> bool {
        self.queues.is_empty() && self.held.is_empty()
    }
}

impl Store for SimStore {
    fn is_idle(&self) -> bool {
        let told = |event: &Event| matches!(event, Event::Committed { .. });
        self.pending.is_none() && !self.events.iter().any(told)
    }

    fn submit(&mut self, batch: Arc<Batch>) {
        self.acted = true;
        self.pending = Some(Arc::clone(&batch));
        self.store.submit(batch);
    }

    fn read(&mut self, request: PageRequest) {
        self.acted = true;
        self.requests.push_back(Question::Page(request));
    }

    fn read_retained(&mut self, topic: String) {
        self.acted = true;
        self.requests.push_back(Question::Retained(topic));
    }

    fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.told += 1;
        if let Event::Committed { dropped, .. } = &event {
            self.dropped_told += dropped.iter().map(|dropped| dropped.messages).sum::<u64>();
        }
        Some(event)
    }
}
