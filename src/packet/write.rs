//! The data representations [MQTT 1.5], written to a sink.

use crate::{Properties, Version};

/// Takes encoded bytes: a buffer, or [`Count`], which only counts them. One description of a packet so gives both its
/// length and its bytes.
pub(crate) trait Sink {
    fn put(&mut self, bytes: &[u8]);

    fn u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    fn u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    /// A Variable Byte Integer, at most 268,435,455 [MQTT 1.5.5].
    fn varint(&mut self, value: u32) {
        debug_assert!(
            value <= VARINT_MAX,
            "{value} does not fit a Variable Byte Integer"
        );
        let mut rest = value;
        while rest > 0x7F {
            self.u8(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.u8(rest as u8);
    }

    /// Binary Data; what does not fit its length is cut [MQTT 1.5.6].
    fn binary(&mut self, bytes: &[u8]) {
        let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.u16(len);
        self.put(&bytes[..usize::from(len)]);
    }

    /// A UTF-8 Encoded String; what does not fit its length is cut at a character [MQTT 1.5.4].
    fn string(&mut self, string: &str) {
        let mut len = string.len().min(usize::from(u16::MAX));
        while !string.is_char_boundary(len) {
            len -= 1;
        }
        self.binary(&string.as_bytes()[..len]);
    }

    /// Properties with their length; nothing in MQTT 3.1.1.
    fn properties(&mut self, version: Version, properties: Properties<'_>) {
        if version == Version::V5 {
            self.varint(properties.as_bytes().len() as u32);
            self.put(properties.as_bytes());
        }
    }
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts bytes.
#[derive(Default)]
pub(crate) struct Count(usize);

impl Count {
    pub(crate) fn bytes(&self) -> usize {
        self.0
    }
}

impl Sink for Count {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// The largest value of a Variable Byte Integer.
pub(crate) const VARINT_MAX: u32 = 268_435_455;

/// Bytes that `value` takes as a Variable Byte Integer.
#[inline]
pub(crate) const fn varint_len(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_byte_integers_take_the_fewest_bytes() {
        for value in [
            0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, VARINT_MAX,
        ] {
            let mut bytes = Vec::new();
            bytes.varint(value);
            assert_eq!(bytes.len(), varint_len(value as usize), "{value}");
            let mut reader = crate::read::Reader::new(&bytes);
            assert_eq!(reader.varint(), Ok(value));
        }
    }
}
