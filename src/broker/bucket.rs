//! A limit of so much a second: a bucket that holds what may pass in one second, is full at first, and fills at the rate.

use super::policy::Rate;
use crate::time::Mono;

const NANOS_IN_MILLI: u64 = 1_000_000;
const SECOND_NANOS: u64 = 1_000 * NANOS_IN_MILLI;

/// What is left of a limit, as the time in nanoseconds at which its bucket is full.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    full_at: u64,
}

/// What passing takes of a bucket: the time in nanoseconds that it takes to fill again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost(u64);

impl Cost {
    /// Of so many units, where `per_second` of them may pass in a second; `None`: any number.
    pub(super) fn of(units: u64, per_second: Option<u64>) -> Cost {
        let nanos = per_second.map_or(0, |rate| units.saturating_mul(SECOND_NANOS) / rate.max(1));
        Cost(nanos)
    }
}

impl Bucket {
    /// When there is as much in it as `cost`, or when it is full if it does not hold as much.
    pub(super) fn ready_at(self, cost: Cost) -> Mono {
        let nanos =
            (self.full_at.saturating_add(cost.0.min(SECOND_NANOS))).saturating_sub(SECOND_NANOS);
        Mono(nanos.div_ceil(NANOS_IN_MILLI))
    }

    /// Takes `cost` out; more than there is has to be filled up before anything passes.
    pub(super) fn take(&mut self, cost: Cost, now: Mono) {
        let now = now.0.saturating_mul(NANOS_IN_MILLI);
        self.full_at = self.full_at.max(now).saturating_add(cost.0);
    }
}

/// What is left of the rate of a backlog.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    messages: Bucket,
    bytes: Bucket,
}

impl Pace {
    /// When a message of `len` bytes may leave.
    pub(super) fn ready_at(self, rate: Rate, len: u64) -> Mono {
        let messages = self.messages.ready_at(Cost::of(1, rate.messages));
        messages.max(self.bytes.ready_at(Cost::of(len, rate.bytes)))
    }

    /// It has left.
    pub(super) fn take(&mut self, rate: Rate, len: u64, now: Mono) {
        self.messages.take(Cost::of(1, rate.messages), now);
        self.bytes.take(Cost::of(len, rate.bytes), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_time_no_more_than_the_rate_passes() {
        let mut bucket = Bucket::default();
        let mut passed = 0;
        for now in (5_000..15_000).map(Mono) {
            while bucket.ready_at(Cost::of(1, Some(10))) <= now {
                bucket.take(Cost::of(1, Some(10)), now);
                passed += 1;
            }
        }
        assert_eq!(
            passed,
            10 + 99,
            "a second's worth at once, then ten a second"
        );
    }

    #[test]
    fn what_is_larger_than_the_bucket_passes_when_it_is_full_and_is_paid_for_afterwards() {
        let mut bucket = Bucket::default();
        let large = Cost::of(5_000, Some(1_000));
        assert!(bucket.ready_at(large) <= Mono(1_000));
        bucket.take(large, Mono(1_000));
        assert_eq!(bucket.ready_at(Cost::of(1, Some(1_000))), Mono(5_001));
        assert_eq!(Cost::of(7, None).0, 0);
    }
}
