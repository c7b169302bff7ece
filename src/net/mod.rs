//! Sockets as bytes: listeners, links, readiness. No MQTT.

use crate::time::Mono;
use std::time::Duration;

/// Names a link: its place in the table, and the generation that tells it from earlier links of that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    /// Place, below `limits.links`.
    pub index: u32,
    /// Counts the links that this place has held.
    pub generation: u32,
}

/// Where a link came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The listener's number, in the order of the configuration; the private socket comes last.
    pub listener: u16,
    /// Whether it came through Larder's private socket from a process of the same user: only such a link may use
    /// Client Identifiers that begin with `$larder/`.
    pub private: bool,
}

/// What the network tells the turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetEvent {
    /// A peer has connected.
    Opened(LinkId, Origin),
    /// A peer was turned away because all places are taken.
    Refused,
    /// There may be bytes to read.
    Readable(LinkId),
    /// There may be room to write again.
    Writable(LinkId),
}

/// What came of a read or a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes; at least one.
    Bytes(usize),
    /// Nothing now; an event will follow.
    Blocked,
    /// The link is gone (end of stream, reset, any error).
    Gone,
}

/// The network as the turn sees it: the machine's, or the simulator's. Readiness is edge-triggered: after `Readable`
/// the turn reads until [`Moved::Blocked`], over as many turns as it likes; likewise for writing.
pub trait Net {
    /// Sleeps until there is an event, `timeout` has passed (`None`: no limit), or the store woke it.
    fn wait(&mut self, timeout: Option<Duration>);
    /// The next event of the last wait, if there is one. `now` dates the retry after a failed accept.
    fn poll_event(&mut self, now: Mono) -> Option<NetEvent>;
    /// Reads once.
    fn read(&mut self, link: LinkId, into: &mut [u8]) -> Moved;
    /// Writes once.
    fn write(&mut self, link: LinkId, bytes: &[u8]) -> Moved;
    /// Closes a link; what was written before is still sent where the system can. Its place becomes free.
    fn close(&mut self, link: LinkId);
}
