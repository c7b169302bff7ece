//! The journal: what must be durable before it is acknowledged, in two batches. One fills while the other is committed.
//!
//! A message stays readable here until its batch is committed: windows are fed from it, so that live traffic never waits
//! for the disk. What is settled before it is written is never written: a row that is settled in the filling batch is
//! cancelled, and a message with no row left frees its PUBACK.

mod commit;
mod retained;
mod row;

pub(in crate::broker) use retained::{InBatch, RetainedChange};
pub(in crate::broker) use row::{CommittedRow, NewRow, Row, RowView};

use super::message::Content;
use crate::limits::BATCH_SETTLEMENTS;
use crate::net::LinkId;
use crate::record::{Batch, Change, Message, Owe, Seq, SessionKey, Span, Ticket};
use crate::time::{Mono, Now};
use std::sync::Arc;

/// Numbers the messages of all batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MessageNo(u64);

/// Numbers the rows of all batches; [`RowNo::NONE`] names none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RowNo(u64);

impl RowNo {
    /// No row, or one that is on disk by now.
    pub(super) const NONE: RowNo = RowNo(0);
}

/// What a reply rests on: it may leave when this is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RestsOn {
    /// Nothing that is stored.
    Nothing,
    /// The commit of this batch and of all before it.
    Ticket(Ticket),
    /// The commit of this message, or the settlement of every row that owes it.
    Message(MessageNo),
    /// The end of all walks of the session, and the commit of its last change.
    Walks,
}

struct MessageState {
    /// Rows that are not settled.
    owed: u32,
    /// Whose acknowledgement waits for it.
    publisher: LinkId,
}

/// What the core remembers of a batch besides the batch itself.
#[derive(Default)]
struct Side {
    first_message: u64,
    first_row: u64,
    messages: Vec<MessageState>,
    rows: Vec<Row>,
}

impl Side {
    fn row_index(&self, no: RowNo) -> Option<usize> {
        let index = usize::try_from(no.0.checked_sub(self.first_row)?).ok()?;
        (index < self.rows.len()).then_some(index)
    }

    fn message_state(&mut self, no: MessageNo) -> Option<&mut MessageState> {
        let index = usize::try_from(no.0.checked_sub(self.first_message)?).ok()?;
        self.messages.get_mut(index)
    }
}

/// A batch with its whole memory, of which only what it has once held is touched. It would take up to twice as much if it
/// grew by itself.
fn empty(bytes_max: usize, changes_max: usize) -> (Batch, Side) {
    let batch = Batch {
        bytes: Vec::with_capacity(bytes_max),
        changes: Vec::with_capacity(changes_max),
        ..Batch::default()
    };
    let side = Side {
        rows: Vec::with_capacity(changes_max),
        ..Side::default()
    };
    (batch, side)
}

/// The two batches.
pub(super) struct Journal {
    batch: Batch,
    filling: Side,
    committing: Option<(Arc<Batch>, Side)>,
    /// Memory of a committed batch, used again.
    spare: Option<(Arc<Batch>, Side)>,
    committed: Ticket,
    bytes_max: usize,
    changes_max: usize,
    /// Changes of the filling batch that are not cancelled.
    live: usize,
    /// Rows of the filling batch that are neither settled nor sent.
    unsent: usize,
    /// Rows of the filling batch that are not settled.
    unsettled: usize,
    /// The first row of the filling batch that may be unsettled.
    oldest_row: usize,
    /// When the first change that is not a row came.
    other_since: Option<Mono>,
    urgent: bool,
    /// Publishers whose message has just been settled everywhere.
    released: Vec<LinkId>,
    /// Whether room was made since it was last asked.
    made_room: bool,
    /// Whether the filling batch is to write down the service time.
    note: bool,
}

