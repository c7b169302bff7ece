//! What is durable, as plain data: the batches that the core fills and a store commits, the requests and pages by which
//! a queue is read back, and what recovery finds.
//!
//! Nothing here does anything. The core fills a [`Batch`], a store (SQLite, or the simulator's crashable disk) makes it
//! durable in one transaction with one fsync, and says so in an [`Event`].

mod recovered;

pub use recovered::{
    Extent, LeftOut, RETAINED_HELD_BYTES, Recovered, RecoveredLane, RecoveredMessage,
    RecoveredRetained, RecoveredSession, RecoveredWill,
};

use crate::time::ServiceSeconds;
use larder_packet::{PacketId, Qos};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The number of a batch. A reply that rests on a change carries the ticket of the batch that holds it, and leaves when
/// that batch and all before it are committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// The name on disk of a stored session, or of a lane of one. Never used again for another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(pub u64);

/// A message's number in one session's queue: counted per session from 1, never used for two messages.
pub type Seq = u64;

/// Names the Shared Subscription by which a message is owed: a hash of its filter as it was subscribed. Two may have the
/// same, so that the topic has to match as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareKey(pub u32);

/// A range of the byte store of the batch or page in which it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset in bytes.
    pub start: u32,
    /// Length in bytes.
    pub len: u32,
}

impl Span {
    /// The bytes it names in `bytes`, its own batch's or page's store.
    #[must_use]
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..(self.start + self.len) as usize]
    }
}

/// An Application Message, in a batch or a page.
#[derive(Clone, Copy, Debug, Default)]
pub struct Message {
    /// Topic Name, UTF-8.
    pub topic: Span,
    /// The MQTT 5.0 properties that travel with the message, encoded, in order, without their length: all but Message
    /// Expiry Interval, Topic Alias and Subscription Identifier.
    pub properties: Span,
    /// The payload.
    pub payload: Span,
    /// When it expires; `None`: never.
    pub expires_at: Option<ServiceSeconds>,
}

impl Message {
    /// Bytes of topic, properties and payload together.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.topic.len + self.properties.len + self.payload.len
    }

    /// Whether it has no byte at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One message owed to one stored session: a row of its queue.
#[derive(Clone, Copy, Debug)]
pub struct Owe {
    /// Whose queue.
    pub session: SessionKey,
    /// Its number there.
    pub seq: Seq,
    /// Index into [`Batch::messages`].
    pub message: u32,
    /// The granted QoS: the lower of the message's and the subscription's.
    pub qos: Qos,
    /// The RETAIN flag with which it is to be delivered.
    pub retain: bool,
    /// The Subscription Identifiers of all matching subscriptions, as encoded properties (each 0x0B and its number).
    pub subscription_ids: Span,
    /// The Shared Subscription by which it is owed; `None`: by others.
    pub share: Option<ShareKey>,
    /// When it was queued.
    pub queued_at: ServiceSeconds,
    /// Messages ever queued in this session, before this one. With the next it gives a queue's length from its first
    /// and last row, without counting.
    pub messages_before: u64,
    /// Their bytes ([`Message::len`] each).
    pub bytes_before: u64,
    /// Whether the store remembers it as the latest of its topic in this queue ([`PageRequest::recency`]). A row that is not
    /// to be remembered makes it forget all topics of the queue: it could not say any more which is the latest.
    pub indexed: bool,
}

/// Of the rows with `after < seq <= up_to`, without those that may be in flight, the oldest are removed until the next one
/// was not queued before `queued_before`, and no more than `bytes_keep` bytes and `messages_keep` messages are left. What is
/// to stay is counted from the newest row back, so that a hole among older rows, left by an earlier drop, does not make more
/// go than must; what may be in flight counts as well, but leaves at least half of it to the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropOldest {
    /// Whose queue.
    pub session: SessionKey,
    /// Rows up to this one may have been sent, and stay.
    pub after: Seq,
    /// So many rows after that, up to `keep_up_to`, may have been sent before the last start: acknowledged, but the
    /// settlement was not committed, or in flight.
    pub maybe_sent: u32,
    /// So many were in flight. Of `maybe_sent` these stay: the first `keep`; of QoS 2 those that were received, and the first
    /// `keep` besides that were not, for their receivers hold the Packet Identifiers until they are released.
    pub keep: u32,
    /// The last row that can be among these.
    pub keep_up_to: Seq,
    /// The last row that may go.
    pub up_to: Seq,
    /// Bytes ever queued in this session ([`Message::len`] each), when this was recorded.
    pub bytes_ever: u64,
    /// Bytes that stay, counted from the newest row back, and those of what may be in flight.
    pub bytes_keep: u64,
    /// Messages ever queued in this session, when this was recorded.
    pub messages_ever: u64,
    /// Messages that stay, counted from the newest row back, and those of what may be in flight.
    pub messages_keep: u64,
    /// What was queued before this goes in any case.
    pub queued_before: Option<ServiceSeconds>,
}

