//! Listening sockets: made, and accepted from.

use super::link::Stream;
use mio::event::Source;
use mio::net::{TcpListener, UnixListener, UnixStream};
use rustix::io::Errno;
use rustix::net::sockopt::{
    set_socket_recv_buffer_size, set_socket_reuseaddr, set_socket_send_buffer_size,
    set_tcp_nodelay, socket_peercred,
};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use rustix::process::{Uid, geteuid};
use socket2::SockRef;
use std::fs::{DirBuilder, Permissions, remove_file, set_permissions, symlink_metadata};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::{fmt, io};

/// Connections that the system completes and keeps while none are accepted; it lets later ones wait and try again.
const LISTEN_BACKLOG: i32 = 128;
/// The largest TCP segment that peers send. Those of loopback are larger than a small receive buffer: there a peer that
/// has filled it waits for its timer, 200 ms and more, before it sends a part of one. With large buffers this costs nothing:
/// the system hands over many segments at once.
const SEGMENT_BYTES: u32 = 1400;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A TCP port. `[::]` takes IPv4 as well, unless the system says otherwise.
    Tcp(SocketAddr),
    /// A Unix socket, which gets the mode 0660. Its directory must exist.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Why nothing listens: the address, what the system said, and what can be done about it. Listeners that were made
/// before are closed again.
#[derive(Debug)]
pub struct BindError {
    address: String,
    source: io::Error,
    advice: &'static str,
}

impl BindError {
    /// The event queue itself could not be made, or does not take a socket.
    pub(super) fn of_poll(source: io::Error) -> BindError {
        let advice = "the limit of open files (LimitNOFILE=, ulimit -n) may be too low";
        BindError {
            address: "any address".to_owned(),
            source,
            advice,
        }
    }

    fn of_tcp(address: SocketAddr, errno: Errno) -> BindError {
        let advice = match errno {
            Errno::ADDRINUSE => {
                "another program or another listener has this port; `ss -ltnp` names the program"
            }
            Errno::ADDRNOTAVAIL => {
                "no interface has this address; 0.0.0.0 or [::] stands for all there are"
            }
            Errno::ACCESS => "a port below 1024 needs CAP_NET_BIND_SERVICE; MQTT's own is 1883",
            Errno::AFNOSUPPORT => "this system was built without this address family",
            Errno::MFILE => "the limit of open files (LimitNOFILE=, ulimit -n) is too low",
            _ => "choose another address for this listener",
        };
        BindError {
            address: address.to_string(),
            source: errno.into(),
            advice,
        }
    }

    fn of_unix(path: &Path, source: io::Error) -> BindError {
        let advice = match Errno::from_io_error(&source) {
            Some(Errno::ADDRINUSE) => {
                "another process answers there; end it, or choose another path"
            }
            Some(Errno::EXIST) => {
                "what stands there is not a socket and is left alone; remove it, or choose another path"
            }
            Some(Errno::NOENT) => "its directory does not exist; make it, or choose another path",
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
                "Larder's user must be able to write to its directory"
            }
            Some(Errno::NAMETOOLONG) => "the path of a socket has at most 107 bytes",
            _ => "choose another path for this listener",
        };
        BindError {
            address: path.display().to_string(),
            source,
            advice,
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot listen on {}: {}; {}",
            self.address, self.source, self.advice
        )
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Kernel memory for each link's socket, in bytes as the system counts it: twice what it is asked for.
#[derive(Clone, Copy)]
pub(super) struct Buffers {
    pub(super) receive_bytes: usize,
    pub(super) send_bytes: usize,
}

impl Buffers {
    fn set(self, socket: impl AsFd) -> rustix::io::Result<()> {
        set_socket_recv_buffer_size(&socket, self.receive_bytes / 2)?;
        set_socket_send_buffer_size(&socket, self.send_bytes / 2)
    }
}

/// A listening socket.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, Buffers),
    /// The private socket, and the user who may come through it besides root.
    Private(UnixListener, Buffers, Uid),
}

/// What came of accepting once.
pub(super) enum Accepted {
    /// A peer.
    Peer(Stream),
    /// A peer that may not come here: another user, at the private socket.
    Foreign,
}

impl Listener {
    /// Listens where a configuration says.
    pub(super) fn new(listen: &Listen, buffers: Buffers) -> Result<Listener, BindError> {
        match listen {
            Listen::Tcp(address) => {
                let socket = bind_tcp(*address, buffers)
                    .map_err(|errno| BindError::of_tcp(*address, errno))?;
                Ok(Listener::Tcp(TcpListener::from_std(socket.into())))
            }
            Listen::Unix(path) => {
                let socket =
                    bind_unix(path, 0o660).map_err(|error| BindError::of_unix(path, error))?;
                Ok(Listener::Unix(
                    UnixListener::from_std(socket.into()),
                    buffers,
                ))
            }
        }
    }

    /// Listens on Larder's private socket, for processes of its own user; makes its directory if there is none.
    pub(super) fn new_private(path: &Path, buffers: Buffers) -> Result<Listener, BindError> {
        make_directory(path)
            .and_then(|()| bind_unix(path, 0o600))
            .map_or_else(
                |error| Err(BindError::of_unix(path, error)),
                |socket| {
                    Ok(Listener::Private(
                        UnixListener::from_std(socket.into()),
                        buffers,
                        geteuid(),
                    ))
                },
            )
    }

