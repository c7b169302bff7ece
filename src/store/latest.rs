//! The latest row of each topic of a queue, for queues that keep no more than that: what both stores do about it alike.
//!
//! It is found by a hash of the topic, and never trusted alone: a row is superseded only if the row that is found is there,
//! is newer and has the same topic. So a collision, or an entry whose row is gone, lets a row stay that could go, and no
//! more. All rows of a queue are remembered from some row on, or none: so the one that is found under its topic's hash is
//! the latest.

use crate::record::Seq;

/// Topics of one queue whose latest row is remembered. Of what has another topic it is not known how recent it is.
pub const LATEST_TOPICS: u32 = 16 * 1024;

/// The hash of a topic: FNV-1a. It stands on disk, and never changes.
pub(super) fn hash(topic: &[u8]) -> u64 {
    topic.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// When the entries of a queue are looked through for those whose row is gone: when there is no room for another, and
/// since the last time as many rows may have gone as make it worth it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sweep {
    /// The first row of the queue at the last time.
    head: Seq,
}

impl Sweep {
    /// `head`: the first row of the queue; every entry for an earlier one is stale.
    pub(super) fn is_due(&mut self, head: Seq) -> bool {
        let is_due = head >= self.head.saturating_add(u64::from(LATEST_TOPICS / 16));
        if is_due {
            self.head = head;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This is what lies on people's disks.
    #[test]
    fn the_hash_is_what_it_always_was() {
        assert_eq!(hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_sweep_is_worth_it_when_many_rows_have_gone() {
        let mut sweep = Sweep::default();
        assert!(!sweep.is_due(1023));
        assert!(sweep.is_due(1024));
        assert!(!sweep.is_due(2047) && sweep.is_due(2048));
    }
}
