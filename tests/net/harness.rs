//! A small turn around [`Sockets`].

use larder::net::{LinkId, Listen, Moved, Net, NetEvent, Origin, SocketOptions, Sockets};
use larder::time::Mono;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// No test waits longer for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What must not come is given so long.
pub(crate) const QUIET: Duration = Duration::from_millis(50);

pub(crate) fn options(links: usize) -> SocketOptions {
    SocketOptions {
        links,
        receive_buffer_bytes: 16 * 1024,
        send_buffer_bytes: 16 * 1024,
    }
}

pub(crate) fn loopback() -> Listen {
    Listen::Tcp("127.0.0.1:0".parse().unwrap())
}

/// One TCP listener on a free port.
pub(crate) fn tcp(links: usize) -> Sockets {
    Sockets::bind(&[loopback()], None, options(links)).unwrap()
}

/// A fresh directory of this test.
pub(crate) fn directory(test: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("larder-net-{}-{test}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir(&path).unwrap();
    path
}

/// One turn: waits, and gives all that it was told.
pub(crate) fn turn(sockets: &mut Sockets, timeout: Duration) -> Vec<NetEvent> {
    sockets.wait(Some(timeout));
    let now = now();
    std::iter::from_fn(|| sockets.poll_event(now)).collect()
}

/// Turns until `pick` finds something among the events. What came before it is forgotten; what comes behind it stays for
/// the next turn.
pub(crate) fn until<T>(
    sockets: &mut Sockets,
    mut pick: impl FnMut(&mut Sockets, NetEvent) -> Option<T>,
) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "what was waited for did not come");
        sockets.wait(Some(left));
        while let Some(event) = sockets.poll_event(now()) {
            if let Some(found) = pick(sockets, event) {
                return found;
            }
        }
    }
}

/// Waits for a peer.
pub(crate) fn opened(sockets: &mut Sockets) -> (LinkId, Origin) {
    until(sockets, |_, event| match event {
        NetEvent::Opened(link, origin) => Some((link, origin)),
        _ => None,
    })
}

/// Turns until a link was told readable, which is then still unread.
pub(crate) fn readable(sockets: &mut Sockets, link: LinkId) {
    until(sockets, |_, event| {
        (event == NetEvent::Readable(link)).then_some(())
    });
}

/// Reads a link, turn by turn, until so many bytes have come.
pub(crate) fn receive(sockets: &mut Sockets, link: LinkId, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 64];
    until(sockets, |sockets, event| {
        if event == NetEvent::Readable(link) {
            match sockets.read(link, &mut buffer) {
                Moved::Bytes(count) => bytes.extend_from_slice(&buffer[..count]),
                Moved::Blocked => {}
                Moved::Gone => panic!("the link is gone after {} bytes", bytes.len()),
            }
        }
        (bytes.len() >= count).then_some(())
    });
    bytes
}

pub(crate) fn now() -> Mono {
    static START: OnceLock<Instant> = OnceLock::new();
    Mono::default().after(START.get_or_init(Instant::now).elapsed())
}
