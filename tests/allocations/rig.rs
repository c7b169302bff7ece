//! A server between peers and a disk that take and give without allocating, so that what a turn allocates is the server's
//! own; and peers that answer what they are sent as the standard wants it.

use crate::packets::Connect;
use allocation_counter::measure;
use larder::broker::Broker;
use larder::limits::{Limits, SETTLEMENT_WAIT};
use larder::net::{LinkId, Moved, Net, NetEvent, Origin};
use larder::record::{Batch, Event, PageRequest, Store};
use larder::server::Server;
use larder::store::{self, MemoryStore};
use larder::time::{Clock, Mono, Now, ServiceSeconds};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

/// Bytes that each peer can have sent or been sent and not looked at.
const PEER_BYTES: usize = 256 * 1024;
/// Turns that a slow disk takes for a commit, and in which clients say more than once something.
const SLOW_DISK_TURNS: u32 = 7;
const SAY_TURNS: u32 = 3;
/// Turns after which a server that should have come to rest never will.
const TURNS_MAX: u32 = 10_000;

pub(crate) struct Rig {
    server: Server<Wires, Disk>,
    clock: Hands,
    /// What the turns have allocated.
    allocations: u64,
    /// PUBLISH packets that the peers were sent.
    delivered: u64,
}

/// A clock that goes on by a millisecond with each turn.
struct Hands(u64);

impl Clock for Hands {
    fn now(&mut self) -> Now {
        self.0 += 1;
        Now {
            mono: Mono(self.0),
            service: ServiceSeconds(self.0 / 1000),
            wall: 0,
            wall_trusted: false,
            wall_floor: None,
        }
    }
}

impl Rig {
    /// With a store in memory, which commits between two turns.
    pub(crate) fn new() -> Rig {
        Rig::with(Disk::Memory {
            store: MemoryStore::new(),
            turns_per_commit: 1,
            turns: 0,
        })
    }

    /// With one that takes a while for a commit.
    pub(crate) fn with_slow_disk() -> Rig {
        Rig::with(Disk::Memory {
            store: MemoryStore::new(),
            turns_per_commit: SLOW_DISK_TURNS,
            turns: 0,
        })
    }

    /// With the real one, in this directory.
    pub(crate) fn with_files(data_dir: &Path) -> Rig {
        let options = store::Options {
            data_dir: data_dir.to_owned(),
            disk_max: Limits::default().disk_max,
        };
        let (wake, woken) = sync_channel(1024);
        let wake = move || wake.send(()).unwrap();
        let (store, _) = store::open(&options, wake).unwrap();
        Rig::with(Disk::Files {
            store,
            woken,
            reading: 0,
        })
    }

    fn with(disk: Disk) -> Rig {
        let mut clock = Hands(20_000);
        let now = clock.now();
        let broker = Broker::new(Limits::default(), 7, now);
        let wires = Wires {
            peers: Vec::new(),
            events: VecDeque::with_capacity(1024),
            timeout: None,
        };
        Rig {
            server: Server::new(wires, disk, broker, now),
            clock,
            allocations: 0,
            delivered: 0,
        }
    }

    /// What the turns have allocated so far.
    pub(crate) fn allocations(&self) -> u64 {
        self.allocations
    }

    /// PUBLISH packets that the peers were sent so far.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Bytes that the store has written so far.
    pub(crate) fn written(&self) -> u64 {
        self.server.broker().gauges().disk_written
    }

    /// A new link, connected.
    pub(crate) fn connect(&mut self, connect: &Connect) -> LinkId {
        let wires = self.server.net();
        let id = LinkId {
            index: u32::try_from(wires.peers.len()).unwrap(),
            generation: 1,
        };
        wires.peers.push(Peer::default());
        let origin = Origin {
            listener: 0,
            private: false,
        };
        wires.events.push_back(NetEvent::Opened(id, origin));
        self.say(id, &connect.encode());
        id
    }

