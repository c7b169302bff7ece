//! Every capacity by its name: owner, thing, unit. What the configuration can move is a field of [`Limits`]; what it cannot is a
//! constant. The memory budget (`budget`) is their sum.

use std::time::Duration;

/// Bytes read from one link in one turn, so that none starves another. Also the size of the one read buffer. As
/// many as a receive buffer of 64 KiB holds, and fewer small messages than [`LINK_PACKETS`].
pub const LINK_READ_BYTES: usize = 32 * 1024;
/// Bytes that may wait in a link's outbox before deliveries stop; one packet larger than this may stand there alone.
pub const LINK_OUTBOX_BYTES: usize = 32 * 1024;
/// Bytes of control packets beyond [`LINK_OUTBOX_BYTES`] after which the link is not read.
pub const LINK_OUTBOX_CONTROL_BYTES: usize = 4 * 1024;
/// The smallest buffer lent to a link.
pub const BUFFER_MIN_BYTES: usize = 4 * 1024;
/// Acknowledgements that may wait on a link always; beyond them there is a pool for all.
pub const LINK_ACKS: usize = 8;
/// SUBACKs, UNSUBACKs and a CONNACK that may wait in a link's FIFO beside its PUBACKs.
pub const LINK_OTHER_ACKS: usize = 8;
/// Bytes of a Client Identifier.
pub const CLIENT_ID_BYTES: usize = 256;
/// Bytes of a Will: its topic, its properties and its payload.
pub const WILL_BYTES: usize = 8 * 1024;
/// Bytes of a Will in memory, besides its own: its place in its session or in the list of those that wait.
pub const WILL_COST_BYTES: usize = 128;
/// Bytes of a Topic Name or a Topic Filter.
pub const TOPIC_BYTES: usize = 4 * 1024;
/// Topic Filters of one SUBSCRIBE or UNSUBSCRIBE that are looked at; the others are refused.
pub const SUBSCRIBE_FILTERS: usize = 1000;
/// Levels of a Topic Filter: matching goes as deep.
pub const FILTER_LEVELS: usize = 200;
/// Topic Aliases that a client may set on its link, announced as Topic Alias Maximum; and that it may be given.
pub const LINK_TOPIC_ALIASES: u16 = 16;
/// Messages to a client without an alias for their Topic Name, after which one replaces the alias that was used least
/// recently: a link with many topics does not change its aliases with each of them.
pub const TOPIC_ALIAS_REPLACE: u8 = 64;
/// Bytes of a Topic Alias in memory, besides its Topic Name: its place in the link's table, and its share.
pub const TOPIC_ALIAS_BYTES: usize = 64;
/// Messages that may wait in memory for one session (QoS 0, and volatile sessions).
pub const SESSION_TRANSIENT_MESSAGES: usize = 1000;

