//! What a bridge tells about itself: its state, and log lines that a flapping link cannot make a flood of.

#![expect(clippy::disallowed_methods, reason = "nothing is decided by this time")]

use crate::relay::{Counters, SetAside, Side};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How a bridge is.
#[derive(Clone, Debug)]
pub struct Status {
    /// What it is doing.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// What crossed and what did not, since the bridge was started.
    pub counters: Counters,
    /// The last message that was given up, and the side that does not get it.
    pub last_set_aside: Option<(Side, SetAside)>,
}

/// What a bridge is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is opening a link.
    Connecting,
    /// Both links are there.
    Linked,
    /// A link is not there; the next attempt comes later.
    Waiting {
        /// When it comes.
        until: Instant,
        /// What went wrong, and on which side.
        error: String,
    },
}

/// Where the bridge's thread writes its status and others read it.
pub(crate) struct Board(Mutex<Status>);

impl Board {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Status {
            state: State::Connecting,
            since: Instant::now(),
            counters: Counters::default(),
            last_set_aside: None,
        }))
    }

    pub(crate) fn read(&self) -> Status {
        self.lock().clone()
    }

    pub(crate) fn count(&self, counters: Counters) {
        self.lock().counters = counters;
    }

    pub(crate) fn set_aside(&self, to: Side, what: SetAside) {
        self.lock().last_set_aside = Some((to, what));
    }

    /// Writes a state; returns the whole if it is another than before.
    pub(crate) fn change(&self, state: State) -> Option<Status> {
        let mut status = self.lock();
        if status.state == state {
            return None;
        }
        status.state = state;
        status.since = Instant::now();
        Some(status.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        // Every write is whole: a panic elsewhere leaves a status that can be read.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets so many log lines pass in a minute and counts the others.
#[derive(Debug)]
pub(crate) struct LogQuota {
    lines_max: u32,
    minute: Option<Instant>,
    lines: u32,
    withheld: u64,
}

impl LogQuota {
    pub(crate) fn new(lines_max: u32) -> Self {
        Self {
            lines_max,
            minute: None,
            lines: 0,
            withheld: 0,
        }
    }

    /// Whether a line may be written now; `Some(n)`: it may, and n before it were withheld.
    pub(crate) fn pass(&mut self, now: Instant) -> Option<u64> {
        if self
            .minute
            .is_none_or(|minute| now.duration_since(minute) >= Duration::from_secs(60))
        {
            self.minute = Some(now);
            self.lines = 0;
        }
        if self.lines == self.lines_max {
            self.withheld += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.withheld))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_withheld_and_counted() {
        let mut quota = LogQuota::new(2);
        let start = Instant::now();
        let passed: Vec<_> = (0..5).map(|_| quota.pass(start)).collect();
        assert_eq!(passed, [Some(0), Some(0), None, None, None]);
        assert_eq!(quota.pass(start + Duration::from_secs(60)), Some(3));
        assert_eq!(quota.pass(start + Duration::from_secs(60)), Some(0));
    }
}
