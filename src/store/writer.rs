//! The thread that writes: commit, tell, checkpoint, purge, next.

use super::sqlite::{Database, Fault, Reader};
use super::{
    AbortOnPanic, Command, Outbound, Question, SharedReader, Suspicion, THREAD_STACK_BYTES,
};
use crate::record::{Batch, Event};
use std::convert::Infallible;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// The waits between two attempts at a batch double from the first to the last.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_LAST: Duration = Duration::from_secs(1);

/// Starts the thread. It closes the reader's connection before it replaces a damaged file.
pub(super) fn spawn<W: Fn() + Send + 'static>(
    database: Database,
    commands: Receiver<Command>,
    outbound: Outbound<W>,
    reader: SharedReader,
    suspicion: Suspicion,
) -> io::Result<JoinHandle<()>> {
    let mut writer = Writer {
        database,
        commands,
        outbound,
        reader,
        suspicion,
        chores_failed: false,
    };
    Builder::new()
        .name("store-write".to_owned())
        .stack_size(THREAD_STACK_BYTES)
        .spawn(move || {
            let _guard = AbortOnPanic;
            let Err(Stopped) = writer.run();
        })
}

struct Writer<W> {
    /// Before `database`, so that it is closed before.
    reader: SharedReader,
    database: Database,
    commands: Receiver<Command>,
    outbound: Outbound<W>,
    suspicion: Suspicion,
    chores_failed: bool,
}

/// The store is being dropped.
struct Stopped;

impl<W: Fn()> Writer<W> {
    /// Serves until the store is dropped.
    fn run(&mut self) -> Result<Infallible, Stopped> {
        let mut chores_left = true;
        loop {
            match self.next_command(chores_left)? {
                Some(Command::Commit(batch)) => self.commit(batch)?,
                Some(Command::Suspect(question)) => {
                    self.suspicion.taken();
                    self.check(&question);
                }
                Some(Command::Stop) => return Err(Stopped),
                None => {}
            }
            chores_left = self.do_chores();
        }
    }

    /// Waits for a command, unless there are chores to go on with.
    fn next_command(&self, chores_left: bool) -> Result<Option<Command>, Stopped> {
        if !chores_left {
            return self.commands.recv().map(Some).map_err(|_| Stopped);
        }
        match self.commands.try_recv() {
            Ok(command) => Ok(Some(command)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Stopped),
        }
    }

    /// Commits the batch, however often that takes.
    fn commit(&mut self, batch: Arc<Batch>) -> Result<(), Stopped> {
        let mut retry = RETRY_FIRST;
        let mut mended = false;
        loop {
            let fault = match self.database.commit(&batch) {
                Ok((dropped, disk_used)) => {
                    let written = self.database.written();
                    self.outbound.tell(Event::Committed {
                        batch,
                        dropped,
                        disk_used,
                        written,
                    });
                    return Ok(());
                }
                Err(fault) => fault,
            };
            if !mended {
                self.outbound.tell(Event::Stalled {
                    error: fault.text().to_owned(),
                });
            }
            self.wait(retry)?;
            retry = (retry * 2).min(RETRY_LAST);
            self.mend(&fault, mended);
            mended = true;
            // If the disk is full, the rows of ended sessions are what can go; an error shows again in the commit.
            let _ = self.database.purge();
        }
    }

    /// Waits between two attempts; ends early if the store is being dropped.
    #[expect(
        clippy::disallowed_methods,
        reason = "the turn does not see how long it is"
    )]
    fn wait(&self, time: Duration) -> Result<(), Stopped> {
        let until = Instant::now() + time;
        loop {
            match self
                .commands
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return Err(Stopped),
                // Whoever reads that again asks again.
                Ok(Command::Suspect(_)) => self.suspicion.taken(),
                Ok(Command::Commit(_)) => unreachable!("one batch at a time"),
            }
        }
    }

    /// Opens the file again; a file that a new connection too finds corrupt is replaced. What fails here fails the next
    /// attempt too, and is met again there.
    fn mend(&mut self, fault: &Fault, again: bool) {
        if again && matches!(fault, Fault::Corrupt(_)) {
            self.replace();
        } else if let Err(fault) = self.database.reopen() {
            log::warn!("the database could not be opened again: {}", fault.text());
        }
    }

    /// The reader met a corrupt page twice. Looks at it once more, as an earlier complaint may have been dealt with.
    fn check(&mut self, question: &Question) {
        let read = Reader::open(self.database.path()).and_then(|mut reader| match question {
            Question::Page(request) => reader.read(request).map(drop),
            Question::Retained(topic) => reader.read_retained(topic).map(drop),
        });
        if matches!(read, Err(Fault::Corrupt(_))) {
            self.replace();
        }
    }

    fn replace(&mut self) {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        *reader = None;
        match self.database.start_anew() {
            Ok(report) => log::error!("{report}"),
            Err(fault) => log::error!(
                "the damaged database could not be replaced: {}",
                fault.text()
            ),
        }
    }

    /// What nobody waits for, a small piece at a time. Says whether there is more to do at once.
    fn do_chores(&mut self) -> bool {
        let database = &mut self.database;
        let done = database
            .checkpoint_if_long()
            .and_then(|()| database.purge())
            .and_then(|purged| Ok(database.vacuum_if_large()? || purged));
        match done {
            Ok(more) => {
                self.chores_failed = false;
                more
            }
            Err(fault) => {
                if !self.chores_failed {
                    log::warn!("housekeeping of the database failed: {}", fault.text());
                }
                let again = std::mem::replace(&mut self.chores_failed, true);
                self.mend(&fault, again);
                false
            }
        }
    }
}