/// The rows that a [`DropOldest`] has passed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passed {
    rows: u32,
    /// Of QoS 2, beyond the first `keep`.
    not_received: u32,
}

impl DropOldest {
    /// Whether the next row may be in flight. `passed`: what this knows of those before it; `row`, asked if it matters: the
    /// row's QoS, and whether it was received.
    #[must_use]
    pub fn keeps(
        &self,
        passed: &mut Passed,
        seq: Seq,
        row: impl FnOnce() -> Option<(Qos, bool)>,
    ) -> bool {
        if seq > self.keep_up_to || passed.rows >= self.maybe_sent {
            return false;
        }
        passed.rows += 1;
        if passed.rows <= self.keep {
            return true;
        }
        match row() {
            Some((_, true)) => true,
            Some((Qos::ExactlyOnce, false)) => {
                passed.not_received += 1;
                passed.not_received <= self.keep
            }
            _ => false,
        }
    }

    /// Whether a row stays that has so many messages and bytes before it, and all after it with it; `kept`: messages and
    /// bytes of what may be in flight.
    #[must_use]
    pub fn stays(&self, kept: (u64, u64), messages_before: u64, bytes_before: u64) -> bool {
        let newest = |keep: u64, kept: u64| keep.saturating_sub(kept).max(keep / 2);
        self.messages_ever.saturating_sub(messages_before) <= newest(self.messages_keep, kept.0)
            && self.bytes_ever.saturating_sub(bytes_before) <= newest(self.bytes_keep, kept.1)
    }
}

/// One change of what is stored. The changes of a batch take effect in their order.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// Was settled before it was written, and is never written.
    Cancelled,
    /// Appends a row to a queue.
    Owe(Owe),
    /// Removes a row: delivered and acknowledged, or expired, or given up under a policy.
    Settle {
        /// Whose queue.
        session: SessionKey,
        /// Which row; one that does not exist is ignored.
        seq: Seq,
    },
    /// The receiver has a message of QoS 2, and says so (PUBREC): what is still owed is the PUBREL. The message itself goes;
    /// its row stays until it is settled, and its figures count as before. A row that does not exist is ignored.
    Received {
        /// Whose queue.
        session: SessionKey,
        /// Which row.
        seq: Seq,
    },
    /// A message of QoS 2 came from this session's client: its Packet Identifier names no other message until it is released.
    Hold {
        /// The publisher's session.
        session: SessionKey,
        /// Its Packet Identifier.
        packet_id: PacketId,
    },
    /// The client has released it (PUBREL).
    Release {
        /// The publisher's session.
        session: SessionKey,
        /// Its Packet Identifier.
        packet_id: PacketId,
    },
    /// The message is the retained one of its topic from now on, in place of any other.
    Retain {
        /// Index into [`Batch::messages`].
        message: u32,
        /// With which QoS it was published.
        qos: Qos,
    },
    /// The topic has no retained message any more.
    Unretain {
        /// Topic Name, UTF-8.
        topic: Span,
    },
    /// The session's Will, in place of any other; `None`: it has none. A session that ends takes it along.
    SaveWill {
        /// Whose.
        session: SessionKey,
        /// Its Will.
        will: Option<Will>,
    },
    /// Removes the oldest rows that were never sent. What went is told in [`Event::Committed`].
    DropOldest(DropOldest),
    /// Creates a session, or replaces its record. Leaves `seq_reserved`, subscriptions and rows as they are; a new
    /// session has none, and `seq_reserved` 0.
    SaveSession {
        /// Which.
        session: SessionKey,
        /// Its Client Identifier, UTF-8.
        client_id: Span,
        /// What is remembered of it.
        record: SessionRecord,
    },
    /// Gives a session a lane: a queue beside its own, under a key of its own, by which its rows are appended, settled,
    /// dropped and read. One that is there already is only renamed. Without the session there is no lane.
    SaveLane {
        /// The lane's key: of the same row of numbers as those of sessions.
        lane: SessionKey,
        /// Whose.
        session: SessionKey,
        /// What is remembered of it.
        record: LaneRecord,
        /// Its name, UTF-8.
        name: Span,
    },
    /// Ends a lane: its record goes at once, its rows piece by piece between later batches.
    DropLane {
        /// Which.
        lane: SessionKey,
    },
    /// Raises the number up to which sequence numbers may be sent.
    Reserve {
        /// Whose: a session's, or a lane's.
        session: SessionKey,
        /// The new `seq_reserved`.
        seq_reserved: Seq,
    },
    /// Ends a session and its lanes: records and subscriptions go at once, rows piece by piece between later batches.
    DropSession {
        /// Which.
        session: SessionKey,
    },
    /// Adds a subscription, or replaces the one with the same filter.
    Subscribe {
        /// Whose.
        session: SessionKey,
        /// Topic Filter, UTF-8.
        filter: Span,
        /// Its options.
        record: SubscriptionRecord,
    },
    /// Removes a subscription.
    Unsubscribe {
        /// Whose.
        session: SessionKey,
        /// Topic Filter, UTF-8.
        filter: Span,
    },
}