impl Journal {
    pub(super) fn new(bytes_max: usize, changes_max: usize) -> Journal {
        let (batch, filling) = empty(bytes_max, changes_max);
        let (spare, spare_side) = empty(bytes_max, changes_max);
        Journal {
            batch: Batch {
                ticket: Ticket(1),
                ..batch
            },
            filling: Side {
                first_message: 1,
                first_row: 1,
                ..filling
            },
            committing: None,
            spare: Some((Arc::new(spare), spare_side)),
            committed: Ticket(0),
            bytes_max,
            changes_max,
            live: 0,
            unsent: 0,
            unsettled: 0,
            oldest_row: 0,
            other_since: None,
            urgent: false,
            released: Vec::new(),
            made_room: false,
            note: false,
        }
    }

    // --- What replies rest on ---

    /// Whether everything that a reply rests on is durable, or no longer owed.
    pub(super) fn is_done(&self, rests_on: RestsOn) -> bool {
        match rests_on {
            RestsOn::Nothing => true,
            RestsOn::Ticket(ticket) => ticket <= self.committed,
            RestsOn::Message(no) => !self.owes(no),
            // The session knows; it names a ticket when they are over.
            RestsOn::Walks => false,
        }
    }

    fn owes(&self, no: MessageNo) -> bool {
        let sides = [
            Some(&self.filling),
            self.committing.as_ref().map(|(_, side)| side),
        ];
        sides.into_iter().flatten().any(|side| {
            no.0.checked_sub(side.first_message)
                .and_then(|index| side.messages.get(usize::try_from(index).ok()?))
                .is_some_and(|message| message.owed > 0)
        })
    }

    /// Whether [`Journal::poll_released`] has somebody to name.
    pub(super) fn has_released(&self) -> bool {
        !self.released.is_empty()
    }

    /// A publisher whose message has been settled everywhere since the last call.
    pub(super) fn poll_released(&mut self) -> Option<LinkId> {
        self.released.pop()
    }

    // --- Recording ---

    /// Whether a message of `bytes` bytes, owed to `rows` sessions, fits into the filling batch.
    pub(super) fn has_room(&self, bytes: usize, rows: usize) -> bool {
        // Each row may bring a reserve of sequence numbers and a drop of older rows, and all of them the publisher's hold, and
        // what becomes of the topic's retained message.
        self.batch.bytes.len() + bytes <= self.bytes_max
            && self.batch.changes.len() + 3 * rows + 2 + BATCH_SETTLEMENTS <= self.changes_max
    }

    /// Whether `changes` changes that are no rows, with `bytes` bytes, fit into the filling batch.
    pub(super) fn has_room_for_changes(&self, bytes: usize, changes: usize) -> bool {
        self.batch.bytes.len() + bytes <= self.bytes_max
            && self.batch.changes.len() + changes + BATCH_SETTLEMENTS <= self.changes_max
    }

    /// Whether a settlement fits.
    pub(super) fn has_room_to_settle(&self) -> bool {
        self.batch.changes.len() < self.changes_max
    }

    /// Copies a message into the filling batch; rows that owe it follow.
    pub(super) fn message(&mut self, content: &Content, publisher: LinkId) -> MessageNo {
        let no = MessageNo(self.filling.first_message + self.filling.messages.len() as u64);
        let message = Message {
            topic: self.bytes(content.topic.as_bytes()),
            properties: self.bytes(content.properties),
            payload: self.bytes(content.payload),
            expires_at: content.expires_at,
        };
        self.batch.messages.push(message);
        self.filling
            .messages
            .push(MessageState { owed: 0, publisher });
        no
    }

    /// A message of the filling batch, as its changes name it.
    pub(super) fn index_of(&self, no: MessageNo) -> u32 {
        u32::try_from(no.0 - self.filling.first_message).unwrap_or(u32::MAX)
    }

