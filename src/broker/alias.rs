//! Topic Aliases: numbers that stand for Topic Names on one link, each way for itself [MQTT 3.3.2.3.4]. They die with
//! their link, and neither another link nor the disk ever sees one.

use super::Broker;
use super::receive::Flow;
use crate::limits::{LINK_TOPIC_ALIASES, TOPIC_ALIAS_BYTES, TOPIC_BYTES};
use crate::net::LinkId;
use crate::time::Now;
use larder_packet::{Publish, ReasonCode};

/// The memory for the Topic Names of all links' aliases together.
pub(super) struct AliasPool {
    used: usize,
    max: usize,
}

impl AliasPool {
    pub(super) fn new(max: usize) -> AliasPool {
        AliasPool { used: 0, max }
    }

    /// Whether aliases may be promised to one more client: what was promised must be kept [MQTT-3.3.2-12].
    fn is_roomy(&self) -> bool {
        self.used <= self.max / 4 * 3
    }

    /// Takes `taken` bytes in place of `given`; `false` if they would be more than `max`.
    fn replace(&mut self, given: usize, taken: usize, max: usize) -> bool {
        let used = self.used - given + taken;
        let fits = used <= max;
        if fits {
            self.used = used;
        }
        fits
    }

    /// Takes back what a link's aliases took.
    pub(super) fn give(&mut self, aliases: FromClient) {
        self.used -= aliases.bytes();
    }
}

/// Bytes of an alias in memory.
fn cost(topic: &str) -> usize {
    topic.len() + TOPIC_ALIAS_BYTES
}

/// The aliases that a client has set on its link.
#[derive(Default)]
pub(super) struct FromClient {
    /// Topic Names by their alias, from 1 on; empty: it is not set.
    topics: Vec<Box<str>>,
    /// The Topic Alias Maximum that the client was told.
    maximum: u16,
}

impl FromClient {
    /// Decides the Topic Alias Maximum of a link.
    pub(super) fn announce(&mut self, pool: &AliasPool) -> u16 {
        self.maximum = if pool.is_roomy() {
            LINK_TOPIC_ALIASES
        } else {
            0
        };
        self.maximum
    }

    /// Lets `alias` stand for `topic`, or finds what it stands for if that is empty.
    fn name(&mut self, alias: u16, topic: &str, pool: &mut AliasPool) -> Result<&str, ReasonCode> {
        if alias > self.maximum {
            return Err(ReasonCode::TopicAliasInvalid);
        }
        let at = usize::from(alias - 1);
        if topic.is_empty() {
            return match self.topics.get(at) {
                Some(topic) if !topic.is_empty() => Ok(topic),
                _ => Err(ReasonCode::ProtocolError),
            };
        }
        if topic.len() > TOPIC_BYTES {
            // Were it only refused, the alias would go on to stand for the last one.
            return Err(ReasonCode::TopicNameInvalid);
        }
        if self.topics.is_empty() {
            self.topics.reserve_exact(usize::from(self.maximum));
        }
        if self.topics.len() <= at {
            self.topics.resize(at + 1, Box::default());
        }
        let place = &mut self.topics[at];
        if **place != *topic {
            let before = if place.is_empty() { 0 } else { cost(place) };
            if !pool.replace(before, cost(topic), pool.max) {
                return Err(ReasonCode::QuotaExceeded);
            }
            *place = topic.into();
        }
        Ok(place)
    }

    fn bytes(&self) -> usize {
        let set = self.topics.iter().filter(|topic| !topic.is_empty());
        set.map(|topic| cost(topic)).sum()
    }
}

impl Broker {
    /// A PUBLISH with a Topic Alias, which may stand for its Topic Name.
    pub(super) fn handle_aliased_publish(
        &mut self,
        id: LinkId,
        publish: &Publish,
        alias: u16,
        now: Now,
    ) -> Flow {
        let Some(link) = self.links.get_mut(id) else {
            return Flow::HangUp;
        };
        let named = link
            .aliases
            .name(alias, publish.topic, &mut self.alias_pool);
        match named {
            Ok(topic) => {
                let mut aliased = std::mem::take(&mut self.aliased);
                aliased.clear();
                aliased.push_str(topic);
                let flow = self.handle_publish(
                    id,
                    &Publish {
                        topic: &aliased,
                        ..*publish
                    },
                    now,
                );
                self.aliased = aliased;
                flow
            }
            Err(reason) => {
                self.counters.links_shed += u64::from(reason == ReasonCode::QuotaExceeded);
                Flow::Close(reason)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_take_no_more_than_the_pool_and_give_all_back() {
        let mut pool = AliasPool::new(4 * (TOPIC_ALIAS_BYTES + 10));
        let mut aliases = FromClient::default();
        assert_eq!(aliases.announce(&pool), LINK_TOPIC_ALIASES);
        for alias in 1..=4 {
            let named = aliases.name(alias, "ten/bytes/", &mut pool);
            assert_eq!(named, Ok("ten/bytes/"));
        }
        assert_eq!(pool.used, pool.max);
        let refused = Err(ReasonCode::QuotaExceeded);
        assert_eq!(aliases.name(5, "one/too/many", &mut pool), refused);
        assert_eq!(aliases.name(4, "longer/than/ten", &mut pool), refused);
        assert_eq!(aliases.name(4, "other/ten/", &mut pool), Ok("other/ten/"));
        assert_eq!(aliases.name(4, "", &mut pool), Ok("other/ten/"));
        assert_eq!(
            aliases.name(5, "", &mut pool),
            Err(ReasonCode::ProtocolError)
        );

        let mut late = FromClient::default();
        assert_eq!(late.announce(&pool), 0, "it is not promised what is gone");
        assert_eq!(
            late.name(1, "a", &mut pool),
            Err(ReasonCode::TopicAliasInvalid)
        );
        pool.give(aliases);
        assert_eq!(pool.used, 0);
        assert_eq!(late.announce(&pool), LINK_TOPIC_ALIASES);
    }
}
