//! What the system tells of a process, of the machine's cores and of its disk.

use crate::Result;
use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// As `/proc/…/stat` and the block devices count.
const SECTOR_BYTES: u64 = 512;
/// `USER_HZ` is 100 wherever Linux runs.
const MILLISECONDS_PER_TICK: u64 = 10;
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Who runs where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Core {
    Broker,
    Generator,
}

/// Keeps this thread, and the processes that it starts from now on, on one core: brokers on the first, the generator on the
/// second. On a machine with a single core nobody is kept anywhere.
pub(crate) fn pin(core: Core) -> Result<()> {
    if std::thread::available_parallelism()?.get() == 1 && !has_second_core()? {
        return Ok(());
    }
    let mut set = CpuSet::new();
    set.set(match core {
        Core::Broker => 0,
        Core::Generator => 1,
    });
    Ok(sched_setaffinity(None, &set)?)
}

/// A thread that is pinned sees one core only, so the machine's own list is asked.
fn has_second_core() -> Result<bool> {
    Ok(fs::read_to_string("/proc/stat")?.contains("\ncpu1 "))
}

/// As many open files as this user may have.
pub(crate) fn raise_open_files() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// What a process's threads have had of their core so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CpuTime {
    pub(crate) total: Duration,
    /// The part in the system, in whole hundredths of a second.
    pub(crate) system: Duration,
    /// In which they could have run, and somebody else did.
    pub(crate) waited: Duration,
}

impl CpuTime {
    pub(crate) fn of(pid: u32) -> Result<CpuTime> {
        let mut time = CpuTime::default();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end meanwhile.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
                continue;
            };
            let mut figures = text.split_whitespace().map(str::parse);
            let mut next = || figures.next().unwrap_or(Ok(0)).map(Duration::from_nanos);
            time.total += next()?;
            time.waited += next()?;
        }
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The second field is the program's name in brackets; the fifteenth is meant.
        let ticks = text
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(12))
            .ok_or("/proc has no system time")?;
        time.system = Duration::from_millis(ticks.parse::<u64>()? * MILLISECONDS_PER_TICK);
        Ok(time)
    }

    pub(crate) fn since(self, before: CpuTime) -> CpuTime {
        CpuTime {
            total: self.total.saturating_sub(before.total),
            system: self.system.saturating_sub(before.system),
            waited: self.waited.saturating_sub(before.waited),
        }
    }
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    let kilobytes = figure(&format!("/proc/{pid}/status"), "VmRSS:")?;
    Ok(kilobytes * 1024)
}

/// Bytes that a process has had written to block devices, as far as they are its own: not the file system's journal.
pub(crate) fn written_bytes(pid: u32) -> Result<u64> {
    figure(&format!("/proc/{pid}/io"), "write_bytes:")
}

fn figure(file: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(file)?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .ok_or_else(|| format!("{file} has no {name}"))?;
    Ok(value.parse()?)
}

/// Bytes written to the block device on which a directory is, by whomever; `None` if it is on none.
pub(crate) fn device_written_bytes(directory: &Path) -> Option<u64> {
    let device = fs::metadata(directory).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let text = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    let sectors: u64 = text.split_whitespace().nth(6)?.parse().ok()?;
    Some(sectors * SECTOR_BYTES)
}

/// Whether a directory is in memory, where a sync costs nothing.
pub(crate) fn is_in_memory(directory: &Path) -> Result<bool> {
    Ok(rustix::fs::statfs(directory)?.f_type as i64 == TMPFS_MAGIC)
}

/// How long this disk takes now for 4 KiB and an fdatasync: the median of 41.
pub(crate) fn sync_time(directory: &Path) -> Result<Duration> {
    let path = directory.join("sync");
    let mut file = File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..41 {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&[0x5A; 4096])?;
        let began = Instant::now();
        file.sync_data()?;
        times.push(began.elapsed());
    }
    fs::remove_file(path)?;
    times.sort();
    Ok(times[times.len() / 2])
}
