//! The thread that reads queues back, a page at a time, so that catching up does not wait behind an fsync.

use super::sqlite::{Fault, Reader};
use super::{AbortOnPanic, Command, Outbound, SharedReader, THREAD_STACK_BYTES};
use crate::record::{Event, Page, PageRequest};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::mpsc::{Receiver, Sender};
use std::thread::{Builder, JoinHandle};

/// Starts the thread; it ends when nobody can send `requests` any more. Its connection is opened when it is needed, and
/// the writer may close it in between.
pub(super) fn spawn<W: Fn() + Send + 'static>(
    path: PathBuf,
    requests: Receiver<PageRequest>,
    writer: Sender<Command>,
    outbound: Outbound<W>,
    reader: SharedReader,
) -> io::Result<JoinHandle<()>> {
    Builder::new()
        .name("store-read".to_owned())
        .stack_size(THREAD_STACK_BYTES)
        .spawn(move || {
            let _guard = AbortOnPanic;
            for request in requests {
                let page = read(&path, &reader, &request).map_err(|fault| {
                    if matches!(fault, Fault::Corrupt(_)) {
                        let _ = writer.send(Command::Suspect(request));
                    }
                    fault.text().to_owned()
                });
                outbound.tell(Event::PageRead { request, page });
            }
        })
}

/// Reads a page; if that fails, once more with a new connection.
fn read(path: &Path, reader: &SharedReader, request: &PageRequest) -> Result<Page, Fault> {
    let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(open) = &mut *reader {
        if let Ok(page) = open.read(request) {
            return Ok(page);
        }
        *reader = None;
    }
    reader.insert(Reader::open(path)?).read(request)
}
