//! The window of a session: the messages of QoS 1 that are in flight, by their sequence numbers.
//!
//! A Packet Identifier is derived from the sequence number, so a message that is sent again after a crash carries its
//! original one [MQTT-4.4.0-1] and nothing is written at delivery. For that, numbers in flight lie less than 65,535
//! apart.

use super::journal::RowNo;
use crate::record::Seq;
use larder_packet::PacketId;
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
    /// Acknowledged; stands here until those before it are.
    Settled,
}

/// A message in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub(super) seq: Seq,
    /// Its row in the journal, while it is not committed.
    pub(super) row: RowNo,
    /// Bytes of topic, properties and payload.
    pub(super) len: u32,
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
    /// Those sent on the present link and not acknowledged.
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
    pub(super) fn push(&mut self, seq: Seq, row: RowNo, len: u32) {
        debug_assert!(
            self.entries.len() < usize::from(self.capacity),
            "has_room was asked"
        );
        if self.entries.capacity() == 0 {
            self.entries.reserve_exact(usize::from(self.capacity));
        }
        self.entries.push_back(InFlight {
            seq,
            row,
            len,
            phase: Phase::Sent,
        });
        self.bytes += u64::from(len);
        self.outstanding += 1;
    }

    /// Whether a message is in flight and was not sent on this link yet.
    pub(super) fn is_to_resend(&self, seq: Seq) -> bool {
        self.find(seq)
            .is_some_and(|index| self.entries[index].phase == Phase::Resend)
    }

    /// Notes that it has been sent again.
    pub(super) fn resent(&mut self, seq: Seq) {
        if let Some(index) = self.find(seq) {
            self.entries[index].phase = Phase::Sent;
            self.outstanding += 1;
        }
    }

    /// Takes out the message that an acknowledgement names; `None` if no such message was sent on this link.
    pub(super) fn acknowledge(&mut self, packet_id_acked: PacketId) -> Option<InFlight> {
        let first = self.first()?;
        let ahead =
            u64::from(packet_id_acked.get()) + PACKET_IDS - u64::from(packet_id(first).get());
        let index = self.find(first + ahead % PACKET_IDS)?;
        let entry = &mut self.entries[index];
        if entry.phase != Phase::Sent {
            return None;
        }
        let acknowledged = *entry;
        self.outstanding -= 1;
        self.settle(index);
        Some(acknowledged)
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
            if entry.phase == Phase::Sent {
                entry.phase = Phase::Resend;
            }
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
            window.push(seq, RowNo::NONE, 0);
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
        assert!(window.is_to_resend(2));
    }

    #[test]
    fn receive_maximum_and_capacity_bound_it() {
        let mut window = window(1..=3);
        assert!(!window.has_room(3));
        assert!(window.has_room(4));
        for seq in 4..=64 {
            window.push(seq, RowNo::NONE, 0);
        }
        assert!(!window.has_room(1000));
    }
}
