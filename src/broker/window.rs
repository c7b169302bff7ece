//! The window of a session: the messages of QoS 1 and 2 that are in flight, by their sequence numbers.
//!
//! A Packet Identifier is derived from the sequence number, so a message that is sent again after a crash carries its
//! original one [MQTT-4.4.0-1] and nothing is written at delivery. For that, numbers in flight lie less than 65,535
//! apart.

use super::journal::RowNo;
use crate::record::Seq;
use larder_packet::{PacketId, Qos};
use std::collections::VecDeque;

/// Packet Identifiers run from 1 to 65,535.
pub(super) const PACKET_IDS: u64 = 65_535;

/// Whether the message with this number has a Packet Identifier of its own while `oldest` may still be in flight.
pub(super) fn is_in_span(oldest: Seq, seq: Seq) -> bool {
    seq < oldest + PACKET_IDS - 1
}

/// The Packet Identifier of a sequence number.
pub(super) fn packet_id(seq: Seq) -> PacketId {
    let id = seq.wrapping_sub(1) % PACKET_IDS + 1;
    u16::try_from(id)
        .ok()
        .and_then(PacketId::new)
        .unwrap_or(PacketId::MIN)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// To be sent again on the present link.
    Resend,
    /// Sent on the present link, and not acknowledged.
    Sent,
    /// QoS 2: received (PUBREC); its PUBREL is to be sent again on the present link.
    Received,
    /// QoS 2: the PUBREL is on its way on the present link, and the PUBCOMP is waited for.
    Releasing,
    /// Acknowledged; stands here until those before it are.
    Settled,
}

/// What is to be done with a message in flight on the present link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is to be sent again.
    Resend,
    /// Its PUBREL is to be sent again.
    Rerelease,
    /// Nothing: it is on its way, or settled.
    Done,
}

/// What a PUBREC says of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receipt {
    /// This message has been received.
    Received(Seq),
    /// It had been before; the PUBREL goes out again.
    Again,
    /// No such message of QoS 2 is in flight.
    Unknown,
}

/// A message in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub(super) seq: Seq,
    /// Its row in the journal, while it is not committed.
    pub(super) row: RowNo,
    /// Bytes of topic, properties and payload.
    pub(super) len: u32,
    qos: Qos,
    phase: Phase,
}

/// The messages in flight, oldest first.
pub(super) struct Window {
    /// Made whole when the first message is in flight, and never longer than `capacity`.
    entries: VecDeque<InFlight>,
    capacity: u16,
    /// Bytes of messages in flight above which no further one is sent; the first always is.
    bytes_max: u64,
    bytes: u64,
    /// Those sent on the present link, or released there, and not acknowledged.
    outstanding: u16,
}

impl Window {
    /// An empty window for at most `capacity` messages of `bytes_max` bytes; it holds no memory until one is in flight.
    pub(super) fn new(capacity: u16, bytes_max: u64) -> Window {
        Window {
            entries: VecDeque::new(),
            capacity,
            bytes_max,
            bytes: 0,
            outstanding: 0,
        }
    }

    /// Whether one more may be sent, with at most `receive_maximum` unacknowledged on the link.
    pub(super) fn has_room(&self, receive_maximum: u16) -> bool {
        self.room(receive_maximum) > 0
    }

    /// How many may be put in flight before an acknowledgement comes, as far as their bytes allow it.
    pub(super) fn room(&self, receive_maximum: u16) -> u16 {
        if self.bytes >= self.bytes_max {
            return 0;
        }
        let in_flight = u16::try_from(self.entries.len()).unwrap_or(u16::MAX);
        self.free(receive_maximum)
            .min(self.capacity.saturating_sub(in_flight))
    }

    /// How many may be sent on this link before an acknowledgement comes, also of those in flight.
    pub(super) fn free(&self, receive_maximum: u16) -> u16 {
        self.takes(receive_maximum).saturating_sub(self.outstanding)
    }

    /// How many may be unacknowledged on this link.
    pub(super) fn takes(&self, receive_maximum: u16) -> u16 {
        receive_maximum.min(self.capacity)
    }

    /// Puts a message in flight that was just sent; numbers come in rising order.
    pub(super) fn push(&mut self, seq: Seq, row: RowNo, qos: Qos, len: u32) {
        self.enter(InFlight {
            seq,
            row,
            len,
            qos,
            phase: Phase::Sent,
        });
    }

