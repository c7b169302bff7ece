//! What is durable, on disk: one SQLite database, a thread that writes and a thread that reads.
//!
//! The writer takes one [`Batch`] at a time, commits it as one transaction with one fsync, and says so; a commit that
//! fails is tried again until it succeeds. The reader answers page requests on a connection of its own, so that catching
//! up does not wait behind an fsync. Neither ever blocks the turn.
//!
//! [`MemoryStore`] keeps the same promises in memory, committing only when told: for volatile use, and as the disk
//! that the simulator crashes.

mod blob;
mod latest;
mod lock;
mod memory;
mod reader;
mod sqlite;
mod writer;

pub use latest::LATEST_TOPICS;
pub use memory::{Disk, MemoryStore};

use crate::record::{Batch, Event, PageRequest, Recovered, Store};
use crate::time::ServiceSeconds;
use lock::Lock;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Heap that SQLite keeps to, both connections together, in bytes; beyond it SQLite gives up cached pages first.
pub const SQLITE_HEAP_BYTES: usize = 2 << 20;
/// Page cache of the writer's connection, in bytes; a part of [`SQLITE_HEAP_BYTES`].
pub const WRITER_CACHE_BYTES: usize = 512 << 10;
/// Page cache of the reader's connection, in bytes; a part of [`SQLITE_HEAP_BYTES`].
pub const READER_CACHE_BYTES: usize = 128 << 10;
/// Stack of each of the two threads, in bytes.
pub const THREAD_STACK_BYTES: usize = 256 << 10;
/// Questions to the reader that may wait for it; whoever asks more waits too.
pub const QUESTIONS: usize = 16;
/// What may wait for the writer: a batch, a suspicion of the reader's, and the end. A channel with a capacity takes no
/// memory once it is made.
const COMMANDS: usize = 3;
/// What may wait for the turn: an answer to each question, a commit, and that it stalled.
const EVENTS: usize = QUESTIONS + 2;
/// By so much the database may pass [`Options::disk_max`], in bytes, so that what was admitted below it always fits:
/// twice the largest batch. Batches without a new message may use as much again: settlements never lack room.
pub const DISK_RESERVE_BYTES: u64 = 4 << 20;

/// Where and how large.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory of the database and its lock file; it must exist.
    pub data_dir: PathBuf,
    /// Up to this many bytes in use ([`Event::Committed::disk_used`]) new messages are admitted.
    pub disk_max: u64,
}

