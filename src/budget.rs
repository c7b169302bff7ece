//! The memory budget: every table, buffer, queue and pool that the program can come to hold, summed before it starts.

use crate::broker::{
    ACK_BYTES, COMPACTION_BYTES, COMPACTION_TOPICS_BYTES, COPIES_BYTES, JOURNAL_ROW_BYTES,
    LANE_BYTES, LINK_BYTES, SESSION_BYTES, SYS_CLIENT_BYTES, acks_max, window_bytes,
};
use crate::config::{Config, QueueConfig, ShownSize, WhenFull};
use crate::limits::{
    BATCH_CHANGES, BRIDGE_WINDOW_BYTES, BUFFER_MIN_BYTES, CLIENT_ID_BYTES, KEPT_MESSAGE_BYTES,
    KEPT_MESSAGES, LINK_READ_BYTES, PAGE_BYTES, PAGES, SESSION_LANES, SYS_CLIENTS, WILL_BYTES,
    WILL_COST_BYTES,
};
use crate::net::{EVENTS_BYTES, LINK_PLACE_BYTES, SocketOptions};
use crate::observe::log::{LOG_RING_BYTES, LOG_STACK_BYTES};
use crate::record::Change;
use crate::store;
use std::fmt;

/// Kernel memory of a link's socket, each way: the least,
const SOCKET_BUFFER_MIN_BYTES: usize = 8 * 1024;
/// and the most, beyond which messages hardly become cheaper.
const SOCKET_BUFFER_MAX_BYTES: usize = 128 * 1024;
/// The program itself with its libraries, as it stands in memory before the first link.
const PROGRAM_BYTES: usize = 4 << 20;
/// What a bridge holds besides its window: two runtimes, sockets and read buffers.
const BRIDGE_BYTES: usize = 512 << 10;
/// A message from a cloud. Larger ones take as much more: of those a bridge bounds the number, not yet the bytes.
const BRIDGE_MESSAGE_BYTES: usize = 4 << 10;

/// What messages have taken that have waited in memory, and will again.
const SPARE_MESSAGES_BYTES: usize = KEPT_MESSAGES * KEPT_MESSAGE_BYTES;

/// Packet Identifiers of messages of QoS 2 that clients have not released, for each link; all share them.
const HELD_PER_LINK: usize = 64;
const HELD_BYTES: usize = size_of::<u16>();

/// Bytes of Wills, for each session; all share them.
const WILL_PER_SESSION_BYTES: usize = 256;

/// One term of the memory budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetRow {
    /// What takes the memory.
    pub owner: String,
    /// How many of it there can be.
    pub count: u64,
    /// Bytes of each.
    pub bytes: u64,
}

/// The pools that are cut out of `memory_max`.
#[derive(Clone, Copy, Debug)]
pub struct Pools {
    /// Bytes of subscriptions.
    pub subscription_bytes: usize,
    /// Bytes of Topic Aliases.
    pub alias_bytes: usize,
    /// Bytes of messages in one of the journal's two batches.
    pub batch_bytes: usize,
    /// Bytes lent to links for half-read and half-written packets.
    pub buffer_bytes: usize,
    /// Bytes of messages that wait in memory.
    pub transient_bytes: usize,
    /// Bytes of retained messages that are held in memory, and of the topics of all.
    pub retained_bytes: usize,
}

/// How large the pools are: parts of `memory_max`, and never too small for one packet.
#[must_use]
pub fn pools(config: &Config) -> Pools {
    let memory = usize::try_from(config.limits.memory_max).unwrap_or(usize::MAX);
    let packet = config.limits.packet_max as usize;
    Pools {
        subscription_bytes: memory / 32,
        alias_bytes: memory / 64,
        batch_bytes: (memory / 32).clamp(
            packet + BUFFER_MIN_BYTES,
            packet.max(2 << 20) + BUFFER_MIN_BYTES,
        ),
        buffer_bytes: (memory / 12).max(4 * packet),
        transient_bytes: (memory / 28)
            .saturating_sub(SPARE_MESSAGES_BYTES)
            .max(packet),
        retained_bytes: memory / 28,
    }
}

