//! When and where to connect next: back-off with jitter over a list of addresses.

use std::time::Duration;

/// The state of one side's attempts to have a link.
///
/// The addresses are tried in their order. Between two rounds, and after a link was lost, it waits: first `min`, then
/// twice as long each time up to `max`, of which a random part of up to half is taken off, so that a thousand gateways do
/// not come back in the same second.
#[derive(Clone, Debug)]
pub struct Redial {
    addresses: usize,
    next: usize,
    min: Duration,
    max: Duration,
    delay: Duration,
    random: u64,
}

impl Redial {
    /// For so many addresses (at least one is assumed). One `seed` gives one course of delays.
    #[must_use]
    pub fn new(addresses: usize, min: Duration, max: Duration, seed: u64) -> Self {
        Self {
            addresses: addresses.max(1),
            next: 0,
            min,
            max,
            delay: min,
            random: seed,
        }
    }

    /// The index of the address to connect to.
    #[must_use]
    pub fn address(&self) -> usize {
        self.next
    }

    /// The address did not give a link. How long to wait before the next attempt: nothing if another address has not
    /// been tried in this round.
    pub fn failed(&mut self) -> Duration {
        self.next += 1;
        if self.next < self.addresses {
            Duration::ZERO
        } else {
            self.lost()
        }
    }

    /// A link was lost. How long to wait before the first address is tried again.
    pub fn lost(&mut self) -> Duration {
        self.next = 0;
        let delay = self.delay;
        self.delay = (delay * 2).min(self.max);
        delay - delay.mul_f64(self.fraction() / 2.0)
    }

    /// A link has proved useful: the next delay is the shortest again. A link that is merely accepted proves nothing, or
    /// one that is closed at its first message would come back every `min` for ever.
    pub fn proved(&mut self) {
        self.delay = self.min;
    }

    /// In [0, 1): splitmix64.
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        (mixed >> 40) as f64 / (1_u64 << 24) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_secs(60);

    #[test]
    fn doubles_to_the_maximum_and_starts_again_when_proved() {
        let mut redial = Redial::new(1, MIN, MAX, 7);
        for full in [1, 2, 4, 8, 16, 32, 60, 60] {
            let (full, delay) = (Duration::from_secs(full), redial.lost());
            assert!(full / 2 <= delay && delay <= full, "{delay:?} of {full:?}");
        }
        redial.proved();
        assert!(redial.lost() <= MIN);
    }

    #[test]
    fn tries_the_addresses_in_order_and_waits_between_rounds() {
        let mut redial = Redial::new(3, MIN, MAX, 7);
        let mut tried = Vec::new();
        for _ in 0..6 {
            let address = redial.address();
            tried.push((address, redial.failed() > Duration::ZERO));
        }
        let round = [(0, false), (1, false), (2, true)];
        assert_eq!(tried, [round, round].concat());
    }

    #[test]
    fn one_seed_one_course() {
        let course = |seed| {
            let mut redial = Redial::new(1, MIN, MAX, seed);
            [redial.lost(), redial.lost(), redial.lost()]
        };
        assert_eq!(course(1), course(1));
        assert_ne!(course(1), course(2));
    }
}
