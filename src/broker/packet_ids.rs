//! Packet Identifiers: each follows from a sequence number, so a message that is sent again after a crash carries its
//! original one [MQTT-4.4.0-1] and nothing is written at delivery.
//!
//! A session without lanes has all of them for its own queue. One with lanes gives each its part, and its own queue keeps
//! to a part too, from the message on with which the first lane was made.

use crate::limits::SESSION_LANES;
use crate::record::Seq;
use larder_packet::PacketId;

/// Packet Identifiers run from 1 to 65,535.
pub(super) const PACKET_IDS: u64 = 65_535;
/// Those of a part: as many parts as lanes, and one for the session's own queue.
const PART: u64 = PACKET_IDS / (SESSION_LANES as u64 + 1);

/// The number of the session's own queue among its lanes.
pub(super) const OWN: u8 = 0;

/// How a session shares out its Packet Identifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PacketIds {
    /// Messages of its own queue keep to their part from this number on.
    pub(super) start: Seq,
}

impl PacketIds {
    /// All are its own queue's.
    pub(super) const UNDIVIDED: PacketIds = PacketIds { start: Seq::MAX };

    /// Whether this message has one out of all.
    pub(super) fn is_undivided(self, lane: u8, seq: Seq) -> bool {
        lane == OWN && seq < self.start
    }

    /// The Packet Identifier of a message.
    pub(super) fn of(self, lane: u8, seq: Seq) -> PacketId {
        let turn = seq.wrapping_sub(1);
        let id = if self.is_undivided(lane, seq) {
            turn % PACKET_IDS + 1
        } else {
            u64::from(lane) * PART + turn % PART + 1
        };
        u16::try_from(id)
            .ok()
            .and_then(PacketId::new)
            .unwrap_or(PacketId::MIN)
    }

    /// How many messages after each other have different ones.
    pub(super) fn span(self, lane: u8, seq: Seq) -> u64 {
        if self.is_undivided(lane, seq) {
            PACKET_IDS
        } else {
            PART
        }
    }

    /// Whether the message with this number has a Packet Identifier of its own while `oldest` may still be in flight.
    pub(super) fn is_in_span(self, lane: u8, oldest: Seq, seq: Seq) -> bool {
        seq < oldest + self.span(lane, seq) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_ids_start_at_one_and_skip_zero() {
        let id = |seq| PacketIds::UNDIVIDED.of(OWN, seq).get();
        assert_eq!((id(1), id(65_535), id(65_536)), (1, 65_535, 1));
    }

    #[test]
    fn numbers_in_flight_have_identifiers_of_their_own() {
        assert!(PacketIds::UNDIVIDED.is_in_span(OWN, 1, 65_534));
        assert!(
            !PacketIds::UNDIVIDED.is_in_span(OWN, 1, 65_535),
            "its identifier would be the oldest one's neighbour"
        );
    }

    #[test]
    fn lanes_have_parts_of_their_own() {
        let ids = PacketIds { start: 100 };
        assert_eq!(ids.of(OWN, 99).get(), 99);
        let lanes = 0..=SESSION_LANES as u8;
        let part = |lane| (ids.of(lane, 8_191 * 7 + 1), ids.of(lane, 8_191 * 8));
        for (lane, next) in lanes.clone().zip(lanes.skip(1)) {
            assert!(part(lane).1 < part(next).0);
        }
        assert_eq!(part(7).1.get(), 65_528);
    }
}
