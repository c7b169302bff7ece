//! Exactly once [MQTT 4.3.3]: PUBREC, PUBREL and PUBCOMP in both directions.
//!
//! From a publisher: its message is taken with the first PUBLISH, and its Packet Identifier *held* from then on, so that
//! the same PUBLISH, sent again, is not taken again; PUBREL ends that. To a subscriber: the message is sent when its row
//! is on disk, so that it has one number for good; PUBREC turns what is owed from the message into its PUBREL, and PUBCOMP
//! settles it. Each answer rests on the record of what it answers.

use super::Broker;
use super::acks::AckOf;
use super::journal::RestsOn;
use super::rare::Empty;
use super::receive::Flow;
use super::window::Receipt;
use crate::net::LinkId;
use crate::record::Change;
use crate::time::Now;
use larder_packet::{Ack, PacketId, ReasonCode};

/// The Packet Identifiers that a client has used for messages of QoS 2 and not released, ascending.
#[derive(Default, PartialEq)]
pub(super) struct Held(Vec<PacketId>);

impl Empty for Held {
    const EMPTY: &'static Held = &Held(Vec::new());
}

impl Held {
    /// Those that recovery found, ascending.
    pub(super) fn recovered(ids: &[PacketId]) -> Held {
        Held(ids.to_vec())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn contains(&self, id: PacketId) -> bool {
        self.0.binary_search(&id).is_ok()
    }

    /// Holds one that is not held.
    fn hold(&mut self, id: PacketId) {
        // Clients count upwards: mostly this is the end.
        if let Err(index) = self.0.binary_search(&id) {
            self.0.insert(index, id);
        }
    }

    /// Releases one; `false` if it was not held.
    fn release(&mut self, id: PacketId) -> bool {
        let Ok(index) = self.0.binary_search(&id) else {
            return false;
        };
        self.0.remove(index);
        true
    }
}

impl Broker {
    /// Holds the Packet Identifier of a message that is being taken. For a stored session that is recorded, and `true`.
    pub(super) fn hold(&mut self, place: u32, packet_id: PacketId, now: Now) -> bool {
        let Some(session) = self.sessions.get_mut(place) else {
            return false;
        };
        session.held.hold(packet_id);
        self.held += 1;
        let Some(session_key) = session.key() else {
            return false;
        };
        let change = Change::Hold {
            session: session_key,
            packet_id,
        };
        session.held_ticket = self.journal.record(change, true, now);
        true
    }

    /// Whether a session may hold one more: as many as its client may have under way always, and beyond that as far as
    /// there is room for all.
    pub(super) fn may_hold(&self, place: u32) -> bool {
        self.held < self.limits.held_max
            || self.sessions.get(place).is_some_and(|session| {
                session.held.len() < usize::from(self.limits.receive_maximum)
            })
    }

    /// The client releases a message of its own; the PUBCOMP rests on the record of that.
    pub(super) fn handle_pubrel(&mut self, id: LinkId, place: u32, ack: &Ack, now: Now) -> Flow {
        let Some(session) = self.sessions.get_mut(place) else {
            return Flow::HangUp;
        };
        // One that is not held was released before, on a link whose PUBCOMP was lost: that is no error of the client's, and
        // there are clients that take 0x92 for one. What is answered rests on the record of that release.
        if session.held.contains(ack.packet_id) && session.held.release(ack.packet_id) {
            self.held -= 1;
            if let Some(session_key) = session.key() {
                let change = Change::Release {
                    session: session_key,
                    packet_id: ack.packet_id,
                };
                session.held_ticket = self.journal.record(change, true, now);
            }
        }
        let rests_on = RestsOn::Ticket(session.held_ticket);
        let reason = ReasonCode::Success;
        self.acknowledge(id, AckOf::Completion, ack.packet_id, reason, rests_on);
        Flow::Taken
    }

    /// The subscriber has a message, or refuses it; the PUBREL rests on the record of that.
    pub(super) fn handle_pubrec(&mut self, id: LinkId, place: u32, ack: &Ack, now: Now) -> Flow {
        let Some(session) = self.sessions.get_mut(place) else {
            return Flow::HangUp;
        };
        if ack.reason.is_error() {
            // A refusal is final too [MQTT-4.4.0-2]: it is counted.
            let refused = session.window.refuse(ack.packet_id);
            self.counters.refused_by_subscriber += u64::from(refused.is_some());
            return self.settled(place, refused, now);
        }
        let reason = match session.window.receive(ack.packet_id) {
            Receipt::Received(in_flight) => {
                if let Some(queue) = session.queue_of(in_flight.lane) {
                    let change = Change::Received {
                        session: queue.key,
                        seq: in_flight.seq,
                    };
                    session.received_ticket = self.journal.record(change, true, now);
                }
                ReasonCode::Success
            }
            Receipt::Again => ReasonCode::Success,
            Receipt::Unknown => {
                self.counters.unknown_acks += 1;
                ReasonCode::PacketIdentifierNotFound
            }
        };
        let rests_on = RestsOn::Ticket(session.received_ticket);
        self.acknowledge(id, AckOf::Release, ack.packet_id, reason, rests_on);
        Flow::Taken
    }

    /// The subscriber has forgotten the Packet Identifier: the message is settled.
    pub(super) fn handle_pubcomp(&mut self, place: u32, ack: &Ack, now: Now) -> Flow {
        let Some(session) = self.sessions.get_mut(place) else {
            return Flow::HangUp;
        };
        let completed = session.window.complete(ack.packet_id);
        self.settled(place, completed, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_identifier_is_held_until_it_is_released() {
        let id = |number| PacketId::new(number).expect("not zero");
        let mut held = Held::recovered(&[id(3), id(9)]);
        held.hold(id(5));
        held.hold(id(5));
        assert_eq!(held.len(), 3);
        assert!(held.contains(id(3)) && held.contains(id(5)) && !held.contains(id(4)));
        assert!(held.release(id(5)) && !held.release(id(5)));
        assert!(!held.contains(id(5)));
    }
}
