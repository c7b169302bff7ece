//! The calm: nothing goes wrong any more, and everything has to come to rest.

use super::{Event, World};
use crate::bridge::Bridge;
use crate::clock::Millis;
use crate::disk::Left;
use crate::net::Conn;
use crate::oracle::NAMES;

/// The calm must have brought everything to rest by then.
const CALM_MAX: Millis = 15 * 60_000;
/// How long it then still has to stay like that: settlements are written within a second.
const REST: Millis = 5_000;

impl World {
    pub(super) fn calm_down(&mut self) {
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

    pub(super) fn check_rest(&mut self) {
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
        for ((at, plan), client) in self.plan.clients.iter().zip(&self.clients) {
            let holds = client.holds() && !self.oracle.is_mixed(*at, &plan.client_id);
            if !client.is_content() || holds {
                return Some(client.situation());
            }
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
            let left = Left::of(disk);
            if rows > 0 || !left.is_empty() {
                self.oracle.object(format!(
                    "{}: {rows} rows are left on disk: {left:?}",
                    NAMES[at]
                ));
            }
        }
    }
}
