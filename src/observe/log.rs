//! The log: lines to standard error, without ever waiting for whoever reads it.
//!
//! As a service a line is formatted into a fixed buffer, goes through a bounded ring to a thread, and that thread
//! writes. When the ring is full the line is dropped and counted, and the count becomes a line when there is room again.
//! At a terminal lines are written at once, for a person who stops the terminal means to stop the program.

use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::fs::fstat;
use simple_logger::SimpleLogger;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};
use std::mem::size_of;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of memory that the log takes as a service, its thread's stack not counted.
pub const LOG_RING_BYTES: usize = LOG_RING_LINES * size_of::<Line>();
/// Bytes of stack of the log's thread.
pub const LOG_STACK_BYTES: usize = 64 << 10;

/// Lines that wait to be written.
const LOG_RING_LINES: usize = 256;
/// A longer line is cut, and ends in `…`.
const LOG_LINE_BYTES: usize = 512;
/// How long the end of the program waits for the last lines to be written.
const FLUSH_WAIT: Duration = Duration::from_millis(500);

/// Starts the log: at a terminal a plain one, otherwise one that never blocks, with the priorities of syslog and no time
/// where systemd's journal reads. `level` is the configuration's; one level in the environment's `RUST_LOG` goes before.
///
/// # Errors
/// The thread cannot be started, or the process has a log already.
pub fn init(level: LevelFilter) -> io::Result<Guard> {
    let level = std::env::var("RUST_LOG")
        .ok()
        .and_then(|level| level.parse().ok())
        .unwrap_or(level);
    let installed = if io::stderr().is_terminal() {
        SimpleLogger::new().with_level(level).init()
    } else {
        let style = if stderr_is_journal() {
            Style::Journal
        } else {
            Style::Dated
        };
        let log = RingLog::start(level, style, io::stderr())?;
        log::set_max_level(level);
        log::set_boxed_logger(Box::new(log))
    };
    installed.map_err(io::Error::other)?;
    Ok(Guard(()))
}

/// Waits, when dropped, until the lines so far are written, but not longer than half a second.
#[derive(Debug)]
#[must_use = "the last lines are written when it is dropped"]
pub struct Guard(());

impl Drop for Guard {
    fn drop(&mut self) {
        log::logger().flush();
    }
}

/// Whether what this process writes to standard error goes to systemd's journal: `JOURNAL_STREAM` is inherited by
/// programs whose standard error is another, so it names the device and the inode (systemd.exec(5)).
fn stderr_is_journal() -> bool {
    let Ok(stat) = fstat(io::stderr()) else {
        return false;
    };
    std::env::var("JOURNAL_STREAM")
        .is_ok_and(|stream| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// How a line begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// With its priority, `<6>`, as sd-daemon(3) has it; the journal adds the time.
    Journal,
    /// With the time and the level.
    Dated,
}

type Line = heapless::Vec<u8, LOG_LINE_BYTES>;

/// A log whose lines a thread of its own writes.
struct RingLog {
    level: LevelFilter,
    style: Style,
    ring: SyncSender<Line>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    queued: AtomicU64,
    dropped: AtomicU64,
    written: Mutex<u64>,
    progress: Condvar,
}

impl RingLog {
    fn start(
        level: LevelFilter,
        style: Style,
        to: impl Write + Send + 'static,
    ) -> io::Result<RingLog> {
        let (ring, lines) = sync_channel(LOG_RING_LINES);
        let counts = Arc::new(Counts::default());
        let writer = Writer {
            style,
            lines,
            counts: counts.clone(),
            to,
        };
        thread::Builder::new()
            .name("log".to_owned())
            .stack_size(LOG_STACK_BYTES)
            .spawn(|| writer.run())?;
        Ok(RingLog {
            level,
            style,
            ring,
            counts,
        })
    }
}

impl Log for RingLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level
    }

    #[expect(clippy::disallowed_methods, reason = "for a person to read")]
    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // Where a line comes from helps its developer; at the other levels it must say enough by itself.
        let target = if record.level() >= Level::Debug {
            record.target()
        } else {
            ""
        };
        let line = line(
            self.style,
            SystemTime::now(),
            record.level(),
            target,
            *record.args(),
        );
        let counter = match self.ring.try_send(line) {
            Ok(()) => &self.counts.queued,
            Err(_) => &self.counts.dropped,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn flush(&self) {
        let queued = self.counts.queued.load(Ordering::Relaxed);
        let written = self
            .counts
            .written
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // What is not written by then is lost with the process, which has waited long enough.
        let _ = self
            .counts
            .progress
            .wait_timeout_while(written, FLUSH_WAIT, |written| *written < queued);
    }
}

