//! A queue in memory: its rows by their numbers.

use super::super::latest::{LATEST_TOPICS, Sweep, hash};
use crate::record::{
    Batch, DropOldest, Dropped, End, Extent, Message, Owe, Page, PageRequest, PageRow, Passed,
    Recency, Seq, ShareKey, Span,
};
use crate::time::ServiceSeconds;
use larder_packet::Qos;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};
use std::sync::Arc;

/// The rows of a session or a lane.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    rows: BTreeMap<Seq, StoredRow>,
    /// The latest row of each topic, by the topic's hash.
    latest: BTreeMap<u64, Seq>,
    sweep: Sweep,
}

#[derive(Clone, Debug)]
struct StoredRow {
    size: u32,
    /// `None`: the receiver has it.
    message: Option<Arc<StoredMessage>>,
    queued_at: ServiceSeconds,
    qos: Qos,
    retain: bool,
    subscription_ids: Box<[u8]>,
    share: Option<ShareKey>,
    messages_before: u64,
    bytes_before: u64,
}

/// A message, as all rows of a batch share it.
#[derive(Debug)]
pub(super) struct StoredMessage {
    topic: Box<[u8]>,
    properties: Box<[u8]>,
    payload: Box<[u8]>,
    expires_at: Option<ServiceSeconds>,
}

impl StoredMessage {
    fn copy(message: &Message, bytes: &[u8]) -> Arc<StoredMessage> {
        Arc::new(StoredMessage {
            topic: message.topic.of(bytes).into(),
            properties: message.properties.of(bytes).into(),
            payload: message.payload.of(bytes).into(),
            expires_at: message.expires_at,
        })
    }
}

impl Queue {
    /// Appends a row. `messages`: those of the batch that stand in rows already.
    pub(super) fn owe(
        &mut self,
        owe: &Owe,
        batch: &Batch,
        messages: &mut [Option<Arc<StoredMessage>>],
    ) {
        let index = owe.message as usize;
        let message = messages[index]
            .get_or_insert_with(|| StoredMessage::copy(&batch.messages[index], &batch.bytes));
        let row = StoredRow {
            size: batch.messages[index].len(),
            message: Some(Arc::clone(message)),
            queued_at: owe.queued_at,
            qos: owe.qos,
            retain: owe.retain,
            subscription_ids: owe.subscription_ids.of(&batch.bytes).into(),
            share: owe.share,
            messages_before: owe.messages_before,
            bytes_before: owe.bytes_before,
        };
        self.rows.insert(owe.seq, row);
        if owe.indexed {
            let topic = batch.messages[index].topic.of(&batch.bytes);
            self.note_latest(hash(topic), owe.seq);
        } else {
            self.latest.clear();
            self.sweep = Sweep::default();
        }
    }

    fn note_latest(&mut self, hash: u64, seq: Seq) {
        if let Some(latest) = self.latest.get_mut(&hash) {
            *latest = seq;
            return;
        }
        let is_full = |latest: &BTreeMap<u64, Seq>| latest.len() >= LATEST_TOPICS as usize;
        if is_full(&self.latest) {
            let head = self.rows.first_key_value().map_or(seq, |(&head, _)| head);
            if self.sweep.is_due(head) {
                self.latest.retain(|_, of| *of >= head);
            }
        }
        if !is_full(&self.latest) {
            self.latest.insert(hash, seq);
        }
    }

    fn recency(&self, seq: Seq, row: &StoredRow) -> Recency {
        let Some(message) = &row.message else {
            return Recency::Unknown;
        };
        match self.latest.get(&hash(&message.topic)) {
            Some(latest) if *latest == seq => Recency::Latest,
            Some(latest) if *latest > seq => {
                let newer = self.rows.get(latest).and_then(|row| row.message.as_ref());
                match newer {
                    Some(newer) if newer.topic == message.topic => Recency::Superseded,
                    _ => Recency::Unknown,
                }
            }
            _ => Recency::Unknown,
        }
    }

