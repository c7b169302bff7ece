//! Loads: how much there was in a minute, averaged over 1, 5 and 15 minutes with the older weighing less, as Mosquitto
//! and the system's own load averages have it.

use std::time::Duration;

/// The minutes over which a load is averaged, as they are named.
pub(super) const MINUTES: [(&str, f64); 3] = [("1min", 1.0), ("5min", 5.0), ("15min", 15.0)];

/// The load of one counter.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    counted: u64,
    averages: [f64; MINUTES.len()],
}

impl Load {
    /// The counter stands at `counted`, and `elapsed` has passed since it was looked at last. Gives the averages, in the
    /// order of [`MINUTES`].
    pub(super) fn update(&mut self, counted: u64, elapsed: Duration) -> [f64; MINUTES.len()] {
        let elapsed = elapsed.as_secs_f64() / 60.0;
        let since = counted - self.counted;
        self.counted = counted;
        if elapsed > 0.0 {
            let in_a_minute = since as f64 / elapsed;
            for (average, (_, minutes)) in self.averages.iter_mut().zip(MINUTES) {
                *average = in_a_minute + decay(elapsed / minutes) * (*average - in_a_minute);
            }
        }
        self.averages
    }
}

/// e to the power of -x, for an x that is not negative. The system's `exp` would be all that Larder wants of the mathematical
/// library, whose pages are half a megabyte.
fn decay(x: f64) -> f64 {
    const HALVINGS: u32 = 8;
    const TERMS: u32 = 12;
    if x > 100.0 {
        return 0.0;
    }
    // Of a small number a few terms are enough.
    let small = x / f64::from(1 << HALVINGS);
    let (mut term, mut sum) = (1.0, 1.0);
    for n in 1..=TERMS {
        term *= -small / f64::from(n);
        sum += term;
    }
    (0..HALVINGS).fold(sum, |power, _| power * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_decays_as_e_does() {
        for x in [0.0, 1e-9, 0.01, 0.5, 1.0, 7.3, 42.0, 99.0] {
            let (ours, theirs) = (decay(x), (-x).exp());
            assert!((ours - theirs).abs() <= 1e-11 * theirs, "{x}: {ours}");
        }
        assert_eq!(decay(1e9), 0.0);
    }

    #[test]
    fn a_load_approaches_what_comes_in_a_minute_and_fades() {
        let mut load = Load::default();
        let interval = Duration::from_secs(10);
        let mut counted = 0;
        let mut after = |each: u64, times: u32| {
            (0..times).fold([0.0; 3], |_, _| {
                counted += each;
                load.update(counted, interval)
            })
        };
        // 1 - 1/e of it after as long as it is averaged over.
        let begun = after(100, 6);
        assert!((begun[0] - 379.27).abs() < 0.01, "{begun:?}");
        assert!(begun[0] > begun[1] && begun[1] > begun[2], "{begun:?}");
        let steady = after(100, 1000);
        assert!(steady.iter().all(|load| (load - 600.0).abs() < 0.1));
        let faded = after(0, 90);
        assert!((faded[2] - 600.0 / std::f64::consts::E).abs() < 0.1);
    }
}
