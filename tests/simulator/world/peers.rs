//! The clients of a world and its bridge: when they wake up, and what they want done.

use super::links::{Piece, Who};
use super::{Event, World};
use crate::bridge::Bridge;
use crate::client::Deed;
use crate::wire::Wire;
use larder_bridge::relay::Side;
use larder_packet::Version;

impl World {
    pub(super) fn wake_client(&mut self, index: usize) {
        let next = self.clients[index].wake(self.now);
        self.do_client(index);
        if self.wakes[index] != next {
            self.wakes[index] = next;
            self.schedule(next, Event::Client(index));
        }
    }

    fn do_client(&mut self, index: usize) {
        let version = self.clients[index].plan.version;
        let at = self.plan.clients[index].0;
        for deed in std::mem::take(&mut self.clients[index].deeds) {
            match deed {
                Deed::Made {
                    id,
                    qos,
                    expires,
                    len,
                } => self.oracle.published(id, qos, expires, len),
                Deed::Told { present } => {
                    let client = &self.clients[index].plan.client_id;
                    self.oracle.told(at, client, present);
                }
                Deed::Delivered { id, qos } => {
                    let client = &self.clients[index].plan.client_id;
                    self.oracle.delivered(at, client, id, qos);
                }
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
                    let mut wire = wire;
                    if let (Wire::Publish(message), Some(connection)) =
                        (&mut wire, self.connections.get_mut(&conn))
                    {
                        connection.aliases.apply(message);
                    }
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
            Deed::Made { .. } | Deed::Told { .. } | Deed::Delivered { .. } | Deed::Object(_) => {}
        }
    }

    fn split(&mut self, mut bytes: Vec<u8>) -> Vec<Vec<u8>> {
        if self.calm || bytes.len() < 2 || !self.random.one_in(6) {
            return vec![bytes];
        }
        let rest = bytes.split_off(self.random.between(1, bytes.len() as u64 - 1) as usize);
        vec![bytes, rest]
    }

    pub(super) fn start_bridge(&mut self) {
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

    pub(super) fn end_bridge(&mut self) {
        self.bridge = None;
        for side in [Side::Local, Side::Cloud] {
            if let Some(conn) = self.bridge_conns[side as usize] {
                self.break_conn(conn);
            }
        }
    }

    pub(super) fn wake_bridge(&mut self) {
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
}
