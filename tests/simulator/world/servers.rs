//! The servers of a world: their machines, turns, commits, crashes and starts.

use super::links::Piece;
use super::{Event, World};
use crate::bridge;
use crate::clock::{Millis, SimClock};
use crate::disk::{Rows, SimStore};
use crate::net::{SimNet, Tap};
use crate::oracle::{GATEWAY, NAMES};
use crate::plan::What;
use crate::random::Random;
use larder::broker::{Broker, ConfiguredSession, Order};
use larder::record::SubscriptionRecord;
use larder::server::Server;
use larder::store::Disk;
use larder::time::Clock;
use std::time::Duration;

/// Turns at one instant after which a server is said not to come to rest.
const TURNS_MAX: u32 = 2_000;

pub(super) struct Machine {
    pub(super) server: Option<Server<SimNet, SimStore>>,
    pub(super) disk: Option<(Disk, Rows)>,
    pub(super) clock: SimClock,
    pub(super) random: Random,
    pub(super) next_turn: Option<Millis>,
    pub(super) turned_at: Option<Millis>,
    pub(super) commit_at: Option<Millis>,
    pub(super) answer_at: Option<Millis>,
    /// Commits do not end before.
    pub(super) stalled_until: Millis,
    pub(super) suspended_until: Millis,
    /// So many attempts to commit, or to read, fail.
    pub(super) commits_fail: u64,
    pub(super) reads_fail: u64,
    pub(super) was_switched_off: bool,
}

impl World {
    /// Lets a server turn soon.
    pub(super) fn stir(&mut self, at: usize) {
        let delay = if self.calm { 0 } else { self.random.below(3) };
        let machine = &self.machines[at];
        let when = (self.now + delay).max(machine.suspended_until);
        self.turn_at(at, when);
    }

    pub(super) fn turn_at(&mut self, at: usize, when: Millis) {
        let machine = &mut self.machines[at];
        if machine.server.is_some() && machine.next_turn.is_none_or(|next| next > when) {
            machine.next_turn = Some(when);
            self.schedule(when, Event::Turn(at));
        }
    }

    /// Turns until the server goes to sleep.
    pub(super) fn turns(&mut self, at: usize) {
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

    /// Counts a step, at which the plan may strike; `true` if this server is killed.
    fn step(&mut self, at: usize) -> bool {
        self.steps += 1;
        let blow = self.plan.blows.iter().find(|blow| blow.step == self.steps);
        match blow.map(|blow| blow.what) {
            Some(What::Kill { server, commits }) => {
                self.kill(server, commits, false, 1000);
                server == at
            }
            Some(What::Cut { client }) => {
                if let Some(conn) = self.conns.get(&client) {
                    self.cut(*conn);
                }
                false
            }
            None => false,
        }
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

    pub(super) fn commit(&mut self, at: usize) {
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

    pub(super) fn answer(&mut self, at: usize) {
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
    pub(super) fn kill(&mut self, at: usize, commits: bool, power: bool, down: Millis) {
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

    pub(super) fn boot(&mut self, at: usize) {
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
        broker.set_policies(&self.plan.rules(at));
        self.oracle.classes = self.plan.classes;
        self.oracle.keeps_latest = self.plan.keeps_latest;
        self.oracle.reorders = self.plan.orders != [Order::Fifo; 2];
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
}

impl Machine {
    pub(super) fn new(random: &mut Random, wall_trusted: bool) -> Machine {
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
