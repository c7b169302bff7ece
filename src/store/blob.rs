//! The format of every BLOB in the database: one byte format number, a postcard encoding, CRC-32C.
//!
//! SQLite does not notice a flipped payload bit, and postcard decodes most of them into something else; the checksum
//! does notice. It covers the columns beside the BLOB too, so that a row found under the wrong key is a bad row.

use crate::record::{ShareKey, WillRecord};
use crate::time::ServiceSeconds;
use crc::{CRC_32_ISCSI, Crc, Digest};
use larder_packet::Qos;
use serde::{Deserialize, Serialize};

/// The format of all but rows.
const FORMAT: u8 = 1;
/// The format in which rows are written.
const ROW_FORMAT: u8 = 2;
/// The format in which rows are written that are owed by a Shared Subscription: its key stands behind the rest.
const SHARED_ROW_FORMAT: u8 = 3;
/// Rows without `queued_at`; those that are on disk are read for ever.
const ROW_FORMAT_1: u8 = 1;
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

/// A retained message; its topic stands beside it.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct RetainedRecord<'a> {
    /// With which QoS it was published, 0 to 2.
    pub(super) qos: u8,
    pub(super) expires_at: Option<ServiceSeconds>,
    #[serde(borrow, with = "serde_bytes")]
    pub(super) properties: &'a [u8],
    #[serde(borrow, with = "serde_bytes")]
    pub(super) payload: &'a [u8],
}

/// A Will with its message.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct WillWithMessage<'a> {
    pub(super) will: WillRecord,
    #[serde(borrow)]
    pub(super) message: MessageRecord<'a>,
}

/// A row of a queue.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct RowRecord<'a> {
    pub(super) flags: Flags,
    /// 0 if it was written in format 1.
    pub(super) queued_at: ServiceSeconds,
    #[serde(borrow, with = "serde_bytes")]
    pub(super) subscription_ids: &'a [u8],
    /// In format 3, behind the others.
    #[serde(skip)]
    pub(super) share: Option<ShareKey>,
    /// `None`: the row names a shared message, or its receiver has it.
    #[serde(borrow)]
    pub(super) message: Option<MessageRecord<'a>>,
}

/// A row of a queue in format 1.
#[derive(Deserialize)]
struct RowRecord1<'a> {
    flags: Flags,
    #[serde(borrow, with = "serde_bytes")]
    subscription_ids: &'a [u8],
    #[serde(borrow)]
    message: Option<MessageRecord<'a>>,
}

/// Bits 0 and 1: the granted QoS; bit 2: RETAIN; bit 3: the receiver has the message.
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

    pub(super) fn is_received(self) -> bool {
        self.0 & 8 != 0
    }

    /// The same, once the receiver has the message.
    #[must_use]
    pub(super) fn received(self) -> Flags {
        Flags(self.0 | 8)
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
    seal_in(FORMAT, columns, text, value, blob)
}

/// As [`seal`], a row.
pub(super) fn seal_row(
    columns: &[i64; 5],
    row: &RowRecord<'_>,
    blob: &mut Vec<u8>,
) -> Result<(), postcard::Error> {
    match row.share {
        None => seal_in(ROW_FORMAT, columns, "", row, blob),
        Some(share) => seal_in(SHARED_ROW_FORMAT, columns, "", &(row, share), blob),
    }
}

fn seal_in<T: Serialize>(
    format: u8,
    columns: &[i64],
    text: &str,
    value: &T,
    blob: &mut Vec<u8>,
) -> Result<(), postcard::Error> {
    blob.clear();
    blob.push(format);
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
    match checked(columns, text, blob)? {
        (FORMAT, encoded) => decode(encoded),
        _ => None,
    }
}

/// As [`unseal`], a row of any format.
pub(super) fn unseal_row<'a>(columns: &[i64; 5], blob: &'a [u8]) -> Option<RowRecord<'a>> {
    match checked(columns, "", blob)? {
        (ROW_FORMAT, encoded) => decode(encoded),
        (SHARED_ROW_FORMAT, encoded) => decode(encoded).map(|(row, share)| RowRecord {
            share: Some(share),
            ..row
        }),
        (ROW_FORMAT_1, encoded) => decode(encoded).map(|row: RowRecord1<'a>| RowRecord {
            flags: row.flags,
            queued_at: ServiceSeconds(0),
            subscription_ids: row.subscription_ids,
            share: None,
            message: row.message,
        }),
        _ => None,
    }
}

/// The format number and the encoding, if the checksum is right.
fn checked<'a>(columns: &[i64], text: &str, blob: &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (body, checksum) = blob.split_last_chunk::<CHECKSUM_BYTES>()?;
    let mut digest = digest(columns, text);
    digest.update(body);
    if digest.finalize().to_le_bytes() != *checksum {
        return None;
    }
    body.split_first()
        .map(|(&format, encoded)| (format, encoded))
}

