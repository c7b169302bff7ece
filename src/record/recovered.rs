//! What recovery finds.

use super::{LaneRecord, Seq, SessionKey, SessionRecord, SubscriptionRecord, WillRecord};
use crate::time::ServiceSeconds;
use larder_packet::{PacketId, Qos};

/// A queue's extent, from its first and last row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The first row's number.
    pub first: Seq,
    /// The last row's number.
    pub last: Seq,
    /// Messages between and including them.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages ever queued, the last included.
    pub messages_ever: u64,
    /// Bytes ever queued, the last included.
    pub bytes_ever: u64,
}

/// A lane as recovery finds it.
#[derive(Clone, Debug)]
pub struct RecoveredLane {
    /// Its key.
    pub key: SessionKey,
    /// Its name.
    pub name: String,
    /// Its record.
    pub record: LaneRecord,
    /// No number above this was ever sent.
    pub seq_reserved: Seq,
    /// Its queue; `None` if empty.
    pub extent: Option<Extent>,
}

/// A session as recovery finds it.
#[derive(Clone, Debug)]
pub struct RecoveredSession {
    /// Its key.
    pub key: SessionKey,
    /// Its Client Identifier.
    pub client_id: String,
    /// Its record.
    pub record: SessionRecord,
    /// No number above this was ever sent.
    pub seq_reserved: Seq,
    /// Its subscriptions, by filter.
    pub subscriptions: Vec<(String, SubscriptionRecord)>,
    /// Its queue; `None` if empty.
    pub extent: Option<Extent>,
    /// Its lanes, by key.
    pub lanes: Vec<RecoveredLane>,
    /// Packet Identifiers of its client's messages of QoS 2 that are not released, ascending.
    pub held: Vec<PacketId>,
    /// Its Will.
    pub will: Option<RecoveredWill>,
}

/// A message as recovery finds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveredMessage {
    /// Topic Name, UTF-8.
    pub topic: String,
    /// Properties, as in [`Message::properties`](super::Message::properties).
    pub properties: Vec<u8>,
    /// The payload.
    pub payload: Vec<u8>,
    /// When it expires; `None`: never.
    pub expires_at: Option<ServiceSeconds>,
}

/// A Will as recovery finds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveredWill {
    /// Its message.
    pub message: RecoveredMessage,
    /// What is remembered of it besides.
    pub record: WillRecord,
}

/// Of a retained message with more bytes than these, properties and payload together, recovery tells only that it is
/// there: it is read when it is wanted.
pub const RETAINED_HELD_BYTES: usize = 1024;

/// A retained message as recovery finds it, or as it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveredRetained {
    /// The message.
    pub message: RecoveredMessage,
    /// With which QoS it was published.
    pub qos: Qos,
    /// What was left out of `message`, and is to be read; `None`: nothing.
    pub left_out: Option<LeftOut>,
}

/// Properties and payload of a retained message that are on disk only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Their bytes together.
    pub len: u32,
    /// Tells them from others: FNV-1a over both.
    pub fingerprint: u32,
}

impl LeftOut {
    /// What is left out if these are.
    #[must_use]
    pub fn of(properties: &[u8], payload: &[u8]) -> LeftOut {
        let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        LeftOut {
            len: u32::try_from(properties.len() + payload.len()).unwrap_or(u32::MAX),
            fingerprint: properties.iter().chain(payload).fold(0x811C_9DC5, step),
        }
    }
}

impl RecoveredRetained {
    /// Leaves out what is not held in memory.
    #[must_use]
    pub fn without_large_parts(mut self) -> RecoveredRetained {
        let message = &mut self.message;
        if message.properties.len() + message.payload.len() > RETAINED_HELD_BYTES {
            self.left_out = Some(LeftOut::of(&message.properties, &message.payload));
            (message.properties, message.payload) = (Vec::new(), Vec::new());
        }
        self
    }
}

/// What recovery finds.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// All sessions, by key.
    pub sessions: Vec<RecoveredSession>,
    /// All retained messages, by topic.
    pub retained: Vec<RecoveredRetained>,
    /// The highest key ever given to a session or a lane.
    pub last_session: SessionKey,
    /// Service time at the last commit that noted it.
    pub service: ServiceSeconds,
    /// What was known of the time then: seconds since 1970 ([`wall_floor`](crate::time::Now::wall_floor)).
    pub wall: Option<u64>,
    /// Bytes in use on disk.
    pub disk_used: u64,
    /// Set if the database was corrupt and was set aside: a sentence for the log, with the file's new name.
    pub salvaged: Option<String>,
}
