//! A disk as a power cut leaves it. Of what was written to a file since it was last synchronised any part may be there,
//! in sectors, whatever the order in which it was written; of the names that were made, changed and removed since the
//! directory was, any.

use crate::life::Random;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const SECTOR_BYTES: usize = 512;

/// Something that was done to a file of the directory, or to its name. Lines are those of the trace.
#[derive(Clone, Debug)]
pub(crate) enum Done {
    /// The file is made if it is not there.
    Open {
        name: String,
        truncate: bool,
    },
    Write {
        name: String,
        offset: usize,
        data: Vec<u8>,
    },
    SetLen {
        name: String,
        len: usize,
    },
    Remove {
        name: String,
    },
    Rename {
        from: String,
        to: String,
    },
    /// Covers what was done before this line.
    Sync {
        name: String,
        entered: usize,
    },
    SyncDirectory {
        entered: usize,
    },
}

/// A directory's files.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Default)]
pub(crate) struct Disk {
    files: Vec<File>,
    /// Which file each name is, now.
    names: BTreeMap<String, usize>,
    /// The same, as it is synchronised.
    durable: BTreeMap<String, usize>,
    pending: Vec<(usize, Named)>,
    /// It does nothing when it is told to synchronise.
    lies: bool,
}

#[derive(Clone, Default)]
struct File {
    durable: Vec<u8>,
    pending: Vec<(usize, Change)>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

#[derive(Clone)]
enum Named {
    Made(String, usize),
    Removed(String),
    Renamed(String, String),
}

impl Disk {
    /// With these files, synchronised.
    pub(crate) fn new(files: &Files) -> Disk {
        let mut disk = Disk::default();
        for (name, bytes) in files {
            disk.durable.insert(name.clone(), disk.files.len());
            disk.files.push(File {
                durable: bytes.clone(),
                pending: Vec::new(),
            });
        }
        disk.names = disk.durable.clone();
        disk
    }

    pub(crate) fn lying(disk: Disk) -> Disk {
        Disk { lies: true, ..disk }
    }

    /// Something was done, and had returned at this line.
    pub(crate) fn apply(&mut self, line: usize, done: &Done) {
        match done {
            Done::Open { name, truncate } => {
                let next = self.files.len();
                let file = *self.names.entry(name.clone()).or_insert(next);
                if file == next {
                    self.files.push(File::default());
                    self.pending.push((line, Named::Made(name.clone(), file)));
                }
                if *truncate {
                    self.files[file].pending.push((line, Change::SetLen(0)));
                }
            }
            Done::Write { name, offset, data } => {
                self.change(name, line, Change::Write(*offset, data.clone()));
            }
            Done::SetLen { name, len } => self.change(name, line, Change::SetLen(*len)),
            Done::Remove { name } => {
                self.names.remove(name);
                self.pending.push((line, Named::Removed(name.clone())));
            }
            Done::Rename { from, to } => {
                let file = self.names.remove(from).unwrap();
                self.names.insert(to.clone(), file);
                self.pending
                    .push((line, Named::Renamed(from.clone(), to.clone())));
            }
            Done::Sync { .. } | Done::SyncDirectory { .. } if self.lies => {}
            Done::Sync { name, entered } => {
                let file = &mut self.files[self.names[name]];
                let covered = file.pending.partition_point(|(line, _)| line < entered);
                for (_, change) in file.pending.drain(..covered) {
                    change.apply(&mut file.durable);
                }
            }
            Done::SyncDirectory { entered } => {
                let covered = self.pending.partition_point(|(line, _)| line < entered);
                for (_, named) in self.pending.drain(..covered) {
                    named.apply(&mut self.durable);
                }
            }
        }
    }

    fn change(&mut self, name: &str, line: usize, change: Change) {
        self.files[self.names[name]].pending.push((line, change));
    }

    /// Whether something was written to this file that is not synchronised.
    pub(crate) fn is_pending(&self, name: &str) -> bool {
        let file = self.names.get(name);
        file.is_some_and(|file| !self.files[*file].pending.is_empty())
    }