    pub(super) fn drop_oldest(&mut self, oldest: &DropOldest) -> Dropped {
        let mut dropped = nothing(oldest);
        let mut passed = Passed::default();
        let mut after = oldest.after;
        loop {
            let next = self.range(after, oldest.up_to).next();
            let Some((seq, row)) = next else { break };
            after = seq;
            let phase = || Some((row.qos, row.message.is_none()));
            if oldest.keeps(&mut passed, seq, phase) {
                dropped.kept.0 += 1;
                dropped.kept.1 += u64::from(row.size);
                continue;
            }
            let is_aged = oldest
                .queued_before
                .is_some_and(|before| row.queued_at < before);
            if !is_aged && oldest.stays(dropped.kept, row.messages_before, row.bytes_before) {
                dropped.rest = Some((row.messages_before, row.bytes_before));
                break;
            }
            dropped.messages += 1;
            dropped.bytes += u64::from(row.size);
            self.rows.remove(&seq);
        }
        dropped
    }

    pub(super) fn read(&self, request: &PageRequest) -> Page {
        let mut page = nothing_left(request);
        let mut last = 0;
        let mut rows = self.range(request.after, request.up_to);
        let mut next = || match request.from {
            End::Oldest => rows.next(),
            End::Newest => rows.next_back(),
        };
        while let Some((seq, row)) = next() {
            let full = page.rows.len() >= request.rows_max as usize
                || page.bytes.len() >= request.bytes_max as usize;
            if full && !page.rows.is_empty() {
                page.read_up_to = last;
                break;
            }
            last = seq;
            let message = match &row.message {
                Some(message) => Message {
                    topic: push(&message.topic, &mut page.bytes),
                    properties: push(&message.properties, &mut page.bytes),
                    payload: push(&message.payload, &mut page.bytes),
                    expires_at: message.expires_at,
                },
                None => Message::default(),
            };
            let subscription_ids = push(&row.subscription_ids, &mut page.bytes);
            page.rows.push(PageRow {
                seq,
                size: row.size,
                message,
                received: row.message.is_none(),
                queued_at: row.queued_at,
                qos: row.qos,
                retain: row.retain,
                subscription_ids,
                share: row.share,
                recency: match request.recency {
                    true => self.recency(seq, row),
                    false => Recency::Unknown,
                },
            });
        }
        page
    }

    /// The receiver has the message.
    pub(super) fn received(&mut self, seq: Seq) {
        if let Some(row) = self.rows.get_mut(&seq) {
            row.message = None;
            row.subscription_ids = Box::default();
            row.share = None;
        }
    }

    pub(super) fn settle(&mut self, seq: Seq) {
        self.rows.remove(&seq);
    }

    pub(super) fn extent(&self) -> Option<Extent> {
        let ((&first, oldest), (&last, newest)) =
            (self.rows.first_key_value()?, self.rows.last_key_value()?);
        let messages_ever = newest.messages_before + 1;
        let bytes_ever = newest.bytes_before + u64::from(newest.size);
        Some(Extent {
            first,
            last,
            messages: messages_ever.saturating_sub(oldest.messages_before),
            bytes: bytes_ever.saturating_sub(oldest.bytes_before),
            messages_ever,
            bytes_ever,
        })
    }

    fn range(&self, after: Seq, up_to: Seq) -> impl DoubleEndedIterator<Item = (Seq, &StoredRow)> {
        let range = (Excluded(after), Included(up_to.max(after)));
        self.rows.range(range).map(|(&seq, row)| (seq, row))
    }
}

/// What a drop removes that finds no queue.
pub(super) fn nothing(oldest: &DropOldest) -> Dropped {
    Dropped {
        session: oldest.session,
        aged: oldest.queued_before.is_some(),
        messages: 0,
        bytes: 0,
        kept: (0, 0),
        rest: None,
    }
}

/// The page of a request that finds no row.
pub(super) fn nothing_left(request: &PageRequest) -> Page {
    Page {
        read_up_to: request.last(),
        ..Page::default()
    }
}

fn push(bytes: &[u8], into: &mut Vec<u8>) -> Span {
    // Below 2^32 because a page holds few messages, each within an MQTT packet's 2^28 bytes [MQTT 2.1.4].
    let span = Span {
        start: into.len() as u32,
        len: bytes.len() as u32,
    };
    into.extend_from_slice(bytes);
    span
}
