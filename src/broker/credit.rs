//! Rates: credit that comes with time and is spent by what is let through. What is let through may take more than there
//! is; the debt is waited for.

use crate::time::Mono;
use std::time::Duration;

/// Credit at so much a second; at most a second's worth is saved up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Credit {
    per_second: u64,
    /// In thousandths; below zero: a debt.
    thousandths: i64,
    at: Mono,
}

impl Credit {
    /// `per_second` is at least 1.
    pub(super) fn new(per_second: u64, now: Mono) -> Credit {
        // Beyond this a second's worth of thousandths has no room, and no link is as fast.
        let per_second = per_second.clamp(1, 1 << 40);
        Credit {
            per_second,
            thousandths: full(per_second),
            at: now,
        }
    }

    /// How long until something may be let through; `None`: now.
    pub(super) fn wait(&mut self, now: Mono) -> Option<Duration> {
        let passed = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        self.at = now;
        // A thousandth a millisecond for each unit a second.
        let gained = i64::try_from(passed.saturating_mul(self.per_second)).unwrap_or(i64::MAX);
        self.thousandths = self
            .thousandths
            .saturating_add(gained)
            .min(full(self.per_second));
        let debt = u64::try_from(1 - self.thousandths)
            .ok()
            .filter(|debt| *debt > 0)?;
        Some(Duration::from_millis(debt.div_ceil(self.per_second)))
    }

    /// So much has been let through.
    pub(super) fn spend(&mut self, units: u64) {
        let thousandths = i64::try_from(units.saturating_mul(1000)).unwrap_or(i64::MAX);
        self.thousandths = self.thousandths.saturating_sub(thousandths);
    }
}

fn full(per_second: u64) -> i64 {
    i64::try_from(per_second.saturating_mul(1000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_time_no_more_than_the_rate_gets_through() {
        let mut credit = Credit::new(10, Mono(0));
        let mut through = 0;
        for now in 0..10_000 {
            while credit.wait(Mono(now)).is_none() {
                credit.spend(1);
                through += 1;
            }
        }
        assert_eq!(
            through,
            10 + 100,
            "a second's worth at once, then ten a second"
        );
    }

    #[test]
    fn what_is_larger_than_the_credit_is_paid_for_afterwards() {
        let mut credit = Credit::new(1000, Mono(0));
        assert_eq!(credit.wait(Mono(0)), None);
        credit.spend(5000);
        let wait = credit.wait(Mono(0)).expect("a debt");
        assert_eq!(wait, Duration::from_millis(4001));
        assert_eq!(credit.wait(Mono(4001)), None);
    }
}
