//! What clients do that nobody foresees: they leave, take over from themselves, begin anew, try again, and change their minds.

use super::{Client, Deed};
use crate::clock::Millis;
use crate::wire::Wire;
use larder_packet::Version;

impl Client {
    /// Does something unforeseen; `true` if the link is over by it.
    pub(super) fn whim(&mut self, now: Millis) -> bool {
        match self.random.below(10) {
            0..3 => {
                let ends = self.plan.version == Version::V5 && self.random.one_in(5);
                let expiry = ends.then_some(0);
                self.send(Wire::Disconnect { reason: 0, expiry }, now);
                self.deeds.push(Deed::Close);
                self.lost(now);
                true
            }
            3..5 => {
                self.cut(now);
                true
            }
            5..7 => {
                // Takes over from itself.
                self.lost(now);
                self.connect(now);
                true
            }
            7 => {
                self.clean = true;
                self.cut(now);
                true
            }
            8 if self.plan.version == Version::V311 => {
                if let Some(wire) = self.outgoing.retry(&mut self.random) {
                    self.send(wire, now);
                }
                false
            }
            _ => {
                self.change_subscriptions(now);
                false
            }
        }
    }

    fn change_subscriptions(&mut self, now: Millis) {
        if self.plan.subscribes.is_empty() || !self.asked.is_empty() {
            return;
        }
        let index = self.random.below(self.plan.subscribes.len() as u64) as usize;
        let filter = self.plan.subscribes[index].clone();
        let pid = self.next_pid();
        let makes = !self.subscribed.contains(&index) || self.random.one_in(3);
        self.asked.push_back((pid, vec![index], makes));
        if makes {
            let filters = vec![filter];
            self.send(Wire::Subscribe { pid, filters }, now);
        } else {
            let filters = vec![filter.filter];
            self.send(Wire::Unsubscribe { pid, filters }, now);
        }
    }
}
