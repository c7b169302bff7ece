//! `kill -9` at random moments, with clients that come back.

use crate::broker::Setup;
use crate::load;
use crate::random::{Random, seed};
use std::time::Duration;

const KILLS: u32 = 30;
/// The broker lives for up to so long.
const LIFE_MAX_MS: u64 = 400;
/// Ten times what is promised, for a machine that is busy with other tests.
const START_MAX: Duration = Duration::from_secs(10);

#[test]
fn what_was_acknowledged_survives_kill_9_and_is_delivered_in_order() {
    let seed = seed();
    let mut random = Random(seed);
    let mut broker = Setup::new("").start();
    let mut slowest = Duration::ZERO;
    load::survives(&mut broker, |broker| {
        for _ in 0..KILLS {
            std::thread::sleep(Duration::from_millis(random.next() % LIFE_MAX_MS));
            broker.kill();
            slowest = slowest.max(broker.start());
        }
    });
    println!("kill: {KILLS} times (LARDER_SEED={seed}); the slowest start took {slowest:?}");
    assert!(slowest < START_MAX, "a start took {slowest:?}");
}
