//! The world: two servers with their disks and clocks, clients, a bridge, the links between them, and what befalls them
//! all. One seed, one life.
//!
//! A life has two parts. In the storm everything goes wrong that [`Plan`] allows; in the calm nothing does any more,
//! and everything has to come to rest.

mod calm;
mod links;
mod peers;
mod servers;
mod storm;

use crate::bridge::Bridge;
use crate::client::Client;
use crate::clock::Millis;
use crate::net::Conn;
use crate::oracle::Oracle;
use crate::plan::Plan;
use crate::random::Random;
use links::Connection;
use servers::Machine;
use std::collections::{BTreeMap, BTreeSet};

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
}
