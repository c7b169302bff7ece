//! A message for several clients is encoded once, where they get it byte for byte alike: at QoS 0, in full, and without
//! anything that is one client's own. The others copy it.

use super::deliver::Outgoing;
use super::link::{Link, Phase};
use crate::limits::COPIED_BYTES;
use larder_packet::{Qos, Version};

/// Bytes of a PUBLISH besides its topic, properties and payload: the fixed header, two lengths.
const HEADER_BYTES: usize = 5 + 2 + 4;

/// The encodings of the message that is being published.
pub(super) struct Copies {
    /// By version and RETAIN; empty: none yet.
    packets: [Vec<u8>; 4],
    is_on: bool,
}

/// Bytes of memory.
pub(crate) const COPIES_BYTES: usize = 4 * (COPIED_BYTES + HEADER_BYTES);

impl Copies {
    pub(super) fn new() -> Copies {
        Copies {
            packets: std::array::from_fn(|_| Vec::with_capacity(COPIED_BYTES + HEADER_BYTES)),
            is_on: false,
        }
    }

    /// A message of `len` bytes goes to so many.
    pub(super) fn begin(&mut self, len: usize, targets: usize) {
        self.is_on = targets > 1 && len <= COPIED_BYTES;
    }

    /// It has gone to all of them.
    pub(super) fn end(&mut self) {
        if std::mem::take(&mut self.is_on) {
            self.packets.iter_mut().for_each(Vec::clear);
        }
    }

    /// The packet that a link gets; `None`: it gets one of its own, or none.
    pub(super) fn of(&mut self, link: &Link, out: &Outgoing) -> Option<&[u8]> {
        let is_plain = out.qos == Qos::AtMostOnce
            && out.subscription_ids.is_empty()
            && out.content.expires_at.is_none();
        let is_alike = link.phase == Phase::Connected && !link.aliases.to_client.are_allowed();
        if !(self.is_on && is_plain && is_alike) {
            return None;
        }
        let at = usize::from(link.version == Version::V5) * 2 + usize::from(out.retain);
        let packet = &mut self.packets[at];
        if packet.is_empty() {
            out.delivery().encode(link.version, packet);
        }
        (packet.len() <= link.packet_max as usize).then_some(packet)
    }
}