    /// Appends a row; `last` is the session's last row so far, which is linked to it.
    pub(super) fn owe(&mut self, new: &NewRow, last: RowNo, at: Mono) -> RowNo {
        let no = RowNo(self.filling.first_row + self.filling.rows.len() as u64);
        let message = self.index_of(new.message);
        let subscription_ids = self.bytes(new.subscription_ids);
        let change = u32::try_from(self.batch.changes.len()).unwrap_or(u32::MAX);
        self.batch.changes.push(Change::Owe(Owe {
            session: new.session,
            seq: new.seq,
            message,
            qos: new.qos,
            retain: new.retain,
            subscription_ids,
            share: new.share,
            queued_at: new.queued_at,
            messages_before: new.messages_before,
            bytes_before: new.bytes_before,
            indexed: new.indexed,
        }));
        self.filling.rows.push(Row {
            place: new.place,
            lane: new.lane,
            seq: new.seq,
            next: RowNo::NONE,
            sent: false,
            settled: false,
            message,
            change,
            at,
        });
        if let Some(state) = self.filling.message_state(new.message) {
            state.owed += 1;
        }
        if let Some(row) = self.row_mut(last) {
            row.next = no;
        }
        self.live += 1;
        self.unsent += 1;
        self.unsettled += 1;
        no
    }

    /// Records a change that is no row. `urgent`: a reply waits for it.
    pub(super) fn record(&mut self, change: Change, urgent: bool, now: Now) -> Ticket {
        self.batch.changes.push(change);
        self.live += 1;
        self.urgent |= urgent;
        self.other_since.get_or_insert(now.mono);
        self.batch.ticket
    }

