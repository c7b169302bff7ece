//! Random batches, given to the store on disk and to the one in memory: both must find and read the same.

use crate::harness::{InMemory, Kept, OnDisk, found, in_words};
use crate::life::{Life, Random};
use larder::record::{End, PageRequest, SessionKey};

#[test]
fn both_stores_keep_the_same() {
    for seed in 1..=20 {
        compare(seed);
    }
}

fn compare(seed: u64) {
    let mut random = Random(seed);
    let (mut disk, mut memory) = (OnDisk::new(), InMemory::new());
    let mut life = Life::default();
    for step in 0..60 {
        // The same batch is made twice, as a batch cannot be copied.
        let (mut twin, mut next_life) = (random, life.clone());
        let batch = life.batch(&mut random);
        let dropped = disk.commit(batch);
        assert_eq!(
            dropped,
            memory.commit(next_life.batch(&mut twin)),
            "seed {seed} step {step}"
        );
        if random.below(8) == 0 {
            assert_eq!(
                found(&disk.restart()),
                found(&memory.restart()),
                "seed {seed} step {step}"
            );
        }
        let request = PageRequest {
            session: SessionKey(1 + random.below(life.last_key + 1)),
            from: [End::Oldest, End::Newest][usize::from(random.below(2) == 0)],
            after: random.below(60),
            up_to: random.below(200),
            rows_max: u32::try_from(random.below(20)).unwrap(),
            bytes_max: u32::try_from(random.below(20_000)).unwrap(),
            recency: random.below(4) > 0,
        };
        let (left, right) = (disk.read(request), memory.read(request));
        assert_eq!(
            in_words(&left),
            in_words(&right),
            "seed {seed} step {step} {request:?}"
        );
    }
}