/// Why a store could not be opened. The files are as they were.
#[derive(Debug)]
pub enum OpenError {
    /// The directory is missing or cannot be written to.
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has the directory.
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The process id in it.
        holder: String,
    },
    /// The file is some other program's database.
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer Larder.
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that this Larder knows.
        known: u32,
    },
    /// SQLite, or the system under it, could not open or create the file.
    Database {
        /// The file.
        path: PathBuf,
        /// What it said.
        error: String,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::DataDir { path, source } => write!(
                f,
                "data_dir {}: {source}; create the directory and let the user that Larder runs as write to it",
                path.display()
            ),
            OpenError::Locked { path, holder } => write!(
                f,
                "{}: process {holder} has this data_dir; end it, or give this one another data_dir",
                path.display()
            ),
            OpenError::Foreign { path } => write!(
                f,
                "{}: not a database of Larder's (another application_id); move it away or choose another data_dir",
                path.display()
            ),
            OpenError::Newer { path, found, known } => write!(
                f,
                "{}: written by a newer Larder (schema {found}, this one knows {known}); install that version, or \
                 move the file away to start empty",
                path.display()
            ),
            OpenError::Database { path, error } => {
                write!(
                    f,
                    "{}: {error}; check the file system and its free space",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::DataDir { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Opens the store in `options.data_dir`, creating it if there is none, and starts its threads. `wake` is called by
/// these after they have put an event where [`Store::poll_event`] finds it.
///
/// A corrupt database is set aside under another name, what can be read of it is copied into a new one, and
/// [`Recovered::salvaged`] says so.
///
/// # Errors
/// See [`OpenError`]; nothing was changed.
pub fn open(
    options: &Options,
    wake: impl Fn() + Send + Clone + 'static,
) -> Result<(Threads, Recovered), OpenError> {
    let lock = Lock::take(&options.data_dir)?;
    let path = options.data_dir.join("larder.db");
    let (database, recovered) = sqlite::open(&path, options.disk_max)?;
    let no_thread = |error: io::Error| OpenError::Database {
        path: path.clone(),
        error: error.to_string(),
    };

    let (events, received) = sync_channel(EVENTS);
    let (commands, to_writer) = sync_channel(COMMANDS);
    let (requests, to_reader) = sync_channel(QUESTIONS);
    let shared_reader = SharedReader::default();
    let suspicion = Suspicion::new(commands.clone());
    let outbound = Outbound { events, wake };
    let writer = writer::spawn(
        database,
        to_writer,
        outbound.clone(),
        Arc::clone(&shared_reader),
        suspicion.clone(),
    )
    .map_err(no_thread)?;
    let mut threads = Threads {
        events: received,
        commands,
        requests: Some(requests),
        writer: Some(writer),
        reader: None,
        busy: false,
        _lock: lock,
    };
    let reader = reader::spawn(path.clone(), to_reader, suspicion, outbound, shared_reader);
    threads.reader = Some(reader.map_err(no_thread)?);
    Ok((threads, recovered))
}

/// The store on disk: the turn's side of its two threads. Dropping it ends them after the commit that is under way.
#[derive(Debug)]
pub struct Threads {
    events: Receiver<Event>,
    commands: SyncSender<Command>,
    /// `None` while it is being dropped: the reader ends when nobody can ask any more.
    requests: Option<SyncSender<Question>>,
    writer: Option<JoinHandle<()>>,
    reader: Option<JoinHandle<()>>,
    busy: bool,
    /// Released after the threads have ended, because `drop` joins them.
    _lock: Lock,
}

impl Threads {
    /// Ends the threads after the commit that is under way. A batch that cannot be committed is given up.
    pub fn shutdown(self) {}
}

impl Store for Threads {
    fn is_idle(&self) -> bool {
        !self.busy
    }

    fn submit(&mut self, batch: Arc<Batch>) {
        debug_assert!(
            !self.busy,
            "a batch is submitted only when the store is idle"
        );
        self.busy = true;
        // Fails only if the writer is gone, and then the process is being aborted.
        let _ = self.commands.send(Command::Commit(batch));
    }

    fn read(&mut self, request: PageRequest) {
        if let Some(requests) = &self.requests {
            let _ = requests.send(Question::Page(request));
        }
    }

    fn read_retained(&mut self, topic: String) {
        if let Some(requests) = &self.requests {
            let _ = requests.send(Question::Retained(topic));
        }
    }

    fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.try_recv().ok()?;
        if matches!(event, Event::Committed { .. }) {
            self.busy = false;
        }
        Some(event)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Whoever waits for room to tell something need not.
        self.events = sync_channel(0).1;
        // The writer is the last to close, so that it is the one that empties the write-ahead log.
        self.requests = None;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        let _ = self.commands.send(Command::Stop);
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// What the reader is asked.
#[derive(Debug)]
enum Question {
    /// For rows of a queue.
    Page(PageRequest),
    /// For a topic's retained message.
    Retained(String),
}

/// What the writer is told.
#[derive(Debug)]
enum Command {
    /// Commit this.
    Commit(Arc<Batch>),
    /// The reader met a corrupt page where the answer to this is.
    Suspect(Question),
    /// End.
    Stop,
}

/// What the reader tells the writer: one thing at a time, so that a batch always finds room.
#[derive(Clone)]
struct Suspicion {
    is_told: Arc<AtomicBool>,
    writer: SyncSender<Command>,
}

impl Suspicion {
    fn new(writer: SyncSender<Command>) -> Suspicion {
        Suspicion {
            is_told: Arc::default(),
            writer,
        }
    }

    /// Where the answer to this is, there is a corrupt page. Nothing if another suspicion waits: whoever reads this again
    /// comes upon it again.
    fn tell(&self, question: Question) {
        if !self.is_told.swap(true, Ordering::AcqRel) {
            // Fails only if the writer is gone, and then the process is being aborted.
            let _ = self.writer.send(Command::Suspect(question));
        }
    }

    /// The writer has taken it.
    fn taken(&self) {
        self.is_told.store(false, Ordering::Release);
    }
}

/// The reader's connection. The writer takes it away before it replaces a damaged file.
type SharedReader = Arc<Mutex<Option<sqlite::Reader>>>;

/// A thread's way to the turn.
#[derive(Clone)]
struct Outbound<W> {
    events: SyncSender<Event>,
    wake: W,
}

impl<W: Fn()> Outbound<W> {
    fn tell(&self, event: Event) {
        // Fails only while the store is being dropped.
        if self.events.send(event).is_ok() {
            (self.wake)();
        }
    }
}

/// Ends the process if a thread of the store panics: without it nothing would be acknowledged ever again, and
/// recovery is the way in which Larder starts anyway.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// Service time and wall clock as last written. Writing them costs a page, so they are written about once a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Noted {
    service: ServiceSeconds,
    wall: Option<u64>,
}

impl Noted {
    /// Service time after which it is written again, in seconds.
    const EVERY: u64 = 60;

    fn of(batch: &Batch) -> Noted {
        Noted {
            service: batch.service,
            wall: batch.wall,
        }
    }

    /// Whether `batch` brings a note worth a page: it says so, a minute has passed, or the wall clock has been
    /// synchronised.
    fn is_due(self, batch: &Batch) -> bool {
        batch.note
            || batch.service.0 >= self.service.0 + Self::EVERY
            || (self.wall.is_none() && batch.wall.is_some())
    }
}
