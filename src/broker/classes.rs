//! Classes of messages: those whose topic matches certain filters have a lane of their own in a session's queue, so that
//! one class never pushes out another.

use super::policy::QueuePolicy;
use super::session::Drops;
use larder_packet::topic;
use std::cell::Cell;
use std::rc::Rc;

/// A class of messages in the queues of certain sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueClass {
    /// Its name. It is stored: under another name it is another class.
    pub name: String,
    /// Topic Filters: a message belongs to it if one of them matches.
    pub filters: Vec<String>,
    /// What each of its lanes may take. The rate is that of the whole queue.
    pub policy: QueuePolicy,
    /// Bytes of the disk that are kept for its lanes together: other messages are not admitted to them.
    pub reserve: u64,
}

/// A class, as sessions share it.
pub(super) struct Class {
    pub(super) name: Box<str>,
    filters: Vec<Box<str>>,
    pub(super) policy: Rc<QueuePolicy>,
    pub(super) tally: Rc<Tally>,
}

impl Class {
    pub(super) fn new(class: &QueueClass) -> Class {
        Class {
            name: class.name.as_str().into(),
            filters: class.filters.iter().map(|of| of.as_str().into()).collect(),
            policy: Rc::new(class.policy.clone()),
            tally: Rc::new(Tally {
                reserve: class.reserve,
                ..Tally::default()
            }),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.filters
            .iter()
            .any(|filter| topic::matches(filter, name))
    }
}

/// What the lanes of a class hold together, and what was dropped from them since the start.
#[derive(Default)]
pub(super) struct Tally {
    reserve: u64,
    pub(super) messages: Cell<u64>,
    pub(super) bytes: Cell<u64>,
    pub(super) drops: Cell<Drops>,
    /// The message that went to one of them last.
    pub(super) matched: Cell<u64>,
}

impl Tally {
    /// What is left of the reserve.
    pub(super) fn unused(&self) -> u64 {
        self.reserve.saturating_sub(self.bytes.get())
    }

    fn count(&self, drops: Drops) {
        let mut all = self.drops.get();
        all.add(drops);
        self.drops.set(all);
    }
}

/// What a queue holds: messages and bytes that are queued and not settled. It is counted among what its class holds.
#[derive(Default)]
pub(super) struct Backlog {
    messages: u64,
    bytes: u64,
    tally: Option<Rc<Tally>>,
}

impl Backlog {
    pub(super) fn new(messages: u64, bytes: u64, tally: Option<Rc<Tally>>) -> Backlog {
        let mut backlog = Backlog {
            tally,
            ..Backlog::default()
        };
        backlog.set(messages, bytes);
        backlog
    }

    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn count(&self, drops: Drops) {
        if let Some(tally) = &self.tally {
            tally.count(drops);
        }
    }

    pub(super) fn note_message(&self, number: u64) {
        if let Some(tally) = &self.tally {
            tally.matched.set(number);
        }
    }

    pub(super) fn set(&mut self, messages: u64, bytes: u64) {
        if let Some(tally) = &self.tally {
            let all = tally.messages.get() + messages - self.messages;
            tally.messages.set(all);
            tally.bytes.set(tally.bytes.get() + bytes - self.bytes);
        }
        (self.messages, self.bytes) = (messages, bytes);
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.set(0, 0);
    }
}
