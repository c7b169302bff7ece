//! PUBACK from a subscriber: what it was owed is settled [MQTT 3.4].

use super::Broker;
use super::receive::Flow;
use crate::net::LinkId;
use crate::time::Now;
use larder_packet::Ack;

impl Broker {
    pub(super) fn handle_puback(&mut self, id: LinkId, ack: &Ack, now: Now) -> Flow {
        if !self.journal.has_room_to_settle() {
            return Flow::Park { refuse: false };
        }
        let Some(place) = self.links.get(id).and_then(|link| link.session) else {
            return Flow::HangUp;
        };
        let Some(session) = self.sessions.get_mut(place) else {
            return Flow::HangUp;
        };
        let Some(in_flight) = session.window.acknowledge(ack.packet_id) else {
            self.counters.unknown_acks += 1;
            return Flow::Taken;
        };
        // A refusal is final too [MQTT-4.4.0-2]: it is counted.
        self.counters.refused_by_subscriber += u64::from(ack.reason.is_error());
        if let Some(queue) = &mut session.queue {
            queue.settled(u64::from(in_flight.len));
            self.journal
                .settle(queue.key, in_flight.seq, in_flight.row, now);
        }
        self.note_dirty(place);
        Flow::Taken
    }
}
