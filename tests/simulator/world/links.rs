//! The links of a world: bytes under way, and what arrives.

use super::{Event, World};
use crate::clock::Millis;
use crate::net::Conn;
use crate::oracle::{CLOUD, GATEWAY};
use crate::random::Random;
use crate::wire::{Aliases, Decoder, TOPIC_ALIAS_MAXIMUM, Wire};
use larder_bridge::relay::Side;
use larder_packet::Version;
use std::collections::VecDeque;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Client(usize),
    Bridge(Side),
}

pub(super) enum Piece {
    Bytes(Vec<u8>),
    End,
}

/// One direction of a connection: what is under way, and when it arrives.
#[derive(Default)]
pub(super) struct Pipe {
    pub(super) pieces: VecDeque<(Millis, Piece)>,
    pub(super) last: Millis,
    pub(super) stalled_until: Millis,
}

pub(super) struct Connection {
    pub(super) who: Who,
    pub(super) at: usize,
    pub(super) up: Pipe,
    pub(super) down: Pipe,
    pub(super) decoder: Decoder,
    /// What its peer sets.
    pub(super) aliases: Aliases,
    /// The client's end is closed: what arrives for it is for nobody.
    pub(super) abandoned: bool,
    pub(super) latency: Millis,
    pub(super) steady: bool,
}

impl World {
    pub(super) fn connect(&mut self, who: Who, version: Version) {
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
            decoder: Decoder::new(version, TOPIC_ALIAS_MAXIMUM),
            aliases: Aliases::default(),
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
    pub(super) fn abandon(&mut self, conn: Conn) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.abandoned = true;
        }
    }

    pub(super) fn push_up(&mut self, conn: Conn, piece: Piece) {
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

    pub(super) fn push_down(&mut self, conn: Conn, piece: Piece) {
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

    pub(super) fn arrive_up(&mut self, conn: Conn) {
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

    pub(super) fn arrive_down(&mut self, conn: Conn) {
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
            if let Wire::ConnAck {
                topic_alias_maximum,
                ..
            } = wire
            {
                connection.aliases.maximum = topic_alias_maximum;
            }
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

    pub(super) fn present(&self, who: Who) -> Option<Conn> {
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
    pub(super) fn break_conn(&mut self, conn: Conn) {
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

    pub(super) fn hurry(&mut self, now: Millis) {
        (self.stalled_until, self.last) = (0, now);
        for (when, _) in &mut self.pieces {
            *when = (*when).min(now);
        }
    }
}
