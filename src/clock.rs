//! The machine's clocks: the only place where a clock is read.

use crate::time::{Clock, Mono, Now, ServiceSeconds};
use rustix::time::{ClockId, clock_gettime};
use std::path::PathBuf;
use std::time::Duration;

/// Files that stand for a synchronised wall clock. systemd-timesyncd makes the first; the second is for whatever else
/// sets the clock: a hook of ntpd, or `chronyc waitsync && touch …` in a unit.
///
/// That a time service merely runs proves nothing: it may not have reached its servers yet.
pub const SYNCHRONISED_MARKS: [&str; 2] = [
    "/run/systemd/timesync/synchronized",
    "/run/clock-synchronised",
];

/// How long a look at the marks holds, so that a turn costs no file access.
const MARKS_HOLD: Duration = Duration::from_secs(60);

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    marks: Vec<PathBuf>,
    marks_read_at: Option<Mono>,
    wall_trusted: bool,
    started_at: Mono,
    /// Service time at the start, and the time switched off once it is known.
    service_at_start: ServiceSeconds,
    /// The time that was known to be past at the recovered service time, until the time switched off since is known.
    noted_wall: Option<u64>,
    /// [`Now::wall_floor`] as it was at a time.
    floor: Option<(u64, Mono)>,
}

impl SystemClock {
    /// Goes on counting from the `recovered` service time. `noted_wall` is what was known of the time at that moment,
    /// in seconds since 1970 ([`Now::wall_floor`]); as soon as the wall clock is synchronised in this run, the time that passed between is
    /// added once.
    #[must_use]
    pub fn new(recovered: ServiceSeconds, noted_wall: Option<u64>) -> SystemClock {
        SystemClock::with_marks(
            recovered,
            noted_wall,
            SYNCHRONISED_MARKS.iter().map(PathBuf::from).collect(),
        )
    }

    fn with_marks(
        recovered: ServiceSeconds,
        noted_wall: Option<u64>,
        marks: Vec<PathBuf>,
    ) -> SystemClock {
        let started_at = mono();
        SystemClock {
            marks,
            marks_read_at: None,
            wall_trusted: false,
            started_at,
            service_at_start: recovered,
            noted_wall,
            floor: noted_wall.map(|wall| (wall, started_at)),
        }
    }

    /// The clocks, from what the system says they are.
    fn read(&mut self, mono: Mono, wall: u64) -> Now {
        if self
            .marks_read_at
            .is_none_or(|at| mono.since(at) >= MARKS_HOLD)
        {
            self.marks_read_at = Some(mono);
            self.wall_trusted = self.marks.iter().any(|mark| mark.exists());
        }
        let running = mono.since(self.started_at).as_secs();
        if self.wall_trusted {
            if let Some(noted) = self.noted_wall.take() {
                let switched_off = wall.saturating_sub(noted).saturating_sub(running);
                self.service_at_start.0 = self.service_at_start.0.saturating_add(switched_off);
            }
            self.floor = Some((wall, mono));
        }
        let service = ServiceSeconds(self.service_at_start.0.saturating_add(running));
        Now {
            mono,
            service,
            wall,
            wall_trusted: self.wall_trusted,
            wall_floor: self
                .floor
                .map(|(wall, at)| wall.saturating_add(mono.since(at).as_secs())),
        }
    }
}

impl Clock for SystemClock {
    fn now(&mut self) -> Now {
        let wall = clock_gettime(ClockId::Realtime).tv_sec;
        self.read(mono(), u64::try_from(wall).unwrap_or(0))
    }
}

fn mono() -> Mono {
    // Never negative: it counts from boot.
    let since_boot = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default();
    Mono::default().after(since_boot)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::path::Path;

    const DAY: u64 = 86_400;

    fn clock(noted_wall: Option<u64>, mark: &Path) -> SystemClock {
        SystemClock::with_marks(ServiceSeconds(1000), noted_wall, vec![mark.to_owned()])
    }

    fn after(clock: &SystemClock, seconds: u64) -> Mono {
        clock.started_at.after(Duration::from_secs(seconds))
    }

    #[test]
    fn the_machines_clocks_go_forward() {
        let mut clock = SystemClock::new(ServiceSeconds(7), None);
        let (first, second) = (clock.now(), clock.now());
        assert!(first.mono.0 > 0 && second.mono >= first.mono);
        assert_eq!(first.service, ServiceSeconds(7));
        assert!(
            first.wall > 1_600_000_000,
            "the wall clock of a machine that runs tests is set"
        );
    }

    #[test]
    fn service_time_goes_on_from_what_was_recovered_and_ignores_an_unsynchronised_wall_clock() {
        let mut clock = clock(Some(DAY), Path::new("/nonexistent/mark"));
        let now = clock.read(after(&clock, 90), 20_000 * DAY);
        assert_eq!(
            (now.service, now.wall_trusted),
            (ServiceSeconds(1090), false)
        );
    }

    #[test]
    fn time_switched_off_is_added_once_as_soon_as_the_wall_clock_is_synchronised() {
        let mark = std::env::temp_dir().join(format!("larder-clock-{}", std::process::id()));
        let _ = std::fs::remove_file(&mark);
        let mut clock = clock(Some(10 * DAY), &mark);
        assert_eq!(
            clock.read(after(&clock, 0), 0).service,
            ServiceSeconds(1000)
        );

        std::fs::write(&mark, "").unwrap();
        let wall = 12 * DAY;
        assert!(
            !clock.read(after(&clock, 59), wall).wall_trusted,
            "a look at the marks holds for a minute"
        );
        let synchronised = clock.read(after(&clock, 60), wall);
        std::fs::remove_file(&mark).unwrap();
        // Two days between the notes, of which the last minute was counted already.
        assert_eq!(
            (synchronised.service, synchronised.wall_trusted),
            (ServiceSeconds(1000 + 2 * DAY), true)
        );

        let jumped = clock.read(after(&clock, 61), wall + 900 * DAY);
        assert_eq!(jumped.service, ServiceSeconds(1001 + 2 * DAY));
    }

    #[test]
    fn what_is_known_of_the_time_goes_on_without_a_synchronised_wall_clock() {
        let mut clock = clock(Some(10 * DAY), Path::new("/nonexistent/mark"));
        for (seconds, wall) in [(0, 0), (90, 90), (3_600, 20_000 * DAY)] {
            let floor = clock.read(after(&clock, seconds), wall).wall_floor;
            assert_eq!(floor, Some(10 * DAY + seconds));
        }
        let mut new = super::tests::clock(None, Path::new("/nonexistent/mark"));
        assert_eq!(new.read(after(&new, 90), 20_000 * DAY).wall_floor, None);
        // A synchronised wall clock knows better, in either direction.
        let mut synchronised = super::tests::clock(Some(10 * DAY), Path::new("/"));
        for wall in [9 * DAY, 11 * DAY] {
            let floor = synchronised.read(after(&synchronised, 5), wall).wall_floor;
            assert_eq!(floor, Some(wall));
        }
    }

    #[test]
    fn a_wall_clock_behind_its_note_adds_nothing() {
        let mut clock = clock(Some(10 * DAY), Path::new("/"));
        let now = clock.read(after(&clock, 5), 9 * DAY);
        assert_eq!(
            (now.service, now.wall_trusted),
            (ServiceSeconds(1005), true)
        );
    }
}