/// Bytes of messages in flight to a bridge, which holds them until the cloud has acknowledged them.
pub const BRIDGE_WINDOW_BYTES: usize = 512 * 1024;
/// While less than half of a window is free, its queue on disk waits so long for acknowledgements before it is read on:
/// a client that acknowledges one by one does not cost a page for each.
pub const PAGE_WAIT: Duration = Duration::from_millis(20);
/// Bytes after which a page is closed.
pub const PAGE_BYTES: u32 = 32 * 1024;
/// Bytes of a message that waits in memory, besides its own: its place in the session's list, and its share.
pub const TRANSIENT_BYTES: usize = 128;
/// Messages that have waited in memory whose memory is kept for others that will.
pub const KEPT_MESSAGES: usize = 128;
/// Bytes of such a message at most: topic, properties and payload. What larger ones took goes back to the system.
pub const KEPT_MESSAGE_BYTES: usize = 512;
/// Packets of one link taken in one turn.
pub const LINK_PACKETS: usize = 512;
/// The largest CONNECT, in bytes.
pub const CONNECT_BYTES: usize = 16 * 1024;
/// Time for a packet that was begun to become whole, besides a second for each 1,000 bytes of it.
pub const PACKET_WAIT: Duration = Duration::from_secs(60);
/// How long a link whose client publishes faster than it may is left unread at least.
pub const RATE_WAIT: Duration = Duration::from_millis(20);
/// How long a link may take nothing of what waits for it.
pub const STUCK_WAIT: Duration = Duration::from_secs(120);
/// The same, and the time for a packet that was begun, where the memory for packets is used up and somebody waits for it.
pub const SCARCE_WAIT: Duration = Duration::from_secs(2);
/// Pages that are being read at a time, for all sessions together.
pub const PAGES: usize = 4;
/// Bytes of a subscription in memory, besides twice its Topic Filter: in its session's list, in the tree, and on its walk
/// through the retained messages.
pub const SUBSCRIPTION_BYTES: usize = 224;
/// Lanes that a session may have beside its own queue: up to three for each class that its queue has, by its order, and for
/// classes that the configuration names no more as long as they hold something.
pub const SESSION_LANES: usize = 7;
/// The least part of the messages that leave which a queue gets while it has something, if the configuration does not say:
/// percent. All queues of a session together have less than all.
pub const LANE_SHARE: u8 = 5;
/// Messages up to so many bytes are encoded once for all who get them alike.
pub const COPIED_BYTES: usize = 4096;
/// Beyond a window of them messages are no longer live, where these go first: the client does not keep up.
pub const LIVE_MESSAGES: u64 = 1024;
/// The same in bytes.
pub const LIVE_BYTES: u64 = 256 << 10;
/// Rows that are recalled at a time, where the newest of a backlog go first.
pub const RECALL_ROWS: u32 = 256;
/// Groups that share a filter, of all sessions together: a message is owed to no more rows than there are sessions and groups.
pub const SHARE_GROUPS: usize = 500;
/// Rows of a page that is read to hand a queue over.
pub const HANDOVER_ROWS: u32 = 256;
/// Rows of a page that is read to compact a queue.
pub const COMPACTION_ROWS: u32 = 256;
/// Messages that are queued while such a page is read, whose topics are noted; beyond that the page is read again.
pub const COMPACTION_TOPICS: usize = 4096;
/// Bytes of a retained message in memory, besides its topic, properties and payload.
pub const RETAINED_BYTES: usize = 240;
/// Retained messages, and topics on the way to them, that are looked at for new subscriptions in one turn.
pub const WALK_STEPS: usize = 2048;
/// The same for one SUBSCRIBE at once.
pub const SUBSCRIBE_WALK_STEPS: usize = 64;
/// Retained messages that are written, or looked at for their expiry, in one turn.
pub const RETAINED_STEPS: usize = 256;
/// How often what a topic retains is written, if its messages are of QoS 0.
pub const RETAINED_WAIT: Duration = Duration::from_secs(60);
/// Clients of which `$SYS` tells what was dropped on its way to them: those that have lost something most recently.
pub const SYS_CLIENTS: usize = 50;
/// How often retained messages that have expired are looked for, to be removed.
pub const RETAINED_SWEEP: Duration = Duration::from_secs(10);
/// Sequence numbers reserved at a time.
pub const SEQ_RESERVE: u64 = 8192;
/// The same in a session with lanes, which share the Packet Identifiers.
pub const LANE_SEQ_RESERVE: u64 = 1024;
/// Changes in one batch, besides three for each session.
pub const BATCH_CHANGES: usize = 4096;
/// Changes of a batch that only settlements may use.
pub const BATCH_SETTLEMENTS: usize = 2048;
const _: () = assert!(
    BATCH_SETTLEMENTS + 3 * SHARE_GROUPS <= BATCH_CHANGES,
    "a message that goes to every session and every group fits into a batch"
);
/// Time for a link to send its CONNECT.
pub const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// Settlements alone may wait so long for a commit: what a crash loses of them is delivered again.
pub const SETTLEMENT_WAIT: Duration = Duration::from_secs(1);
/// A session's departure is written only after it has been away so long: flapping links write nothing.
pub const AWAY_NOTE: Duration = Duration::from_secs(3600);
/// How often a queue is looked through for messages that are too old, at most.
pub const SWEEP_WAIT_MIN: Duration = Duration::from_secs(1);
/// How often service time is written down while nothing else is: a crash makes what is stored younger by no more.
pub const SERVICE_NOTE: Duration = Duration::from_secs(600);
/// How long the end of the program waits for the last commit.
pub const SHUTDOWN_WAIT: Duration = Duration::from_secs(3);