    /// Puts a message in flight that was received before the start, and whose PUBREL is on its way.
    pub(super) fn push_releasing(&mut self, seq: Seq, len: u32) {
        self.enter(InFlight {
            seq,
            row: RowNo::NONE,
            len,
            qos: Qos::ExactlyOnce,
            phase: Phase::Releasing,
        });
    }

    fn enter(&mut self, entry: InFlight) {
        debug_assert!(
            self.entries.len() < usize::from(self.capacity),
            "has_room was asked"
        );
        if self.entries.capacity() == 0 {
            self.entries.reserve_exact(usize::from(self.capacity));
        }
        self.bytes += u64::from(entry.len);
        self.outstanding += 1;
        self.entries.push_back(entry);
    }

    /// What is to be done with a message that was offered to a link before.
    pub(super) fn standing(&self, seq: Seq) -> Standing {
        match self.find(seq).map(|index| self.entries[index].phase) {
            Some(Phase::Resend) => Standing::Resend,
            Some(Phase::Received) => Standing::Rerelease,
            _ => Standing::Done,
        }
    }

    /// Notes that it has been sent again, or its PUBREL.
    pub(super) fn resent(&mut self, seq: Seq) {
        let Some(index) = self.find(seq) else { return };
        let entry = &mut self.entries[index];
        entry.phase = match entry.phase {
            Phase::Resend => Phase::Sent,
            Phase::Received => Phase::Releasing,
            other => other,
        };
        self.outstanding += 1;
    }

    /// Takes out the message of QoS 1 that a PUBACK names; `None` if no such message was sent on this link.
    pub(super) fn acknowledge(&mut self, packet_id: PacketId) -> Option<InFlight> {
        let is_sent =
            |entry: &InFlight| entry.qos == Qos::AtLeastOnce && entry.phase == Phase::Sent;
        self.take_out(packet_id, is_sent)
    }

    /// The message of QoS 2 that a PUBREC names has been received.
    pub(super) fn receive(&mut self, packet_id: PacketId) -> Receipt {
        let Some(index) = self.find_id(packet_id) else {
            return Receipt::Unknown;
        };
        let entry = &mut self.entries[index];
        match (entry.qos, entry.phase) {
            (Qos::ExactlyOnce, Phase::Sent) => {
                entry.phase = Phase::Releasing;
                Receipt::Received(entry.seq)
            }
            (Qos::ExactlyOnce, Phase::Received) => {
                entry.phase = Phase::Releasing;
                self.outstanding += 1;
                Receipt::Again
            }
            (Qos::ExactlyOnce, Phase::Releasing) => Receipt::Again,
            _ => Receipt::Unknown,
        }
    }

    /// Takes out the message of QoS 2 that a PUBREC refuses.
    pub(super) fn refuse(&mut self, packet_id: PacketId) -> Option<InFlight> {
        let is_sent =
            |entry: &InFlight| entry.qos == Qos::ExactlyOnce && entry.phase == Phase::Sent;
        self.take_out(packet_id, is_sent)
    }

    /// Takes out the message of QoS 2 that a PUBCOMP names.
    pub(super) fn complete(&mut self, packet_id: PacketId) -> Option<InFlight> {
        self.take_out(packet_id, |entry| entry.phase == Phase::Releasing)
    }

    fn take_out(
        &mut self,
        packet_id: PacketId,
        is_due: impl Fn(&InFlight) -> bool,
    ) -> Option<InFlight> {
        let index = self.find_id(packet_id)?;
        let taken = self.entries[index];
        if !is_due(&taken) {
            return None;
        }
        self.outstanding -= 1;
        self.settle(index);
        Some(taken)
    }

    /// Takes out a message that was to be sent again and cannot be.
    pub(super) fn give_up(&mut self, seq: Seq) {
        if let Some(index) = self.find(seq) {
            self.settle(index);
        }
    }