/// What is remembered of a session besides its subscriptions and its queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Session Expiry Interval in seconds; `u32::MAX`: never.
    pub expiry_interval: u32,
    /// When its link ended; `None` while it has one.
    pub left_at: Option<ServiceSeconds>,
    /// Whether the configuration named it (it is then never dropped by expiry).
    pub configured: bool,
}

/// What is remembered of a lane besides its name and its queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneRecord {
    /// Its number among the lanes of its session, from 1: it stands for a part of the Packet Identifiers.
    pub number: u8,
    /// Messages of the session's own queue keep to their part of the Packet Identifiers from this number on.
    pub start: Seq,
}

/// A Will Message, in a batch.
#[derive(Clone, Copy, Debug)]
pub struct Will {
    /// Index into [`Batch::messages`]; it has no `expires_at`.
    pub message: u32,
    /// What is remembered of it besides.
    pub record: WillRecord,
}

/// What is remembered of a Will besides its message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WillRecord {
    /// Will QoS, 0 to 2.
    pub qos: u8,
    /// Will Retain.
    pub retain: bool,
    /// Will Delay Interval, seconds.
    pub delay_interval: u32,
    /// Message Expiry Interval, seconds, counted from its publication.
    pub message_expiry_interval: Option<u32>,
}

/// A subscription's options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionRecord {
    /// Maximum QoS, 0 to 2.
    pub qos: u8,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Retain Handling, 0 to 2.
    pub retain_handling: u8,
    /// Subscription Identifier, 1 to 268,435,455.
    pub identifier: Option<u32>,
}

/// A batch: what one transaction makes durable.
#[derive(Debug, Default)]
pub struct Batch {
    /// Its number.
    pub ticket: Ticket,
    /// The bytes that the spans of its messages and changes name.
    pub bytes: Vec<u8>,
    /// Its messages. One that a single live [`Change::Owe`] names stands in that row, one that several name once beside
    /// the rows; `Retain` and `SaveWill` make copies of their own. One that no live change names is not written.
    pub messages: Vec<Message>,
    /// Its changes, in order.
    pub changes: Vec<Change>,
    /// Service time when it was closed.
    pub service: ServiceSeconds,
    /// What was known of the time when it was closed: seconds since 1970 ([`wall_floor`](crate::time::Now::wall_floor)).
    pub wall: Option<u64>,
    /// Whether service time and wall clock are written down in any case, and not only when they have not been for a while.
    pub note: bool,
}

/// An end of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// Its head: the row with the lowest number.
    #[default]
    Oldest,
    /// Its tail.
    Newest,
}

/// A wish for some rows of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Whose queue.
    pub session: SessionKey,
    /// At which end of the range to begin. The rows come in the order in which they are read: from the newest, in
    /// descending order.
    pub from: End,
    /// Rows with a higher number than this.
    pub after: Seq,
    /// And not higher than this.
    pub up_to: Seq,
    /// At most so many rows.
    pub rows_max: u32,
    /// No further row once so many bytes are reached; the first row always comes, whatever its size.
    pub bytes_max: u32,
    /// Whether each row is to say how recent it is.
    pub recency: bool,
}

impl PageRequest {
    /// [`Page::read_up_to`] if nothing is left.
    #[must_use]
    pub fn last(&self) -> Seq {
        match self.from {
            End::Oldest => self.up_to,
            End::Newest => self.after.saturating_add(1),
        }
    }
}

