//! How fast a client may publish: over its limit its link is left unread until it may publish again. Nothing is refused
//! and nothing is lost; TCP slows the client down.
//!
//! A PUBLISH with more bytes than may come in one second waits for all of it, and those after it wait the longer.

use super::Broker;
use super::bucket::{Bucket, Cost};
use super::receive::Flow;
use super::timers::Timer;
use crate::limits::{Limits, RATE_WAIT};
use crate::net::LinkId;
use crate::time::{Mono, Now};

/// What a client may publish at present.
#[derive(Default)]
pub(super) struct Rate {
    messages: Bucket,
    bytes: Bucket,
    /// The timer that is set for its link.
    pub(super) timer: Option<Mono>,
    /// It was said that its client publishes too fast.
    is_told: bool,
}

/// What a PUBLISH of `len` bytes takes of both limits.
fn costs(limits: &Limits, len: usize) -> (Cost, Cost) {
    (
        Cost::of(1, limits.publish_rate.map(u64::from)),
        Cost::of(len as u64, limits.publish_bytes_rate),
    )
}

impl Rate {
    /// When a PUBLISH may be taken.
    fn ready_at(&self, (messages, bytes): (Cost, Cost)) -> Mono {
        let messages = self.messages.ready_at(messages);
        messages.max(self.bytes.ready_at(bytes))
    }

    fn take(&mut self, (messages, bytes): (Cost, Cost), now: Mono) {
        self.messages.take(messages, now);
        self.bytes.take(bytes, now);
    }
}

impl Broker {
    fn is_limited(&self, id: LinkId) -> bool {
        let has_limit =
            self.limits.publish_rate.is_some() || self.limits.publish_bytes_rate.is_some();
        // The private socket's clients are the program's own.
        has_limit && self.links.get(id).is_some_and(|link| !link.origin.private)
    }

    /// What becomes of a PUBLISH of `len` bytes that comes too early.
    pub(super) fn comes_too_early(&mut self, id: LinkId, len: usize, now: Now) -> Option<Flow> {
        if !self.is_limited(id) {
            return None;
        }
        let costs = costs(&self.limits, len);
        let link = self.links.get_mut(id)?;
        let rate = link.rate.get_or_insert_default();
        let at = rate.ready_at(costs);
        if at <= now.mono {
            return None;
        }
        if rate.timer.is_none() {
            // What may pass until then passes together.
            let at = at.max(now.mono.after(RATE_WAIT));
            rate.timer = Some(at);
            self.timers.set(at, Timer::Rate(id));
            self.counters.publish_held += 1;
        }
        if !std::mem::replace(&mut rate.is_told, true) {
            log::info!(
                "link {}: publishes faster than it may, and is read no faster; this is not said again",
                id.index
            );
        }
        Some(Flow::Park { refuse: false })
    }

    /// A PUBLISH of `len` bytes was taken, or refused.
    pub(super) fn count_against_rate(&mut self, id: LinkId, len: usize, now: Now) {
        if !self.is_limited(id) {
            return;
        }
        let costs = costs(&self.limits, len);
        if let Some(link) = self.links.get_mut(id) {
            let rate = link.rate.get_or_insert_default();
            rate.take(costs, now.mono);
        }
    }

    /// Whether a link is left unread because its client publishes too fast.
    pub(super) fn publishes_too_fast(&self, id: LinkId) -> bool {
        self.links
            .get(id)
            .and_then(|link| link.rate.as_ref())
            .is_some_and(|rate| rate.timer.is_some())
    }

    /// A link that published too fast may be read again.
    pub(super) fn rate_allows(&mut self, id: LinkId, now: Now) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        if let Some(rate) = &mut link.rate {
            rate.timer = None;
        }
        if link.held_up.parked.is_some_and(|parked| !parked.refuse) {
            self.parked.retain(|other| *other != id);
            self.resume(id, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(messages: Option<u32>, bytes: Option<u64>) -> Limits {
        Limits {
            publish_rate: messages,
            publish_bytes_rate: bytes,
            ..Limits::default()
        }
    }

    /// How many are taken of those that come all at once at each of these times.
    fn taken(limits: &Limits, len: usize, times: &[u64]) -> Vec<usize> {
        let mut rate = Rate::default();
        let costs = costs(limits, len);
        let burst = |at: &u64| {
            let now = Mono(*at);
            let mut taken = 0;
            while taken < 1000 && rate.ready_at(costs) <= now {
                rate.take(costs, now);
                taken += 1;
            }
            taken
        };
        times.iter().map(burst).collect()
    }

    #[test]
    fn a_second_of_messages_may_come_at_once_and_then_no_faster_than_the_rate() {
        let ten = limits(Some(10), None);
        let times = [5_000, 5_099, 5_100, 5_350, 60_000];
        assert_eq!(taken(&ten, 1 << 20, &times), [10, 0, 1, 2, 10]);
        assert_eq!(taken(&limits(Some(3), None), 1, &[5_000, 6_000]), [3, 3]);
    }

    #[test]
    fn a_second_of_bytes_may_come_at_once() {
        let limits = limits(None, Some(1000));
        assert_eq!(taken(&limits, 250, &[5_000, 5_249, 5_250]), [4, 0, 1]);
    }

    #[test]
    fn what_the_bucket_does_not_hold_waits_until_it_is_full_and_is_made_up_for() {
        let limits = limits(Some(100), Some(1000));
        assert_eq!(taken(&limits, 3000, &[5_000, 7_999, 8_000]), [1, 0, 1]);
    }

    #[test]
    fn without_limits_all_may_come() {
        assert_eq!(taken(&limits(None, None), 3000, &[0]), [1000]);
    }
}
