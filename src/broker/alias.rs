//! Topic Aliases: numbers that stand for Topic Names on one link, each way for itself [MQTT 3.3.2.3.4]. They die with
//! their link, and neither another link nor the disk ever sees one.

use super::Broker;
use super::rare::{Empty, Rare};
use super::receive::Flow;
use crate::limits::{LINK_TOPIC_ALIASES, TOPIC_ALIAS_BYTES, TOPIC_ALIAS_REPLACE, TOPIC_BYTES};
use crate::net::LinkId;
use crate::time::Now;
use larder_packet::{Malformed, Publish, ReasonCode};

/// The aliases of a link.
#[derive(Default)]
pub(super) struct Aliases {
    pub(super) from_client: FromClient,
    pub(super) to_client: ToClient,
}

impl Aliases {
    /// Gives their memory back: the link has ended.
    pub(super) fn discard(&mut self, pool: &mut AliasPool) {
        pool.used -= self.from_client.bytes() + self.to_client.bytes();
        *self = Aliases::default();
    }
}

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

    /// Whether an alias that clients can do without may be given: half of the pool is for those that they set.
    fn has_spare(&self, bytes: usize) -> bool {
        self.used + bytes <= self.max / 2
    }

    /// Takes `taken` bytes in place of `given`; `false` if there are not so many.
    fn replace(&mut self, given: usize, taken: usize) -> bool {
        let used = self.used - given + taken;
        let fits = used <= self.max;
        if fits {
            self.used = used;
        }
        fits
    }
}

const ABOVE_MAXIMUM: Malformed = Malformed {
    reason: ReasonCode::TopicAliasInvalid,
    clause: "MQTT-3.3.2-9",
    what: "the Topic Alias is above the server's Topic Alias Maximum",
};
const NOT_SET: Malformed = Malformed::protocol(
    "MQTT 3.3.2.3.4",
    "the Topic Name is empty and the Topic Alias was not set",
);
const TOO_LONG: Malformed = Malformed {
    reason: ReasonCode::TopicNameInvalid,
    clause: "MQTT 4.13",
    what: "a Topic Name has at most 4096 bytes here",
};
const NO_MEMORY: Malformed = Malformed {
    reason: ReasonCode::QuotaExceeded,
    clause: "MQTT 4.13",
    what: "there is no memory for another Topic Alias",
};

/// Bytes of an alias in memory.
fn cost(topic: &str) -> usize {
    topic.len() + TOPIC_ALIAS_BYTES
}

