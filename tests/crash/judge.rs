//! Cuts the power after every write, opens what is left, and compares it with what was acknowledged.

use crate::disk::{Disk, Files, lay};
use crate::harness::{Kept, OnDisk, open, session};
use crate::life::Random;
use crate::lives::{Life, Moment, words, workplace};
use crate::record::{Event, Recorded};
use foldhash::fast::FixedState;
use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// After so many there is nothing new to learn.
const FAULTS_MAX: usize = 10;
/// One state in so many is also written on, and opened again.
const WRITTEN_ON: u64 = 8;
const ROOM: u64 = crate::harness::ROOM;

pub(crate) struct Found {
    /// Moments at which the power was cut.
    pub(crate) cuts: usize,
    /// States that were opened, no two of them the same.
    pub(crate) states: usize,
    /// Those where the database itself was being written, and not only its log.
    pub(crate) checkpoints: usize,
    pub(crate) faults: usize,
    /// The first fault, in words.
    pub(crate) first: Option<String>,
}

/// Opens about so many states of a life.
pub(crate) fn judge(
    life: Life,
    recorded: &Recorded,
    mut disk: Disk,
    states: usize,
    random: &mut Random,
) -> Found {
    let expected = life.expected(&recorded.beginning);
    let cuts = recorded.events.len() + 1;
    let mut found = Found {
        cuts,
        states: 0,
        checkpoints: 0,
        faults: 0,
        first: None,
    };
    // Of the batches, so many are acknowledged, and so many were given to the store.
    let (mut committed, mut submitted) = (0, 0);
    let mut seen = BTreeSet::new();
    for cut in 0..cuts {
        let due = states * (cut + 1) / cuts - states * cut / cuts;
        for _ in 0..due {
            if found.faults == FAULTS_MAX {
                return found;
            }
            let left = disk.cut(random);
            if !seen.insert((hash(&left), committed)) {
                continue;
            }
            found.states += 1;
            found.checkpoints += usize::from(disk.is_pending("larder.db"));
            let allowed = &expected[committed..=submitted];
            // A page that cannot be read is told with a panic.
            let checked = catch_unwind(AssertUnwindSafe(|| check(life, &left, allowed, random)));
            let checked = checked.unwrap_or_else(|_| Err("a panic, which was told".to_owned()));
            if let Err(fault) = checked {
                found.faults += 1;
                found.first.get_or_insert(format!(
                    "{life:?}, cut {cut} of {cuts}, {committed} batches acknowledged and {submitted} given: {fault}\n\
                     the files were {:?}",
                    left.iter()
                        .map(|(name, bytes)| (name, bytes.len()))
                        .collect::<Vec<_>>()
                ));
            }
        }
        match recorded.events.get(cut) {
            Some((line, Event::Done(done))) => disk.apply(*line, done),
            Some((_, Event::Moment(Moment::Submitted(number)))) => submitted = *number,
            Some((_, Event::Moment(Moment::Committed(number)))) => committed = *number,
            None => {}
        }
    }
    assert_eq!(submitted + 1, expected.len(), "the life was recorded whole");
    found
}

/// Opens what a cut left and says what is wrong with it.
fn check(
    life: Life,
    left: &Files,
    allowed: &[Vec<String>],
    random: &mut Random,
) -> Result<(), String> {
    let directory = workplace();
    lay(left, directory.path());
    if random.below(4) == 0 {
        // Of what SQLite shares between processes anything may have been written.
        let shared: Vec<u8> = (0..32_768).map(|_| random.next() as u8).collect();
        std::fs::write(directory.path().join("larder.db-shm"), shared).unwrap();
    }
    let opened = open(directory.path(), ROOM);
    let (threads, bell, recovered) = opened.map_err(|error| format!("not opened: {error}"))?;
    if life != Life::Damaged {
        if let Some(salvaged) = &recovered.salvaged {
            return Err(format!("taken for damaged: {salvaged}"));
        }
    }
    let mut disk = OnDisk::running(directory, ROOM, threads, bell);
    let found = words(&mut disk, &recovered);
    if !allowed.contains(&found) {
        let (line, due) = allowed
            .last()
            .map_or((0, ""), |due| first_difference(due, &found));
        return Err(format!(
            "at line {line} {due:?} was due, and {:?} is there",
            found.get(line)
        ));
    }
    if life == Life::Damaged && !disk.directory.path().join("larder.db.corrupt-1").exists() {
        return Err("the damaged file is gone".to_owned());
    }
    if random.below(WRITTEN_ON) == 0 {
        disk.commit(session(1 << 30).queue(1 << 30, 1..=3, 500).done());
        let recovered = disk.restart();
        let again = words(&mut disk, &recovered);
        let ours = recovered.sessions.last().map(|session| session.key.0);
        if ours != Some(1 << 30) || again.len() <= found.len() {
            return Err("what was written after the cut is not there".to_owned());
        }
    }
    Ok(())
}

fn first_difference<'a>(due: &'a [String], found: &[String]) -> (usize, &'a str) {
    let same = due
        .iter()
        .zip(found)
        .take_while(|(due, found)| due == found);
    let line = same.count();
    (line, due.get(line).map_or("nothing", |line| line))
}

fn hash(files: &Files) -> u64 {
    FixedState::with_seed(1).hash_one(files)
}