struct Writer<W> {
    style: Style,
    lines: Receiver<Line>,
    counts: Arc<Counts>,
    to: W,
}

impl<W: Write> Writer<W> {
    /// Writes until the log is gone. Nobody is left to be told of an error in writing, so there it goes on.
    fn run(mut self) {
        while let Ok(first) = self.lines.recv() {
            let _ = self.to.write_all(&first);
            let mut written = 1;
            // No more than a ring at a time: what was dropped must be told even while lines keep coming.
            for line in self.lines.try_iter().take(LOG_RING_LINES) {
                let _ = self.to.write_all(&line);
                written += 1;
            }
            self.tell_dropped();
            let _ = self.to.flush();
            *self
                .counts
                .written
                .lock()
                .unwrap_or_else(PoisonError::into_inner) += written;
            self.counts.progress.notify_all();
        }
    }

    #[expect(clippy::disallowed_methods, reason = "for a person to read")]
    fn tell_dropped(&mut self) {
        let dropped = self.counts.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let (lines, were) = if dropped == 1 {
                ("line", "was")
            } else {
                ("lines", "were")
            };
            let text = format!("{dropped} log {lines} {were} dropped because stderr was not read");
            let now = SystemTime::now();
            let line = line(self.style, now, Level::Warn, "", format_args!("{text}"));
            let _ = self.to.write_all(&line);
        }
    }
}

/// One line, its end included.
fn line(
    style: Style,
    at: SystemTime,
    level: Level,
    target: &str,
    text: fmt::Arguments<'_>,
) -> Line {
    let mut line = LineWriter {
        bytes: Line::new(),
        is_cut: false,
    };
    let begun = match style {
        Style::Journal => write!(line, "<{}>", priority(level)),
        Style::Dated => write!(line, "{} {level:<5} ", Utc(at)),
    };
    let separator = if target.is_empty() { "" } else { ": " };
    // A line that is too long is cut, which is not worth an error.
    let _ = begun.and_then(|()| write!(line, "{target}{separator}{text}"));
    line.finish()
}

/// The priorities of syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Room is kept for these at the end of a line.
const CUT: &str = "…";
const END: u8 = b'\n';
const TEXT_BYTES_MAX: usize = LOG_LINE_BYTES - CUT.len() - 1;

struct LineWriter {
    bytes: Line,
    is_cut: bool,
}

impl LineWriter {
    fn finish(mut self) -> Line {
        let end = if self.is_cut { CUT.as_bytes() } else { &[] };
        // There is room for both: see TEXT_BYTES_MAX.
        let _ = self.bytes.extend_from_slice(end);
        let _ = self.bytes.push(END);
        self.bytes
    }
}

impl fmt::Write for LineWriter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            // Client Identifiers and topics come from anywhere, and must not forge lines or steer a terminal.
            let shown = if character.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                character
            };
            if self.bytes.len() + shown.len_utf8() > TEXT_BYTES_MAX {
                self.is_cut = true;
                return Err(fmt::Error);
            }
            let _ = self
                .bytes
                .extend_from_slice(shown.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Ok(())
    }
}

