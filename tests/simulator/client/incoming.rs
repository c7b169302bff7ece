//! What a client has received: what it still has to acknowledge, and how it tells apart what it has had already.

use crate::clock::Millis;
use crate::random::Random;
use crate::wire::{Id, Message, REFUSED, UNKNOWN, Wire};
use larder_packet::{Qos, Version};
use std::collections::{BTreeSet, VecDeque};

const NEVER: Millis = Millis::MAX;

/// When a subscriber acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// In order, at most so many milliseconds after the message.
    Within(Millis),
    /// Not before the calm.
    InTheCalm,
    /// Within so many milliseconds, in any order.
    Unordered(Millis),
}

/// What it is like as a receiver.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    pub acks: Acks,
    /// One acknowledgement in so many is sent twice; 0: none.
    pub twice_in: u64,
    /// One message of QoS 2 in so many is refused (5.0); 0: none.
    pub refuses_in: u64,
}

#[derive(Default)]
pub struct Incoming {
    /// QoS 2: Packet Identifiers that were received and not released. They outlive the link.
    received: BTreeSet<u16>,
    /// When it is to acknowledge, and what. It ends with the link.
    owes: VecDeque<(Millis, Wire)>,
}

impl Incoming {
    /// How much it has to acknowledge.
    pub fn owed(&self) -> usize {
        self.owes.len()
    }

    /// How many Packet Identifiers it holds.
    pub fn held(&self) -> usize {
        self.received.len()
    }

    pub fn next(&self) -> Option<Millis> {
        self.owes.iter().map(|(due, _)| *due).min()
    }

    /// A message has come. Gives it back if it is one for the application.
    pub fn publish(
        &mut self,
        message: &Message,
        manners: Manners,
        version: Version,
        now: Millis,
        random: &mut Random,
    ) -> Option<Id> {
        let id = Id::of(&message.payload)?;
        let pid = message.pid;
        let known = self.received.contains(&pid);
        let (wire, is_new) = match message.qos {
            Qos::AtMostOnce => return Some(id),
            Qos::AtLeastOnce => (Wire::PubAck { pid, reason: 0 }, true),
            Qos::ExactlyOnce if known => (Wire::PubRec { pid, reason: 0 }, false),
            Qos::ExactlyOnce if version == Version::V5 && random.one_in(manners.refuses_in) => {
                let reason = REFUSED;
                (Wire::PubRec { pid, reason }, false)
            }
            Qos::ExactlyOnce => {
                self.received.insert(pid);
                (Wire::PubRec { pid, reason: 0 }, true)
            }
        };
        self.owe(wire, manners, now, random);
        is_new.then_some(id)
    }

    /// A message is released.
    pub fn pubrel(&mut self, pid: u16, manners: Manners, now: Millis, random: &mut Random) {
        let reason = if self.received.remove(&pid) {
            0
        } else {
            UNKNOWN
        };
        self.owe(Wire::PubComp { pid, reason }, manners, now, random);
    }

    fn owe(&mut self, wire: Wire, manners: Manners, now: Millis, random: &mut Random) {
        let due = match manners.acks {
            Acks::Within(most) | Acks::Unordered(most) => now + random.skewed(most),
            Acks::InTheCalm => NEVER,
        };
        self.owes.push_back((due, wire));
    }

    /// The next acknowledgement that is to be sent now.
    pub fn acknowledge(&mut self, acks: Acks, now: Millis) -> Option<Wire> {
        let index = match acks {
            Acks::Unordered(_) => self.owes.iter().position(|(due, _)| *due <= now),
            _ => self
                .owes
                .front()
                .is_some_and(|(due, _)| *due <= now)
                .then_some(0),
        };
        self.owes.remove(index?).map(|(_, wire)| wire)
    }

    /// Everything is to be acknowledged now.
    pub fn hurry(&mut self, now: Millis) {
        for (due, _) in &mut self.owes {
            *due = now;
        }
    }

    pub fn link_ended(&mut self) {
        self.owes.clear();
    }

    /// The session ended.
    pub fn forget(&mut self) {
        self.received.clear();
    }
}