/// How many Packet Identifiers of messages of QoS 2 clients may hold together, besides `limits.receive_maximum` each.
#[must_use]
pub fn held_max(config: &Config) -> usize {
    config.limits.links as usize * HELD_PER_LINK
}

/// Bytes of Wills of all sessions together: one of the largest fits always.
#[must_use]
pub fn will_pool_bytes(config: &Config) -> usize {
    let sessions = config.limits.sessions as usize;
    (sessions * WILL_PER_SESSION_BYTES).max(WILL_BYTES + WILL_COST_BYTES)
}

/// The socket buffers that are asked for: what all else leaves of `memory_max`, in equal parts for all links and both ways,
/// down to a power of two.
#[must_use]
pub fn socket_options(config: &Config) -> SocketOptions {
    let limits = &config.limits;
    let left = limits.memory_max.saturating_sub(sum(&rows(config, 0)));
    let part = left / (2 * u64::from(limits.links)).max(1);
    let part = usize::try_from(part).unwrap_or(usize::MAX);
    let buffer_bytes = match part.clamp(SOCKET_BUFFER_MIN_BYTES, SOCKET_BUFFER_MAX_BYTES) {
        part if part.is_power_of_two() => part,
        part => part.next_power_of_two() / 2,
    };
    SocketOptions {
        links: limits.links as usize,
        receive_buffer_bytes: buffer_bytes,
        send_buffer_bytes: buffer_bytes,
    }
}

/// Every term, largest owners first in the order of the layers.
#[must_use]
pub fn table(config: &Config) -> Vec<BudgetRow> {
    let sockets = socket_options(config);
    rows(
        config,
        sockets.receive_buffer_bytes + sockets.send_buffer_bytes,
    )
}