    fn settle(&mut self, index: usize) {
        let entry = &mut self.entries[index];
        entry.phase = Phase::Settled;
        self.bytes -= u64::from(entry.len);
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.phase == Phase::Settled)
        {
            self.entries.pop_front();
        }
    }

    /// The link ended: all that is in flight is to be sent again on the next.
    pub(super) fn link_ended(&mut self) {
        for entry in &mut self.entries {
            entry.phase = match entry.phase {
                Phase::Sent => Phase::Resend,
                Phase::Releasing => Phase::Received,
                other => other,
            };
        }
        self.outstanding = 0;
    }

    /// The oldest message that is in flight.
    pub(super) fn first(&self) -> Option<Seq> {
        self.entries.front().map(|entry| entry.seq)
    }

    /// Messages that are in flight and not acknowledged, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = InFlight> + '_ {
        self.entries
            .iter()
            .filter(|entry| entry.phase != Phase::Settled)
            .copied()
    }

    /// Messages in flight, and their bytes.
    pub(super) fn load(&self) -> (u64, u64) {
        (self.iter().count() as u64, self.bytes)
    }

    /// Messages sent on the present link and not acknowledged.
    pub(super) fn outstanding(&self) -> u16 {
        self.outstanding
    }

    /// Whether nothing is in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Where the message with this Packet Identifier is: the numbers in flight lie less than 65,535 apart.
    fn find_id(&self, id: PacketId) -> Option<usize> {
        let first = self.first()?;
        let ahead = u64::from(id.get()) + PACKET_IDS - u64::from(packet_id(first).get());
        self.find(first + ahead % PACKET_IDS)
    }

    fn find(&self, seq: Seq) -> Option<usize> {
        // Numbers are mostly consecutive: look where it would then be.
        let guess = usize::try_from(seq.checked_sub(self.first()?)?).ok()?;
        if self
            .entries
            .get(guess)
            .is_some_and(|entry| entry.seq == seq)
        {
            return Some(guess);
        }
        self.entries
            .binary_search_by_key(&seq, |entry| entry.seq)
            .ok()
    }
}

/// Bytes that a window of this capacity takes once a message has been in flight.
#[must_use]
pub(crate) fn window_bytes(capacity: u16) -> usize {
    usize::from(capacity) * size_of::<InFlight>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(seqs: impl IntoIterator<Item = Seq>) -> Window {
        let mut window = Window::new(64, u64::MAX);
        for seq in seqs {
            window.push(seq, RowNo::NONE, Qos::AtLeastOnce, 0);
        }
        window
    }

    #[test]
    fn packet_ids_start_at_one_and_skip_zero() {
        assert_eq!(packet_id(1).get(), 1);
        assert_eq!(packet_id(65_535).get(), 65_535);
        assert_eq!(packet_id(65_536).get(), 1);
    }

    #[test]
    fn numbers_in_flight_have_identifiers_of_their_own() {
        assert!(is_in_span(1, 65_534));
        assert!(
            !is_in_span(1, 65_535),
            "its identifier would be the oldest one's neighbour"
        );
    }

    #[test]
    fn an_acknowledgement_finds_its_message_across_the_wrap_and_over_holes() {
        let mut window = window([65_530, 65_534, 65_537, 70_000]);
        for seq in [65_537, 65_530, 70_000, 65_534] {
            assert_eq!(
                window.acknowledge(packet_id(seq)).map(|entry| entry.seq),
                Some(seq)
            );
            assert!(
                window.acknowledge(packet_id(seq)).is_none(),
                "acknowledged once"
            );
        }
        assert!(window.is_empty());
    }

    #[test]
    fn what_was_not_sent_on_this_link_cannot_be_acknowledged_on_it() {
        let mut window = window([1, 2]);
        window.link_ended();
        assert!(window.acknowledge(packet_id(1)).is_none());
        window.resent(1);
        assert!(window.acknowledge(packet_id(1)).is_some());
        assert_eq!(window.standing(2), Standing::Resend);
    }

    #[test]
    fn a_message_of_qos_2_is_received_released_and_completed_across_links() {
        let mut window = Window::new(64, u64::MAX);
        window.push(7, RowNo::NONE, Qos::ExactlyOnce, 0);
        let id = packet_id(7);
        assert!(window.acknowledge(id).is_none(), "a PUBACK is not for it");
        assert!(window.complete(id).is_none(), "it was not received yet");
        assert_eq!(window.receive(id), Receipt::Received(7));
        assert_eq!(window.receive(id), Receipt::Again);
        assert!(window.refuse(id).is_none(), "it was received already");

        window.link_ended();
        assert_eq!(window.standing(7), Standing::Rerelease);
        assert!(
            window.complete(id).is_none(),
            "its PUBREL is not sent again yet"
        );
        window.resent(7);
        assert_eq!(window.standing(7), Standing::Done);
        assert!(window.complete(id).is_some());
        assert!(window.is_empty());
        assert_eq!(window.receive(id), Receipt::Unknown);
    }

    #[test]
    fn receive_maximum_and_capacity_bound_it() {
        let mut window = window(1..=3);
        assert!(!window.has_room(3));
        assert!(window.has_room(4));
        for seq in 4..=64 {
            window.push(seq, RowNo::NONE, Qos::AtLeastOnce, 0);
        }
        assert!(!window.has_room(1000));
    }
}
