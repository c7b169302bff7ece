//! The network: peers that take what is sent to them, or do not.

use larder::net::{LinkId, Moved, Net, NetEvent, Origin};
use larder::time::Mono;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A network without sockets. What a test does between two turns, the next turn is told.
#[derive(Default)]
pub(crate) struct Wires {
    peers: BTreeMap<LinkId, Peer>,
    /// Told in this turn.
    events: VecDeque<NetEvent>,
    /// Told in the next one.
    next: VecDeque<NetEvent>,
    /// Places of the table that are free again, with their next generation.
    free: Vec<LinkId>,
    /// The links that were written to, in their order.
    written: Vec<LinkId>,
    /// How long the present turn might have slept.
    pub(crate) timeout: Option<Duration>,
    /// Whether the present turn was told anything.
    pub(crate) was_busy: bool,
}

struct Peer {
    /// Sent by the peer, and not read yet.
    unread: VecDeque<u8>,
    /// Sent to the peer, and not looked at yet.
    received: Vec<u8>,
    /// So many bytes it still takes before it stops reading.
    takes: usize,
    /// A [`NetEvent::Readable`] is under way, or was told and not followed by a read.
    is_told: bool,
    is_gone: bool,
    is_closed: bool,
}

impl Wires {
    pub(crate) fn open(&mut self) -> LinkId {
        let index = self.peers.keys().map(|link| link.index + 1).max();
        let id = self.free.pop().unwrap_or(LinkId {
            index: index.unwrap_or(0),
            generation: 0,
        });
        let peer = Peer {
            unread: VecDeque::new(),
            received: Vec::new(),
            takes: usize::MAX,
            is_told: false,
            is_gone: false,
            is_closed: false,
        };
        self.peers.insert(id, peer);
        let origin = Origin {
            listener: 0,
            private: false,
        };
        self.next.push_back(NetEvent::Opened(id, origin));
        id
    }

    pub(crate) fn send(&mut self, id: LinkId, bytes: &[u8]) {
        let peer = self.peers.get_mut(&id).unwrap();
        peer.unread.extend(bytes);
        if !std::mem::replace(&mut peer.is_told, true) {
            self.next.push_back(NetEvent::Readable(id));
        }
    }

    /// The peer goes away without a word.
    pub(crate) fn lose(&mut self, id: LinkId) {
        self.peers.get_mut(&id).unwrap().is_gone = true;
        self.next.push_back(NetEvent::Readable(id));
    }

    /// The peer reads so many more bytes, and then no more.
    pub(crate) fn read_only(&mut self, id: LinkId, bytes: usize) {
        self.peers.get_mut(&id).unwrap().takes = bytes;
        if bytes > 0 {
            self.next.push_back(NetEvent::Writable(id));
        }
    }

    pub(crate) fn take_received(&mut self, id: LinkId) -> Vec<u8> {
        std::mem::take(&mut self.peers.get_mut(&id).unwrap().received)
    }

    /// What was taken off and not looked at is the next to be looked at.
    pub(crate) fn put_back(&mut self, id: LinkId, bytes: &[u8]) {
        let received = &mut self.peers.get_mut(&id).unwrap().received;
        received.splice(0..0, bytes.iter().copied());
    }

    /// The links that were written to since this was last asked, in their order.
    pub(crate) fn take_written(&mut self) -> Vec<LinkId> {
        std::mem::take(&mut self.written)
    }

    /// Whether the server has closed the link.
    pub(crate) fn is_closed(&self, id: LinkId) -> bool {
        self.peers[&id].is_closed
    }

    /// Whether the next turn will be told something.
    pub(crate) fn is_due(&self) -> bool {
        !self.next.is_empty()
    }
}

impl Net for Wires {
    fn wait(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
        self.was_busy = false;
        self.events.append(&mut self.next);
    }

    fn poll_event(&mut self, _now: Mono) -> Option<NetEvent> {
        let event = self.events.pop_front()?;
        self.was_busy = true;
        Some(event)
    }

    fn read(&mut self, id: LinkId, into: &mut [u8]) -> Moved {
        let peer = self.peers.get_mut(&id).unwrap();
        if peer.is_gone || peer.is_closed {
            return Moved::Gone;
        }
        let len = into.len().min(peer.unread.len());
        into.iter_mut()
            .zip(peer.unread.drain(..len))
            .for_each(|(place, byte)| *place = byte);
        peer.is_told = !peer.unread.is_empty();
        if peer.is_told {
            self.next.push_back(NetEvent::Readable(id));
        }
        if len == 0 {
            Moved::Blocked
        } else {
            Moved::Bytes(len)
        }
    }

    fn rearm(&mut self, id: LinkId) {
        self.next.push_back(NetEvent::Readable(id));
    }

    fn write(&mut self, id: LinkId, bytes: &[u8]) -> Moved {
        let peer = self.peers.get_mut(&id).unwrap();
        if peer.is_gone {
            return Moved::Gone;
        }
        let len = bytes.len().min(peer.takes);
        if len == 0 {
            return Moved::Blocked;
        }
        self.written.push(id);
        peer.takes -= len;
        peer.received.extend(&bytes[..len]);
        Moved::Bytes(len)
    }

    fn close(&mut self, id: LinkId) {
        let peer = self.peers.get_mut(&id).unwrap();
        if !std::mem::replace(&mut peer.is_closed, true) {
            self.free.push(LinkId {
                generation: id.generation + 1,
                ..id
            });
        }
    }
}