/// The same with so many bytes for each link's socket buffers.
fn rows(config: &Config, socket_bytes: usize) -> Vec<BudgetRow> {
    let limits = &config.limits;
    let pools = pools(config);
    let (links, sessions) = (u64::from(limits.links), u64::from(limits.sessions));
    let changes = BATCH_CHANGES + 3 * limits.sessions as usize;
    let change_bytes = size_of::<Change>() + JOURNAL_ROW_BYTES;
    let row = |owner: &str, count: u64, bytes: usize| BudgetRow {
        owner: owner.to_owned(),
        count,
        bytes: bytes as u64,
    };
    let mut rows = vec![
        row("program and libraries", 1, PROGRAM_BYTES),
        row("links (limits.links)", links, LINK_BYTES + LINK_PLACE_BYTES),
        row(
            "acknowledgements that wait (limits.links)",
            acks_max(limits.links, limits.receive_maximum) as u64,
            ACK_BYTES,
        ),
        row(
            "socket buffers of a link (limits.links, memory_max)",
            links,
            socket_bytes,
        ),
        row(
            "sessions (limits.sessions)",
            sessions,
            SESSION_BYTES + CLIENT_ID_BYTES,
        ),
        row(
            "window of a session (limits.receive_maximum)",
            sessions,
            window_bytes(limits.receive_maximum),
        ),
        row(
            "messages of QoS 2 not released (limits.links)",
            held_max(config) as u64,
            HELD_BYTES,
        ),
        row(
            "messages of QoS 2 not released (limits.receive_maximum)",
            sessions,
            usize::from(limits.receive_maximum) * HELD_BYTES,
        ),
        row("Wills (limits.sessions)", 1, will_pool_bytes(config)),
        row(
            "subscriptions (limits.memory_max)",
            1,
            pools.subscription_bytes,
        ),
        row("topic aliases (limits.memory_max)", 1, pools.alias_bytes),
        row(
            "half-read and half-written packets (limits.memory_max)",
            1,
            pools.buffer_bytes,
        ),
        row(
            "messages waiting in memory (limits.memory_max)",
            1,
            pools.transient_bytes + SPARE_MESSAGES_BYTES,
        ),
        row(
            "retained messages (limits.memory_max)",
            1,
            pools.retained_bytes,
        ),
        row(
            "journal: messages (limits.memory_max)",
            2,
            pools.batch_bytes,
        ),
        row(
            "journal: changes (limits.sessions)",
            2,
            changes * change_bytes,
        ),
        row(
            "pages of queues (limits.packet_max)",
            PAGES as u64,
            PAGE_BYTES as usize + limits.packet_max as usize,
        ),
        row(
            "clients with drops under $SYS",
            SYS_CLIENTS as u64,
            SYS_CLIENT_BYTES,
        ),
        row(
            "read buffer, events, copies",
            1,
            LINK_READ_BYTES + EVENTS_BYTES + COPIES_BYTES,
        ),
        row("SQLite", 1, store::SQLITE_HEAP_BYTES),
        row("store's threads", 2, store::THREAD_STACK_BYTES),
        row("log", 1, LOG_RING_BYTES + LOG_STACK_BYTES),
    ];
    let lanes = lanes_max(config);
    if lanes > 0 {
        rows.push(row(
            "lanes of sessions (queue.classes, order)",
            lanes,
            LANE_BYTES,
        ));
    }
    let compacted = compacted_max(config);
    if compacted > 0 {
        let owner = "queues that keep the latest (queue.when_full)";
        rows.push(row(owner, compacted, COMPACTION_BYTES));
        let owner = "topics while such a queue is compacted";
        rows.push(row(owner, 1, COMPACTION_TOPICS_BYTES));
    }
    for bridge in &config.bridges {
        let forward = BRIDGE_WINDOW_BYTES + limits.packet_max as usize;
        let receive = usize::from(bridge.window) * BRIDGE_MESSAGE_BYTES;
        let tls = if bridge.has_tls() {
            larder_bridge::TLS_BYTES
        } else {
            0
        };
        let bytes = larder_bridge::THREAD_STACK_BYTES + BRIDGE_BYTES + tls + forward + receive;
        rows.push(row(
            &format!("bridge {} (its window)", bridge.name),
            1,
            bytes,
        ));
    }
    rows
}

/// Lanes that all sessions together may come to have.
fn lanes_max(config: &Config) -> u64 {
    let sessions = u64::from(config.limits.sessions);
    let lanes = config.queues.iter();
    let lanes = lanes.map(|queue| named_max(queue, sessions) * queue.lanes() as u64);
    lanes.sum::<u64>().min(sessions * SESSION_LANES as u64)
}

/// Sessions that a `[[queue]]` may come to name.
fn named_max(queue: &QueueConfig, sessions: u64) -> u64 {
    match queue.client_id.ends_with('*') {
        true => sessions,
        false => 1,
    }
}

/// Queues, of sessions and lanes, that may be compacted.
fn compacted_max(config: &Config) -> u64 {
    let sessions = u64::from(config.limits.sessions);
    let queues = config.queues.iter().map(|queue| {
        let classes = queue.classes.iter();
        let classes = classes.map(|class| (class.when_full, class.order.lanes()));
        let rest = (queue.when_full, 1 + queue.order.lanes_of_rest());
        let kept = classes
            .chain([rest])
            .filter(|(when_full, _)| *when_full == WhenFull::KeepLatest);
        named_max(queue, sessions) * kept.map(|(_, lanes)| lanes as u64).sum::<u64>()
    });
    queues
        .sum::<u64>()
        .min(sessions * (SESSION_LANES as u64 + 1))
}

/// The bytes of all rows.
#[must_use]
pub fn sum(rows: &[BudgetRow]) -> u64 {
    rows.iter().map(|row| row.count * row.bytes).sum()
}

