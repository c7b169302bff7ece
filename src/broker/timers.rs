//! Timers, by the time they are due. Whoever sets one remembers the time, so that it can be taken back.

use crate::net::LinkId;
use crate::time::Mono;
use std::collections::BTreeSet;

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// When a link is to be looked at: it may have been silent, or stuck, for too long.
    Link(LinkId),
    /// When a packet has been parked for too long.
    Parked(LinkId),
    /// When a link that published faster than it may is read again.
    Rate(LinkId),
    /// When a session has been away so long that it is noted on disk, or that it ends.
    Away(u32),
    /// When a queue is looked through for messages that are too old.
    Sweep(u32),
    /// When more of a backlog may leave.
    Backlog(u32),
    /// When a Will Delay Interval has passed.
    Will(u32),
    /// When a queue is read on: little of its window was free, or a page could not be read.
    Read(u32),
}

/// The timers that are set.
#[derive(Default)]
pub(super) struct Timers(BTreeSet<(Mono, Timer)>);

impl Timers {
    pub(super) fn set(&mut self, at: Mono, timer: Timer) {
        self.0.insert((at, timer));
    }

    /// Takes a timer back.
    pub(super) fn clear(&mut self, at: Mono, timer: Timer) {
        self.0.remove(&(at, timer));
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Mono> {
        self.0.first().map(|(at, _)| *at)
    }

    /// The next one that is due by now.
    pub(super) fn poll(&mut self, now: Mono) -> Option<Timer> {
        let due = self.0.first().filter(|(at, _)| *at <= now)?;
        let (_, timer) = *due;
        self.0.pop_first();
        Some(timer)
    }
}
