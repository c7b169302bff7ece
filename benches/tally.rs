//! What became of the messages: lost, doubled, out of order.

use std::collections::BTreeSet;

/// Numbers that are missing at a time, of one publisher at one subscriber; whatever is skipped beyond them is lost.
const MISSING_MAX: u64 = 100_000;

/// How often it went wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) disordered: u64,
}

impl Faults {
    pub(crate) fn add(&mut self, other: Faults) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.disordered += other.disordered;
    }
}

/// What one subscriber has had of one publisher.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stream {
    /// The number that comes next, if none is lost.
    next: u64,
    missing: BTreeSet<u64>,
    lost: u64,
    doubled: u64,
    disordered: u64,
}

impl Stream {
    pub(crate) fn receive(&mut self, number: u64) {
        if number == self.next {
            self.next += 1;
        } else if number > self.next {
            let first = number.saturating_sub(MISSING_MAX).max(self.next);
            self.lost += first - self.next;
            self.missing.extend(first..number);
            self.next = number + 1;
        } else if self.missing.remove(&number) {
            self.disordered += 1;
        } else {
            self.doubled += 1;
        }
    }

    /// Different messages that have come.
    pub(crate) fn received(&self) -> u64 {
        self.next - self.missing.len() as u64 - self.lost
    }

    /// `sent`: how many there were.
    pub(crate) fn faults(&self, sent: u64) -> Faults {
        Faults {
            lost: sent.saturating_sub(self.received()),
            doubled: self.doubled,
            disordered: self.disordered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_counted_as_what_it_is() {
        let mut stream = Stream::default();
        for number in [0, 1, 3, 2, 3, 6] {
            stream.receive(number);
        }
        let faults = stream.faults(8);
        assert_eq!(
            faults,
            Faults {
                lost: 3,
                doubled: 1,
                disordered: 1
            }
        );
    }
}
