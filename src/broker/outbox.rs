//! What leaves on a link: the bytes on their way to its socket.

use super::acks::{AckOf, Kind, Ready};
use super::buffers::Buffers;
use super::reason_string::{self, Terms};
use crate::limits::{LINK_OUTBOX_BYTES, LINK_OUTBOX_CONTROL_BYTES};
use larder_packet::{Ack, Packet, PropertyBuf, Version};

/// Bytes on their way to a link's socket.
#[derive(Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// Of these, how many have left.
    left: u32,
    /// Length of the packet that is larger than [`LINK_OUTBOX_BYTES`], if one is there.
    large: u32,
    /// Bytes that it held before it was empty last: as many are expected again, and room for them is taken at once.
    expected: u32,
    /// Packets that were put there and not counted yet, and the bytes of messages in them.
    counted: (u32, u32),
}

impl Outbox {
    /// Bytes of memory that it holds.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn pending(&self) -> &[u8] {
        &self.bytes[self.left as usize..]
    }

    /// So many bytes have left; an empty outbox gives its memory back.
    pub(super) fn advance(&mut self, bytes: usize, buffers: &mut Buffers) {
        self.left += u32::try_from(bytes).unwrap_or(u32::MAX);
        if self.left as usize == self.bytes.len() {
            self.discard(buffers);
        }
    }

    /// Packets that were put there since they were asked for last, and the bytes of messages in them.
    pub(super) fn take_counted(&mut self) -> (u64, u64) {
        let (packets, bytes) = std::mem::take(&mut self.counted);
        (u64::from(packets), u64::from(bytes))
    }

    pub(super) fn discard(&mut self, buffers: &mut Buffers) {
        self.expected = self.bytes.len().min(LINK_OUTBOX_BYTES) as u32;
        buffers.give(std::mem::take(&mut self.bytes));
        (self.left, self.large) = (0, 0);
    }

    /// Whether so much waits that the link is not to be read.
    pub(super) fn is_flooded(&self) -> bool {
        self.pending().len()
            >= LINK_OUTBOX_BYTES.max(self.large as usize) + LINK_OUTBOX_CONTROL_BYTES
    }

    /// Puts a PUBLISH of `len` bytes there, with so many of payload, as `encode` appends it; `false` if there is no room now.
    pub(super) fn deliver(
        &mut self,
        len: usize,
        payload: usize,
        encode: impl FnOnce(&mut Vec<u8>),
        buffers: &mut Buffers,
    ) -> bool {
        let pending = self.pending().len();
        if (pending > 0 && pending + len > LINK_OUTBOX_BYTES) || !self.make_room(len, buffers) {
            return false;
        }
        if len > LINK_OUTBOX_BYTES {
            self.large = u32::try_from(len).unwrap_or(u32::MAX);
        }
        encode(&mut self.bytes);
        self.counted.0 += 1;
        self.counted.1 += payload as u32;
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
        self.bytes.drain(..self.left as usize);
        self.left = 0;
        let needed = self.bytes.len() + len;
        let wanted = buffers.ahead(needed, self.expected as usize);
        buffers.grow(&mut self.bytes, wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::acks::AckPool;

    #[test]
    fn it_takes_at_once_the_room_that_it_needed_last_and_holds_none_while_empty() {
        let mut buffers = Buffers::new(256 * 1024, 0, AckPool::new(0, 0));
        let mut outbox = Outbox::default();
        let mut send = |packets: usize| {
            let mut capacities = (0..packets).map(|_| {
                assert!(outbox.control(&Packet::PingResp, Version::V5, &mut buffers));
                outbox.capacity()
            });
            let first = capacities.next();
            let last = capacities.last();
            let pending = outbox.pending().len();
            outbox.advance(pending, &mut buffers);
            assert_eq!((outbox.capacity(), buffers.lent()), (0, 0));
            (first, last)
        };
        let (small, large) = (Some(4096), Some(8192));
        assert_eq!(send(3000), (small, large));
        assert_eq!(send(2), (large, large));
        assert_eq!(send(2), (small, small));
    }
}