    pub(super) fn is_private(&self) -> bool {
        matches!(self, Listener::Private(..))
    }

    /// The address, if it is one of TCP.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(..) | Listener::Private(..) => None,
        }
    }

    pub(super) fn as_source(&mut self) -> &mut dyn Source {
        match self {
            Listener::Tcp(listener) => listener,
            Listener::Unix(listener, ..) | Listener::Private(listener, ..) => listener,
        }
    }

    pub(super) fn accept(&self) -> io::Result<Accepted> {
        let (stream, buffers) = match self {
            // Has its options from the listening socket.
            Listener::Tcp(listener) => {
                return Ok(Accepted::Peer(Stream::Tcp(listener.accept()?.0)));
            }
            Listener::Unix(listener, buffers) => (listener.accept()?.0, buffers),
            Listener::Private(listener, buffers, owner) => {
                let (stream, _) = listener.accept()?;
                let peer = socket_peercred(&stream)?.uid;
                if peer != *owner && peer != Uid::ROOT {
                    return Ok(Accepted::Foreign);
                }
                (stream, buffers)
            }
        };
        buffers.set(&stream)?;
        Ok(Accepted::Peer(Stream::Unix(stream)))
    }
}

fn bind_tcp(address: SocketAddr, buffers: Buffers) -> rustix::io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = stream_socket(family)?;
    // A restart must not wait for the connections of the last run to leave TIME_WAIT.
    set_socket_reuseaddr(&socket, true)?;
    // Accepted sockets have the options of the listening one; the receive buffer must be known before the handshake.
    set_tcp_nodelay(&socket, true)?;
    buffers.set(&socket)?;
    SockRef::from(&socket)
        .set_tcp_mss(SEGMENT_BYTES)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))?;
    bind(&socket, &address)?;
    listen(&socket, LISTEN_BACKLOG)?;
    Ok(socket)
}

/// Nobody can connect before `listen`, so nobody meets the socket with another mode.
fn bind_unix(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let socket = stream_socket(AddressFamily::UNIX)?;
    match bind(&socket, &address) {
        Err(Errno::ADDRINUSE) => {
            remove_stale(path)?;
            bind(&socket, &address)?;
        }
        outcome => outcome?,
    }
    set_permissions(path, Permissions::from_mode(mode))?;
    listen(&socket, LISTEN_BACKLOG)?;
    Ok(socket)
}

/// Removes a socket file that a process left when it ended; fails if it is anything else.
fn remove_stale(path: &Path) -> io::Result<()> {
    if !symlink_metadata(path)?.file_type().is_socket() {
        return Err(Errno::EXIST.into());
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => remove_file(path),
        // It answers, or is too busy to.
        Ok(_) => Err(Errno::ADDRINUSE.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Errno::ADDRINUSE.into()),
        Err(error) => Err(error),
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory),
        _ => Ok(()),
    }
}

fn stream_socket(family: AddressFamily) -> rustix::io::Result<OwnedFd> {
    socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use rustix::net::sockopt::{socket_recv_buffer_size, socket_send_buffer_size, tcp_nodelay};

    const BUFFERS: Buffers = Buffers {
        receive_bytes: 12 * 1024,
        send_bytes: 20 * 1024,
    };

    fn accept(listener: &Listener) -> Stream {
        loop {
            match listener.accept() {
                Ok(Accepted::Peer(stream)) => return stream,
                Ok(Accepted::Foreign) => panic!("this process may come"),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            std::thread::yield_now();
        }
    }

    fn buffers(stream: &Stream) -> (usize, usize) {
        let receive = socket_recv_buffer_size(stream).unwrap();
        (receive, socket_send_buffer_size(stream).unwrap())
    }

    /// Segments as large as those of loopback would have to wait for a whole receive buffer.
    #[test]
    fn peers_are_told_of_segments_that_fit_the_receive_buffer_several_times() {
        let socket = bind_tcp("127.0.0.1:0".parse().unwrap(), BUFFERS).unwrap();
        let listener = std::net::TcpListener::from(socket);
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let segment = SockRef::from(&peer).tcp_mss().unwrap();
        assert!(segment <= SEGMENT_BYTES, "{segment}");
    }

    #[test]
    fn accepted_sockets_have_the_buffers_that_were_counted_and_no_delay() {
        let tcp = Listener::new(&Listen::Tcp("127.0.0.1:0".parse().unwrap()), BUFFERS).unwrap();
        let _peer = std::net::TcpStream::connect(tcp.address().unwrap()).unwrap();
        let stream = accept(&tcp);
        assert_eq!(
            buffers(&stream),
            (BUFFERS.receive_bytes, BUFFERS.send_bytes)
        );
        assert!(tcp_nodelay(&stream).unwrap());

        let name = format!("larder-listener-{}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let unix = Listener::new(&Listen::Unix(path.clone()), BUFFERS).unwrap();
        let _peer = std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert_eq!(
            buffers(&accept(&unix)),
            (BUFFERS.receive_bytes, BUFFERS.send_bytes)
        );
        remove_file(path).unwrap();
    }
}
