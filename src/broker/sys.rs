//! `$SYS`: what Mosquitto's users look at, under its names and in its formats, and what Larder has to say beside it.

mod clients;

pub(super) use clients::SYS_CLIENT_BYTES;

use super::load::{Load, MINUTES};
use super::{Broker, Counters};
use crate::time::{Mono, Now};
use clients::Client;
use std::collections::VecDeque;
use std::fmt::Write;
use std::time::Duration;

/// What `$SYS` has to remember from one time to the next.
pub(super) struct Sys {
    /// When it is due.
    pub(super) due: Option<Mono>,
    interval: Option<Duration>,
    started: Mono,
    told: Mono,
    loads: [Load; LOADS.len()],
    /// Those of which it is told what was dropped on its way to them, in the order in which they lost something last.
    clients: VecDeque<Client>,
}

impl Sys {
    pub(super) fn new(now: Mono) -> Sys {
        Sys {
            due: None,
            interval: None,
            started: now,
            told: now,
            loads: Default::default(),
            clients: VecDeque::new(),
        }
    }
}

/// A counter of which a load is told, and the topic above its averages.
type LoadOf = (&'static str, fn(&Counters) -> u64);

const LOADS: [LoadOf; 9] = [
    ("$SYS/broker/load/messages/received", |of| {
        of.packets_received
    }),
    ("$SYS/broker/load/messages/sent", |of| of.packets_sent),
    ("$SYS/broker/load/publish/received", |of| {
        of.publish_received
    }),
    ("$SYS/broker/load/publish/sent", |of| of.publish_sent),
    ("$SYS/broker/load/publish/dropped", |of| of.drops.sum()),
    ("$SYS/broker/load/bytes/received", |of| of.bytes_received),
    ("$SYS/broker/load/bytes/sent", |of| of.bytes_sent),
    ("$SYS/broker/load/sockets", |of| of.links_opened),
    ("$SYS/broker/load/connections", |of| of.connects),
];

impl Broker {
    /// Publishes `$SYS` now, and this often from now on.
    pub fn set_sys_interval(&mut self, interval: Option<Duration>, now: Now) {
        self.sys.interval = interval;
        self.sys.due = interval.map(|_| now.mono);
    }

    /// Publishes the topics below `$SYS` if they are due.
    pub(super) fn publish_sys(&mut self, now: Now) {
        let (Some(due), Some(interval)) = (self.sys.due, self.sys.interval) else {
            return;
        };
        if due > now.mono {
            return;
        }
        self.sys.due = Some(now.mono.after(interval));
        let (counters, gauges) = (self.counters, self.gauges());
        let drops = counters.drops;
        let disconnected = gauges.sessions - gauges.sessions_connected;
        let figures = [
            ("$SYS/broker/clients/total", gauges.sessions),
            ("$SYS/broker/clients/connected", gauges.sessions_connected),
            ("$SYS/broker/clients/active", gauges.sessions_connected),
            ("$SYS/broker/clients/disconnected", disconnected),
            ("$SYS/broker/clients/inactive", disconnected),
            ("$SYS/broker/clients/maximum", counters.connected_max),
            ("$SYS/broker/clients/expired", counters.sessions_expired),
            ("$SYS/broker/messages/received", counters.packets_received),
            ("$SYS/broker/messages/sent", counters.packets_sent),
            ("$SYS/broker/messages/inflight", gauges.in_flight),
            ("$SYS/broker/messages/stored", gauges.queued_messages),
            ("$SYS/broker/store/messages/count", gauges.queued_messages),
            ("$SYS/broker/store/messages/bytes", gauges.queued_bytes),
            ("$SYS/broker/subscriptions/count", gauges.subscriptions),
            (
                "$SYS/broker/shared_subscriptions/count",
                gauges.shared_subscriptions,
            ),
            (
                "$SYS/broker/retained messages/count",
                gauges.retained_messages,
            ),
            (
                "$SYS/broker/publish/messages/received",
                counters.publish_received,
            ),
            ("$SYS/broker/publish/messages/sent", counters.publish_sent),
            ("$SYS/broker/publish/messages/dropped", drops.sum()),
            (
                "$SYS/broker/publish/bytes/received",
                counters.publish_bytes_received,
            ),
            (
                "$SYS/broker/publish/bytes/sent",
                counters.publish_bytes_sent,
            ),
            ("$SYS/broker/bytes/received", counters.bytes_received),
            ("$SYS/broker/bytes/sent", counters.bytes_sent),
            ("$SYS/larder/acknowledged", counters.acknowledged),
            ("$SYS/larder/refused", counters.refused),
            ("$SYS/larder/retained/bytes", gauges.retained_bytes),
            ("$SYS/larder/retained/refused", counters.not_retained),
            ("$SYS/larder/held", counters.publish_held),
            ("$SYS/larder/dropped/queue-full", drops.queue_full),
            ("$SYS/larder/dropped/overflow", drops.overflow),
            ("$SYS/larder/dropped/expired", drops.expired),
            ("$SYS/larder/dropped/too-large", drops.too_large),
            ("$SYS/larder/dropped/away", drops.away),
            ("$SYS/larder/dropped/damaged", drops.damaged),
            ("$SYS/larder/dropped/aged", drops.aged),
            ("$SYS/larder/dropped/superseded", drops.superseded),
            ("$SYS/larder/dropped/no-member", drops.no_member),
            ("$SYS/larder/wills/dropped", counters.wills_dropped),
            ("$SYS/larder/links/shed", counters.links_shed),
            ("$SYS/larder/links/refused", counters.links_refused),
            ("$SYS/larder/links/stuck", counters.links_stuck),
            ("$SYS/larder/links/late", counters.links_late),
            ("$SYS/larder/connects/shed", counters.connects_shed),
            (
                "$SYS/larder/subscriptions/shed",
                counters.subscriptions_shed,
            ),
            ("$SYS/larder/disk/used", gauges.disk_used),
            ("$SYS/larder/disk/written", gauges.disk_written),
            ("$SYS/larder/disk/stalls", counters.store_stalls),
        ];
        // Writing into a String cannot fail.
        let mut payload = String::with_capacity(32);
        let version = concat!("larder version ", env!("CARGO_PKG_VERSION"));
        self.publish_own("$SYS/broker/version", version.as_bytes(), now);
        let uptime = now.mono.since(self.sys.started).as_secs();
        let _ = write!(payload, "{uptime} seconds");
        self.publish_own("$SYS/broker/uptime", payload.as_bytes(), now);
        for (topic, figure) in figures {
            payload.clear();
            let _ = write!(payload, "{figure}");
            self.publish_own(topic, payload.as_bytes(), now);
        }
        self.publish_loads(&counters, &mut payload, now);
        self.publish_classes(&mut payload, now);
        self.publish_clients(now);
    }

    /// What becomes of the classes of messages: those of one name together.
    fn publish_classes(&mut self, payload: &mut String, now: Now) {
        let mut topic = String::with_capacity(64);
        for (name, tally) in self.policies.by_name() {
            let drops = tally.drops;
            for (figure, number) in [
                ("queued/messages", tally.messages),
                ("queued/bytes", tally.bytes),
                ("dropped/queue-full", drops.queue_full),
                ("dropped/aged", drops.aged),
                ("dropped/superseded", drops.superseded),
                ("dropped/expired", drops.expired),
                ("dropped/too-large", drops.too_large),
                ("dropped/damaged", drops.damaged),
            ] {
                topic.clear();
                payload.clear();
                let _ = write!(topic, "$SYS/larder/class/{name}/{figure}");
                let _ = write!(payload, "{number}");
                self.publish_own(&topic, payload.as_bytes(), now);
            }
        }
    }

    fn publish_loads(&mut self, counters: &Counters, payload: &mut String, now: Now) {
        let elapsed = now.mono.since(self.sys.told);
        self.sys.told = now.mono;
        let mut topic = String::with_capacity(48);
        for (index, (name, counted)) in LOADS.into_iter().enumerate() {
            let averages = self.sys.loads[index].update(counted(counters), elapsed);
            for ((minutes, _), average) in MINUTES.into_iter().zip(averages) {
                topic.clear();
                payload.clear();
                let _ = write!(topic, "{name}/{minutes}");
                let _ = write!(payload, "{average:.2}");
                self.publish_own(&topic, payload.as_bytes(), now);
            }
        }
    }
}
