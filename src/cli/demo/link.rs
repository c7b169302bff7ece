//! The link to the cloud: a TCP proxy between the gateway's bridge and the cloud that can be cut.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

const CHUNK_BYTES: usize = 32 * 1024;

/// A link that is up until it is cut. Its threads end with the process.
#[derive(Debug)]
pub(super) struct Link {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// What is connected; `None` while the link is cut.
type State = Option<Vec<TcpStream>>;

impl Link {
    /// A link to this address, open at an address of its own.
    pub(super) fn start(to: SocketAddr) -> io::Result<Link> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let link = Link {
            address: listener.local_addr()?,
            state: Arc::new(Mutex::new(Some(Vec::new()))),
        };
        let state = Arc::clone(&link.state);
        thread::Builder::new().name("link".into()).spawn(move || {
            for near in listener.incoming().flatten() {
                // While it is cut, whoever connects is dropped at once.
                if lock(&state).is_some() {
                    let state = Arc::clone(&state);
                    // A connection that cannot be made is closed, as a network would.
                    let _ = thread::Builder::new()
                        .name("link up".into())
                        .spawn(move || carry(&near, to, &state));
                }
            }
        })?;
        Ok(link)
    }

    /// Where the near end is.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts what is connected, with all that is under way, and lets nothing through until [`Link::restore`].
    pub(super) fn cut(&self) {
        for stream in lock(&self.state).take().into_iter().flatten() {
            // It may be over already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub(super) fn restore(&self) {
        *lock(&self.state) = Some(Vec::new());
    }
}

/// Carries both ways until one side ends.
fn carry(near: &TcpStream, to: SocketAddr, state: &Mutex<State>) -> io::Result<()> {
    let far = TcpStream::connect(to)?;
    for stream in [near, &far] {
        stream.set_nodelay(true)?;
    }
    match &mut *lock(state) {
        Some(streams) => streams.extend([near.try_clone()?, far.try_clone()?]),
        None => return Ok(()),
    }
    thread::scope(|scope| {
        scope.spawn(|| pump(near, &far));
        pump(&far, near);
    });
    Ok(())
}

fn pump(mut from: &TcpStream, mut to: &TcpStream) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(read @ 1..) = from.read(&mut chunk) {
        if to.write_all(&chunk[..read]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        // It may be over already.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
