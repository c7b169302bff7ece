//! Full is a decision, and it is made here: whether a message is taken, waits, or is refused.

use super::Broker;
use crate::limits::SETTLEMENT_WAIT;
use crate::time::Now;

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is taken.
    Admit,
    /// Its link waits with it: the journal is full.
    Wait,
    /// Its link waits with it: the disk is full.
    WaitForDisk,
}

/// A message that goes to no class.
pub(super) const NO_MESSAGE: u64 = u64::MAX;

impl Broker {
    /// All or nothing: a message of `bytes` bytes that is owed to `rows` stored sessions. `is_recorded`: something of it is
    /// to be on disk. `message`: its number, which says of what is kept for classes what is kept for it.
    pub(super) fn admit(
        &self,
        bytes: usize,
        rows: usize,
        is_recorded: bool,
        message: u64,
    ) -> Admission {
        if !is_recorded {
            Admission::Admit
        } else if !self.has_disk_room(bytes as u64, message) {
            Admission::WaitForDisk
        } else if !self.journal.has_room(bytes, rows) {
            Admission::Wait
        } else {
            Admission::Admit
        }
    }

    /// There was no room on disk: the store is asked again after a while.
    pub(super) fn ask_disk(&mut self, now: Now) {
        self.disk_asked
            .get_or_insert(now.mono.after(SETTLEMENT_WAIT));
    }

    /// Room on disk is decided here; beyond it the store keeps a reserve for settlements, which need room to make room.
    fn has_disk_room(&self, bytes: u64, message: u64) -> bool {
        // A row costs its message and up to as much again while pages split.
        let used = self.disk_used + 2 * (self.journal.pending_bytes() + bytes);
        used + self.policies.kept_from(message) <= self.limits.disk_max
    }
}