    /// Sends, and lets the server come to rest.
    pub(crate) fn say(&mut self, link: LinkId, bytes: &[u8]) {
        self.send(link, bytes);
        self.settle();
    }

    /// Sends so many times, and waits between them for what it causes unless the disk is slow. Comes to rest in the end.
    pub(crate) fn play(&mut self, link: LinkId, bytes: &[u8], times: u32) {
        let is_slow = self.server.store().is_slow();
        for _ in 0..times {
            self.send(link, bytes);
            if is_slow {
                (0..SAY_TURNS).for_each(|_| self.turn());
            } else {
                self.settle();
            }
        }
        self.settle();
    }

    pub(crate) fn has_files(&mut self) -> bool {
        matches!(self.server.store(), Disk::Files { .. })
    }

    fn send(&mut self, link: LinkId, bytes: &[u8]) {
        self.server.net().send(link, bytes);
    }

    /// The peer goes away without a word.
    pub(crate) fn lose(&mut self, link: LinkId) {
        let wires = self.server.net();
        wires.peer(link).is_gone = true;
        wires.events.push_back(NetEvent::Readable(link));
        self.settle();
    }

    /// One turn, whose allocations are counted. Then the disk does what it was told, and the peers answer.
    fn turn(&mut self) {
        let (server, clock) = (&mut self.server, &mut self.clock);
        self.allocations += measure(|| server.turn(clock)).count_total;
        self.server.store().work();
        self.delivered += self.server.net().answer();
    }

    /// Turns until nothing is left to do, commits that wait for a while included.
    pub(crate) fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            self.turn();
            let is_idle = self.server.store().is_quiet();
            let wires = self.server.net();
            let sleeps_long = wires
                .timeout
                .is_none_or(|timeout| timeout > SETTLEMENT_WAIT);
            if is_idle && wires.events.is_empty() && sleeps_long {
                return;
            }
        }
        panic!("the server does not come to rest");
    }
}

/// The disk.
enum Disk {
    Memory {
        store: MemoryStore,
        turns_per_commit: u32,
        turns: u32,
    },
    Files {
        store: store::Threads,
        woken: Receiver<()>,
        /// Pages that were asked for.
        reading: u32,
    },
}

impl Disk {
    /// Does what it was told.
    fn work(&mut self) {
        match self {
            Disk::Memory {
                store,
                turns_per_commit,
                turns,
            } => {
                *turns += 1;
                if *turns % *turns_per_commit == 0 {
                    store.step();
                }
                store.step_reads();
            }
            Disk::Files {
                store,
                woken,
                reading,
            } => {
                if *reading > 0 || !store.is_idle() {
                    woken.recv().unwrap();
                }
            }
        }
    }

    /// Whether it has nothing to do, and nothing to tell.
    fn is_quiet(&self) -> bool {
        self.is_idle() && !matches!(self, Disk::Files { reading: 1.., .. })
    }

    fn is_slow(&self) -> bool {
        matches!(self, Disk::Memory { turns_per_commit, .. } if *turns_per_commit > 1)
    }

    fn store(&mut self) -> &mut dyn Store {
        match self {
            Disk::Memory { store, .. } => store,
            Disk::Files { store, .. } => store,
        }
    }
}

impl Store for Disk {
    fn is_idle(&self) -> bool {
        match self {
            Disk::Memory { store, .. } => store.is_idle(),
            Disk::Files { store, .. } => store.is_idle(),
        }
    }

    fn submit(&mut self, batch: Arc<Batch>) {
        self.store().submit(batch);
    }

    fn read(&mut self, request: PageRequest) {
        if let Disk::Files { reading, .. } = self {
            *reading += 1;
        }
        self.store().read(request);
    }

    fn read_retained(&mut self, topic: String) {
        self.store().read_retained(topic);
    }

    fn poll_event(&mut self) -> Option<Event> {
        let event = self.store().poll_event()?;
        if let (Disk::Files { reading, .. }, Event::PageRead { .. }) = (self, &event) {
            *reading -= 1;
        }
        Some(event)
    }
}