/// Refuses a configuration that needs more memory than it allows.
///
/// # Errors
/// The sum, and the row that is most to blame.
pub fn check(config: &Config) -> Result<(), OverBudget> {
    let rows = table(config);
    let (sum, max) = (sum(&rows), config.limits.memory_max);
    if sum <= max {
        return Ok(());
    }
    let largest = rows.into_iter().max_by_key(|row| row.count * row.bytes);
    Err(OverBudget { sum, max, largest })
}

/// The budget is above `memory_max`.
#[derive(Debug)]
pub struct OverBudget {
    sum: u64,
    max: u64,
    largest: Option<BudgetRow>,
}

impl fmt::Display for OverBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "limits.memory_max: {} are needed in the worst case, {} are allowed",
            ShownSize(self.sum),
            ShownSize(self.max)
        )?;
        if let Some(row) = &self.largest {
            write!(
                f,
                "; the largest part is {} times {} for {}",
                row.count,
                ShownSize(row.bytes),
                row.owner
            )?;
        }
        f.write_str("; `larder check` prints all of them")
    }
}

impl std::error::Error for OverBudget {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn config(name: &str, text: &str, machine: u64) -> Config {
        let name = format!("larder-budget-{name}-{}.toml", std::process::id());
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, text).unwrap();
        let config = Config::load(&file, machine).unwrap();
        std::fs::remove_file(&file).unwrap();
        config
    }

    #[test]
    fn socket_buffers_are_as_large_as_memory_max_allows() {
        let buffer = |limits: &str| {
            let text = format!("[limits]\n{limits}");
            let config = config("sockets", &text, 4 << 30);
            if let Err(error) = check(&config) {
                panic!("{limits}: {error}");
            }
            let sockets = socket_options(&config);
            assert_eq!(sockets.receive_buffer_bytes, sockets.send_buffer_bytes);
            sockets.send_buffer_bytes >> 10
        };
        assert_eq!(buffer("memory_max = \"24 MiB\""), 8);
        assert_eq!(buffer("memory_max = \"48 MiB\""), 8);
        assert_eq!(buffer("memory_max = \"72 MiB\""), 16);
        assert_eq!(buffer("memory_max = \"128 MiB\""), 32);
        assert_eq!(buffer("memory_max = \"256 MiB\""), 64);
        assert_eq!(buffer("memory_max = \"512 MiB\""), 128);
        assert_eq!(buffer("memory_max = \"2 GiB\""), 128);
        assert_eq!(buffer("memory_max = \"48 MiB\"\nlinks = 50"), 128);
    }

    #[test]
    fn the_defaults_fit_into_any_memory_with_bridges_and_without() {
        // Beside two bridges 16 MiB leave no room for a client, which is said.
        for (mebibytes, most) in [
            (16, 1),
            (20, 2),
            (24, 2),
            (32, 2),
            (40, 2),
            (48, 4),
            (256, 4),
        ] {
            for bridges in 0..=most {
                let mut text = format!("[limits]\nmemory_max = \"{mebibytes} MiB\"\n");
                for name in 0..bridges {
                    text += &format!(
                        "[[bridge]]\nname = \"b{name}\"\nurl = \"mqtt://a\"\nclient_id = \"c{name}\"\n\
                         forward = [{{ filter = \"f\" }}]\n"
                    );
                }
                let config = config("bridges", &text, 4 << 30);
                if let Err(error) = check(&config) {
                    panic!("{mebibytes} MiB, {bridges} bridges: {error}");
                }
            }
        }
    }

    #[test]
    fn a_machine_of_64_mebibytes_gives_24_to_it() {
        let config = config("small", "", 64 << 20);
        check(&config).unwrap();
        assert_eq!(config.limits.memory_max, 24 << 20);
        assert_eq!(config.limits.packet_max, 256 << 10);
        let (links, sessions) = (config.limits.links, config.limits.sessions);
        assert!(links >= 320 && sessions == 2 * links, "{links} links");
    }
}
