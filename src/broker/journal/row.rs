//! Rows of queues, as the journal takes, keeps and gives them.

use super::{MessageNo, RowNo};
use crate::record::{Message, Owe, Seq, SessionKey, ShareKey};
use crate::time::{Mono, ServiceSeconds};
use larder_packet::Qos;

/// A row to be appended.
pub(in crate::broker) struct NewRow<'a> {
    /// The session's place in the core's table.
    pub(in crate::broker) place: u32,
    /// The number of the queue among the session's lanes.
    pub(in crate::broker) lane: u8,
    pub(in crate::broker) session: SessionKey,
    pub(in crate::broker) seq: Seq,
    pub(in crate::broker) message: MessageNo,
    pub(in crate::broker) qos: Qos,
    pub(in crate::broker) retain: bool,
    pub(in crate::broker) subscription_ids: &'a [u8],
    pub(in crate::broker) share: Option<ShareKey>,
    pub(in crate::broker) queued_at: ServiceSeconds,
    pub(in crate::broker) messages_before: u64,
    pub(in crate::broker) bytes_before: u64,
    pub(in crate::broker) indexed: bool,
}

/// A row as the journal keeps it while its batch is not committed.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct Row {
    pub(in crate::broker) place: u32,
    pub(in crate::broker) lane: u8,
    pub(in crate::broker) seq: Seq,
    /// The next row of the same session, in this batch or the next.
    pub(in crate::broker) next: RowNo,
    pub(in crate::broker) sent: bool,
    pub(super) settled: bool,
    pub(super) message: u32,
    pub(super) change: u32,
    pub(super) at: Mono,
}

/// A row with its bytes.
pub(in crate::broker) struct RowView<'a> {
    pub(in crate::broker) row: &'a Row,
    pub(in crate::broker) owe: &'a Owe,
    pub(in crate::broker) message: &'a Message,
    pub(in crate::broker) bytes: &'a [u8],
}

/// What the commit of a batch means to the sessions that have rows in it.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct CommittedRow {
    pub(in crate::broker) no: RowNo,
    pub(in crate::broker) row: Row,
}
