//! The time by which certificates are judged, on machines that may not know it.

use pki_types::UnixTime;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

/// A time that is past for certain, in seconds since 1970: what the owner of the bridge knows and goes on telling it. 0 is
/// no knowledge. A board without a real-time clock starts in 1970; without a floor every certificate would be of the
/// future.
#[derive(Clone, Debug, Default)]
pub struct TimeFloor(Arc<AtomicU64>);

impl TimeFloor {
    /// Says how late it is at least.
    pub fn set(&self, seconds: u64) {
        self.0.store(seconds, Relaxed);
    }

    /// The wall clock, or the floor if the clock is behind it.
    pub(super) fn now(&self) -> UnixTime {
        let wall = wall_clock();
        UnixTime::since_unix_epoch(wall.max(Duration::from_secs(self.0.load(Relaxed))))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the validity of a certificate is told in wall time; nothing else here is"
)]
fn wall_clock() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// A time as people write it: `2026-11-28 05:15 UTC`.
pub(super) struct Shown(pub(super) UnixTime);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MINUTES_A_DAY: u64 = 24 * 60;
        let minutes = self.0.as_secs() / 60;
        let (days, minutes) = (minutes / MINUTES_A_DAY, minutes % MINUTES_A_DAY);
        let (year, month, day) = date(days);
        let (hour, minute) = (minutes / 60, minutes % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
    }
}

/// The date so many days after 1970-01-01. Years begin in March here, so that the odd day is a year's last.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970: u64 = 719_468;
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let days = days + DAYS_TO_1970;
    let (era, day) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (400 * era + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let shown = |seconds| Shown(UnixTime::since_unix_epoch(Duration::from_secs(seconds)));
        for (seconds, expected) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_795_842_900, "2026-11-28 05:15 UTC"),
            (4_102_444_800, "2100-01-01 00:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(shown(seconds).to_string(), expected);
        }
    }

    #[test]
    fn a_clock_behind_the_floor_is_not_believed() {
        let floor = TimeFloor::default();
        let wall = floor.now().as_secs();
        floor.set(wall + 1_000);
        assert!(floor.now().as_secs() >= wall + 1_000);
        floor.set(wall - 1_000);
        assert!((wall..wall + 500).contains(&floor.now().as_secs()));
    }
}