/// The aliases that a client has set on its link.
#[derive(Default)]
pub(super) struct FromClient {
    /// Topic Names by their alias, from 1 on; empty: it is not set.
    topics: Box<[Box<str>]>,
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
    fn name(&mut self, alias: u16, topic: &str, pool: &mut AliasPool) -> Result<&str, Malformed> {
        if alias > self.maximum {
            return Err(ABOVE_MAXIMUM);
        }
        let at = usize::from(alias - 1);
        if topic.is_empty() {
            return match self.topics.get(at) {
                Some(topic) if !topic.is_empty() => Ok(topic),
                _ => Err(NOT_SET),
            };
        }
        if topic.len() > TOPIC_BYTES {
            // Were it only refused, the alias would go on to stand for the last one.
            return Err(TOO_LONG);
        }
        if self.topics.is_empty() {
            self.topics = (0..self.maximum).map(|_| Box::default()).collect();
        }
        let place = &mut self.topics[at];
        if **place != *topic {
            let before = if place.is_empty() { 0 } else { cost(place) };
            if !pool.replace(before, cost(topic)) {
                return Err(NO_MEMORY);
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

/// How a message to a client names its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// By its Topic Name.
    InFull,
    /// By its Topic Name, for which the alias stands from then on.
    Giving(u16),
    /// By the alias alone.
    ByAlias(u16),
}

impl Naming {
    /// The Topic Name as it is sent.
    pub(super) fn topic(self, topic: &str) -> &str {
        match self {
            Naming::ByAlias(_) => "",
            _ => topic,
        }
    }

    pub(super) fn alias(self) -> Option<u16> {
        match self {
            Naming::InFull => None,
            Naming::Giving(alias) | Naming::ByAlias(alias) => Some(alias),
        }
    }

    /// Whether it takes more bytes than the Topic Name.
    pub(super) fn is_longer(self) -> bool {
        matches!(self, Naming::Giving(_))
    }
}

/// Bytes of a Topic Alias in a packet: a Topic Name that is no longer is sent in full.
const ALIAS_LEN: usize = 3;

/// An alias that a client was given.
struct Given {
    topic: Box<str>,
    /// The number of the message that used it last.
    used: u64,
}

/// The aliases that a client was given on its link: in the order in which topics came, then the one that was used least
/// recently is replaced.
#[derive(Default)]
pub(super) struct ToClient {
    table: Rare<Table>,
    maximum: u16,
}

#[derive(Default)]
struct Table {
    given: Vec<Given>,
    /// Counts messages.
    number: u64,
    /// Messages sent in full since an alias was given last.
    in_full: u8,
}

impl Empty for Table {
    const EMPTY: &'static Table = &Table {
        given: Vec::new(),
        number: 0,
        in_full: 0,
    };
}

impl ToClient {
    /// Takes the client's Topic Alias Maximum [MQTT-3.1.2-26] [MQTT-3.1.2-27].
    pub(super) fn are_allowed(&self) -> bool {
        self.maximum > 0
    }

    pub(super) fn allow(&mut self, maximum: u16) {
        self.maximum = maximum.min(LINK_TOPIC_ALIASES);
    }

    /// How the next message is to name its topic. Nothing is given before it is [`sent`](ToClient::sent).
    pub(super) fn naming(&self, topic: &str, pool: &AliasPool) -> Naming {
        if self.maximum == 0 || topic.len() <= ALIAS_LEN {
            return Naming::InFull;
        }
        if let Some(at) = self
            .table
            .given
            .iter()
            .position(|given| *given.topic == *topic)
        {
            return Naming::ByAlias(at as u16 + 1);
        }
        let at = if self.table.given.len() < usize::from(self.maximum) {
            Some(self.table.given.len())
        } else if self.table.in_full >= TOPIC_ALIAS_REPLACE {
            (0..self.table.given.len()).min_by_key(|at| self.table.given[*at].used)
        } else {
            None
        };
        match at.filter(|_| pool.has_spare(cost(topic))) {
            Some(at) => Naming::Giving(at as u16 + 1),
            None => Naming::InFull,
        }
    }

    /// A message was sent that named its topic so.
    pub(super) fn sent(&mut self, naming: Naming, topic: &str, pool: &mut AliasPool) {
        if self.maximum == 0 {
            return;
        }
        let table = &mut *self.table;
        table.number += 1;
        match naming {
            Naming::InFull => table.in_full = table.in_full.saturating_add(1),
            Naming::ByAlias(alias) => table.given[usize::from(alias - 1)].used = table.number,
            Naming::Giving(alias) => {
                table.in_full = 0;
                let at = usize::from(alias - 1);
                let before = table.given.get(at).map_or(0, |given| cost(&given.topic));
                // It was asked whether there is so much to spare.
                pool.replace(before, cost(topic));
                let given = Given {
                    topic: topic.into(),
                    used: table.number,
                };
                if at < table.given.len() {
                    table.given[at] = given;
                } else {
                    table.given.push(given);
                }
            }
        }
    }

    fn bytes(&self) -> usize {
        self.table
            .given
            .iter()
            .map(|given| cost(&given.topic))
            .sum()
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
        let pool = &mut self.buffers.aliases;
        let named = link.aliases.from_client.name(alias, publish.topic, pool);
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
            Err(fault) => {
                self.counters.links_shed += u64::from(fault == NO_MEMORY);
                Flow::Fault(fault)
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
        let refused = Err(NO_MEMORY);
        assert_eq!(aliases.name(5, "one/too/many", &mut pool), refused);
        assert_eq!(aliases.name(4, "longer/than/ten", &mut pool), refused);
        assert_eq!(aliases.name(4, "other/ten/", &mut pool), Ok("other/ten/"));
        assert_eq!(aliases.name(4, "", &mut pool), Ok("other/ten/"));
        assert_eq!(aliases.name(5, "", &mut pool), Err(NOT_SET));

        let mut late = FromClient::default();
        assert_eq!(late.announce(&pool), 0, "it is not promised what is gone");
        assert_eq!(late.name(1, "a", &mut pool), Err(ABOVE_MAXIMUM));
        let mut aliases = Aliases {
            from_client: aliases,
            ..Aliases::default()
        };
        aliases.discard(&mut pool);
        assert_eq!(pool.used, 0);
        assert_eq!(late.announce(&pool), LINK_TOPIC_ALIASES);
    }

    #[test]
    fn an_alias_is_given_by_a_message_that_was_sent_and_replaced_rarely() {
        let mut pool = AliasPool::new(1000);
        let mut aliases = ToClient::default();
        assert_eq!(aliases.naming("a/topic", &pool), Naming::InFull);
        aliases.allow(2);
        for _ in 0..2 {
            let naming = aliases.naming("a/topic", &pool);
            assert_eq!(naming, Naming::Giving(1), "it was not sent yet");
        }
        let mut send = |topic: &str| {
            let naming = aliases.naming(topic, &pool);
            aliases.sent(naming, topic, &mut pool);
            naming
        };
        assert_eq!(send("a/topic"), Naming::Giving(1));
        assert_eq!(send("a/b"), Naming::InFull, "an alias is no shorter");
        assert_eq!(send("a/second"), Naming::Giving(2));
        assert_eq!(send("a/topic"), Naming::ByAlias(1));
        for _ in 0..TOPIC_ALIAS_REPLACE {
            assert_eq!(send("a/third"), Naming::InFull);
        }
        assert_eq!(send("a/third"), Naming::Giving(2));
        assert_eq!(send("a/second"), Naming::InFull);
        assert_eq!(send("a/topic"), Naming::ByAlias(1));
        assert_eq!(pool.used, cost("a/topic") + cost("a/third"));
    }

    #[test]
    fn aliases_to_clients_leave_half_of_the_pool_to_those_that_clients_set() {
        let mut pool = AliasPool::new(2 * cost("a/topic") + 1);
        let mut aliases = ToClient::default();
        aliases.allow(u16::MAX);
        let naming = aliases.naming("a/topic", &pool);
        assert_eq!(naming, Naming::Giving(1));
        aliases.sent(naming, "a/topic", &mut pool);
        assert_eq!(aliases.naming("b/topic", &pool), Naming::InFull);
    }
}
