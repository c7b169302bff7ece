//! The storm: everything goes wrong that the plan allows.

use super::links::{Piece, Who};
use super::{Event, World};
use crate::net::Conn;
use crate::oracle::NAMES;
use larder_bridge::relay::Side;

impl World {
    pub(super) fn chaos(&mut self) {
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
    pub(super) fn cut(&mut self, conn: Conn) {
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
}
