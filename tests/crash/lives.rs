//! What the recorded process does, and what a store that lived the same life without a cut would find.

use crate::disk::{Files, files};
use crate::harness::{
    Directory, Fill, InMemory, Kept, OnDisk, ROOM, all_of, found, in_words, payload, session,
};
use crate::life::{self, Random};
use larder::record::{Batch, Recovered, SessionKey};
use larder_packet::Qos;
use std::fs;
use std::ops::Range;
use std::path::Path;

/// Of the random life.
const SEED: u64 = 7;
/// Batches that were committed before a cut: none of them has been copied into the database since the last start.
const CUT_AT: usize = 75;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// The files are made, and something is written.
    First,
    /// All that batches can say, with a new start now and then.
    Random,
    /// A queue of megabytes, its session's end, and the room given back.
    Backlog,
    /// Begins with a file of an earlier schema.
    Older,
    /// Begins where a cut left a long write-ahead log.
    Cut,
    /// Begins with a file with a damaged page and a write-ahead log.
    Damaged,
}

pub(crate) const LIVES: [Life; 6] = [
    Life::First,
    Life::Random,
    Life::Backlog,
    Life::Older,
    Life::Cut,
    Life::Damaged,
];

/// A moment in a life; batches are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Submitted(usize),
    Committed(usize),
}

impl Life {
    /// The files that it begins with.
    pub(crate) fn beginning(self) -> Files {
        let directory = workplace();
        match self {
            Life::First | Life::Random | Life::Backlog => Files::new(),
            Life::Older => {
                let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/store/fixture-v1.db");
                Files::from([("larder.db".to_owned(), fs::read(fixture).unwrap())])
            }
            Life::Cut => {
                let mut disk = OnDisk::at(directory, ROOM).0;
                random_life(&mut disk, SEED, 0..CUT_AT, &mut |_| {});
                files(disk.crash_image().path())
            }
            Life::Damaged => damaged(OnDisk::at(directory, ROOM).0),
        }
    }

    /// Lives it, after the store has been opened.
    pub(crate) fn live(self, store: &mut impl Kept, mut told: impl FnMut(Moment)) {
        match self {
            Life::Random => random_life(store, SEED, 0..120, &mut told),
            Life::First => random_life(store, SEED, 0..5, &mut told),
            Life::Cut => random_life(store, SEED, CUT_AT..120, &mut told),
            Life::Backlog => backlog(store, &mut told),
            Life::Older | Life::Damaged => {
                let batches = (0..12).map(|number| {
                    let key = 100 + number;
                    session(key).queue(key, 1..=9, 900).done()
                });
                commit_all(store, batches, &mut told);
            }
        }
    }

    /// What is found after each number of batches, beginning with none.
    pub(crate) fn expected(self, beginning: &Files) -> Vec<Vec<String>> {
        match self {
            Life::First | Life::Random | Life::Backlog => {
                let mut witness = Witness::new(InMemory::new());
                self.live(&mut witness, |_| {});
                witness.found
            }
            _ => {
                let directory = workplace();
                crate::disk::lay(beginning, directory.path());
                let mut witness = Witness::new(OnDisk::at(directory, ROOM).0);
                self.live(&mut witness, |_| {});
                witness.found
            }
        }
    }
}

/// A store that is looked at after each batch.
struct Witness<K> {
    store: K,
    found: Vec<Vec<String>>,
}

impl<K: Kept> Witness<K> {
    fn new(mut store: K) -> Witness<K> {
        let recovered = store.restart();
        let found = vec![words(&mut store, &recovered)];
        Witness { store, found }
    }
}

impl<K: Kept> Kept for Witness<K> {
    fn commit(&mut self, batch: Batch) -> Vec<larder::record::Dropped> {
        let dropped = self.store.commit(batch);
        let recovered = self.store.restart();
        self.found.push(words(&mut self.store, &recovered));
        dropped
    }

    fn read(&mut self, request: larder::record::PageRequest) -> larder::record::Page {
        self.store.read(request)
    }