/// One row of a queue, read back.
#[derive(Clone, Copy, Debug)]
pub struct PageRow {
    /// Its number.
    pub seq: Seq,
    /// Bytes of topic, properties and payload when it was queued.
    pub size: u32,
    /// The message; spans into [`Page::bytes`]. Empty if `received`.
    pub message: Message,
    /// Whether its receiver has it and only the PUBREL is owed ([`Change::Received`]).
    pub received: bool,
    /// When it was queued; 0 if an earlier Larder queued it, which did not write that down.
    pub queued_at: ServiceSeconds,
    /// The granted QoS.
    pub qos: Qos,
    /// The RETAIN flag.
    pub retain: bool,
    /// Encoded Subscription Identifier properties; a span into [`Page::bytes`]. Empty if `received`.
    pub subscription_ids: Span,
    /// The Shared Subscription by which it is owed; `None`: by others, or `received`.
    pub share: Option<ShareKey>,
    /// Told if the request asks for it.
    pub recency: Recency,
}

/// How recent a row of a queue is among those with its topic, when the page was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recency {
    /// The store does not know, or its message is not there any more.
    #[default]
    Unknown,
    /// There is a newer row with the same topic, and its message is there.
    Superseded,
    /// There is no newer one.
    Latest,
}

/// Rows of a queue, in the order that was asked for.
#[derive(Debug, Default)]
pub struct Page {
    /// The bytes that the spans of its rows name.
    pub bytes: Vec<u8>,
    /// The rows.
    pub rows: Vec<PageRow>,
    /// How far nothing is left unread, this number included. Read from the oldest, up to it: `up_to` of the request if no
    /// further row exists, else the number of the last row that was read. From the newest, down to it: the one above `after`
    /// of the request if no further row exists, else the number of the last row that was read.
    pub read_up_to: Seq,
    /// Numbers of the rows in this range that failed their checksum; they were skipped and are to be settled.
    pub bad: Vec<Seq>,
}

/// What a [`Change::DropOldest`] removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Whose rows.
    pub session: SessionKey,
    /// Whether they were too old; otherwise there were too many.
    pub aged: bool,
    /// How many.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows before the last of these that may be in flight: how many there are, and their bytes.
    pub kept: (u64, u64),
    /// Of the oldest row that could have gone and stayed: [`Owe::messages_before`] and [`Owe::bytes_before`]. With them
    /// the length of what is left is known exactly.
    pub rest: Option<(u64, u64)>,
}

/// What a store tells the turn.
#[derive(Debug)]
pub enum Event {
    /// A batch is durable.
    Committed {
        /// The batch, given back so that its memory is used again.
        batch: Arc<Batch>,
        /// What its `DropOldest` changes removed.
        dropped: Vec<Dropped>,
        /// Bytes in use on disk now, free pages inside the file not counted.
        disk_used: u64,
        /// Bytes written so far by this process on behalf of the store (an estimate from pages written).
        written: u64,
    },
    /// A batch could not be committed and is being tried again; nothing is lost, tickets stay open. Told once for each
    /// stretch of failures.
    Stalled {
        /// What the store said.
        error: String,
    },
    /// The answer to [`Store::read_retained`].
    RetainedRead {
        /// The topic.
        topic: String,
        /// Its retained message, whole; `None`: there is none, or its checksum does not fit. Or what went wrong; the
        /// question may then be asked again.
        message: Result<Option<RecoveredRetained>, String>,
    },
    /// The answer to a [`PageRequest`].
    PageRead {
        /// The request.
        request: PageRequest,
        /// The rows, or what went wrong; the request may then be made again.
        page: Result<Page, String>,
    },
}

/// A store as the turn sees it: it takes one batch at a time and answers with events; it never blocks its caller.
pub trait Store {
    /// Whether it would take a batch now.
    fn is_idle(&self) -> bool;
    /// Takes a batch to commit; only when idle. It is committed however often that takes.
    fn submit(&mut self, batch: Arc<Batch>);
    /// Asks for a page; answered by [`Event::PageRead`], in the order of asking.
    fn read(&mut self, request: PageRequest);
    /// Asks for the retained message of a topic; answered by [`Event::RetainedRead`], in the order of asking.
    fn read_retained(&mut self, topic: String);
    /// The next event, if there is one.
    fn poll_event(&mut self) -> Option<Event>;
}
