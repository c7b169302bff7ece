//! The links: their sockets, what is to be told of them, and the fixed table that holds them.

use super::{LinkId, Moved, NetEvent};
use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};

/// Bytes that a closing link's peer may have under way without the close becoming a reset.
const CLOSE_DRAIN_BYTES: usize = 64 * 1024;

/// A connected socket, not blocking.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    pub(super) fn as_source(&mut self) -> &mut dyn Source {
        match self {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => stream,
        }
    }

    /// Sends the end of the stream behind what was written, and closes.
    ///
    /// The system answers unread bytes with a reset, and a reset throws away what the peer has not read yet: a
    /// last packet that says why would be lost. So what has come is taken first.
    pub(super) fn close(self) {
        if shutdown(&self, Shutdown::Write).is_ok() {
            let mut scrap = [0; 4096];
            for _ in 0..CLOSE_DRAIN_BYTES / scrap.len() {
                if !matches!(recv(&self, &mut scrap, RecvFlags::DONTWAIT), Ok((_, 1..))) {
                    break;
                }
            }
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

/// What a link's reader waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// The socket was read empty: the system tells of more.
    Empty,
    /// To be told.
    Due,
    /// Told, and not read since.
    Told,
}

/// What a link's writer waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writing {
    /// The last write was taken whole, or there is room since.
    Free,
    /// The socket was written full: the system tells of room.
    Full,
    /// Room is to be told.
    Due,
}

struct Link {
    stream: Stream,
    reading: Reading,
    writing: Writing,
    /// The peer will send nothing more. The system told this once, possibly ahead of bytes that are still unread, so
    /// only an empty read is the end now.
    finished: bool,
}

/// One place of the table.
#[derive(Default)]
pub(super) struct Place {
    generation: u32,
    /// Whether the place stands in [`Table::due`], perhaps on behalf of a link that has gone since.
    queued: bool,
    link: Option<Link>,
}

/// All links. Its memory is taken at the start.
pub(super) struct Table {
    places: Box<[Place]>,
    /// Places without a link; the last is given out next.
    free: Vec<u32>,
    /// Places with something to tell, each at most once, in the order in which they became due.
    due: VecDeque<u32>,
    /// How many of them, from the front, belong to this turn.
    this_turn: usize,
}

impl Table {
    pub(super) fn new(links: usize) -> Table {
        let indices = 0..u32::try_from(links).unwrap_or(u32::MAX);
        Table {
            places: indices.clone().map(|_| Place::default()).collect(),
            due: VecDeque::with_capacity(indices.len()),
            free: indices.rev().collect(),
            this_turn: 0,
        }
    }

    /// How many places there are.
    pub(super) fn links(&self) -> usize {
        self.places.len()
    }

    /// The place that the next link gets; `None`: all are taken.
    pub(super) fn vacancy(&self) -> Option<u32> {
        self.free.last().copied()
    }

    /// Puts a stream into the vacancy; closes it if there is none.
    pub(super) fn open(&mut self, stream: Stream) -> Option<LinkId> {
        let index = self.free.pop()?;
        let place = &mut self.places[index as usize];
        place.generation = place.generation.wrapping_add(1);
        place.link = Some(Link {
            stream,
            reading: Reading::Empty,
            writing: Writing::Free,
            finished: false,
        });
        Some(LinkId {
            index,
            generation: place.generation,
        })
    }

    /// Takes a link out; its place is free.
    pub(super) fn close(&mut self, id: LinkId) -> Option<Stream> {
        self.link(id)?;
        let link = self.places[id.index as usize].link.take()?;
        self.free.push(id.index);
        Some(link.stream)
    }