/// Prints as `2026-03-01T12:00:00.000Z`. A clock before 1970 stands at its beginning.
struct Utc(SystemTime);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        // Days since 0000-03-01, so that a leap day is the last of its year: 400 years have 146,097 days, and the
        // months from March have 153 days in five.
        let days = days + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (year, month) = if month < 10 {
            (year, month + 3)
        } else {
            (year + 1, month - 9)
        };
        write!(
            f,
            "{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
            era * 400 + year,
            second / 3_600,
            second / 60 % 60,
            second % 60,
            since.subsec_millis()
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// A reader of stderr who takes one write whenever it is let.
    struct Slow {
        let_through: Receiver<()>,
        taken: Sender<String>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Without a gate it is open for good.
            let _ = self.let_through.recv();
            let _ = self.taken.send(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow(style: Style) -> (RingLog, Sender<()>, Receiver<String>) {
        let (gate, let_through) = channel();
        let (taken, lines) = channel();
        (
            RingLog::start(LevelFilter::Info, style, Slow { let_through, taken }).unwrap(),
            gate,
            lines,
        )
    }

    fn write(log: &RingLog, level: Level, text: &str) {
        log.log(
            &Record::builder()
                .level(level)
                .target("t")
                .args(format_args!("{text}"))
                .build(),
        );
    }

    #[test]
    fn the_journal_gets_priorities_and_no_time() {
        let (log, gate, lines) = slow(Style::Journal);
        drop(gate);
        for level in [Level::Error, Level::Warn, Level::Info, Level::Debug] {
            write(&log, level, "text");
        }
        log.flush();
        assert_eq!(
            lines.try_iter().collect::<Vec<_>>(),
            ["<3>text\n", "<4>text\n", "<6>text\n"]
        );
    }

    #[test]
    fn a_stuck_reader_does_not_block_and_what_overflows_is_counted() {
        let (log, gate, lines) = slow(Style::Journal);
        // The thread may have taken the first out of the ring, or not: fill until a line is dropped.
        let mut sent = 0;
        while log.counts.dropped.load(Ordering::Relaxed) < 37 {
            write(&log, Level::Info, &sent.to_string());
            sent += 1;
            assert!(sent < 2 * LOG_RING_LINES + 37);
        }
        log.flush();
        assert_eq!(lines.try_iter().count(), 0);

        drop(gate);
        log.flush();
        let written: Vec<String> = lines.try_iter().collect();
        let told = written
            .iter()
            .position(|line| line.contains("dropped"))
            .unwrap();
        assert_eq!(
            written[told],
            "<4>37 log lines were dropped because stderr was not read\n"
        );
        assert_eq!(written.len(), sent - 37 + 1);
        assert_eq!(written[0], "<6>0\n");
    }

    #[test]
    fn an_error_in_writing_ends_nothing() {
        struct Broken(u32, Sender<u32>);
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                let _ = self.1.send(self.0);
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let (taken, tries) = channel();
        let log = RingLog::start(LevelFilter::Info, Style::Dated, Broken(0, taken)).unwrap();
        write(&log, Level::Info, "1");
        write(&log, Level::Info, "2");
        log.flush();
        assert_eq!(tries.try_iter().collect::<Vec<_>>(), [1, 2]);
    }

    fn text_of(style: Style, seconds: u64, target: &str, text: &str) -> String {
        let at = UNIX_EPOCH + Duration::from_millis(seconds * 1_000 + 7);
        let line = line(style, at, Level::Info, target, format_args!("{text}"));
        String::from_utf8(line.to_vec()).unwrap()
    }

    #[test]
    fn a_line_is_one_line_of_bounded_length() {
        assert_eq!(
            text_of(Style::Journal, 0, "", "a\nb\u{1b}[2J"),
            "<6>a\u{fffd}b\u{fffd}[2J\n"
        );
        assert_eq!(text_of(Style::Journal, 0, "larder", "a"), "<6>larder: a\n");
        let long = text_of(Style::Journal, 0, "", &"ä".repeat(LOG_LINE_BYTES));
        assert!(long.len() <= LOG_LINE_BYTES && long.len() > LOG_LINE_BYTES - 3);
        assert!(long.ends_with("ä…\n"));
    }

    #[test]
    fn dates() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (1_709_251_200, "2024-03-01T00:00:00.007Z"),
            (1_735_689_599, "2024-12-31T23:59:59.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            assert_eq!(
                text_of(Style::Dated, seconds, "", "a"),
                format!("{date} INFO  a\n")
            );
        }
    }
}