    /// Copies bytes that a change names (a filter, a Client Identifier) into the filling batch.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Span {
        let start = u32::try_from(self.batch.bytes.len()).unwrap_or(u32::MAX);
        self.batch.bytes.extend_from_slice(bytes);
        Span {
            start,
            len: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        }
    }

    /// Marks a row as sent: it is no longer a reason to hurry.
    pub(super) fn sent(&mut self, no: RowNo) {
        if let Some(index) = self.filling.row_index(no) {
            let row = &mut self.filling.rows[index];
            if !row.sent && !row.settled {
                self.unsent -= 1;
            }
            row.sent = true;
        } else if let Some(row) = self.row_mut(no) {
            row.sent = true;
        }
    }

    /// The link ended to which these rows were sent: they wait to be sent again.
    pub(super) fn unsent(&mut self, no: RowNo) {
        if let Some(index) = self.filling.row_index(no) {
            let row = &mut self.filling.rows[index];
            if row.sent && !row.settled {
                self.unsent += 1;
            }
            row.sent = false;
        } else if let Some(row) = self.row_mut(no) {
            row.sent = false;
        }
    }

    /// Settles a row: cancels it if it is not being written yet, removes it from the disk otherwise.
    pub(super) fn settle(&mut self, session: SessionKey, seq: Seq, no: RowNo, now: Now) {
        if let Some(index) = self.filling.row_index(no) {
            self.cancel(index);
            self.forget_if_all_cancelled();
            return;
        }
        let committing = self
            .committing
            .as_mut()
            .and_then(|(_, side)| Some((side.row_index(no)?, side)));
        if let Some((index, side)) = committing {
            let row = &mut side.rows[index];
            if row.settled {
                return;
            }
            row.settled = true;
            let message = row.message;
            Self::settled(side, message, &mut self.released);
        }
        self.record(Change::Settle { session, seq }, false, now);
    }

    fn settled(side: &mut Side, message: u32, released: &mut Vec<LinkId>) {
        let state = &mut side.messages[message as usize];
        state.owed -= 1;
        if state.owed == 0 {
            released.push(state.publisher);
        }
    }

    /// If everything in the filling batch is cancelled, its memory is used again, and nothing is written.
    fn forget_if_all_cancelled(&mut self) {
        if self.live > 0 {
            return;
        }
        self.filling.first_message += self.filling.messages.len() as u64;
        self.filling.first_row += self.filling.rows.len() as u64;
        self.filling.messages.clear();
        self.filling.rows.clear();
        self.batch.bytes.clear();
        self.batch.messages.clear();
        self.batch.changes.clear();
        self.oldest_row = 0;
        self.other_since = None;
        self.urgent = false;
        self.made_room = true;
    }

    /// The session at this place has ended: what it was owed is owed no longer.
    pub(super) fn disown(&mut self, place: u32) {
        if let Some((_, side)) = &mut self.committing {
            for index in 0..side.rows.len() {
                let row = &mut side.rows[index];
                if row.place == place && !row.settled {
                    row.settled = true;
                    let message = row.message;
                    Self::settled(side, message, &mut self.released);
                }
            }
        }
        for index in 0..self.filling.rows.len() {
            if self.filling.rows[index].place == place {
                self.cancel(index);
            }
        }
        self.forget_if_all_cancelled();
    }

    /// A row of the filling batch is settled before it is written, and is never written.
    fn cancel(&mut self, index: usize) {
        let row = &mut self.filling.rows[index];
        if row.settled {
            return;
        }
        row.settled = true;
        let (message, change, sent) = (row.message, row.change, row.sent);
        self.batch.changes[change as usize] = Change::Cancelled;
        self.live -= 1;
        self.unsettled -= 1;
        self.unsent -= usize::from(!sent);
        Self::settled(&mut self.filling, message, &mut self.released);
    }

    /// So many sessions may be owed one message.
    pub(super) fn raise_changes_max(&mut self, changes_max: usize) {
        self.changes_max = self.changes_max.max(changes_max);
    }

    /// Whether room was made since [`Journal::take_made_room`] was called.
    pub(super) fn has_made_room(&self) -> bool {
        self.made_room
    }

    /// Whether room was made since the last call: what did not fit may fit now.
    pub(super) fn take_made_room(&mut self) -> bool {
        std::mem::take(&mut self.made_room)
    }

    // --- Reading rows that are not on disk yet ---

    /// A row of the filling or the committing batch.
    pub(super) fn row(&self, no: RowNo) -> Option<RowView<'_>> {
        let (batch, row) = if let Some(index) = self.filling.row_index(no) {
            (&self.batch, &self.filling.rows[index])
        } else {
            let (batch, side) = self.committing.as_ref()?;
            (batch.as_ref(), &side.rows[side.row_index(no)?])
        };
        // A row that was cancelled was sent and acknowledged; nobody asks for it again.
        let Change::Owe(owe) = batch.changes.get(row.change as usize)? else {
            return None;
        };
        Some(RowView {
            row,
            owe,
            message: &batch.messages[row.message as usize],
            bytes: &batch.bytes,
        })
    }

    /// The row after `no` in its session's chain.
    pub(super) fn next(&self, no: RowNo) -> RowNo {
        if let Some(index) = self.filling.row_index(no) {
            return self.filling.rows[index].next;
        }
        self.committing
            .as_ref()
            .and_then(|(_, side)| side.row_index(no).map(|index| side.rows[index].next))
            .unwrap_or(RowNo::NONE)
    }

    /// Unsettled rows of a session's queue that are not on disk yet, oldest first.
    pub(super) fn rows_of(&self, of: (u32, u8)) -> impl Iterator<Item = (RowNo, Seq)> + '_ {
        let committing = self.committing.iter().map(|(_, side)| side);
        let sides = committing.chain(std::iter::once(&self.filling));
        sides.flat_map(move |side| {
            let rows = side.rows.iter().enumerate();
            rows.filter(move |(_, row)| (row.place, row.lane) == of && !row.settled)
                .map(|(index, row)| (RowNo(side.first_row + index as u64), row.seq))
        })
    }

    fn row_mut(&mut self, no: RowNo) -> Option<&mut Row> {
        if let Some(index) = self.filling.row_index(no) {
            return Some(&mut self.filling.rows[index]);
        }
        let (_, side) = self.committing.as_mut()?;
        let index = side.row_index(no)?;
        Some(&mut side.rows[index])
    }
}