/// The capacities that the configuration moves.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Links (connections) at a time.
    pub links: u32,
    /// Sessions, with and without a link.
    pub sessions: u32,
    /// The largest packet, whole, in bytes; announced as Maximum Packet Size.
    pub packet_max: u32,
    /// PUBLISH packets of QoS 1 or 2 that a client may have unacknowledged; announced as Receive Maximum.
    pub receive_maximum: u16,
    /// PUBLISH packets that may be in flight to one client, if it allows as many.
    pub window: u16,
    /// The longest Session Expiry Interval, in seconds; also for stored sessions of MQTT 3.1.1.
    pub session_expiry_max: u32,
    /// The longest Keep Alive, in seconds; `None` leaves it to the client.
    pub keep_alive_max: Option<u16>,
    /// Subscriptions of one session.
    pub subscriptions_per_session: u32,
    /// Messages that a client may publish in a second; `None`: as many as it wishes.
    pub publish_rate: Option<u32>,
    /// Bytes of PUBLISH packets that a client may send in a second; `None`: as many as it wishes.
    pub publish_bytes_rate: Option<u64>,
    /// Bytes of subscriptions of all sessions together.
    pub subscription_pool_bytes: usize,
    /// Bytes of Topic Aliases of all links together.
    pub alias_pool_bytes: usize,
    /// Bytes of messages in one batch; there are two.
    pub batch_bytes: usize,
    /// Bytes lent to links' inboxes and outboxes together.
    pub buffer_pool_bytes: usize,
    /// Bytes of messages waiting in memory for all sessions together.
    pub transient_pool_bytes: usize,
    /// Bytes of retained messages.
    pub retained_pool_bytes: usize,
    /// Packet Identifiers of messages of QoS 2 that clients have not released, of all sessions together; each session may
    /// hold as many as `receive_maximum` besides.
    pub held_max: usize,
    /// Bytes of Wills of all sessions together.
    pub will_pool_bytes: usize,
    /// Bytes of the database.
    pub disk_max: u64,
    /// Bytes queued for one stored session before its oldest unsent message goes.
    pub session_disk_max: u64,
    /// How long messages on their way to all to whom they are owed may wait for their acknowledgement before they are
    /// written.
    pub settle_wait: Duration,
    /// How long a PUBLISH that does not fit holds its link before it is refused.
    pub park_max: Duration,
}

impl Limits {
    /// Changes in one batch: a message that is owed to every session, and to a member of every group, fits.
    #[must_use]
    pub fn batch_changes(&self) -> usize {
        Limits::batch_changes_for(self.sessions as usize)
    }

    /// The same for so many sessions: recovery may find more than the configuration allows.
    #[must_use]
    pub fn batch_changes_for(sessions: usize) -> usize {
        BATCH_CHANGES + 3 * sessions
    }
}

impl Default for Limits {
    fn default() -> Self {
        let disk_max = 2 << 30;
        Limits {
            links: 1000,
            sessions: 2000,
            packet_max: 256 * 1024,
            receive_maximum: 64,
            window: 64,
            session_expiry_max: 30 * 24 * 3600,
            keep_alive_max: None,
            subscriptions_per_session: 1000,
            publish_rate: None,
            publish_bytes_rate: None,
            subscription_pool_bytes: 4 << 20,
            alias_pool_bytes: 768 << 10,
            batch_bytes: 1 << 20,
            buffer_pool_bytes: 4 << 20,
            transient_pool_bytes: 2 << 20,
            retained_pool_bytes: 2 << 20,
            held_max: 64 * 1024,
            will_pool_bytes: 512 << 10,
            disk_max,
            session_disk_max: disk_max / 8,
            settle_wait: Duration::from_millis(20),
            park_max: Duration::from_secs(5),
        }
    }
}
