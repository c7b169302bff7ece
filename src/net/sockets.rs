//! The machine's network, over one event queue.

use super::link::{Place, Table};
use super::listener::{Accepted, BindError, Buffers, Listen, Listener};
use super::signals::ShutdownSignals;
use super::{LinkId, Moved, Net, NetEvent, Origin};
use crate::time::Mono;
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::io::Errno;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{io, mem};

/// Memory of a link's place in the table, in bytes; multiply by [`SocketOptions::links`].
pub const LINK_PLACE_BYTES: usize = mem::size_of::<Place>() + 2 * mem::size_of::<u32>();

/// Memory of the event queue, in bytes.
pub const EVENTS_BYTES: usize = EVENTS_PER_WAIT * mem::size_of::<mio::event::Event>();

/// What the system tells at once; what is more comes with the next wait.
const EVENTS_PER_WAIT: usize = 128;

/// Peers that one listener takes in one turn, so that a crowd does not keep the links waiting.
const ACCEPTS_PER_TURN: u32 = 64;

/// How long a listener rests after a failed accept. No event comes when files are free again, so time must tell.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How often at most a listener's failing is logged.
const ACCEPT_WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Tokens below the number of places are links, those from there on listeners; these two are at the far end.
const WAKER: Token = Token(usize::MAX);
const SIGNALS: Token = Token(usize::MAX - 1);

/// The capacities of [`Sockets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Places: peers connected at one time.
    pub links: usize,
    /// Kernel memory for what a link has received and was not read, in bytes as the system counts it (with its own
    /// overhead; about half of it is payload). The system has a floor of about 2 KiB and a ceiling (`net.core.rmem_max`).
    pub receive_buffer_bytes: usize,
    /// The same for what was written and not sent: floor about 4.5 KiB, ceiling `net.core.wmem_max`.
    pub send_buffer_bytes: usize,
}

/// The machine's sockets.
pub struct Sockets {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    signals: Option<ShutdownSignals>,
    shutdown_requested: bool,
    doors: Box<[Door]>,
    table: Table,
}

/// A listener, and how its accepting stands.
struct Door {
    listener: Listener,
    origin: Origin,
    /// Whether peers may be waiting.
    is_ready: bool,
    /// Peers that it may still take in this turn.
    budget: u32,
    /// When to try again after a failure.
    retry_at: Option<Mono>,
    /// When a failure was logged last.
    warned_at: Option<Mono>,
}

impl Sockets {
    /// Listens on `listeners`, numbered in their order, and on Larder's private socket, numbered last (mode 0600; its
    /// directory is made with 0700 if there is none). A socket file that nobody answers is replaced.
    ///
    /// # Errors
    /// The first address that could not be had; nothing listens then.
    pub fn bind(
        listeners: &[Listen],
        private: Option<PathBuf>,
        options: SocketOptions,
    ) -> Result<Sockets, BindError> {
        let buffers = Buffers {
            receive_bytes: options.receive_buffer_bytes,
            send_bytes: options.send_buffer_bytes,
        };
        let poll = Poll::new().map_err(BindError::of_poll)?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(BindError::of_poll)?;
        let table = Table::new(options.links);
        let public = listeners
            .iter()
            .map(|listen| Listener::new(listen, buffers));
        let private = private
            .iter()
            .map(|path| Listener::new_private(path, buffers));
        let doors = (0..).zip(public.chain(private)).map(|(number, listener)| {
            let mut listener = listener?;
            let token = Token(table.links() + usize::from(number));
            poll.registry()
                .register(listener.as_source(), token, Interest::READABLE)
                .map_err(BindError::of_poll)?;
            let origin = Origin {
                listener: number,
                private: listener.is_private(),
            };
            Ok(Door {
                listener,
                origin,
                is_ready: false,
                budget: 0,
                retry_at: None,
                warned_at: None,
            })
        });
        Ok(Sockets {
            doors: doors.collect::<Result<_, _>>()?,
            poll,
            events: Events::with_capacity(EVENTS_PER_WAIT),
            waker: Arc::new(waker),
            signals: None,
            shutdown_requested: false,
            table,
        })
    }

    /// The address of a TCP listener: what port 0 became. `None` for a Unix socket, or if there is no such listener.
    #[must_use]
    pub fn address(&self, listener: u16) -> Option<SocketAddr> {
        self.doors.get(usize::from(listener))?.listener.address()
    }

