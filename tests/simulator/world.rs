//! The world: two servers with their disks and clocks, clients, a bridge, the links between them, and what befalls them
//! all. One seed, one life.
//!
//! A life has two parts. In the storm everything goes wrong that [`Plan`] allows; in the calm nothing does any more,
//! and everything has to come to rest.

use crate::bridge::{self, Bridge};
use crate::client::{Client, Deed};
use crate::clock::{Millis, SimClock};
use crate::disk::{Rows, SimStore, extents};
use crate::net::{Conn, SimNet, Tap};
use crate::oracle::{CLOUD, GATEWAY, NAMES, Oracle};
use crate::plan::Plan;
use crate::random::Random;
use crate::wire::{Decoder, Wire};
use larder::broker::{Broker, ConfiguredSession};
use larder::record::SubscriptionRecord;
use larder::server::Server;
use larder::store::Disk;
use larder::time::Clock;
use larder_bridge::relay::Side;
use larder_packet::Version;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Turns at one instant after which a server is said not to come to rest.
const TURNS_MAX: u32 = 2_000;
/// The calm must have brought everything to rest by then.
const CALM_MAX: Millis = 15 * 60_000;
/// How long it then still has to stay like that: settlements are written within a second.
const REST: Millis = 5_000;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Client(usize),
    Bridge(Side),
}

enum Piece {
    Bytes(Vec<u8>),
    End,
}

/// One direction of a connection: what is under way, and when it arrives.
#[derive(Default)]
struct Pipe {
    pieces: VecDeque<(Millis, Piece)>,
    last: Millis,
    stalled_until: Millis,
}

struct Connection {
    who: Who,
    at: usize,
    up: Pipe,
    down: Pipe,
    decoder: Decoder,
    /// The client's end is closed: what arrives for it is for nobody.
    abandoned: bool,
    latency: Millis,
    steady: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Turn(usize),
    Commit(usize),
    Answer(usize),
    Up(Conn),
    Down(Conn),
    Client(usize),
    Bridge,
    Chaos,
    Boot(usize),
    Calm,
    Check,
}

struct Machine {
    server: Option<Server<SimNet, SimStore>>,
    disk: Option<(Disk, Rows)>,
    clock: SimClock,
    random: Random,
    next_turn: Option<Millis>,
    turned_at: Option<Millis>,
    commit_at: Option<Millis>,
    answer_at: Option<Millis>,
    /// Commits do not end before.
    stalled_until: Millis,
    suspended_until: Millis,
    /// So many attempts to commit, or to read, fail.
    commits_fail: u64,
    reads_fail: u64,
    was_switched_off: bool,
}

/// A life.
pub struct World {
    pub plan: Plan,
    pub oracle: Oracle,
    now: Millis,
    random: Random,
    events: BTreeSet<(Millis, u64, Event)>,
    event_number: u64,
    machines: Vec<Machine>,
    clients: Vec<Client>,
    wakes: Vec<Millis>,
    bridge: Option<Bridge>,
    bridge_wake: Millis,
    connections: BTreeMap<Conn, Connection>,
    /// The present connection of each client, and of the bridge's two sides.
    conns: BTreeMap<usize, Conn>,
    bridge_conns: [Option<Conn>; 2],
    last_conn: Conn,
    calm: bool,
    at_rest_since: Option<Millis>,
    /// When a server was last kept from working: nobody can be blamed for silence then.
    disturbed: Millis,
    /// Turns and commits so far.
    pub steps: u64,
    over: bool,
}

impl World {
    pub fn new(plan: Plan, echo: bool) -> World {
        let mut random = Random::new(plan.seed);
        let servers = if plan.bridge { 2 } else { 1 };
        let mut world = World {
            oracle: Oracle::new(echo),
            now: 0,
            events: BTreeSet::new(),
            event_number: 0,
            machines: (0..servers)
                .map(|_| Machine::new(&mut random, plan.wall_trusted))
                .collect(),
            clients: plan
                .clients
                .iter()
                .map(|(_, client)| Client::new(client.clone(), random.fork()))
                .collect(),
            wakes: vec![0; plan.clients.len()],
            bridge: None,
            bridge_wake: 0,
            connections: BTreeMap::new(),
            conns: BTreeMap::new(),
            bridge_conns: [None; 2],
            last_conn: 0,
            calm: false,
            at_rest_since: None,
            disturbed: 0,
            steps: 0,
            over: false,
            random,
            plan,
        };
        for at in 0..servers {
            world.boot(at);
        }
        for index in 0..world.clients.len() {
            world.schedule(0, Event::Client(index));
        }
        if world.plan.chaos_every > 0 {
            world.schedule(world.plan.chaos_every, Event::Chaos);
        }
        world.schedule(world.plan.storm, Event::Calm);
        world
    }

