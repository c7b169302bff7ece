//! What is recorded of retained messages: of a topic once in a batch, however often it changes.

use super::{Journal, MessageNo};
use crate::record::{Change, Ticket};
use crate::time::Now;
use larder_packet::Qos;

/// Where a change stands that may be replaced while its batch is not being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) struct InBatch {
    ticket: Ticket,
    change: usize,
}

impl InBatch {
    /// The batch.
    pub(in crate::broker) fn ticket(self) -> Ticket {
        self.ticket
    }
}

/// What is recorded of a topic.
pub(in crate::broker) enum RetainedChange<'a> {
    /// Its retained message.
    Message(MessageNo, Qos),
    /// It has none.
    None(&'a str),
}

impl Journal {
    /// Records that a message of the filling batch is its topic's retained one from now on, or that the topic has none, in
    /// place of what was recorded of the topic before, if that is not being written yet: however often a topic changes, it
    /// is written once.
    pub(in crate::broker) fn record_retained(
        &mut self,
        retained: RetainedChange,
        told: Option<InBatch>,
        urgent: bool,
        now: Now,
    ) -> InBatch {
        let change = match retained {
            RetainedChange::Message(no, qos) => Change::Retain {
                message: self.index_of(no),
                qos,
            },
            RetainedChange::None(topic) => Change::Unretain {
                topic: self.bytes(topic.as_bytes()),
            },
        };
        let place = told.filter(|told| told.ticket == self.batch.ticket);
        if let Some(told) = place {
            self.batch.changes[told.change] = change;
            self.urgent |= urgent;
            return told;
        }
        InBatch {
            change: self.batch.changes.len(),
            ticket: self.record(change, urgent, now),
        }
    }
}
