//! Virtual clocks: the true time of the world, and what a machine's clocks make of it.

use larder::time::{Clock, Mono, Now, ServiceSeconds};

/// The true time in milliseconds since the world began.
pub type Millis = u64;

/// Seconds since 1970 when the world begins.
const BEGINNING: u64 = 1_760_000_000;

/// A machine's clocks.
pub struct SimClock {
    now: Millis,
    /// When the machine was booted. CLOCK_BOOTTIME counts from there.
    booted: Millis,
    started: Mono,
    /// Service time at the start, as recovery found it.
    service: ServiceSeconds,
    noted_wall: Option<u64>,
    /// By how much the wall clock is wrong, in seconds.
    pub wall_error: i64,
    pub wall_trusted: bool,
}

impl SimClock {
    pub fn new(now: Millis, booted: Millis, wall_trusted: bool) -> SimClock {
        SimClock {
            now,
            booted,
            started: Mono(now - booted),
            service: ServiceSeconds(0),
            noted_wall: None,
            wall_error: 0,
            wall_trusted,
        }
    }

    /// Goes on from what recovery found.
    pub fn recover(&mut self, service: ServiceSeconds, noted_wall: Option<u64>) {
        (self.service, self.noted_wall) = (service, noted_wall);
    }

    pub fn set(&mut self, now: Millis) {
        self.now = now;
    }

    /// When the machine was booted.
    pub fn booted(&self) -> Millis {
        self.booted
    }
}

impl Clock for SimClock {
    fn now(&mut self) -> Now {
        let mono = Mono(self.now - self.booted);
        let wall = (BEGINNING + self.now / 1000).saturating_add_signed(self.wall_error);
        let running = mono.since(self.started).as_secs();
        if self.wall_trusted {
            if let Some(noted) = self.noted_wall.take() {
                self.service.0 += wall.saturating_sub(noted).saturating_sub(running);
            }
        }
        Now {
            mono,
            service: ServiceSeconds(self.service.0 + running),
            wall,
            wall_trusted: self.wall_trusted,
            wall_floor: self.wall_trusted.then_some(wall),
        }
    }
}