    /// Lives to the end, or to the first objection.
    pub fn run(&mut self) {
        while let Some((at, _, event)) = self.events.pop_first() {
            self.now = at;
            self.oracle.now = at;
            self.happen(event);
            if self.over || self.oracle.verdict.is_some() {
                return;
            }
        }
    }

    fn schedule(&mut self, at: Millis, event: Event) {
        self.event_number += 1;
        self.events.insert((at, self.event_number, event));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Turn(at) => {
                let machine = &mut self.machines[at];
                if machine.next_turn == Some(self.now) {
                    machine.next_turn = None;
                    let until = machine.suspended_until;
                    if until > self.now {
                        self.turn_at(at, until);
                    } else {
                        self.turns(at);
                    }
                }
            }
            Event::Commit(at) => self.commit(at),
            Event::Answer(at) => self.answer(at),
            Event::Up(conn) => self.arrive_up(conn),
            Event::Down(conn) => self.arrive_down(conn),
            Event::Client(index) => {
                if self.wakes[index] <= self.now {
                    self.wake_client(index);
                }
            }
            Event::Bridge => {
                if self.bridge_wake <= self.now {
                    self.wake_bridge();
                }
            }
            Event::Chaos => self.chaos(),
            Event::Boot(at) => self.boot(at),
            Event::Calm => self.calm_down(),
            Event::Check => self.check_rest(),
        }
    }

    // --- Servers ---

    /// Lets a server turn soon.
    fn stir(&mut self, at: usize) {
        let delay = if self.calm { 0 } else { self.random.below(3) };
        let machine = &self.machines[at];
        let when = (self.now + delay).max(machine.suspended_until);
        self.turn_at(at, when);
    }

    fn turn_at(&mut self, at: usize, when: Millis) {
        let machine = &mut self.machines[at];
        if machine.server.is_some() && machine.next_turn.is_none_or(|next| next > when) {
            machine.next_turn = Some(when);
            self.schedule(when, Event::Turn(at));
        }
    }

    /// Turns until the server goes to sleep.
    fn turns(&mut self, at: usize) {
        for _ in 0..TURNS_MAX {
            let now = self.now;
            let machine = &mut self.machines[at];
            let Some(server) = &mut machine.server else {
                return;
            };
            machine.clock.set(now);
            let again = machine.turned_at.replace(now) == Some(now);
            (server.store().told, server.store().acted) = (0, false);
            server.turn(&mut machine.clock);
            let idle = server.net().told + server.store().told == 0;
            let acted = server.net().acted || server.store().acted;
            let asked = server.net().asked;
            self.pass_on(at);
            self.await_store(at);
            if self.step(at) || self.oracle.verdict.is_some() {
                return;
            }
            if again && idle && asked != Some(Duration::ZERO) {
                if acted {
                    self.oracle.object(format!(
                        "{} was about to sleep for {asked:?}, and had something to do",
                        NAMES[at]
                    ));
                }
                if let Some(asked) = asked {
                    let sleep = Millis::try_from(asked.as_millis()).unwrap_or(Millis::MAX);
                    self.turn_at(at, now.saturating_add(sleep));
                }
                return;
            }
        }
        self.oracle.object(format!(
            "{} made {TURNS_MAX} turns at one instant",
            NAMES[at]
        ));
    }

    /// Counts a step; `true` if the plan has a server killed at it.
    fn step(&mut self, at: usize) -> bool {
        self.steps += 1;
        let Some(kill) = self.plan.kills.iter().find(|kill| kill.step == self.steps) else {
            return false;
        };
        let (victim, commits) = (kill.server, kill.commits);
        self.kill(victim, commits, false, 1000);
        victim == at
    }

    /// Takes what passed between the server and its network to the oracle and to the peers.
    fn pass_on(&mut self, at: usize) {
        let Some(server) = &mut self.machines[at].server else {
            return;
        };
        for tap in std::mem::take(&mut server.net().taps) {
            match tap {
                Tap::Opened(conn) => self.oracle.opened(at, conn),
                Tap::Read(conn, bytes) => self.oracle.read(at, conn, &bytes),
                Tap::Wrote(conn, bytes) => {
                    self.oracle.wrote(at, conn, &bytes);
                    self.push_down(conn, Piece::Bytes(bytes));
                }
                Tap::Closed(conn) => {
                    self.oracle.closed(at, conn);
                    self.push_down(conn, Piece::End);
                }
            }
        }
    }

    /// Sees to it that what was asked of the disk will be done.
    fn await_store(&mut self, at: usize) {
        let now = self.now;
        let (commit_max, read_max, calm) = (self.plan.commit_max, self.plan.read_max, self.calm);
        let machine = &mut self.machines[at];
        let Some(server) = &mut machine.server else {
            return;
        };
        if server.store().is_committing() && machine.commit_at.is_none() {
            let takes = 1 + machine.random.skewed(if calm { 20 } else { commit_max });
            let when = (now + takes).max(machine.stalled_until);
            machine.commit_at = Some(when);
            self.schedule(when, Event::Commit(at));
        }
        let machine = &mut self.machines[at];
        let Some(server) = &mut machine.server else {
            return;
        };
        if server.store().is_asked() && machine.answer_at.is_none() {
            let when = now + machine.random.skewed(if calm { 5 } else { read_max });
            machine.answer_at = Some(when);
            self.schedule(when, Event::Answer(at));
        }
    }

    fn commit(&mut self, at: usize) {
        let now = self.now;
        let machine = &mut self.machines[at];
        let Some(server) = machine
            .server
            .as_mut()
            .filter(|_| machine.commit_at == Some(now))
        else {
            return;
        };
        if machine.stalled_until > now {
            machine.commit_at = Some(machine.stalled_until);
            let when = machine.stalled_until;
            return self.schedule(when, Event::Commit(at));
        }
        machine.commit_at = None;
        if machine.commits_fail > 0 {
            machine.commits_fail -= 1;
            server.store().fail();
            self.oracle.note(&format!("{} fails to commit", NAMES[at]));
        } else {
            let committed = server.store().commit();
            self.oracle.committed(at, &committed);
        }
        self.await_store(at);
        if !self.step(at) {
            self.stir(at);
        }
    }

    fn answer(&mut self, at: usize) {
        let now = self.now;
        let machine = &mut self.machines[at];
        let Some(server) = machine
            .server
            .as_mut()
            .filter(|_| machine.answer_at == Some(now))
        else {
            return;
        };
        machine.answer_at = None;
        let fails = machine.reads_fail > 0;
        machine.reads_fail = machine.reads_fail.saturating_sub(1);
        server.store().answer(fails);
        self.await_store(at);
        self.stir(at);
    }

    /// A server is killed. `commits`: what it had given to the disk still becomes durable. `power`: the machine is
    /// switched off with it.
    fn kill(&mut self, at: usize, commits: bool, power: bool, down: Millis) {
        let Some(server) = self.machines[at].server.take() else {
            return;
        };
        self.disturbed = self.disturbed.max(self.now + down);
        let counted = server.broker().counters().drops.queue_full;
        let (net, mut store) = server.into_parts();
        if counted != store.dropped_told {
            let told = store.dropped_told;
            self.oracle.object(format!(
                "{}: {told} messages were dropped, {counted} were counted",
                NAMES[at]
            ));
        }
        if commits && store.is_committing() {
            let committed = store.commit();
            self.oracle.committed(at, &committed);
        }
        for conn in net.conns() {
            if let Some(connection) = self.connections.get_mut(&conn) {
                if power || self.random.one_in(2) {
                    connection.down.pieces.clear();
                }
                connection.up.pieces.clear();
                self.push_down(conn, Piece::End);
            }
        }
        self.oracle.crashed(at, store.rows());
        let machine = &mut self.machines[at];
        machine.disk = Some(store.crash());
        (machine.next_turn, machine.turned_at) = (None, None);
        (machine.commit_at, machine.answer_at) = (None, None);
        machine.was_switched_off |= power;
        if at == GATEWAY && self.plan.bridge {
            self.end_bridge();
        }
        self.schedule(self.now + down, Event::Boot(at));
    }

    fn boot(&mut self, at: usize) {
        let now = self.now;
        let machine = &mut self.machines[at];
        if machine.server.is_some() {
            return;
        }
        let (disk, rows) = machine.disk.take().unwrap_or_default();
        let (store, recovered) = SimStore::recover(disk, rows);
        let booted = if std::mem::take(&mut machine.was_switched_off) {
            now - machine.random.below(now.min(10_000))
        } else {
            machine.clock.booted()
        };
        let (error, trusted) = (machine.clock.wall_error, machine.clock.wall_trusted);
        machine.clock = SimClock::new(now, booted, trusted);
        machine.clock.wall_error = error;
        machine.clock.recover(recovered.service, recovered.wall);
        let start = machine.clock.now();
        let limits = self.plan.limits[at].clone();
        let links = limits.links as usize;
        let park_max = limits.park_max.as_millis() as Millis;
        let mut broker = Broker::new(limits, machine.random.next(), start);
        broker.recover(&recovered, start);
        if at == GATEWAY && self.plan.bridge {
            let record = SubscriptionRecord {
                qos: 1,
                no_local: true,
                ..SubscriptionRecord::default()
            };
            let session = ConfiguredSession {
                client_id: bridge::LOCAL_ID.to_owned(),
                subscriptions: vec![(bridge::FORWARD.to_owned(), record)],
                disk_max: self.plan.bridge_disk_max,
                window: self.plan.bridge_window,
                window_bytes: u64::MAX,
            };
            broker.configure(&[session], start);
        }
        let mut net = SimNet::new(links, machine.random.fork());
        if self.calm {
            net.calm();
        }
        machine.server = Some(Server::new(net, store, broker, start));
        self.oracle.started(at, park_max);
        if at == GATEWAY && self.plan.bridge {
            self.oracle.configured(
                bridge::LOCAL_ID,
                bridge::CLOUD_ID,
                &[bridge::FORWARD.to_owned()],
            );
            self.start_bridge();
        }
        self.disturbed = self.disturbed.max(now);
        self.turn_at(at, now);
    }

    // --- Links ---

    fn connect(&mut self, who: Who, version: Version) {
        self.last_conn += 1;
        let conn = self.last_conn;
        let (at, steady) = match who {
            Who::Client(index) => {
                let (at, plan) = &self.plan.clients[index];
                (*at, plan.probe)
            }
            Who::Bridge(Side::Local) => (GATEWAY, false),
            Who::Bridge(Side::Cloud) => (CLOUD, false),
        };
        let latency = if steady || self.calm {
            1
        } else {
            self.random.skewed(self.plan.latency_max)
        };
        let room = if steady {
            1 << 20
        } else {
            self.random.between(64, 65_536) as usize
        };
        match who {
            Who::Client(index) => {
                if let Some(old) = self.conns.insert(index, conn) {
                    self.abandon(old);
                }
            }
            Who::Bridge(side) => {
                if let Some(old) = self.bridge_conns[side as usize].replace(conn) {
                    self.abandon(old);
                }
            }
        }
        let mut connection = Connection {
            who,
            at,
            up: Pipe::default(),
            down: Pipe::default(),
            decoder: Decoder::new(version),
            abandoned: false,
            latency,
            steady,
        };
        let private = who == Who::Bridge(Side::Local);
        let refused = self.plan.cloud_away_until > self.now && who == Who::Bridge(Side::Cloud);
        match &mut self.machines[at].server {
            Some(server) if !refused => {
                server.net().connect(conn, private, room);
                self.connections.insert(conn, connection);
                self.stir(at);
            }
            _ => {
                connection.latency = 10;
                self.connections.insert(conn, connection);
                self.push_down(conn, Piece::End);
            }
        }
    }

    /// The peer forgets a connection that may still be open: what it has sent still arrives.
    fn abandon(&mut self, conn: Conn) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.abandoned = true;
        }
    }

    fn push_up(&mut self, conn: Conn, piece: Piece) {
        let calm = self.calm;
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        let when = connection.up.arrival(
            self.now,
            connection.latency,
            connection.steady || calm,
            &mut self.random,
        );
        connection.up.pieces.push_back((when, piece));
        self.schedule(when, Event::Up(conn));
    }

    fn push_down(&mut self, conn: Conn, piece: Piece) {
        let calm = self.calm;
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        let when = connection.down.arrival(
            self.now,
            connection.latency,
            connection.steady || calm,
            &mut self.random,
        );
        connection.down.pieces.push_back((when, piece));
        self.schedule(when, Event::Down(conn));
    }

    fn arrive_up(&mut self, conn: Conn) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        let at = connection.at;
        let mut stirs = false;
        while let Some(piece) = connection.up.pop(self.now) {
            let Some(server) = &mut self.machines[at].server else {
                break;
            };
            // Not accepted yet: it waits where it is.
            if !server.net().is_accepted(conn) {
                if server.net().has(conn) {
                    connection.up.pieces.push_front((self.now + 1, piece));
                    self.schedule(self.now + 1, Event::Up(conn));
                }
                break;
            }
            stirs = true;
            match piece {
                Piece::Bytes(bytes) => {
                    server.net().arrive(conn, &bytes);
                }
                Piece::End => server.net().finish(conn),
            }
        }
        if stirs {
            self.stir(at);
        }
    }

    fn arrive_down(&mut self, conn: Conn) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        let (at, who, abandoned) = (connection.at, connection.who, connection.abandoned);
        let mut arrived = 0;
        let mut ended = false;
        while let Some(piece) = connection.down.pop(now) {
            match piece {
                Piece::Bytes(bytes) => {
                    arrived += bytes.len();
                    connection.decoder.feed(&bytes);
                }
                Piece::End => ended = true,
            }
        }
        let mut wires = Vec::new();
        while let Some(Ok(wire)) = connection.decoder.next() {
            wires.push(wire);
        }
        if arrived > 0 {
            if let Some(server) = &mut self.machines[at].server {
                if server.net().has(conn) {
                    server.net().make_room(conn, arrived);
                    self.stir(at);
                }
            }
        }
        if !abandoned {
            for wire in wires {
                // What a packet leads to may have been to leave.
                if self.present(who) == Some(conn) {
                    self.give(who, wire);
                }
            }
        }
        if ended {
            let was_present = self.present(who) == Some(conn) && !abandoned;
            self.forget(conn);
            if was_present {
                match who {
                    Who::Client(index) => {
                        self.clients[index].lost(now);
                        self.wake_client(index);
                    }
                    Who::Bridge(side) => {
                        // A broken link looks like one that the peer closed more often than not.
                        let blamed = !self.calm && self.random.one_in(4);
                        if let Some(bridge) = &mut self.bridge {
                            bridge.lost(side, blamed, now);
                        }
                        self.wake_bridge();
                    }
                }
            }
        }
    }

    fn present(&self, who: Who) -> Option<Conn> {
        match who {
            Who::Client(index) => self.conns.get(&index).copied(),
            Who::Bridge(side) => self.bridge_conns[side as usize],
        }
    }

    fn forget(&mut self, conn: Conn) {
        let Some(connection) = self.connections.remove(&conn) else {
            return;
        };
        if self.present(connection.who) == Some(conn) {
            match connection.who {
                Who::Client(index) => {
                    self.conns.remove(&index);
                }
                Who::Bridge(side) => self.bridge_conns[side as usize] = None,
            }
        }
    }

    /// A link breaks: at this moment for the peer, sooner or later for the server.
    fn break_conn(&mut self, conn: Conn) {
        let Some(connection) = self.connections.get(&conn) else {
            return;
        };
        let at = connection.at;
        // Silence is all that a server hears of some.
        let silent = !self.calm && !connection.steady && self.random.one_in(4);
        self.forget(conn);
        let reads = self.random.one_in(2);
        if let Some(server) = &mut self.machines[at].server {
            if !silent {
                server.net().break_link(conn, reads);
                self.stir(at);
            }
        }
    }

    fn give(&mut self, who: Who, wire: Wire) {
        match who {
            Who::Client(index) => {
                self.clients[index].receive(wire, self.now);
                self.wake_client(index);
            }
            Who::Bridge(side) => {
                if let Some(bridge) = &mut self.bridge {
                    bridge.receive(side, wire, self.now);
                }
                self.wake_bridge();
            }
        }
    }

    // --- Clients and the bridge ---

    fn wake_client(&mut self, index: usize) {
        let next = self.clients[index].wake(self.now);
        self.do_client(index);
        if self.wakes[index] != next {
            self.wakes[index] = next;
            self.schedule(next, Event::Client(index));
        }
    }

    fn do_client(&mut self, index: usize) {
        let version = self.clients[index].plan.version;
        for deed in std::mem::take(&mut self.clients[index].deeds) {
            match deed {
                Deed::Made {
                    id,
                    qos,
                    expires,
                    len,
                } => self.oracle.published(id, qos, expires, len),
                Deed::Object(text) => {
                    if self.disturbed + 1000 < self.now && self.plan.strict_probe {
                        self.oracle.object(text);
                    }
                }
                deed => self.do_link(Who::Client(index), version, deed),
            }
        }
    }

    fn do_link(&mut self, who: Who, version: Version, deed: Deed) {
        match deed {
            Deed::Connect => self.connect(who, version),
            Deed::Send(wire) => {
                if let Some(conn) = self.present(who) {
                    for bytes in self.split(wire.encode(version)) {
                        self.push_up(conn, Piece::Bytes(bytes));
                    }
                }
            }
            Deed::Close => {
                if let Some(conn) = self.present(who) {
                    self.push_up(conn, Piece::End);
                    self.abandon(conn);
                    match who {
                        Who::Client(index) => {
                            self.conns.remove(&index);
                        }
                        Who::Bridge(side) => self.bridge_conns[side as usize] = None,
                    }
                }
            }
            Deed::Cut => {
                if let Some(conn) = self.present(who) {
                    self.break_conn(conn);
                }
            }
            Deed::Made { .. } | Deed::Object(_) => {}
        }
    }

    fn split(&mut self, mut bytes: Vec<u8>) -> Vec<Vec<u8>> {
        if self.calm || bytes.len() < 2 || !self.random.one_in(6) {
            return vec![bytes];
        }
        let rest = bytes.split_off(self.random.between(1, bytes.len() as u64 - 1) as usize);
        vec![bytes, rest]
    }

    fn start_bridge(&mut self) {
        let seed = self.random.next();
        self.bridge = Some(Bridge::new(
            self.plan.cloud_version,
            self.plan.bridge_window,
            seed,
            self.now,
        ));
        self.bridge_wake = self.now;
        self.schedule(self.now, Event::Bridge);
    }

    fn end_bridge(&mut self) {
        self.bridge = None;
        for side in [Side::Local, Side::Cloud] {
            if let Some(conn) = self.bridge_conns[side as usize] {
                self.break_conn(conn);
            }
        }
    }

    fn wake_bridge(&mut self) {
        let Some(bridge) = &mut self.bridge else {
            return;
        };
        let next = bridge.wake(self.now);
        self.do_bridge();
        if self.bridge_wake != next {
            self.bridge_wake = next;
            self.schedule(next, Event::Bridge);
        }
    }

    fn do_bridge(&mut self) {
        let Some(bridge) = &mut self.bridge else {
            return;
        };
        self.oracle.set_aside += std::mem::take(&mut bridge.set_aside);
        for (side, deed) in std::mem::take(&mut bridge.deeds) {
            let version = match side {
                Side::Local => Version::V5,
                Side::Cloud => self.plan.cloud_version,
            };
            self.do_link(Who::Bridge(side), version, deed);
        }
    }

    // --- The storm ---

    fn chaos(&mut self) {
        if self.calm {
            return;
        }
        let pause = 1 + self.random.below(2 * self.plan.chaos_every);
        self.schedule(self.now + pause, Event::Chaos);
        let at = self.random.below(self.machines.len() as u64) as usize;
        match self.random.below(16) {
            0..4 => self.cut_something(),
            4..7 => self.stall_something(),
            7 | 8 => {
                if self.random.one_in(self.plan.crash_one_in) {
                    let (commits, power) = (self.random.one_in(2), self.random.one_in(3));
                    let down = 1 + self.random.skewed(30_000);
                    self.kill(at, commits, power, down);
                }
            }
            9 | 10 => {
                let until = self.now + self.random.skewed(self.plan.stall_max);
                self.machines[at].stalled_until = until;
                self.oracle.note(&format!(
                    "the disk of the {} stalls until {until}",
                    NAMES[at]
                ));
            }
            11 => self.machines[at].commits_fail = self.random.skewed(self.plan.failures_max),
            12 => self.machines[at].reads_fail = self.random.skewed(self.plan.failures_max),
            13 => self.jump_wall(at),
            14 => {
                if self.plan.suspends {
                    let until = self.now + self.random.skewed(20_000);
                    self.machines[at].suspended_until = until;
                    self.disturbed = self.disturbed.max(until);
                    self.oracle
                        .note(&format!("the {} is suspended until {until}", NAMES[at]));
                }
            }
            _ => {
                if self.plan.bridge {
                    self.plan.cloud_away_until = self.now + self.random.skewed(self.plan.stall_max);
                    if let Some(conn) = self.bridge_conns[Side::Cloud as usize] {
                        self.cut(conn);
                    }
                }
            }
        }
    }

    /// Decades off, and back.
    fn jump_wall(&mut self, at: usize) {
        let clock = &mut self.machines[at].clock;
        if !clock.wall_trusted {
            let ten_years = 10 * 365 * 86_400;
            clock.wall_error = *self
                .random
                .pick(&[0, ten_years, -ten_years, -1_700_000_000]);
            let error = clock.wall_error;
            self.oracle.note(&format!(
                "the wall clock of the {} is {error} s off",
                NAMES[at]
            ));
        }
    }

    fn any_conn(&mut self) -> Option<Conn> {
        let conns: Vec<Conn> = self
            .connections
            .iter()
            .filter(|(_, connection)| !connection.steady && !connection.abandoned)
            .map(|(conn, _)| *conn)
            .collect();
        (!conns.is_empty()).then(|| *self.random.pick(&conns))
    }

    fn cut_something(&mut self) {
        if let Some(conn) = self.any_conn() {
            self.cut(conn);
        }
    }

    /// Cuts a link at some byte of what is under way; the peer hears of it.
    fn cut(&mut self, conn: Conn) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        let (at, who) = (connection.at, connection.who);
        let mut cut_off = Vec::new();
        if let Some((_, Piece::Bytes(bytes))) = connection.up.pieces.front() {
            cut_off = bytes[..self.random.below(bytes.len() as u64 + 1) as usize].to_vec();
        }
        if let Some(server) = &mut self.machines[at].server {
            server.net().arrive(conn, &cut_off);
        }
        self.oracle.note(&format!("link /{conn} is cut"));
        let was_present = self.present(who) == Some(conn);
        self.break_conn(conn);
        if was_present {
            match who {
                Who::Client(index) => {
                    self.clients[index].lost(self.now);
                    self.wake_client(index);
                }
                Who::Bridge(side) => {
                    let blamed = self.random.one_in(4);
                    if let Some(bridge) = &mut self.bridge {
                        bridge.lost(side, blamed, self.now);
                    }
                    self.wake_bridge();
                }
            }
        }
    }

    fn stall_something(&mut self) {
        let until = self.now + self.random.skewed(self.plan.stall_max);
        let upwards = self.random.one_in(2);
        if let Some(conn) = self.any_conn() {
            if let Some(connection) = self.connections.get_mut(&conn) {
                let pipe = if upwards {
                    &mut connection.up
                } else {
                    &mut connection.down
                };
                pipe.stalled_until = until;
                self.oracle
                    .note(&format!("link /{conn} stalls until {until}"));
            }
        }
    }

    // --- The calm ---

    fn calm_down(&mut self) {
        let now = self.now;
        self.calm = true;
        self.oracle.note("--- calm ---");
        self.plan.cloud_away_until = 0;
        for at in 0..self.machines.len() {
            let known: Vec<Conn> = self.connections.keys().copied().collect();
            let machine = &mut self.machines[at];
            (machine.stalled_until, machine.suspended_until) = (0, 0);
            (machine.commits_fail, machine.reads_fail) = (0, 0);
            if let Some(server) = &mut machine.server {
                server.net().calm();
                // What went silent is heard of now.
                for conn in server.net().conns() {
                    if !known.contains(&conn) {
                        server.net().break_link(conn, false);
                    }
                }
                if machine.commit_at.is_some() {
                    machine.commit_at = Some(now);
                    self.schedule(now, Event::Commit(at));
                }
                self.machines[at].next_turn = None;
                self.stir(at);
            } else {
                self.schedule(now, Event::Boot(at));
            }
        }
        let conns: Vec<Conn> = self.connections.keys().copied().collect();
        for conn in conns {
            if let Some(connection) = self.connections.get_mut(&conn) {
                connection.latency = 1;
                connection.up.hurry(now);
                connection.down.hurry(now);
                self.schedule(now, Event::Up(conn));
                self.schedule(now, Event::Down(conn));
            }
        }
        for index in 0..self.clients.len() {
            self.clients[index].calm(now);
            self.wakes[index] = now;
            self.schedule(now, Event::Client(index));
        }
        if let Some(bridge) = &mut self.bridge {
            bridge.calm(now);
            self.bridge_wake = now;
            self.schedule(now, Event::Bridge);
        }
        self.schedule(now + 500, Event::Check);
    }

    fn check_rest(&mut self) {
        let unrest = self.unrest();
        if unrest.is_none() && self.at_rest_since.is_none() {
            self.at_rest_since = Some(self.now);
        }
        match (self.at_rest_since, unrest) {
            (Some(since), None) if since + REST <= self.now => return self.end(),
            (_, Some(unrest)) if self.now > self.plan.storm + CALM_MAX => {
                self.oracle.finish();
                return self
                    .oracle
                    .object(format!("does not come to rest: {unrest}"));
            }
            (_, Some(_)) => self.at_rest_since = None,
            _ => {}
        }
        self.schedule(self.now + 500, Event::Check);
    }

    /// What is not at rest.
    fn unrest(&mut self) -> Option<String> {
        if let Some(client) = self.clients.iter().find(|client| !client.is_content()) {
            return Some(client.situation());
        }
        for at in 0..self.machines.len() {
            let Some(server) = &self.machines[at].server else {
                return Some(format!("the {} is down", NAMES[at]));
            };
            let gauges = server.broker().gauges();
            let idle = gauges.queued_messages == 0
                && gauges.queued_bytes == 0
                && gauges.buffers_lent == 0
                && self.oracle.owes_nothing(at);
            if !idle {
                let bridge = self.bridge.as_ref().map(Bridge::situation);
                return Some(format!(
                    "{}: {gauges:?}; {}",
                    NAMES[at],
                    bridge.unwrap_or_default()
                ));
            }
        }
        None
    }

    fn end(&mut self) {
        self.over = true;
        self.oracle.finish();
        for at in 0..self.machines.len() {
            let Some(server) = &mut self.machines[at].server else {
                continue;
            };
            let counted = server.broker().counters().drops.queue_full;
            if counted != server.store().dropped_told {
                let told = server.store().dropped_told;
                self.oracle.object(format!(
                    "{}: {told} messages were dropped, {counted} were counted",
                    NAMES[at]
                ));
            }
        }
        for at in 0..self.machines.len() {
            let Some(server) = self.machines[at].server.take() else {
                continue;
            };
            let (_, store) = server.into_parts();
            let rows = store.rows().len();
            let (disk, _) = store.crash();
            let left = extents(disk);
            if rows > 0 || !left.is_empty() {
                self.oracle.object(format!(
                    "{}: {rows} rows are left on disk: {left:?}",
                    NAMES[at]
                ));
            }
        }
    }
}

