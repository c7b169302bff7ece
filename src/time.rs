//! Time as the turn reads it: once, at its beginning, and then as an argument.
//!
//! Timers run on [`Mono`] alone; the wall clock may jump by years without anything being disconnected or expired by it.

use std::time::Duration;

/// Monotonic time since boot, suspended time included (CLOCK_BOOTTIME), in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// This instant moved into the future; saturates.
    #[must_use]
    pub fn after(self, duration: Duration) -> Mono {
        Mono(
            self.0
                .saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// How long ago `earlier` was; zero if it lies in the future.
    #[must_use]
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Seconds for which the store has been in service, over all starts: the age of what is on disk is counted in these,
/// so that a board without a real-time clock can expire messages. Time switched off is added only where the wall clock
/// was synchronised before and after.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct ServiceSeconds(pub u64);

/// The clocks as one turn sees them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// For every timer.
    pub mono: Mono,
    /// For ages that are stored.
    pub service: ServiceSeconds,
    /// Seconds since 1970 as the wall clock claims; for logs and stored ingress times only.
    pub wall: u64,
    /// Whether the wall clock has been synchronised.
    pub wall_trusted: bool,
    /// The newest time that is known to be past, in seconds since 1970: the wall clock if it has been synchronised, else the
    /// last time of which that could be said, and the service time since. The store keeps it.
    pub wall_floor: Option<u64>,
}

/// A source of [`Now`]: the machine's clocks, or the simulator's.
pub trait Clock {
    /// Reads the clocks; the turn calls it once.
    fn now(&mut self) -> Now;
}
