//! The recorded process: this test's own binary under strace, which lives one life and tells its moments.

use crate::calls::{Call, calls};
use crate::disk::{Disk, Done, Files, lay};
use crate::harness::{Directory, OnDisk, ROOM};
use crate::lives::{LIVES, Life, Moment, workplace};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// All calls that can change a file, so that one that is not understood is noticed.
const CALLS: &str = "trace=openat,creat,write,writev,pwrite64,pwritev,pwritev2,ftruncate,truncate,fallocate,fsync,\
    fdatasync,sync_file_range,unlink,unlinkat,rename,renameat,renameat2,link,linkat";

const LIFE: &str = "LARDER_CRASH_LIFE";
const DIRECTORY: &str = "LARDER_CRASH_DIRECTORY";
/// The file that tells the moments, beside the store's directory.
const MOMENTS: &str = "moments";
const DATA: &str = "data";

/// What was done, and when.
pub(crate) enum Event {
    Done(Done),
    Moment(Moment),
}

pub(crate) struct Recorded {
    pub(crate) beginning: Files,
    /// With the line of the trace at which it had returned.
    pub(crate) events: Vec<(usize, Event)>,
}

impl Recorded {
    /// The disk as it was at first.
    pub(crate) fn disk(&self) -> Disk {
        Disk::new(&self.beginning)
    }
}

/// Lives a life if this is the recorded process; else there is nothing to do.
#[test]
fn the_recorded_process() {
    let Ok(name) = std::env::var(LIFE) else {
        return;
    };
    let life = LIVES.into_iter().find(|life| format!("{life:?}") == name);
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    let mut moments = File::create(directory.join(MOMENTS)).unwrap();
    let (mut disk, _) = OnDisk::at(Directory::of(directory.join(DATA)), ROOM);
    life.unwrap().live(&mut disk, |moment| {
        let line = format!("{moment:?}\n");
        moments.write_all(line.as_bytes()).unwrap();
    });
    disk.stop();
    // Whoever records it removes the directory.
    std::mem::forget(disk);
}

/// Records a life.
pub(crate) fn record(life: Life) -> Recorded {
    let directory = workplace();
    let data = directory.path().join(DATA);
    fs::create_dir(&data).unwrap();
    let beginning = life.beginning();
    lay(&beginning, &data);
    let trace = directory.path().join("trace");
    let output = Command::new("strace")
        .args(["-f", "--seccomp-bpf", "-yy", "-xx", "-s", "10000000"])
        .args(["-e", CALLS])
        .arg("-o")
        .arg(&trace)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "record::the_recorded_process", "--nocapture"])
        .env(LIFE, format!("{life:?}"))
        .env(DIRECTORY, directory.path())
        .output()
        .unwrap_or_else(|error| panic!("strace: {error}; run `tests/setup crash`"));
    assert!(output.status.success(), "{output:?}");
    let trace = fs::read_to_string(&trace).unwrap();
    let calls = calls(&trace).unwrap();
    let events: Vec<(usize, Event)> = calls
        .iter()
        .filter_map(|call| Some((call.left, event(call, directory.path())?)))
        .collect();
    assert!(events.len() > 30, "{} events were recorded", events.len());
    Recorded { beginning, events }
}

/// What a call did to the store's directory, or told.
fn event(call: &Call, directory: &Path) -> Option<Event> {
    let data = directory.join(DATA);
    // What failed did nothing.
    if call.returned < 0 {
        return None;
    }
    if Path::new(&call.file) == directory.join(MOMENTS) {
        return (call.name == "write").then(|| Event::Moment(moment(&call.data)));
    }
    let strings = call.strings();
    let local = |path: &str| {
        let name = Path::new(path).strip_prefix(&data).ok()?.to_str()?;
        // What SQLite shares between processes is of no use after a cut: it is made anew.
        (!name.is_empty() && !name.ends_with("-shm")).then(|| name.to_owned())
    };
    let name = local(&call.file);
    let done = match call.name.as_str() {
        "openat" | "creat" => {
            let flags = call.arguments.rsplit('"').next()?;
            let name = local(&strings[0])?;
            if !flags.contains("O_CREAT") && !flags.contains("O_TRUNC") {
                return None;
            }
            let truncate = flags.contains("O_TRUNC");
            Done::Open { name, truncate }
        }
        "pwrite64" => Done::Write {
            name: name?,
            offset: usize::try_from(call.last_number()?).unwrap(),
            data: call.data[..usize::try_from(call.returned).unwrap()].to_vec(),
        },
        // The lock file's.
        "write" => Done::Write {
            name: name.filter(|name| name == "larder.lock")?,
            offset: 0,
            data: call.data.clone(),
        },
        "ftruncate" => Done::SetLen {
            name: name?,
            len: usize::try_from(call.last_number()?).unwrap(),
        },
        "fsync" | "fdatasync" if Path::new(&call.file) == data => Done::SyncDirectory {
            entered: call.entered,
        },
        "fsync" | "fdatasync" => Done::Sync {
            name: name?,
            entered: call.entered,
        },
        "unlink" | "unlinkat" => Done::Remove {
            name: local(&strings[0])?,
        },
        "rename" | "renameat" | "renameat2" => Done::Rename {
            from: local(&strings[0])?,
            to: local(&strings[1])?,
        },
        other => {
            assert!(name.is_none(), "{other} is not understood: {}", call.file);
            return None;
        }
    };
    Some(Event::Done(done))
}

fn moment(line: &[u8]) -> Moment {
    let line = String::from_utf8_lossy(line);
    let (what, number) = line.trim_end_matches(")\n").split_once('(').unwrap();
    let number = number.parse().unwrap();
    match what {
        "Submitted" => Moment::Submitted(number),
        "Committed" => Moment::Committed(number),
        other => panic!("{other}"),
    }
}
