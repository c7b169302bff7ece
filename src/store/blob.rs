//! The format of every BLOB in the database: one byte format number, a postcard encoding, CRC-32C.
//!
//! SQLite does not notice a flipped payload bit, and postcard decodes most of them into something else; the checksum
//! does notice. It covers the columns beside the BLOB too, so that a row found under the wrong key is a bad row.

use crate::time::ServiceSeconds;
use crc::{CRC_32_ISCSI, Crc, Digest};
use larder_packet::Qos;
use serde::{Deserialize, Serialize};

/// The only format so far.
const FORMAT: u8 = 1;
/// Bytes of the checksum at the end.
const CHECKSUM_BYTES: usize = 4;

static CRC_32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// A message, inside a [`RowRecord`] or on its own.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct MessageRecord<'a> {
    pub(super) expires_at: Option<ServiceSeconds>,
    #[serde(borrow, with = "serde_bytes")]
    pub(super) topic: &'a [u8],
    #[serde(borrow, with = "serde_bytes")]
    pub(super) properties: &'a [u8],
    #[serde(borrow, with = "serde_bytes")]
    pub(super) payload: &'a [u8],
}

/// A row of a queue.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct RowRecord<'a> {
    pub(super) flags: Flags,
    #[serde(borrow, with = "serde_bytes")]
    pub(super) subscription_ids: &'a [u8],
    /// `None`: the row names a shared message.
    #[serde(borrow)]
    pub(super) message: Option<MessageRecord<'a>>,
}

/// Bits 0 and 1: the granted QoS; bit 2: RETAIN.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Flags(u8);

impl Flags {
    pub(super) fn new(qos: Qos, retain: bool) -> Flags {
        Flags(qos as u8 | u8::from(retain) << 2)
    }

    /// `None` if the bits name no QoS.
    pub(super) fn qos(self) -> Option<Qos> {
        match self.0 & 3 {
            0 => Some(Qos::AtMostOnce),
            1 => Some(Qos::AtLeastOnce),
            2 => Some(Qos::ExactlyOnce),
            _ => None,
        }
    }

    pub(super) fn retain(self) -> bool {
        self.0 & 4 != 0
    }
}

/// Writes `value` into `blob`, replacing what it held. `columns` and `text` are what the checksum covers besides.
///
/// # Errors
/// Only if `value` has a type that postcard cannot write.
pub(super) fn seal<T: Serialize>(
    columns: &[i64],
    text: &str,
    value: &T,
    blob: &mut Vec<u8>,
) -> Result<(), postcard::Error> {
    blob.clear();
    blob.push(FORMAT);
    *blob = postcard::to_extend(value, std::mem::take(blob))?;
    let mut digest = digest(columns, text);
    digest.update(blob);
    blob.extend_from_slice(&digest.finalize().to_le_bytes());
    Ok(())
}

/// Reads what [`seal`] wrote, borrowing from `blob`; `None` if a single bit, of it or of what the checksum covers
/// besides, is another, or if bytes are left over.
pub(super) fn unseal<'a, T: Deserialize<'a>>(
    columns: &[i64],
    text: &str,
    blob: &'a [u8],
) -> Option<T> {
    let (body, checksum) = blob.split_last_chunk::<CHECKSUM_BYTES>()?;
    let mut digest = digest(columns, text);
    digest.update(body);
    if digest.finalize().to_le_bytes() != *checksum {
        return None;
    }
    let (&FORMAT, encoded) = body.split_first()? else {
        return None;
    };
    match postcard::take_from_bytes(encoded) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}

fn digest(columns: &[i64], text: &str) -> Digest<'static, u32> {
    let mut digest = CRC_32C.digest();
    for column in columns {
        digest.update(&column.to_le_bytes());
    }
    digest.update(text.as_bytes());
    digest
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn row() -> RowRecord<'static> {
        RowRecord {
            flags: Flags::new(Qos::ExactlyOnce, true),
            subscription_ids: &[0x0b, 7],
            message: Some(MessageRecord {
                expires_at: Some(ServiceSeconds(70_000)),
                topic: b"cellar/temperature",
                properties: &[],
                payload: b"12.5",
            }),
        }
    }

    #[test]
    fn reads_back_what_it_wrote() {
        let mut blob = Vec::new();
        seal(&[1, 2], "x", &row(), &mut blob).unwrap();
        let read: RowRecord = unseal(&[1, 2], "x", &blob).unwrap();
        assert_eq!(read.flags.qos(), Some(Qos::ExactlyOnce));
        assert!(read.flags.retain());
        assert_eq!(read.subscription_ids, [0x0b, 7]);
        let message = read.message.unwrap();
        assert_eq!(message.topic, b"cellar/temperature");
        assert_eq!(message.payload, b"12.5");
        assert_eq!(message.expires_at.unwrap().0, 70_000);
    }

    /// The format must never change: this is what lies on people's disks.
    #[test]
    fn writes_the_bytes_of_format_1() {
        let mut blob = Vec::new();
        seal(&[1, 2], "x", &row(), &mut blob).unwrap();
        let (body, _) = blob.split_last_chunk::<4>().unwrap();
        assert_eq!(
            body,
            b"\x01\x06\x02\x0b\x07\x01\x01\xf0\xa2\x04\x12cellar/temperature\x00\x0412.5"
        );
    }

    #[test]
    fn notices_every_flipped_bit_and_every_cut() {
        let mut blob = Vec::new();
        seal(&[1, 2], "x", &row(), &mut blob).unwrap();
        for bit in 0..blob.len() * 8 {
            let mut flipped = blob.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                unseal::<RowRecord>(&[1, 2], "x", &flipped).is_none(),
                "bit {bit}"
            );
        }
        for length in 0..blob.len() {
            assert!(unseal::<RowRecord>(&[1, 2], "x", &blob[..length]).is_none());
        }
        assert!(unseal::<RowRecord>(&[1, 3], "x", &blob).is_none());
        assert!(unseal::<RowRecord>(&[1, 2], "y", &blob).is_none());
    }

    #[test]
    fn refuses_bytes_left_over_and_other_formats() {
        let mut blob = Vec::new();
        seal(&[], "", &(7u8, 8u8), &mut blob).unwrap();
        assert_eq!(unseal::<(u8, u8)>(&[], "", &blob), Some((7, 8)));
        assert_eq!(unseal::<u8>(&[], "", &blob), None);
        blob.truncate(blob.len() - 4);
        blob[0] = 2;
        let mut digest = digest(&[], "");
        digest.update(&blob);
        blob.extend_from_slice(&digest.finalize().to_le_bytes());
        assert_eq!(unseal::<(u8, u8)>(&[], "", &blob), None);
    }
}
