//! What a client has published and is not done with. It outlives the link, and ends with the session.

use crate::random::Random;
use crate::wire::{Message, UNKNOWN, Wire};
use larder_packet::Qos;
use std::collections::VecDeque;

#[derive(Default)]
pub struct Outgoing {
    /// Without PUBACK or PUBREC, in the order of their first PUBLISH.
    unacknowledged: VecDeque<Message>,
    /// QoS 2: Packet Identifiers with a PUBREC and without a PUBCOMP, in the order of their PUBRECs.
    releasing: VecDeque<u16>,
}

impl Outgoing {
    /// Messages that count against the server's Receive Maximum.
    pub fn len(&self) -> usize {
        self.unacknowledged.len() + self.releasing.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a Packet Identifier is in use.
    pub fn has(&self, pid: u16) -> bool {
        self.unacknowledged.iter().any(|message| message.pid == pid)
            || self.releasing.contains(&pid)
    }

    pub fn published(&mut self, message: Message) {
        self.unacknowledged.push_back(message);
    }

    pub fn puback(&mut self, pid: u16) {
        // A refusal is final as well: sending it again is the application's to decide.
        self.unacknowledged
            .retain(|message| (message.pid, message.qos) != (pid, Qos::AtLeastOnce));
    }

    /// What a PUBREC is answered with.
    pub fn pubrec(&mut self, pid: u16, reason: u8) -> Option<Wire> {
        let known = self
            .unacknowledged
            .iter()
            .position(|message| (message.pid, message.qos) == (pid, Qos::ExactlyOnce));
        if let Some(index) = known {
            self.unacknowledged.remove(index);
            if reason >= 0x80 {
                return None;
            }
            self.releasing.push_back(pid);
        }
        let reason = if self.releasing.contains(&pid) {
            0
        } else {
            UNKNOWN
        };
        Some(Wire::PubRel { pid, reason })
    }

    pub fn pubcomp(&mut self, pid: u16) {
        self.releasing.retain(|releasing| *releasing != pid);
    }

    /// What is sent on a new link [MQTT-4.4.0-1].
    pub fn resend(&self) -> Vec<Wire> {
        let releases = self.releasing.iter().map(|pid| Wire::PubRel {
            pid: *pid,
            reason: 0,
        });
        releases
            .chain(self.unacknowledged.iter().map(again))
            .collect()
    }

    /// One of QoS 2 is sent again on the same link, as clients of 3.1.1 may do when an answer is late.
    pub fn retry(&self, random: &mut Random) -> Option<Wire> {
        let exactly_once = |message: &&Message| message.qos == Qos::ExactlyOnce;
        let publish = self.unacknowledged.iter().find(exactly_once).map(again);
        let release = self.releasing.front().map(|pid| Wire::PubRel {
            pid: *pid,
            reason: 0,
        });
        if random.one_in(2) {
            publish.or(release)
        } else {
            release.or(publish)
        }
    }

    /// The session ended. Messages of QoS 1 go on to the next one, as most clients have it; of those of QoS 2 nobody can say
    /// whether they were taken.
    pub fn forget(&mut self) {
        self.releasing.clear();
        self.unacknowledged
            .retain(|message| message.qos == Qos::AtLeastOnce);
    }
}

fn again(message: &Message) -> Wire {
    Wire::Publish(Message {
        dup: true,
        ..message.clone()
    })
}
