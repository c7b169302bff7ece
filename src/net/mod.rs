//! Sockets as bytes: listeners, links, readiness. No MQTT.
//!
//! [`Net`] is the network as the turn sees it, [`Sockets`] the machine's. The system tells each change of readiness
//! once (edge-triggered); what is still to be told for a link is kept in its place of the table, and each link is told
//! of at most once in a turn, in the order in which the links became due. So a link that sends without end gets one
//! read a turn, as all others do, and one that the turn leaves unread costs nothing.

mod link;
mod listener;
mod signals;
mod sockets;

pub use listener::{BindError, Listen};
pub use sockets::{EVENTS_BYTES, LINK_PLACE_BYTES, SocketOptions, Sockets};

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
    /// A peer was accepted and closed at once: all places are taken, or it came to the private socket from another
    /// user.
    Refused,
    /// There may be bytes to read; see [`Net::read`].
    Readable(LinkId),
    /// There may be room again after a write that did not take everything; see [`Net::write`].
    Writable(LinkId),
}

/// What came of a read or a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes; at least one.
    Bytes(usize),
    /// Nothing now; an event will follow.
    Blocked,
    /// The link is gone (end of stream, reset, any error, or an earlier generation of its place). Its
    /// place stays taken until [`Net::close`].
    Gone,
}

/// The network as the turn sees it: the machine's, or the simulator's.
///
/// A turn calls [`wait`](Net::wait) once, then [`poll_event`](Net::poll_event) until it returns `None`, and reads,
/// writes and closes in between or afterwards.
pub trait Net {
    /// Sleeps until there is an event, `timeout` has passed (`None`: no limit), the store woke it, or a signal came.
    /// Does not sleep while an event is due already.
    fn wait(&mut self, timeout: Option<Duration>);

    /// The next event of this turn, if there is one. `now` dates the retry after a failed accept.
    fn poll_event(&mut self, now: Mono) -> Option<NetEvent>;

    /// Reads once into `into`, which must not be empty.
    ///
    /// The turn reads a link once for each [`NetEvent::Readable`]. After [`Moved::Bytes`] the event comes again in the
    /// next turn if there may be more, after [`Moved::Blocked`] when more has come. A link that was told `Readable` and
    /// is not read is not told of again, whatever arrives or whether its peer goes away, until it is read or
    /// [rearmed](Net::rearm): to leave a link unread is all that back-pressure needs.
    fn read(&mut self, link: LinkId, into: &mut [u8]) -> Moved;

    /// Asks for one more [`NetEvent::Readable`], in the next turn, whether or not bytes have come: for a link that was
    /// left unread and may be read again. Ignored if the link is gone.
    fn rearm(&mut self, link: LinkId);

    /// Writes once. After [`Moved::Blocked`], and after [`Moved::Bytes`] with fewer than all, [`NetEvent::Writable`]
    /// comes when there is room; it does not come otherwise.
    fn write(&mut self, link: LinkId, bytes: &[u8]) -> Moved;

    /// Closes a link; what was written before is still sent where the system can. Its place becomes free, and no event
    /// of it is told any more. Ignored if the link is closed already.
    fn close(&mut self, link: LinkId);
}
