//! What the core counts. Plain numbers; `observe` and `$SYS` show them.

use super::session::Drops;

/// Counted since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Application Messages received in PUBLISH packets.
    pub publish_received: u64,
    /// Bytes of their payloads.
    pub publish_bytes_received: u64,
    /// Application Messages sent in PUBLISH packets, resends included.
    pub publish_sent: u64,
    /// Bytes of their payloads.
    pub publish_bytes_sent: u64,
    /// Packets received, of all kinds.
    pub packets_received: u64,
    /// Packets sent, of all kinds.
    pub packets_sent: u64,
    /// PUBLISH packets of QoS 1 that were acknowledged with success.
    pub acknowledged: u64,
    /// PUBLISH packets refused, with a Reason Code or by closing the link (lasting fullness, not authorised).
    pub refused: u64,
    /// PUBLISH packets that had to wait because their client published faster than it may.
    pub publish_held: u64,
    /// Messages that were delivered, but not retained as they asked for: there was no room for that.
    pub not_retained: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Links opened.
    pub links_opened: u64,
    /// Peers turned away because all places were taken.
    pub links_refused: u64,
    /// Links closed because the pool of buffers was used up.
    pub links_shed: u64,
    /// Links closed because they took nothing of what waited for them for too long.
    pub links_stuck: u64,
    /// Links closed because they sent no CONNECT, or half a packet, and no more in time.
    pub links_late: u64,
    /// CONNECTs refused because there are as many sessions as may be.
    pub connects_shed: u64,
    /// Subscriptions refused because there are as many as may be.
    pub subscriptions_shed: u64,
    /// CONNECTs accepted.
    pub connects: u64,
    /// The most sessions that had a link at the same time.
    pub connected_max: u64,
    /// Sessions that ended because their client stayed away for too long.
    pub sessions_expired: u64,
    /// Stretches in which the store could not commit.
    pub store_stalls: u64,
    /// Pages that could not be read.
    pub read_errors: u64,
    /// Messages dropped on their way to sessions, all sessions together.
    pub drops: Drops,
    /// Wills that were given up: they waited for room on disk, and their memory was wanted.
    pub wills_dropped: u64,
    /// Acknowledgements for a Packet Identifier that was not in flight.
    pub unknown_acks: u64,
    /// Messages that a subscriber refused with a Reason Code of 0x80 or above.
    pub refused_by_subscriber: u64,
}

/// What is, now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauges {
    /// Links.
    pub links: u64,
    /// Sessions, with and without a link.
    pub sessions: u64,
    /// Sessions that have a link.
    pub sessions_connected: u64,
    /// Subscriptions, without the shared ones.
    pub subscriptions: u64,
    /// Shared Subscriptions.
    pub shared_subscriptions: u64,
    /// Messages of QoS 1 and 2 that are under way to clients.
    pub in_flight: u64,
    /// Retained messages.
    pub retained_messages: u64,
    /// Bytes that they take in memory.
    pub retained_bytes: u64,
    /// Messages queued for stored sessions.
    pub queued_messages: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Bytes in use on disk.
    pub disk_used: u64,
    /// Bytes that the store has written since the start.
    pub disk_written: u64,
    /// Bytes lent to links for half-read and half-written packets.
    pub buffers_lent: u64,
}