    fn read_retained(&mut self, topic: &str) -> Option<larder::record::RecoveredRetained> {
        self.store.read_retained(topic)
    }

    fn restart(&mut self) -> Recovered {
        self.store.restart()
    }
}

/// All that a store has, in words.
pub(crate) fn words(store: &mut impl Kept, recovered: &Recovered) -> Vec<String> {
    let recovered = Recovered {
        salvaged: None,
        ..recovered.clone()
    };
    let mut words: Vec<String> = found(&recovered).lines().map(str::to_owned).collect();
    let lanes = |session: &larder::record::RecoveredSession| {
        let lanes = session.lanes.iter().map(|lane| lane.key);
        lanes.chain([session.key]).collect::<Vec<SessionKey>>()
    };
    for key in recovered.sessions.iter().flat_map(lanes) {
        words.push(format!("queue {}", key.0));
        words.extend(in_words(&store.read(all_of(key.0))));
    }
    for retained in recovered.retained.iter().filter(|it| it.left_out.is_some()) {
        let topic = &retained.message.topic;
        words.push(format!("{:?}", store.read_retained(topic)));
    }
    words
}

/// Some batches of a random life; those before them were committed by somebody else.
fn random_life(
    store: &mut impl Kept,
    seed: u64,
    which: Range<usize>,
    told: &mut dyn FnMut(Moment),
) {
    let (mut random, mut life) = (Random(seed), life::Life::default());
    for at in 0..which.end {
        let batch = life.batch(&mut random);
        let Some(before) = at.checked_sub(which.start) else {
            continue;
        };
        told(Moment::Submitted(before + 1));
        store.commit(batch);
        told(Moment::Committed(before + 1));
        if at % 40 == 39 {
            store.restart();
        }
    }
}

fn backlog(store: &mut impl Kept, told: &mut dyn FnMut(Moment)) {
    const ROWS: u64 = 120;
    let queued =
        (0..12).map(|part| Fill::new().queue(1, part * ROWS + 1..=(part + 1) * ROWS, 4_000));
    let first = [session(1), session(2).queue(2, 1..=5, 100)];
    let ended = [Fill::new().end(1)];
    // While these are committed the room is given back, piece by piece.
    let meanwhile = (6..80).map(|seq| Fill::new().queue(2, seq..=seq, 2000).settle(2, seq - 3));
    let all = first
        .into_iter()
        .chain(queued)
        .chain(ended)
        .chain(meanwhile);
    commit_all(store, all.map(Fill::done), told);
}

fn commit_all(
    store: &mut impl Kept,
    batches: impl Iterator<Item = Batch>,
    told: &mut dyn FnMut(Moment),
) {
    for (number, batch) in (1..).zip(batches) {
        told(Moment::Submitted(number));
        store.commit(batch);
        told(Moment::Committed(number));
    }
}

/// A page of retained messages is damaged, and the last batches stand only in the write-ahead log.
fn damaged(mut disk: OnDisk) -> Files {
    let mut fill = session(1).queue(1, 1..=300, 400);
    for number in 1..=200 {
        let topic = format!("hall/{number:03}");
        fill = fill.retain(&topic, &payload(1000 + number, 300), Qos::AtLeastOnce);
    }
    disk.commit(fill.done());
    disk.restart();
    for seq in 301..=340 {
        disk.commit(Fill::new().queue(1, seq..=seq, 400).done());
    }
    let mut files = files(disk.crash_image().path());
    let database = files.get_mut("larder.db").unwrap();
    let text = b"<payload 1100>......";
    let at = database.windows(text.len()).position(|bytes| bytes == text);
    let page = at.unwrap() / 1024 * 1024;
    // Not a page of any kind.
    database[page..page + 1024].fill(0xff);
    files
}

/// Where files are kept: in memory, if there is such a place. What would be lost with it is asked of the trace.
pub(crate) fn workplace() -> Directory {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        Directory::within(memory)
    } else {
        Directory::new()
    }
}