fn decode<'a, T: Deserialize<'a>>(encoded: &'a [u8]) -> Option<T> {
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
            queued_at: ServiceSeconds(300),
            subscription_ids: &[0x0b, 7],
            share: None,
            message: Some(MessageRecord {
                expires_at: Some(ServiceSeconds(70_000)),
                topic: b"cellar/temperature",
                properties: &[],
                payload: b"12.5",
            }),
        }
    }

    const COLUMNS: [i64; 5] = [1, 2, 3, 4, 5];

    #[test]
    fn reads_back_what_it_wrote() {
        let mut blob = Vec::new();
        seal_row(&COLUMNS, &row(), &mut blob).unwrap();
        let read = unseal_row(&COLUMNS, &blob).unwrap();
        assert_eq!(read.flags.qos(), Some(Qos::ExactlyOnce));
        assert!(read.flags.retain() && !read.flags.is_received());
        assert_eq!(read.queued_at.0, 300);
        assert_eq!(read.subscription_ids, [0x0b, 7]);
        let message = read.message.unwrap();
        assert_eq!(message.topic, b"cellar/temperature");
        assert_eq!(message.payload, b"12.5");
        assert_eq!(message.expires_at.unwrap().0, 70_000);
        let received = read.flags.received();
        assert!(received.is_received() && received.retain());
        assert_eq!(received.qos(), Some(Qos::ExactlyOnce));
    }

    /// The formats must never change: this is what lies on people's disks.
    #[test]
    fn writes_the_bytes_of_its_formats() {
        let body = |blob: &[u8]| blob[..blob.len() - CHECKSUM_BYTES].to_vec();
        let mut blob = Vec::new();
        seal_row(&COLUMNS, &row(), &mut blob).unwrap();
        assert_eq!(
            body(&blob),
            b"\x02\x06\xac\x02\x02\x0b\x07\x01\x01\xf0\xa2\x04\x12cellar/temperature\x00\x0412.5"
        );
        let shared = RowRecord {
            share: Some(ShareKey(300)),
            ..row()
        };
        seal_row(&COLUMNS, &shared, &mut blob).unwrap();
        assert_eq!(unseal_row(&COLUMNS, &blob).unwrap().share, shared.share);
        assert_eq!(
            body(&blob),
            b"\x03\x06\xac\x02\x02\x0b\x07\x01\x01\xf0\xa2\x04\x12cellar/temperature\x00\x0412.5\xac\x02"
        );
        let retained = RetainedRecord {
            qos: 1,
            expires_at: None,
            properties: &[1, 1],
            payload: b"on",
        };
        seal(&[], "hall/light", &retained, &mut blob).unwrap();
        assert_eq!(body(&blob), b"\x01\x01\x00\x02\x01\x01\x02on");
        let will = WillWithMessage {
            will: WillRecord {
                qos: 2,
                retain: true,
                delay_interval: 300,
                message_expiry_interval: Some(5),
            },
            message: row().message.unwrap(),
        };
        seal(&[9], "", &will, &mut blob).unwrap();
        assert_eq!(
            body(&blob),
            b"\x01\x02\x01\xac\x02\x01\x05\x01\xf0\xa2\x04\x12cellar/temperature\x00\x0412.5"
        );
    }

    #[test]
    fn reads_a_row_of_format_1() {
        let body = b"\x01\x06\x02\x0b\x07\x01\x01\xf0\xa2\x04\x12cellar/temperature\x00\x0412.5";
        let mut blob = body.to_vec();
        let mut digest = digest(&COLUMNS, "");
        digest.update(&blob);
        blob.extend_from_slice(&digest.finalize().to_le_bytes());
        let read = unseal_row(&COLUMNS, &blob).unwrap();
        assert_eq!((read.flags.0, read.queued_at.0, read.share), (6, 0, None));
        assert_eq!(read.subscription_ids, [0x0b, 7]);
        assert_eq!(read.message.unwrap().payload, b"12.5");
    }

    #[test]
    fn notices_every_flipped_bit_and_every_cut() {
        let mut blob = Vec::new();
        seal_row(&COLUMNS, &row(), &mut blob).unwrap();
        for bit in 0..blob.len() * 8 {
            let mut flipped = blob.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal_row(&COLUMNS, &flipped).is_none(), "bit {bit}");
        }
        for length in 0..blob.len() {
            assert!(unseal_row(&COLUMNS, &blob[..length]).is_none());
        }
        assert!(unseal_row(&[1, 2, 3, 4, 6], &blob).is_none());
        seal(&[1], "x", &7u8, &mut blob).unwrap();
        assert_eq!(unseal(&[1], "x", &blob), Some(7u8));
        assert_eq!(unseal::<u8>(&[1], "y", &blob), None);
    }

    #[test]
    fn refuses_bytes_left_over_and_other_formats() {
        let mut blob = Vec::new();
        seal(&[], "", &(7u8, 8u8), &mut blob).unwrap();
        assert_eq!(unseal::<(u8, u8)>(&[], "", &blob), Some((7, 8)));
        assert_eq!(unseal::<u8>(&[], "", &blob), None);
        seal_in(2, &[], "", &(7u8, 8u8), &mut blob).unwrap();
        assert_eq!(unseal::<(u8, u8)>(&[], "", &blob), None);
        seal_in(4, &COLUMNS, "", &row(), &mut blob).unwrap();
        assert!(unseal_row(&COLUMNS, &blob).is_none());
    }
}