/// A network whose peers have all their memory from the start.
struct Wires {
    peers: Vec<Peer>,
    events: VecDeque<NetEvent>,
    timeout: Option<Duration>,
}

struct Peer {
    /// Sent by the peer, and not read yet.
    unread: VecDeque<u8>,
    /// Sent to the peer, and not answered yet.
    received: Vec<u8>,
    is_told: bool,
    is_gone: bool,
}

impl Default for Peer {
    fn default() -> Peer {
        Peer {
            unread: VecDeque::with_capacity(PEER_BYTES),
            received: Vec::with_capacity(PEER_BYTES),
            is_told: false,
            is_gone: false,
        }
    }
}

impl Wires {
    fn peer(&mut self, id: LinkId) -> &mut Peer {
        &mut self.peers[id.index as usize]
    }

    fn send(&mut self, id: LinkId, bytes: &[u8]) {
        let peer = self.peer(id);
        peer.unread.extend(bytes);
        if !std::mem::replace(&mut peer.is_told, true) {
            self.events.push_back(NetEvent::Readable(id));
        }
    }

    /// The peers answer what they were sent. Says how many messages that were.
    fn answer(&mut self) -> u64 {
        let mut messages = 0;
        for index in 0..self.peers.len() {
            let received = std::mem::take(&mut self.peers[index].received);
            let mut answers = Vec::new();
            messages += answers_to(&received, &mut answers);
            let peer = &mut self.peers[index];
            peer.received = received;
            peer.received.clear();
            if !answers.is_empty() && !peer.is_gone {
                let id = LinkId {
                    index: u32::try_from(index).unwrap(),
                    generation: 1,
                };
                self.send(id, &answers);
            }
        }
        messages
    }
}

/// What a client answers to these packets; says how many messages were among them.
fn answers_to(mut bytes: &[u8], answers: &mut Vec<u8>) -> u64 {
    let mut messages = 0;
    while let [first, rest @ ..] = bytes {
        let size = rest.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        let bits = |len, (place, byte): (usize, &u8)| len | usize::from(byte & 0x7F) << (7 * place);
        let len = rest[..size].iter().enumerate().fold(0, bits);
        let body = &rest[size..size + len];
        let mut answer = |first, id: &[u8]| answers.extend([first, 2, id[0], id[1]]);
        match (first >> 4, first >> 1 & 3) {
            (3, qos) => {
                messages += 1;
                let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                match qos {
                    1 => answer(0x40, &body[2 + topic..]),
                    2 => answer(0x50, &body[2 + topic..]),
                    _ => {}
                }
            }
            (5, _) => answer(0x62, body),
            (6, _) => answer(0x70, body),
            _ => {}
        }
        bytes = &rest[size + len..];
    }
    messages
}

impl Net for Wires {
    fn wait(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    fn poll_event(&mut self, _now: Mono) -> Option<NetEvent> {
        self.events.pop_front()
    }

    fn read(&mut self, id: LinkId, into: &mut [u8]) -> Moved {
        let peer = self.peer(id);
        if peer.is_gone {
            return Moved::Gone;
        }
        let len = into.len().min(peer.unread.len());
        for (place, byte) in into.iter_mut().zip(peer.unread.drain(..len)) {
            *place = byte;
        }
        peer.is_told = !peer.unread.is_empty();
        if peer.is_told {
            self.events.push_back(NetEvent::Readable(id));
        }
        match len {
            0 => Moved::Blocked,
            len => Moved::Bytes(len),
        }
    }

    fn rearm(&mut self, id: LinkId) {
        self.events.push_back(NetEvent::Readable(id));
    }

    fn write(&mut self, id: LinkId, bytes: &[u8]) -> Moved {
        self.peer(id).received.extend_from_slice(bytes);
        Moved::Bytes(bytes.len())
    }

    fn close(&mut self, id: LinkId) {
        self.peer(id).is_gone = true;
    }
}