    /// What a cut leaves now, if chance wants it so.
    pub(crate) fn cut(&self, random: &mut Random) -> Files {
        let mut names = self.durable.clone();
        let kept = Kept::new(random, self.pending.len());
        for (at, (_, named)) in self.pending.iter().enumerate() {
            if kept.keeps(at, random) {
                named.apply(&mut names);
            }
        }
        names
            .into_iter()
            .map(|(name, file)| (name, self.files[file].cut(random)))
            .collect()
    }
}

/// Which of the changes that were not synchronised a cut lets stay.
enum Kept {
    None,
    All,
    /// Those before this one.
    First(usize),
    AllBut(usize),
    Only(usize),
    Any,
}

impl Kept {
    fn new(random: &mut Random, pending: usize) -> Kept {
        let some = usize::try_from(random.below(pending.max(1) as u64)).unwrap();
        match random.below(8) {
            0 => Kept::None,
            1 => Kept::All,
            2 | 3 => Kept::First(some),
            4 => Kept::AllBut(some),
            5 => Kept::Only(some),
            _ => Kept::Any,
        }
    }

    fn keeps(&self, at: usize, random: &mut Random) -> bool {
        match *self {
            Kept::None => false,
            Kept::All => true,
            Kept::First(end) => at < end,
            Kept::AllBut(one) => at != one,
            Kept::Only(one) => at == one,
            Kept::Any => random.below(2) == 0,
        }
    }
}

impl File {
    fn cut(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let kept = Kept::new(random, self.pending.len());
        let (by_sector, garbage) = (random.below(2) == 0, random.below(4) == 0);
        for (at, (_, change)) in self.pending.iter().enumerate() {
            let torn = matches!(kept, Kept::First(end) if at == end);
            match change {
                Change::Write(offset, data) if torn => {
                    let end = usize::try_from(random.below(data.len() as u64 + 1)).unwrap();
                    write(&mut bytes, *offset, &data[..end]);
                }
                Change::Write(offset, data) if by_sector && matches!(kept, Kept::Any) => {
                    for (offset, sector) in sectors(*offset, data) {
                        if random.below(2) == 0 {
                            write(&mut bytes, offset, sector);
                        }
                    }
                }
                change if kept.keeps(at, random) => change.apply(&mut bytes),
                // Its room was given to the file, and something else is still there.
                Change::Write(offset, data) if garbage && *offset >= self.durable.len() => {
                    let other: Vec<u8> = data.iter().map(|_| random.next() as u8).collect();
                    write(&mut bytes, *offset, &other);
                }
                _ => {}
            }
        }
        bytes
    }
}

/// The parts of a write that lie in one sector each.
fn sectors(offset: usize, data: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let first = (SECTOR_BYTES - offset % SECTOR_BYTES).min(data.len());
    let (head, rest) = data.split_at(first);
    let rest = rest.chunks(SECTOR_BYTES).enumerate();
    std::iter::once((offset, head))
        .chain(rest.map(move |(at, part)| (offset + first + at * SECTOR_BYTES, part)))
}

fn write(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Write(offset, data) => write(bytes, *offset, data),
            Change::SetLen(len) => bytes.resize(*len, 0),
        }
    }
}

impl Named {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Named::Made(name, file) => {
                names.insert(name.clone(), *file);
            }
            Named::Removed(name) => {
                names.remove(name);
            }
            Named::Renamed(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }
}

/// The files of a directory.
pub(crate) fn files(directory: &Path) -> Files {
    let entries = fs::read_dir(directory).unwrap();
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read(entry.path()).unwrap())
    };
    entries.map(|entry| read(entry.unwrap())).collect()
}

/// Writes them into a directory.
pub(crate) fn lay(files: &Files, directory: &Path) {
    for (name, bytes) in files {
        fs::write(directory.join(name), bytes).unwrap();
    }
}
