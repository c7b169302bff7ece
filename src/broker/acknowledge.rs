//! Acknowledgements both ways: a subscriber's PUBACK settles what it was owed [MQTT 3.4]; ours leave when what they rest on
//! is durable. The packets of QoS 2 are in `qos2`.

use super::Broker;
use super::acks::AckOf;
use super::journal::RestsOn;
use super::link::Phase;
use super::receive::Flow;
use super::session::Session;
use super::window::InFlight;
use crate::net::LinkId;
use crate::time::Now;
use larder_packet::{Ack, PacketId, ReasonCode};

impl Broker {
    /// Whether there is room to record what an acknowledgement to this session brings about.
    pub(super) fn takes_acks(&self, place: u32) -> bool {
        !self.is_stored(place) || self.journal.has_room_to_settle()
    }

    pub(super) fn handle_puback(&mut self, place: u32, ack: &Ack, now: Now) -> Flow {
        let Some(session) = self.sessions.get_mut(place) else {
            return Flow::HangUp;
        };
        let acknowledged = session.window.acknowledge(ack.packet_id);
        // A refusal is final too [MQTT-4.4.0-2]: it is counted.
        let is_refused = acknowledged.is_some() && ack.reason.is_error();
        self.counters.refused_by_subscriber += u64::from(is_refused);
        self.settled(place, acknowledged, now)
    }

    /// A message that was in flight is settled; `None`: the acknowledgement named none that was.
    pub(super) fn settled(&mut self, place: u32, in_flight: Option<InFlight>, now: Now) -> Flow {
        let Some(in_flight) = in_flight else {
            self.counters.unknown_acks += 1;
            return Flow::Taken;
        };
        let queue = self
            .sessions
            .get_mut(place)
            .and_then(|session| session.queue_of_mut(in_flight.lane));
        if let Some(queue) = queue {
            queue.settled(u64::from(in_flight.len));
            self.journal
                .settle(queue.key, in_flight.seq, in_flight.row, now);
        }
        self.note_dirty(place);
        Flow::Taken
    }

    /// Puts an acknowledgement into its link's FIFO.
    pub(super) fn acknowledge(
        &mut self,
        id: LinkId,
        ack: AckOf,
        packet_id: PacketId,
        reason: ReasonCode,
        rests_on: RestsOn,
    ) {
        if let Some(link) = self.links.get_mut(id) {
            let pool = &mut self.buffers.acks;
            link.acks.numbered(ack, packet_id, reason, rests_on, pool);
        }
        self.note_releasable(id);
    }

    /// Lets acknowledgements leave whose ground is durable.
    pub(super) fn release_acks(&mut self, now: Now) {
        while let Some(id) = self.journal.poll_released() {
            self.releasable.push(id);
        }
        while let Some(id) = self.releasable.pop() {
            self.send_pingresps(id);
            let Some(link) = self.links.get_mut(id) else {
                continue;
            };
            let has_left = !link.acks.is_empty();
            let connected = self.leave_acks(id);
            let Some(link) = self.links.get_mut(id) else {
                continue;
            };
            let has_room_again = has_left && link.acks.take_relieved(&self.buffers.acks);
            let session = link.session.filter(|_| has_room_again);
            let waits_for_room = link.held_up.parked.is_some_and(|parked| !parked.refuse);
            let resumes = has_room_again && waits_for_room;
            if let Some(place) = session {
                // PUBRELs may have waited for it.
                self.note_dirty(place);
            }
            if connected {
                self.connected(id, now);
            }
            if resumes {
                self.parked.retain(|other| *other != id);
                self.resume(id, now);
            }
        }
    }

    /// Lets a link's acknowledgements leave as far as they can; says whether the CONNACK was among them.
    pub(super) fn leave_acks(&mut self, id: LinkId) -> bool {
        let Some(link) = self
            .links
            .get_mut(id)
            .filter(|link| link.phase != Phase::Closing)
        else {
            return false;
        };
        let session = link.session.and_then(|place| self.sessions.get(place));
        let walked = session.and_then(Session::walked);
        let mut connected = false;
        while let Some(ready) = {
            let pool = &mut self.buffers.acks;
            link.acks.leave(&self.journal, walked, pool)
        } {
            let (is_connack, is_success) = (ready.is_connack(), ready.is_success());
            let terms = link.terms();
            if let Err(ready) = link.outbox.acknowledge(ready, terms, &mut self.buffers) {
                link.acks.put_back(ready, &mut self.buffers.acks);
                break;
            }
            connected |= is_connack;
            self.counters.acknowledged += u64::from(is_success);
        }
        if !link.acks.is_empty() && !link.is_waiting {
            link.is_waiting = true;
            self.waiting.push(id);
        }
        self.note_sending(id);
        connected
    }
}