impl Machine {
    fn new(random: &mut Random, wall_trusted: bool) -> Machine {
        Machine {
            server: None,
            disk: None,
            clock: SimClock::new(0, 0, wall_trusted),
            random: random.fork(),
            next_turn: None,
            turned_at: None,
            commit_at: None,
            answer_at: None,
            stalled_until: 0,
            suspended_until: 0,
            commits_fail: 0,
            reads_fail: 0,
            was_switched_off: false,
        }
    }
}

impl Pipe {
    /// When something arrives that is sent now.
    fn arrival(
        &mut self,
        now: Millis,
        latency: Millis,
        steady: bool,
        random: &mut Random,
    ) -> Millis {
        let jitter = if steady { 0 } else { random.skewed(latency) };
        let when = (now + latency + jitter)
            .max(self.last)
            .max(self.stalled_until);
        self.last = when;
        when
    }

    /// The next piece that has arrived by now.
    fn pop(&mut self, now: Millis) -> Option<Piece> {
        let due = self.pieces.front().is_some_and(|(when, _)| *when <= now);
        due.then(|| self.pieces.pop_front().map(|(_, piece)| piece))?
    }

    fn hurry(&mut self, now: Millis) {
        (self.stalled_until, self.last) = (0, now);
        for (when, _) in &mut self.pieces {
            *when = (*when).min(now);
        }
    }
}
