//! SIGTERM and SIGINT as readiness, so that the sleeping turn hears of them.

use mio::net::UnixStream;
use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level;
use std::io;

/// Turns the signals that ask for the end into bytes on a socket, for as long as it lives.
pub(super) struct ShutdownSignals {
    /// Becomes readable with the first signal. Never read: one byte says all.
    pub(super) socket: UnixStream,
    handlers: Vec<SigId>,
}

impl ShutdownSignals {
    pub(super) fn install() -> io::Result<ShutdownSignals> {
        let (socket, sender) = std::os::unix::net::UnixStream::pair()?;
        socket.set_nonblocking(true)?;
        let mut signals = ShutdownSignals {
            socket: UnixStream::from_std(socket),
            handlers: Vec::with_capacity(2),
        };
        for signal in [SIGTERM, SIGINT] {
            signals
                .handlers
                .push(low_level::pipe::register(signal, sender.try_clone()?)?);
        }
        Ok(signals)
    }
}

impl Drop for ShutdownSignals {
    fn drop(&mut self) {
        for handler in self.handlers.drain(..) {
            low_level::unregister(handler);
        }
    }
}
