//! The bytes of a retained message, and the memory that one leaves to the next.

use crate::record::LeftOut;

/// Messages take memory in steps of so many bytes,
pub(super) const BODY_STEP_BYTES: usize = 8;
/// and leave less than this of it unused.
const BODY_SLACK_BYTES: usize = 64;

/// Where a message is.
pub(super) enum Body {
    /// Here: its properties, then the payload. Nothing: it was removed, and the topic stays for what the store is to be told.
    Held(Vec<u8>),
    /// On disk only.
    OnDisk(LeftOut),
}

impl Default for Body {
    fn default() -> Body {
        Body::Held(Vec::new())
    }
}

impl Body {
    pub(super) fn len(&self) -> usize {
        match self {
            Body::Held(bytes) => bytes.len(),
            Body::OnDisk(left_out) => left_out.len as usize,
        }
    }

    /// Bytes of memory.
    pub(super) fn cost(&self) -> usize {
        match self {
            Body::Held(bytes) => bytes.capacity(),
            Body::OnDisk(_) => 0,
        }
    }

    /// Its memory, emptied, for a message of `len` bytes, if it is about as large.
    pub(super) fn reuse(self, len: usize) -> Vec<u8> {
        match self {
            Body::Held(mut bytes) if Body::fits(len, bytes.capacity()) => {
                bytes.clear();
                bytes
            }
            _ => Vec::with_capacity(Body::memory(len)),
        }
    }

    fn fits(len: usize, capacity: usize) -> bool {
        (len..len + BODY_SLACK_BYTES).contains(&capacity) && len > 0
    }

    /// Bytes that a message of `len` bytes takes: a topic whose messages differ a little in length finds room for each.
    pub(super) fn memory(len: usize) -> usize {
        len.next_multiple_of(BODY_STEP_BYTES)
    }
}
