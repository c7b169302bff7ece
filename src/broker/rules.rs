//! Who may publish and subscribe to what. Pure.

/// Whether a client may publish to this Topic Name: not to topics that begin with `$`, which belong to the server
/// [MQTT 4.7.2].
pub(super) fn may_publish(topic: &str) -> bool {
    !topic.starts_with('$')
}

/// Client Identifiers that begin with this belong to the private socket.
pub(super) const RESERVED_CLIENT_IDS: &str = "$larder/";
