//! The pool from which links borrow the memory for half-read and half-written bytes. A link without such bytes holds none.

use crate::limits::BUFFER_MIN_BYTES;

/// Buffers kept for use again, of one size.
const KEPT: usize = 32;
/// Sizes: 4 KiB times a power of two, to 1 GiB.
const SIZES: usize = 19;

/// The pool: so many bytes may be lent at a time.
pub(super) struct Buffers {
    lent: usize,
    max: usize,
    free: [heapless::Vec<Vec<u8>, KEPT>; SIZES],
}

impl Buffers {
    pub(super) fn new(max: usize) -> Buffers {
        Buffers {
            lent: 0,
            max,
            free: std::array::from_fn(|_| heapless::Vec::new()),
        }
    }

    /// Bytes that are lent now.
    pub(super) fn lent(&self) -> usize {
        self.lent
    }

    /// An empty buffer for at least `bytes` bytes; `None` if the pool is used up.
    pub(super) fn take(&mut self, bytes: usize) -> Option<Vec<u8>> {
        let size = size_of_class(class(bytes));
        if self.lent + size > self.max {
            return None;
        }
        self.lent += size;
        Some(
            self.free[class(bytes)]
                .pop()
                .unwrap_or_else(|| Vec::with_capacity(size)),
        )
    }

    /// Takes a buffer back. One without memory, which was never lent, is ignored.
    pub(super) fn give(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() == 0 {
            return;
        }
        let class = class(buffer.capacity());
        self.lent -= size_of_class(class);
        buffer.clear();
        // Large ones go back to the system.
        if size_of_class(class) <= 16 * BUFFER_MIN_BYTES {
            self.free[class].push(buffer).ok();
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
        let mut buffers = Buffers::new(64 * 1024);
        let mut lent: Vec<_> = std::iter::from_fn(|| buffers.take(10_000)).collect();
        assert_eq!((lent.len(), buffers.lent()), (4, 64 * 1024));
        buffers.give(lent.remove(0));
        let mut small = buffers.take(1).expect("there is room again");
        small.extend_from_slice(b"half a packet");
        assert!(buffers.grow(&mut small, 8000));
        assert!(!buffers.grow(&mut small, 20_000), "the rest is lent");
        assert_eq!(small, b"half a packet");
        lent.push(small);
        lent.into_iter().for_each(|buffer| buffers.give(buffer));
        assert_eq!(buffers.lent(), 0);
    }
}
