//! The memory for half-read and half-written packets is used up, and somebody waits for it: those who have held theirs
//! for longest, and neither take nor complete anything, are closed until some of it is there again. Else a few peers that
//! never read would keep everybody else from being answered.

use super::Broker;
use crate::limits::SCARCE_WAIT;
use crate::net::LinkId;
use crate::time::{Mono, Now};

impl Broker {
    /// When the next links are closed for their memory, if nothing is given back until then.
    pub(super) fn scarce_due(&mut self, now: Now) -> Option<Mono> {
        if !self.buffers.is_used_up() {
            self.scarce = None;
            return None;
        }
        Some(*self.scarce.get_or_insert(now.mono.after(SCARCE_WAIT)))
    }

    /// Closes them, if that is due.
    pub(super) fn tend_scarcity(&mut self, now: Now) {
        if self.scarce_due(now).is_none_or(|at| at > now.mono) {
            return;
        }
        // While somebody waits, one is due as soon as it has held its memory for so long.
        self.scarce = None;
        let mut holders: Vec<(Mono, LinkId, usize)> = self
            .links
            .iter()
            .filter_map(|link| Some((link.holds_since()?, link.id, link.holds_bytes())))
            .filter(|(since, ..)| since.after(SCARCE_WAIT) <= now.mono)
            .collect();
        holders.sort_unstable();
        let (mut closed, mut freed) = (0, 0);
        for (_, id, bytes) in holders {
            if closed > 0 && !self.buffers.is_scarce_without(freed) {
                break;
            }
            self.shed(id, now);
            closed += 1;
            freed += bytes;
        }
        if closed > 0 {
            log::warn!(
                "memory for packets was used up: {closed} connections that took or completed nothing for {} s were closed",
                SCARCE_WAIT.as_secs()
            );
        }
    }
}
