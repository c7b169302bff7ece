//! The pools from which links borrow: the memory for half-read and half-written bytes, of which a link without such bytes
//! holds none, for Topic Aliases, and for acknowledgements that wait.

use super::acks::AckPool;
use super::alias::AliasPool;
use crate::limits::BUFFER_MIN_BYTES;

/// Buffers kept for use again, of one size.
const KEPT: usize = 32;
/// Sizes: 4 KiB times a power of two, to 1 GiB.
const SIZES: usize = 19;

/// The part of the pool that only the smallest buffers may use: a few large packets do not stop small ones. One in so many.
const SMALL_PART: usize = 4;

/// The part of the pool up to which a buffer may be larger than is needed yet. One in so many.
const AMPLE_PART: usize = 2;

/// The pool: so many bytes may be lent, or kept for use again, at a time.
pub(super) struct Buffers {
    lent: usize,
    kept: usize,
    max: usize,
    free: [heapless::Vec<Vec<u8>, KEPT>; SIZES],
    /// Somebody was refused since something was given back last.
    refused: bool,
    /// Something was given back since somebody was refused.
    relieved: bool,
    pub(super) aliases: AliasPool,
    pub(super) acks: AckPool,
}

impl Buffers {
    pub(super) fn new(max: usize, aliases_max: usize, acks: AckPool) -> Buffers {
        Buffers {
            lent: 0,
            kept: 0,
            max,
            free: std::array::from_fn(|_| heapless::Vec::new()),
            refused: false,
            relieved: false,
            aliases: AliasPool::new(aliases_max),
            acks,
        }
    }

    /// Bytes that are lent now.
    pub(super) fn lent(&self) -> usize {
        self.lent
    }

    /// Whether somebody was refused, and nothing was given back since.
    pub(super) fn is_used_up(&self) -> bool {
        self.refused
    }

    /// Whether it is nearly used up even when so many bytes are given back.
    pub(super) fn is_scarce_without(&self, bytes: usize) -> bool {
        self.lent.saturating_sub(bytes) > self.max - self.max / SMALL_PART
    }

    /// Whether somebody was refused and may now be served.
    pub(super) fn is_relieved(&self) -> bool {
        self.relieved
    }

    /// The same, once.
    pub(super) fn take_relieved(&mut self) -> bool {
        std::mem::take(&mut self.relieved)
    }

    /// An empty buffer for at least `bytes` bytes; `None` if the pool is used up.
    pub(super) fn take(&mut self, bytes: usize) -> Option<Vec<u8>> {
        let class = class(bytes);
        let size = size_of_class(class);
        let max = if class == 0 {
            self.max
        } else {
            self.max - self.max / SMALL_PART
        };
        if self.lent + size > max {
            self.refused = true;
            return None;
        }
        self.lent += size;
        if let Some(buffer) = self.free[class].pop() {
            self.kept -= size;
            return Some(buffer);
        }
        self.discard_kept();
        Some(Vec::with_capacity(size))
    }

    /// Gives kept buffers back to the system until what is lent and kept is within the pool.
    fn discard_kept(&mut self) {
        for class in (0..SIZES).rev() {
            while self.lent + self.kept > self.max && self.free[class].pop().is_some() {
                self.kept -= size_of_class(class);
            }
        }
    }

    /// Takes a buffer back. One without memory, which was never lent, is ignored.
    pub(super) fn give(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() == 0 {
            return;
        }
        let class = class(buffer.capacity());
        let size = size_of_class(class);
        self.lent -= size;
        self.relieved |= std::mem::take(&mut self.refused);
        buffer.clear();
        // Large ones go back to the system.
        let is_kept = size <= 16 * BUFFER_MIN_BYTES && self.lent + self.kept + size <= self.max;
        if is_kept && self.free[class].push(buffer).is_ok() {
            self.kept += size;
        }
    }

    /// So many bytes, if a buffer as large may be lent ahead of need; else as many as are needed.
    pub(super) fn ahead(&self, needed: usize, expected: usize) -> usize {
        let is_ample = self.lent + size_of_class(class(expected)) <= self.max / AMPLE_PART;
        if is_ample {
            needed.max(expected)
        } else {
            needed
        }
    }

    /// Makes `buffer` able to hold `bytes` bytes in all; `false` if the pool is used up, and it stays as it is.
    pub(super) fn grow(&mut self, buffer: &mut Vec<u8>, bytes: usize) -> bool {
        if buffer.capacity() >= bytes {
            return true;
        }
        let Some(mut larger) = self.take(bytes) else {
            return false;
        };
        larger.extend_from_slice(buffer);
        self.give(std::mem::replace(buffer, larger));
        true
    }
}

fn class(bytes: usize) -> usize {
    let parts = bytes.div_ceil(BUFFER_MIN_BYTES).max(1).next_power_of_two();
    (parts.trailing_zeros() as usize).min(SIZES - 1)
}

fn size_of_class(class: usize) -> usize {
    BUFFER_MIN_BYTES << class
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lends_no_more_than_its_capacity_and_takes_all_back() {
        let mut buffers = Buffers::new(88 * 1024, 0, AckPool::new(0, 0));
        let mut lent: Vec<_> = std::iter::from_fn(|| buffers.take(10_000)).collect();
        assert_eq!((lent.len(), buffers.lent()), (4, 64 * 1024));
        assert!(!buffers.is_relieved());
        buffers.give(lent.remove(0));
        assert!(buffers.take_relieved(), "who was refused is told once");
        assert!(!buffers.take_relieved());
        let mut small = buffers.take(1).expect("there is room again");
        small.extend_from_slice(b"half a packet");
        assert!(buffers.grow(&mut small, 8000));
        assert!(!buffers.grow(&mut small, 20_000), "the rest is lent");
        assert_eq!(small, b"half a packet");
        lent.push(small);
        lent.extend(std::iter::from_fn(|| buffers.take(1)));
        assert_eq!(buffers.lent(), 88 * 1024, "the smallest may use all of it");
        lent.into_iter().for_each(|buffer| buffers.give(buffer));
        assert_eq!(buffers.lent(), 0);
        assert!(buffers.kept <= buffers.max);
    }

    #[test]
    fn it_lends_ahead_of_need_while_half_of_it_is_there() {
        let mut buffers = Buffers::new(88 * 1024, 0, AckPool::new(0, 0));
        assert_eq!(buffers.ahead(10, 30_000), 30_000);
        assert_eq!(buffers.ahead(30_000, 10), 30_000);
        let lent = buffers.take(16_000);
        assert_eq!(buffers.ahead(10, 30_000), 10);
        assert_eq!(buffers.ahead(10, 16_000), 16_000);
        lent.into_iter().for_each(|buffer| buffers.give(buffer));
    }
}
