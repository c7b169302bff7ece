//! The window of a session: the messages of QoS 1 and 2 that are in flight, by their lanes and sequence numbers, in the
//! order in which they were sent.

use super::journal::RowNo;
use super::packet_ids::{OWN, PACKET_IDS, PacketIds};
use crate::record::Seq;
use larder_packet::{PacketId, Qos};
use std::collections::VecDeque;

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
    Received(InFlight),
    /// It had been before; the PUBREL goes out again.
    Again,
    /// No such message of QoS 2 is in flight.
    Unknown,
}

/// A message in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InFlight {
    /// The number of its lane, or [`OWN`].
    pub(super) lane: u8,
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
    /// How the Packet Identifiers are shared out.
    pub(super) ids: PacketIds,
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
            ids: PacketIds::UNDIVIDED,
            entries: VecDeque::new(),
            capacity,
            bytes_max,
            bytes: 0,
            outstanding: 0,
        }
    }

    /// Messages that may be in flight at most, on any link.
    pub(super) fn capacity(&self) -> u64 {
        u64::from(self.capacity)
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

    /// Puts a message in flight that was just sent; the numbers of a lane come in rising order.
    pub(super) fn push(&mut self, lane: u8, seq: Seq, row: RowNo, qos: Qos, len: u32) {
        self.enter(InFlight {
            lane,
            seq,
            row,
            len,
            qos,
            phase: Phase::Sent,
        });
    }

    /// Puts a message in flight that was received before the start, and whose PUBREL is on its way.
    pub(super) fn push_releasing(&mut self, lane: u8, seq: Seq, len: u32) {
        self.enter(InFlight {
            lane,
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
    pub(super) fn standing(&self, lane: u8, seq: Seq) -> Standing {
        match self.find(lane, seq).map(|index| self.entries[index].phase) {
            Some(Phase::Resend) => Standing::Resend,
            Some(Phase::Received) => Standing::Rerelease,
            _ => Standing::Done,
        }
    }

    /// Notes that it has been sent again, or its PUBREL.
    pub(super) fn resent(&mut self, lane: u8, seq: Seq) {
        let Some(index) = self.find(lane, seq) else {
            return;
        };
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
                Receipt::Received(*entry)
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
    pub(super) fn give_up(&mut self, lane: u8, seq: Seq) {
        if let Some(index) = self.find(lane, seq) {
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

    /// The oldest message of a lane that is in flight.
    pub(super) fn first(&self, lane: u8) -> Option<Seq> {
        let entry = self.iter().find(|entry| entry.lane == lane)?;
        Some(entry.seq)
    }

    /// Messages that are in flight and not acknowledged, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = InFlight> + '_ {
        self.entries
            .iter()
            .filter(|entry| entry.phase != Phase::Settled)
            .copied()
    }

    /// Messages of a lane in flight, and their bytes.
    pub(super) fn load(&self, lane: u8) -> (u64, u64) {
        let entries = self.iter().filter(|entry| entry.lane == lane);
        entries.fold((0, 0), |(messages, bytes), entry| {
            (messages + 1, bytes + u64::from(entry.len))
        })
    }

    /// Messages sent on the present link and not acknowledged.
    pub(super) fn outstanding(&self) -> u16 {
        self.outstanding
    }

    /// Whether nothing is in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Where the message with this Packet Identifier is.
    fn find_id(&self, id: PacketId) -> Option<usize> {
        if self.ids != PacketIds::UNDIVIDED {
            // Mostly this is the oldest.
            return self.entries.iter().position(|entry| {
                entry.phase != Phase::Settled && self.ids.of(entry.lane, entry.seq) == id
            });
        }
        // The numbers in flight lie less than 65,535 apart.
        let first = self.entries.front()?.seq;
        let ahead = u64::from(id.get()) + PACKET_IDS - u64::from(self.ids.of(OWN, first).get());
        self.find(OWN, first + ahead % PACKET_IDS)
    }

    fn find(&self, lane: u8, seq: Seq) -> Option<usize> {
        let is_it = |entry: &InFlight| (entry.lane, entry.seq) == (lane, seq);
        // Numbers are mostly consecutive: look where it would then be.
        let ahead = seq.checked_sub(self.entries.front()?.seq);
        let guess = ahead.and_then(|ahead| usize::try_from(ahead).ok());
        if let Some(guess) = guess.filter(|guess| self.entries.get(*guess).is_some_and(is_it)) {
            return Some(guess);
        }
        if self.ids != PacketIds::UNDIVIDED {
            return self.entries.iter().position(is_it);
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

    fn id_of(seq: Seq) -> PacketId {
        PacketIds::UNDIVIDED.of(OWN, seq)
    }

    fn window(seqs: impl IntoIterator<Item = Seq>) -> Window {
        let mut window = Window::new(64, u64::MAX);
        for seq in seqs {
            window.push(OWN, seq, RowNo::NONE, Qos::AtLeastOnce, 0);
        }
        window
    }

    #[test]
    fn an_acknowledgement_finds_its_message_across_the_wrap_and_over_holes() {
        let mut window = window([65_530, 65_534, 65_537, 70_000]);
        for seq in [65_537, 65_530, 70_000, 65_534] {
            assert_eq!(
                window.acknowledge(id_of(seq)).map(|entry| entry.seq),
                Some(seq)
            );
            assert!(
                window.acknowledge(id_of(seq)).is_none(),
                "acknowledged once"
            );
        }
        assert!(window.is_empty());
    }

    #[test]
    fn what_was_not_sent_on_this_link_cannot_be_acknowledged_on_it() {
        let mut window = window([1, 2]);
        window.link_ended();
        assert!(window.acknowledge(id_of(1)).is_none());
        window.resent(OWN, 1);
        assert!(window.acknowledge(id_of(1)).is_some());
        assert_eq!(window.standing(OWN, 2), Standing::Resend);
    }

    #[test]
    fn a_message_of_qos_2_is_received_released_and_completed_across_links() {
        let mut window = Window::new(64, u64::MAX);
        window.push(OWN, 7, RowNo::NONE, Qos::ExactlyOnce, 0);
        let id = id_of(7);
        assert!(window.acknowledge(id).is_none(), "a PUBACK is not for it");
        assert!(window.complete(id).is_none(), "it was not received yet");
        assert!(matches!(window.receive(id), Receipt::Received(of) if of.seq == 7));
        assert_eq!(window.receive(id), Receipt::Again);
        assert!(window.refuse(id).is_none(), "it was received already");

        window.link_ended();
        assert_eq!(window.standing(OWN, 7), Standing::Rerelease);
        assert!(
            window.complete(id).is_none(),
            "its PUBREL is not sent again yet"
        );
        window.resent(OWN, 7);
        assert_eq!(window.standing(OWN, 7), Standing::Done);
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
            window.push(OWN, seq, RowNo::NONE, Qos::AtLeastOnce, 0);
        }
        assert!(!window.has_room(1000));
    }

    #[test]
    fn messages_of_lanes_are_told_apart() {
        let mut window = Window::new(64, u64::MAX);
        window.ids = PacketIds { start: 5 };
        for (lane, seq) in [(1, 1), (OWN, 5), (1, 2), (7, 1), (OWN, 6)] {
            window.push(lane, seq, RowNo::NONE, Qos::AtLeastOnce, 10);
        }
        assert_eq!(window.first(7), Some(1));
        assert_eq!(window.load(OWN), (2, 20));
        for (lane, seq) in [(1, 2), (OWN, 6), (7, 1), (OWN, 5), (1, 1)] {
            let id = window.ids.of(lane, seq);
            let taken = window.acknowledge(id).map(|entry| (entry.lane, entry.seq));
            assert_eq!(taken, Some((lane, seq)));
            assert!(window.acknowledge(id).is_none(), "acknowledged once");
        }
        assert!(window.is_empty());
    }
}
