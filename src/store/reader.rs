//! The thread that reads queues back, a page at a time, and large retained messages, so that catching up does not wait
//! behind an fsync.

use super::sqlite::{Fault, Reader};
use super::{AbortOnPanic, Outbound, Question, SharedReader, Suspicion, THREAD_STACK_BYTES};
use crate::record::Event;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::mpsc::Receiver;
use std::thread::{Builder, JoinHandle};

/// Starts the thread; it ends when nobody can ask `questions` any more. Its connection is opened when it is needed, and
/// the writer may close it in between.
pub(super) fn spawn<W: Fn() + Send + 'static>(
    path: PathBuf,
    questions: Receiver<Question>,
    suspicion: Suspicion,
    outbound: Outbound<W>,
    reader: SharedReader,
) -> io::Result<JoinHandle<()>> {
    Builder::new()
        .name("store-read".to_owned())
        .stack_size(THREAD_STACK_BYTES)
        .spawn(move || {
            let _guard = AbortOnPanic;
            for question in questions {
                outbound.tell(answer(question, &path, &reader, &suspicion));
            }
        })
}

fn answer(question: Question, path: &Path, reader: &SharedReader, suspicion: &Suspicion) -> Event {
    let told = |fault: Fault, question: Question| {
        if matches!(fault, Fault::Corrupt(_)) {
            suspicion.tell(question);
        }
        fault.text().to_owned()
    };
    match question {
        Question::Page(request) => Event::PageRead {
            page: read(path, reader, |reader| reader.read(&request))
                .map_err(|fault| told(fault, Question::Page(request))),
            request,
        },
        Question::Retained(topic) => Event::RetainedRead {
            message: read(path, reader, |reader| reader.read_retained(&topic))
                .map_err(|fault| told(fault, Question::Retained(topic.clone()))),
            topic,
        },
    }
}

/// Reads something; if that fails, once more with a new connection.
fn read<T>(
    path: &Path,
    reader: &SharedReader,
    read: impl Fn(&mut Reader) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(open) = &mut *reader {
        if let Ok(answer) = read(open) {
            return Ok(answer);
        }
        *reader = None;
    }
    read(reader.insert(Reader::open(path)?))
}