    pub(super) fn read(&mut self, id: LinkId, into: &mut [u8]) -> Moved {
        debug_assert!(
            !into.is_empty(),
            "an empty read looks like the end of the stream"
        );
        let Some(link) = self.link(id) else {
            return Moved::Gone;
        };
        let read =
            retry(|| recv(&link.stream, &mut *into, RecvFlags::empty()).map(|(_, count)| count));
        let (moved, reading) = match read {
            Ok(0) => (Moved::Gone, Reading::Told),
            // A stream gives less than asked for only when it is empty.
            Ok(count) if count < into.len() && !link.finished => {
                (Moved::Bytes(count), Reading::Empty)
            }
            Ok(count) => (Moved::Bytes(count), Reading::Due),
            Err(Errno::AGAIN) => (Moved::Blocked, Reading::Empty),
            Err(_) => (Moved::Gone, Reading::Told),
        };
        link.reading = reading;
        if reading == Reading::Due {
            self.queue(id.index);
        }
        moved
    }

    pub(super) fn write(&mut self, id: LinkId, bytes: &[u8]) -> Moved {
        let Some(link) = self.link(id) else {
            return Moved::Gone;
        };
        let (moved, writing) = match retry(|| send(&link.stream, bytes, SendFlags::NOSIGNAL)) {
            Ok(count) if count == bytes.len() => (Moved::Bytes(count), Writing::Free),
            Ok(count) => (Moved::Bytes(count), Writing::Full),
            Err(Errno::AGAIN) => (Moved::Blocked, Writing::Full),
            Err(_) => (Moved::Gone, Writing::Free),
        };
        link.writing = writing;
        moved
    }

    /// Makes `Readable` due.
    pub(super) fn rearm(&mut self, id: LinkId) {
        if let Some(link) = self.link(id) {
            link.reading = Reading::Due;
            self.queue(id.index);
        }
    }

    /// Notes what the system told of a place.
    ///
    /// Called before anything is closed or opened in a turn, so what it tells is of the link that stands there now.
    pub(super) fn note(&mut self, index: usize, event: &mio::event::Event) {
        let Some(link) = self
            .places
            .get_mut(index)
            .and_then(|place| place.link.as_mut())
        else {
            return;
        };
        let broken = event.is_error();
        link.finished |= broken || event.is_read_closed();
        let mut is_due = false;
        if link.reading == Reading::Empty && (event.is_readable() || link.finished) {
            link.reading = Reading::Due;
            is_due = true;
        }
        if link.writing == Writing::Full
            && (event.is_writable() || event.is_write_closed() || broken)
        {
            link.writing = Writing::Due;
            is_due = true;
        }
        if is_due {
            self.queue(index as u32);
        }
    }

    /// Whether anything is to be told.
    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// What is due now belongs to this turn, what becomes due from now on to the next.
    pub(super) fn begin_turn(&mut self) {
        self.this_turn = self.due.len();
    }

    /// What is to be told next in this turn.
    pub(super) fn next_event(&mut self) -> Option<NetEvent> {
        while self.this_turn > 0 {
            let index = *self.due.front()?;
            let place = &mut self.places[index as usize];
            let id = LinkId {
                index,
                generation: place.generation,
            };
            if let Some(link) = place
                .link
                .as_mut()
                .filter(|link| link.writing == Writing::Due)
            {
                link.writing = Writing::Free;
                return Some(NetEvent::Writable(id));
            }
            self.due.pop_front();
            self.this_turn -= 1;
            place.queued = false;
            if let Some(link) = place
                .link
                .as_mut()
                .filter(|link| link.reading == Reading::Due)
            {
                link.reading = Reading::Told;
                return Some(NetEvent::Readable(id));
            }
        }
        None
    }

    fn link(&mut self, id: LinkId) -> Option<&mut Link> {
        self.places
            .get_mut(id.index as usize)
            .filter(|place| place.generation == id.generation)?
            .link
            .as_mut()
    }

    fn queue(&mut self, index: u32) {
        let place = &mut self.places[index as usize];
        if !place.queued {
            place.queued = true;
            self.due.push_back(index);
        }
    }
}

fn retry(mut call: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            outcome => return outcome,
        }
    }
}
