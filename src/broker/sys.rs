//! `$SYS`: what Mosquitto's users look at, published at QoS 0 to whoever has subscribed.

use super::Broker;
use crate::time::Now;
use std::fmt::Write;

impl Broker {
    /// Publishes the topics below `$SYS` if they are due.
    pub(super) fn publish_sys(&mut self, now: Now) {
        let (Some(due), Some(interval)) = (self.sys_due, self.sys_interval) else {
            return;
        };
        if due > now.mono {
            return;
        }
        self.sys_due = Some(now.mono.after(interval));
        let (counters, gauges) = (self.counters, self.gauges());
        let drops = counters.drops;
        let dropped = drops.sum();
        let topics: [(&str, u64); 25] = [
            ("$SYS/broker/uptime", now.mono.since(self.started).as_secs()),
            ("$SYS/broker/clients/connected", gauges.sessions_connected),
            (
                "$SYS/broker/clients/disconnected",
                gauges.sessions - gauges.sessions_connected,
            ),
            ("$SYS/broker/clients/total", gauges.sessions),
            ("$SYS/broker/subscriptions/count", gauges.subscriptions),
            ("$SYS/broker/store/messages/count", gauges.queued_messages),
            ("$SYS/broker/store/messages/bytes", gauges.queued_bytes),
            (
                "$SYS/broker/publish/messages/received",
                counters.publish_received,
            ),
            ("$SYS/broker/publish/messages/sent", counters.publish_sent),
            ("$SYS/broker/publish/messages/dropped", dropped),
            ("$SYS/broker/bytes/received", counters.bytes_received),
            ("$SYS/broker/bytes/sent", counters.bytes_sent),
            ("$SYS/larder/acknowledged", counters.acknowledged),
            ("$SYS/larder/refused", counters.refused),
            ("$SYS/larder/held", counters.publish_held),
            ("$SYS/larder/dropped/queue-full", drops.queue_full),
            ("$SYS/larder/dropped/overflow", drops.overflow),
            ("$SYS/larder/dropped/expired", drops.expired),
            ("$SYS/larder/dropped/too-large", drops.too_large),
            ("$SYS/larder/dropped/away", drops.away),
            ("$SYS/larder/dropped/damaged", drops.damaged),
            ("$SYS/larder/links/shed", counters.links_shed),
            ("$SYS/larder/disk/used", gauges.disk_used),
            ("$SYS/larder/disk/written", gauges.disk_written),
            ("$SYS/larder/disk/stalls", counters.store_stalls),
        ];
        let mut payload = String::with_capacity(20);
        for (topic, value) in topics {
            payload.clear();
            // Writing into a String cannot fail.
            let _ = write!(payload, "{value}");
            self.publish_own(topic, payload.as_bytes(), now);
        }
    }
}
