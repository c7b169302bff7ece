//! What leaves on a link: the FIFO of acknowledgements that wait, and the bytes on their way to the socket.
//!
//! An acknowledgement gets into an outbox in one way only: [`Acks::push`] takes it together with what it rests on, and
//! [`Acks::leave`] gives it out as [`Ready`] when that is done, in the order of what was acknowledged
//! [MQTT-4.6.0-2, MQTT-4.6.0-3, MQTT-4.6.0-4]. They all share one FIFO, from CONNACK to PUBCOMP: a second one would let
//! none of them leave earlier that matters, since a commit completes all that was recorded before it.

use super::buffers::Buffers;
use super::journal::{Journal, RestsOn};
use super::reason_string::{self, Terms};
use crate::limits::{LINK_OTHER_ACKS, LINK_OUTBOX_BYTES, LINK_OUTBOX_CONTROL_BYTES};
use crate::record::Ticket;
use larder_packet::{Ack, Delivery, Packet, PacketId, PropertyBuf, ReasonCode, Version};
use std::collections::VecDeque;

/// An acknowledgement that names a PUBLISH by its Packet Identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckOf {
    /// PUBACK
    Publish,
    /// PUBREC
    Receipt,
    /// PUBREL
    Release,
    /// PUBCOMP
    Completion,
}

/// An acknowledgement.
enum Kind {
    Numbered(AckOf, PacketId, ReasonCode),
    /// A rarer one.
    Encoded(Box<Encoded>),
}

/// An acknowledgement that is encoded already.
struct Encoded {
    bytes: Vec<u8>,
    is_connack: bool,
}

struct Waiting {
    kind: Kind,
    rests_on: RestsOn,
}

/// An acknowledgement whose ground is durable. Only [`Acks::leave`] makes one.
pub(super) struct Ready(Kind);

impl Ready {
    /// Whether it is the CONNACK, after which everything else may leave.
    pub(super) fn is_connack(&self) -> bool {
        matches!(&self.0, Kind::Encoded(encoded) if encoded.is_connack)
    }

    /// Whether it tells a publisher that its message was taken.
    pub(super) fn is_success(&self) -> bool {
        matches!(self.0, Kind::Numbered(AckOf::Publish | AckOf::Receipt, _, reason) if !reason.is_error())
    }
}

/// The acknowledgements of a link that wait, in their order: as many as messages may be under way from the client, and a
/// few others. PUBRELs share their places with the PUBACKs: where there is none, the link is not read until a commit
/// makes some. Holds no memory until one has waited.
pub(super) struct Acks {
    waiting: VecDeque<Waiting>,
    capacity: usize,
    numbered: u32,
}

impl Acks {
    pub(super) fn new(receive_maximum: u16) -> Acks {
        let capacity = usize::from(receive_maximum) + LINK_OTHER_ACKS;
        Acks {
            waiting: VecDeque::new(),
            capacity,
            numbered: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether another one fits; while not, the link is not read.
    pub(super) fn has_room(&self) -> bool {
        let others = self.waiting.len() - self.numbered as usize;
        self.waiting.len() < self.capacity && others < LINK_OTHER_ACKS
    }

    /// A PUBACK, PUBREC, PUBREL or PUBCOMP, and what it rests on.
    pub(super) fn numbered(
        &mut self,
        ack: AckOf,
        packet_id: PacketId,
        reason: ReasonCode,
        rests_on: RestsOn,
    ) {
        self.push(Kind::Numbered(ack, packet_id, reason), rests_on);
        self.numbered += 1;
    }

    /// A SUBACK or UNSUBACK, and what it rests on.
    pub(super) fn other(&mut self, packet: &Packet, version: Version, rests_on: RestsOn) {
        self.push(encoded(packet, version, false), rests_on);
    }

    /// The CONNACK, and what it rests on.
    pub(super) fn connack(&mut self, packet: &Packet, version: Version, rests_on: RestsOn) {
        self.push(encoded(packet, version, true), rests_on);
    }

    fn push(&mut self, kind: Kind, rests_on: RestsOn) {
        debug_assert!(self.has_room(), "has_room was asked");
        if self.waiting.capacity() == 0 {
            self.waiting.reserve_exact(self.capacity);
        }
        self.waiting.push_back(Waiting { kind, rests_on });
    }

    /// The acknowledgement at the head, if what it rests on is done; `walked`: the session's last change, if its walks are
    /// over.
    pub(super) fn leave(&mut self, journal: &Journal, walked: Option<Ticket>) -> Option<Ready> {
        let rests_on = match self.waiting.front()?.rests_on {
            RestsOn::Walks => RestsOn::Ticket(walked?),
            rests_on => rests_on,
        };
        if !journal.is_done(rests_on) {
            return None;
        }
        let Waiting { kind, .. } = self.waiting.pop_front()?;
        self.numbered -= u32::from(matches!(kind, Kind::Numbered(..)));
        Some(Ready(kind))
    }

    /// Takes back an acknowledgement for which the outbox had no room: it is at the head again.
    pub(super) fn put_back(&mut self, ready: Ready) {
        self.numbered += u32::from(matches!(ready.0, Kind::Numbered(..)));
        self.waiting.push_front(Waiting {
            kind: ready.0,
            rests_on: RestsOn::Nothing,
        });
    }
}

fn encoded(packet: &Packet, version: Version, is_connack: bool) -> Kind {
    let mut bytes = Vec::with_capacity(packet.encoded_len(version));
    packet.encode(version, &mut bytes);
    Kind::Encoded(Box::new(Encoded { bytes, is_connack }))
}

/// Bytes that a link's FIFO takes once an acknowledgement has waited.
#[must_use]
pub(crate) fn acks_bytes(receive_maximum: u16) -> usize {
    Acks::new(receive_maximum).capacity * size_of::<Waiting>()
}

/// Bytes on their way to a link's socket.
#[derive(Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// Of these, how many have left.
    left: usize,
    /// Length of the packet that is larger than [`LINK_OUTBOX_BYTES`], if one is there.
    large: usize,
    /// Packets that were put there and not counted yet, and the bytes of messages in them.
    counted: (u64, u64),
}

impl Outbox {
    pub(super) fn pending(&self) -> &[u8] {
        &self.bytes[self.left..]
    }

