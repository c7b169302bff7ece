//! The data representations [MQTT 1.5], read from bytes.

use crate::decode::Malformed;
use crate::{PacketId, Properties, PropertyContext, Version, topic};

/// What is left of the bytes of a packet.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// A byte that was checked to be 0 or 1.
    #[inline]
    pub(crate) fn flag(&mut self) -> Result<bool, Malformed> {
        self.u8().map(|byte| byte != 0)
    }

    /// A Variable Byte Integer in its shortest form [MQTT 1.5.5].
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u32, Malformed> {
        let integer = VarInt::read(self.rest)?.ok_or(TRUNCATED)?;
        if !integer.is_shortest() {
            return Err(Malformed::packet(
                "MQTT-1.5.5-1",
                "a Variable Byte Integer is longer than it need be",
            ));
        }
        self.take(integer.size)?;
        Ok(integer.value)
    }

    /// Binary Data: a length of two bytes, and so many bytes [MQTT 1.5.6].
    #[inline]
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// A UTF-8 Encoded String [MQTT 1.5.4].
    #[inline]
    pub(crate) fn string(&mut self) -> Result<&'a str, Malformed> {
        let string = self.utf8()?;
        if string.as_bytes().contains(&0) {
            return Err(NUL);
        }
        Ok(string)
    }

    /// A Topic Name, or the empty string that may stand for one where there is a Topic Alias.
    #[inline]
    pub(crate) fn topic_name_or_empty(&mut self) -> Result<&'a str, Malformed> {
        let name = self.utf8()?;
        if name.is_empty() || topic::name_is_valid(name) {
            Ok(name)
        } else if name.as_bytes().contains(&0) {
            Err(NUL)
        } else {
            Err(Malformed::packet(
                "MQTT-3.3.2-2",
                "a Topic Name has a wildcard character",
            ))
        }
    }

    #[inline]
    pub(crate) fn packet_id(&mut self) -> Result<PacketId, Malformed> {
        PacketId::new(self.u16()?).ok_or(Malformed::packet(
            "MQTT-2.2.1-3",
            "the Packet Identifier is zero",
        ))
    }

    /// The properties with their length; none in MQTT 3.1.1.
    #[inline]
    pub(crate) fn properties(
        &mut self,
        version: Version,
        context: PropertyContext,
    ) -> Result<Properties<'a>, Malformed> {
        if version == Version::V311 {
            return Ok(Properties::EMPTY);
        }
        match self.varint()? {
            0 => Ok(Properties::EMPTY),
            len => Properties::from_encoded(self.take(len as usize)?, context),
        }
    }

    /// Fails unless everything has been read.
    #[inline]
    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(Malformed::packet(
                "MQTT 2.1.4",
                "the packet has bytes after its last field",
            ))
        }
    }

    #[inline]
    fn utf8(&mut self) -> Result<&'a str, Malformed> {
        core::str::from_utf8(self.binary()?)
            .map_err(|_| Malformed::packet("MQTT-1.5.4-1", "a string is not well-formed UTF-8"))
    }
}

/// A Variable Byte Integer as it stands in the bytes.
#[derive(Clone, Copy)]
pub(crate) struct VarInt {
    /// Its value, at most 268,435,455.
    pub(crate) value: u32,
    /// Bytes that it takes, 1 to 4.
    pub(crate) size: usize,
}

impl VarInt {
    /// Reads one at the start of `bytes`; `None` while it is not whole.
    #[inline]
    pub(crate) fn read(bytes: &[u8]) -> Result<Option<VarInt>, Malformed> {
        let mut value = 0;
        for (index, &byte) in bytes.iter().take(4).enumerate() {
            value |= u32::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(Some(VarInt {
                    value,
                    size: index + 1,
                }));
            }
        }
        if bytes.len() < 4 {
            return Ok(None);
        }
        Err(Malformed::packet(
            "MQTT 1.5.5",
            "a Variable Byte Integer has more than four bytes",
        ))
    }

    /// Whether it takes no more bytes than its value needs [MQTT-1.5.5-1].
    #[inline]
    pub(crate) fn is_shortest(self) -> bool {
        self.size == 1 || self.value >> (7 * (self.size - 1)) != 0
    }
}

const TRUNCATED: Malformed =
    Malformed::packet("MQTT 2.1.4", "the packet ends in the middle of a field");

const NUL: Malformed = Malformed::packet("MQTT-1.5.4-2", "a string has the character U+0000");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn variable_byte_integers_have_the_sizes_of_1_5_5() {
        for (bytes, value) in [
            (&[0x00][..], 0),
            (&[0x7F], 127),
            (&[0x80, 0x01], 128),
            (&[0xFF, 0x7F], 16_383),
            (&[0x80, 0x80, 0x01], 16_384),
            (&[0xFF, 0xFF, 0x7F], 2_097_151),
            (&[0x80, 0x80, 0x80, 0x01], 2_097_152),
            (&[0xFF, 0xFF, 0xFF, 0x7F], 268_435_455),
        ] {
            let mut reader = Reader::new(bytes);
            assert_eq!(reader.varint(), Ok(value));
            assert!(reader.is_empty());
            for cut in 0..bytes.len() {
                assert!(VarInt::read(&bytes[..cut]).unwrap().is_none());
            }
        }
        assert_eq!(
            Reader::new(&[0x80, 0x00]).varint().unwrap_err().clause,
            "MQTT-1.5.5-1"
        );
        assert_eq!(
            Reader::new(&[0x80; 4]).varint().unwrap_err().clause,
            "MQTT 1.5.5"
        );
    }

    #[test]
    fn strings_are_well_formed_utf_8() {
        // "A𪛔", the non-normative example of 1.5.4.
        assert_eq!(
            Reader::new(&[0, 5, 0x41, 0xF0, 0xAA, 0x9B, 0x94]).string(),
            Ok("A\u{2A6D4}")
        );
        // A byte order mark is kept [MQTT-1.5.4-3].
        assert_eq!(
            Reader::new(&[0, 3, 0xEF, 0xBB, 0xBF]).string(),
            Ok("\u{FEFF}")
        );
        let surrogate = Reader::new(&[0, 3, 0xED, 0xA0, 0x80]).string().unwrap_err();
        assert_eq!(surrogate.clause, "MQTT-1.5.4-1");
        assert_eq!(
            Reader::new(&[0, 1, 0]).string().unwrap_err().clause,
            "MQTT-1.5.4-2"
        );
        assert_eq!(Reader::new(&[0, 2, b'a']).string().unwrap_err(), TRUNCATED);
    }
}