    /// Ends [`Net::wait`] from any thread: the sleeping one, or else the next.
    pub fn waker(&self) -> impl Fn() + Clone + Send + Sync + 'static {
        let waker = Arc::clone(&self.waker);
        move || {
            if let Err(error) = waker.wake() {
                log::error!("cannot wake the main loop: {error}");
            }
        }
    }

    /// From now on SIGTERM and SIGINT no longer end the process, but [`Net::wait`].
    ///
    /// # Errors
    /// The system refused the handler, or the socket by which it tells; the signals keep their meaning.
    pub fn catch_shutdown(&mut self) -> io::Result<()> {
        let mut signals = ShutdownSignals::install()?;
        self.poll
            .registry()
            .register(&mut signals.socket, SIGNALS, Interest::READABLE)?;
        self.signals = Some(signals);
        Ok(())
    }

    /// Whether SIGTERM or SIGINT has come since [`catch_shutdown`](Sockets::catch_shutdown).
    #[must_use]
    pub fn shutdown_requested(&self) -> bool {
        self.shutdown_requested
    }

    /// The longest sleep that forgets nothing.
    fn sleep(&self, timeout: Option<Duration>) -> Option<Duration> {
        if self.table.is_due() || self.doors.iter().any(|door| door.is_ready) {
            Some(Duration::ZERO)
        } else if self.doors.iter().any(|door| door.retry_at.is_some()) {
            Some(timeout.map_or(ACCEPT_RETRY, |timeout| timeout.min(ACCEPT_RETRY)))
        } else {
            timeout
        }
    }
}

impl Net for Sockets {
    fn wait(&mut self, timeout: Option<Duration>) {
        let sleep = self.sleep(timeout);
        match self.poll.poll(&mut self.events, sleep) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Without its event queue the process can do nothing but start again.
            Err(error) => panic!("cannot wait for events: {error}"),
        }
        for event in &self.events {
            match event.token() {
                WAKER => {}
                SIGNALS => self.shutdown_requested = true,
                Token(number) => match number.checked_sub(self.table.links()) {
                    None => self.table.note(number, event),
                    Some(door) => self.doors[door].is_ready = true,
                },
            }
        }
        self.table.begin_turn();
        for door in &mut self.doors {
            door.budget = ACCEPTS_PER_TURN;
        }
    }

    fn poll_event(&mut self, now: Mono) -> Option<NetEvent> {
        if let Some(event) = self.table.next_event() {
            return Some(event);
        }
        self.doors
            .iter_mut()
            .find_map(|door| door.accept(now, &mut self.table, &self.poll))
    }

    fn read(&mut self, link: LinkId, into: &mut [u8]) -> Moved {
        self.table.read(link, into)
    }

    fn rearm(&mut self, link: LinkId) {
        self.table.rearm(link);
    }

    fn write(&mut self, link: LinkId, bytes: &[u8]) -> Moved {
        self.table.write(link, bytes)
    }

    fn close(&mut self, link: LinkId) {
        if let Some(mut stream) = self.table.close(link) {
            if let Err(error) = self.poll.registry().deregister(stream.as_source()) {
                log::error!("cannot take a closing link out of the event queue: {error}");
            }
            stream.close();
        }
    }
}

impl Door {
    /// Takes in or turns away the next waiting peer; `None`: nobody waits, or the turn is over for this listener.
    fn accept(&mut self, now: Mono, table: &mut Table, poll: &Poll) -> Option<NetEvent> {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.is_ready = true;
        }
        while self.is_ready && self.budget > 0 {
            self.budget -= 1;
            match self.try_accept(table, poll) {
                Ok(event) => return Some(event),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_ready = false,
                // That peer went away while it waited; the next may be there.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.rest(now, &error),
            }
        }
        None
    }

    fn try_accept(&self, table: &mut Table, poll: &Poll) -> io::Result<NetEvent> {
        let Accepted::Peer(mut stream) = self.listener.accept()? else {
            return Ok(NetEvent::Refused);
        };
        let Some(place) = table.vacancy() else {
            return Ok(NetEvent::Refused);
        };
        poll.registry().register(
            stream.as_source(),
            Token(place as usize),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        Ok(table.open(stream).map_or(NetEvent::Refused, |link| {
            NetEvent::Opened(link, self.origin)
        }))
    }

    fn rest(&mut self, now: Mono, error: &io::Error) {
        self.is_ready = false;
        self.retry_at = Some(now.after(ACCEPT_RETRY));
        if self
            .warned_at
            .is_some_and(|at| now.since(at) < ACCEPT_WARNING_INTERVAL)
        {
            return;
        }
        self.warned_at = Some(now);
        let advice = match Errno::from_io_error(error) {
            Some(Errno::MFILE) => {
                "raise the limit of open files (LimitNOFILE=, ulimit -n) or lower the number of links"
            }
            Some(Errno::NFILE) => "the whole system has no files left (fs.file-max)",
            _ => "the links that are open go on",
        };
        log::warn!(
            "listener {} cannot accept and tries again every {ACCEPT_RETRY:?}: {error}; {advice}",
            self.origin.listener
        );
    }
}
