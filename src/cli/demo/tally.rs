//! Who said what: every message by its sensor and its number, so that what is missing and what came twice is known
//! exactly.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The account of all sensors, shared by those who publish and the one who receives.
#[derive(Debug)]
pub(super) struct Tally {
    sensors: Vec<Mutex<Sensor>>,
    /// What arrived and was never sent.
    strange: Mutex<u64>,
}

/// The messages of one sensor, by number.
#[derive(Debug, Default)]
struct Sensor {
    acknowledged: Vec<bool>,
    /// How often each has arrived.
    arrived: Vec<u8>,
    /// One above the highest number that has arrived.
    newest: u32,
    out_of_order: u64,
}

/// The sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) published: u64,
    pub(super) acknowledged: u64,
    /// Different messages that have arrived.
    pub(super) arrived: u64,
    /// Acknowledged, but not arrived.
    pub(super) missing: u64,
    /// Arrivals beyond the first of a message.
    pub(super) doubled: u64,
    /// Messages that arrived for the first time after a later one of the same sensor.
    pub(super) out_of_order: u64,
    /// Arrivals of what no sensor has sent.
    pub(super) strange: u64,
}

impl Tally {
    pub(super) fn new(sensors: usize) -> Tally {
        Tally {
            sensors: (0..sensors).map(|_| Mutex::default()).collect(),
            strange: Mutex::new(0),
        }
    }

    /// A new message of this sensor: its number.
    pub(super) fn publish(&self, sensor: usize) -> u32 {
        let mut sensor = lock(&self.sensors[sensor]);
        sensor.acknowledged.push(false);
        sensor.arrived.push(0);
        u32::try_from(sensor.arrived.len() - 1).unwrap_or(u32::MAX)
    }

    /// The gateway has acknowledged it.
    pub(super) fn acknowledge(&self, sensor: usize, number: u32) {
        if let Some(acknowledged) = lock(&self.sensors[sensor])
            .acknowledged
            .get_mut(number as usize)
        {
            *acknowledged = true;
        }
    }

    /// It has come to the cloud.
    pub(super) fn arrive(&self, sensor: usize, number: u32) {
        let known = self
            .sensors
            .get(sensor)
            .is_some_and(|sensor| lock(sensor).arrive(number));
        if !known {
            self.arrive_strange();
        }
    }

    /// Something has come to the cloud that is no message of a sensor.
    pub(super) fn arrive_strange(&self) {
        *lock(&self.strange) += 1;
    }

    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals {
            strange: *lock(&self.strange),
            ..Totals::default()
        };
        for sensor in &self.sensors {
            let sensor = lock(sensor);
            totals.published += sensor.arrived.len() as u64;
            totals.out_of_order += sensor.out_of_order;
            for (&acknowledged, &arrived) in sensor.acknowledged.iter().zip(&sensor.arrived) {
                totals.acknowledged += u64::from(acknowledged);
                totals.arrived += u64::from(arrived > 0);
                totals.missing += u64::from(acknowledged && arrived == 0);
                totals.doubled += u64::from(arrived.saturating_sub(1));
            }
        }
        totals
    }
}

impl Sensor {
    /// Whether there is such a message.
    fn arrive(&mut self, number: u32) -> bool {
        let Some(arrived) = self.arrived.get_mut(number as usize) else {
            return false;
        };
        if *arrived == 0 && number < self.newest {
            self.out_of_order += 1;
        }
        *arrived = arrived.saturating_add(1);
        self.newest = self.newest.max(number + 1);
        true
    }
}

impl Totals {
    /// What speaks against the promise, in words; `None` if it was kept.
    pub(super) fn fault(&self) -> Option<String> {
        let Totals {
            missing,
            out_of_order,
            strange,
            ..
        } = self;
        if *missing > 0 {
            Some(format!(
                "{missing} messages were acknowledged and have not arrived"
            ))
        } else if *out_of_order > 0 {
            Some(format!(
                "{out_of_order} messages arrived after later ones of the same sensor"
            ))
        } else if *strange > 0 {
            Some(format!("{strange} messages arrived that no sensor sent"))
        } else {
            None
        }
    }

    /// Published and not acknowledged.
    pub(super) fn open(&self) -> u64 {
        self.published - self.acknowledged
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Numbers are whole after a panic elsewhere, too.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three_messages() -> Tally {
        let tally = Tally::new(2);
        assert_eq!([0, 0, 1].map(|sensor| tally.publish(sensor)), [0, 1, 0]);
        tally
    }

    #[test]
    fn only_what_was_acknowledged_can_be_missing() {
        let tally = three_messages();
        assert_eq!((tally.totals().missing, tally.totals().open()), (0, 3));
        tally.acknowledge(0, 1);
        let totals = tally.totals();
        assert_eq!((totals.missing, totals.open()), (1, 2));
        assert!(totals.fault().is_some_and(|fault| fault.starts_with("1 ")));
        tally.arrive(0, 1);
        assert_eq!((tally.totals().missing, tally.totals().fault()), (0, None));
    }

    #[test]
    fn what_comes_again_is_doubled_and_no_fault() {
        let tally = three_messages();
        for number in [0, 1, 0, 1, 1] {
            tally.arrive(0, number);
        }
        let totals = tally.totals();
        assert_eq!((totals.arrived, totals.doubled), (2, 3));
        assert_eq!((totals.out_of_order, totals.fault()), (0, None));
    }

    #[test]
    fn the_first_arrival_must_be_in_order_for_each_sensor() {
        let tally = three_messages();
        tally.arrive(0, 1);
        tally.arrive(1, 0);
        tally.arrive(0, 0);
        let totals = tally.totals();
        assert_eq!(totals.out_of_order, 1);
        assert!(totals.fault().is_some());
    }

    #[test]
    fn what_nobody_sent_is_a_fault() {
        for (sensor, number) in [(0, 2), (7, 0)] {
            let tally = three_messages();
            tally.arrive(sensor, number);
            assert_eq!(tally.totals().strange, 1);
            assert!(tally.totals().fault().is_some());
        }
    }
}