    /// So many bytes have left; an empty outbox gives its memory back.
    pub(super) fn advance(&mut self, bytes: usize, buffers: &mut Buffers) {
        self.left += bytes;
        if self.left == self.bytes.len() {
            self.discard(buffers);
        }
    }

    /// Packets that were put there since they were asked for last, and the bytes of messages in them.
    pub(super) fn take_counted(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.counted)
    }

    pub(super) fn discard(&mut self, buffers: &mut Buffers) {
        buffers.give(std::mem::take(&mut self.bytes));
        (self.left, self.large) = (0, 0);
    }

    /// Whether so much waits that the link is not to be read.
    pub(super) fn is_flooded(&self) -> bool {
        self.pending().len() >= LINK_OUTBOX_BYTES.max(self.large) + LINK_OUTBOX_CONTROL_BYTES
    }

    /// Puts a PUBLISH there; `false` if there is no room now.
    pub(super) fn deliver(
        &mut self,
        delivery: &Delivery,
        version: Version,
        buffers: &mut Buffers,
    ) -> bool {
        let len = delivery.encoded_len(version);
        let pending = self.pending().len();
        if (pending > 0 && pending + len > LINK_OUTBOX_BYTES) || !self.make_room(len, buffers) {
            return false;
        }
        if len > LINK_OUTBOX_BYTES {
            self.large = len;
        }
        delivery.encode(version, &mut self.bytes);
        self.counted.0 += 1;
        self.counted.1 += delivery.payload.len() as u64;
        true
    }

    /// Puts an acknowledgement there; gives it back if there is no memory for it now.
    pub(super) fn acknowledge(
        &mut self,
        ready: Ready,
        terms: Terms,
        buffers: &mut Buffers,
    ) -> Result<(), Ready> {
        let written = match &ready.0 {
            Kind::Numbered(of, packet_id, reason) => {
                let words = match of {
                    AckOf::Publish | AckOf::Receipt => reason_string::of_publish(*reason),
                    AckOf::Release | AckOf::Completion => "",
                };
                let mut buffer = PropertyBuf::new();
                let packet = terms.explained(words, &mut buffer, |properties| {
                    let ack = Ack {
                        packet_id: *packet_id,
                        reason: *reason,
                        properties,
                    };
                    match of {
                        AckOf::Publish => Packet::PubAck(ack),
                        AckOf::Receipt => Packet::PubRec(ack),
                        AckOf::Release => Packet::PubRel(ack),
                        AckOf::Completion => Packet::PubComp(ack),
                    }
                });
                self.control(&packet, terms.version, buffers)
            }
            Kind::Encoded(encoded) => {
                let bytes = &encoded.bytes;
                let has_room = self.make_room(bytes.len(), buffers);
                if has_room {
                    self.bytes.extend_from_slice(bytes);
                    self.counted.0 += 1;
                }
                has_room
            }
        };
        if written { Ok(()) } else { Err(ready) }
    }

    /// Puts a PINGRESP or DISCONNECT there; `false` if there is no memory for it now.
    pub(super) fn control(
        &mut self,
        packet: &Packet,
        version: Version,
        buffers: &mut Buffers,
    ) -> bool {
        let has_room = self.make_room(packet.encoded_len(version), buffers);
        if has_room {
            packet.encode(version, &mut self.bytes);
            self.counted.0 += 1;
        }
        has_room
    }

    fn make_room(&mut self, len: usize, buffers: &mut Buffers) -> bool {
        if self.bytes.capacity() >= self.bytes.len() + len {
            return true;
        }
        self.bytes.drain(..self.left);
        self.left = 0;
        let wanted = self.bytes.len() + len;
        buffers.grow(&mut self.bytes, wanted)
    }
}
