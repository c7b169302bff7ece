//! Policies: what the owner allows a session's queue, and what becomes of a message that does not fit.

use super::classes::{Class, QueueClass, Tally};
use super::lanes::names_bytes;
use super::session::Drops;
use crate::limits::LANE_SHARE;
use crate::time::ServiceSeconds;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// What becomes of a message for a queue that is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// It is taken, and the oldest messages that were never sent go.
    #[default]
    DropOldest,
    /// It is taken, and earlier messages on the topics of later ones go, if they were never sent; then the oldest.
    KeepLatest,
    /// It is dropped for this session; whoever else is owed it gets it.
    DropNewest,
    /// Its publisher keeps it: the PUBLISH is refused for all its receivers. 5.0: 0x97; 3.1.1 has no word for that: the link
    /// is closed.
    Reject,
}

impl WhenFull {
    /// Whether a full queue takes a message, and others go.
    pub(super) fn takes_all(self) -> bool {
        matches!(self, WhenFull::DropOldest | WhenFull::KeepLatest)
    }
}

/// In what order the messages of a queue leave. By the last two a message may be sent behind a newer one of its topic, which
/// [MQTT-4.6.0-6] does not allow; it then has RETAIN 0, unless it still is what its topic retains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As they came.
    #[default]
    Fifo,
    /// What comes while the client keeps up goes before a backlog.
    LiveFirst,
    /// The same, and the backlog leaves newest first. Each message of it is written once more for that.
    NewestFirst,
}

/// How fast a backlog may leave. What is sent before it has been on disk is no backlog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Messages a second.
    pub messages: Option<u64>,
    /// Bytes a second ([`Message::len`](crate::record::Message::len) each).
    pub bytes: Option<u64>,
}

/// The policy of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuePolicy {
    /// Bytes queued at most.
    pub bytes_max: u64,
    /// Messages queued at most.
    pub messages_max: u64,
    /// Messages that were never sent go when they have been queued for so long.
    pub age_max: Option<Duration>,
    /// What becomes of a message that does not fit.
    pub when_full: WhenFull,
    /// Whether messages of QoS 0 are queued too while the session is away.
    pub qos0: bool,
    /// How fast a backlog may leave.
    pub rate: Rate,
    /// The least part of the session's messages that leave which this queue gets while it has something to send: 0 to 100
    /// percent.
    pub share: u8,
    /// In what order messages leave.
    pub order: Order,
}

impl QueuePolicy {
    /// The default: the oldest unsent messages go beyond so many bytes.
    #[must_use]
    pub fn drop_oldest(bytes_max: u64) -> QueuePolicy {
        QueuePolicy {
            bytes_max,
            messages_max: u64::MAX,
            age_max: None,
            when_full: WhenFull::DropOldest,
            qos0: false,
            rate: Rate::default(),
            share: LANE_SHARE,
            order: Order::Fifo,
        }
    }

    /// What was queued before this is too old.
    pub(super) fn aged(&self, now: ServiceSeconds) -> Option<ServiceSeconds> {
        let age_max = self.age_max?.as_secs();
        now.0.checked_sub(age_max).map(ServiceSeconds)
    }
}

/// Which sessions a policy is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueRule {
    /// Their Client Identifier; a `*` at its end stands for any rest.
    pub client_id: String,
    /// Their policy.
    pub policy: QueuePolicy,
    /// Messages that have lanes of their own, and policies; the first class that matches holds. With what is in no class they
    /// take at most [`SESSION_LANES`](crate::limits::SESSION_LANES).
    pub classes: Vec<QueueClass>,
}

/// What the lanes of a class hold, and what was dropped from them since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ClassFigures {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) drops: Drops,
}

/// A rule, as sessions share it.
struct Rule {
    client_id: Box<str>,
    policy: Rc<QueuePolicy>,
    classes: Rc<[Class]>,
}

/// The policies that the configuration gives, and the one of all other sessions.
pub(super) struct Policies {
    rules: Vec<Rule>,
    default: Rc<QueuePolicy>,
}

impl Policies {
    pub(super) fn new(default: QueuePolicy) -> Policies {
        Policies {
            rules: Vec::new(),
            default: Rc::new(default),
        }
    }

    pub(super) fn set(&mut self, rules: &[QueueRule]) {
        let shared = |rule: &QueueRule| Rule {
            client_id: rule.client_id.as_str().into(),
            policy: Rc::new(rule.policy.clone()),
            classes: rule.classes.iter().map(Class::new).collect(),
        };
        self.rules = rules.iter().map(shared).collect();
    }

    /// The policy of the first rule that names this client.
    pub(super) fn named(&self, client_id: &str) -> Option<Rc<QueuePolicy>> {
        self.rule(client_id).map(|rule| Rc::clone(&rule.policy))
    }

    fn rule(&self, client_id: &str) -> Option<&Rule> {
        self.rules
            .iter()
            .find(|rule| names(&rule.client_id, client_id))
    }

    /// The classes of a client's queue.
    pub(super) fn classes_of(&self, client_id: &str) -> Rc<[Class]> {
        self.rule(client_id)
            .map_or_else(|| Rc::from([]), |rule| Rc::clone(&rule.classes))
    }

    /// Bytes of the names of a client's lanes.
    pub(super) fn names_bytes(&self, client_id: &str) -> usize {
        self.rule(client_id)
            .map_or(0, |rule| names_bytes(rule.policy.order, &rule.classes))
    }

    /// The policy of what no rule names.
    pub(super) fn other(&self) -> Rc<QueuePolicy> {
        Rc::clone(&self.default)
    }

    /// All classes, with their names.
    pub(super) fn tallies(&self) -> impl Iterator<Item = (&str, &Rc<Tally>)> {
        let classes = self.rules.iter().flat_map(|rule| rule.classes.iter());
        classes.map(|class| (&*class.name, &class.tally))
    }

    /// What the classes hold and lost, those of one name together; in the order of their names.
    pub(super) fn by_name(&self) -> BTreeMap<Box<str>, ClassFigures> {
        let mut figures: BTreeMap<Box<str>, ClassFigures> = BTreeMap::new();
        for (name, tally) in self.tallies() {
            let known = figures.entry(name.into()).or_default();
            known.messages += tally.messages.get();
            known.bytes += tally.bytes.get();
            known.drops.add(tally.drops.get());
        }
        figures
    }

    /// Bytes of the disk that are kept for others than the message with this number.
    pub(super) fn kept_from(&self, message: u64) -> u64 {
        self.tallies()
            .filter(|(_, tally)| tally.matched.get() != message)
            .map(|(_, tally)| tally.unused())
            .sum()
    }

    /// The policy of a client's queue.
    pub(super) fn of(&self, client_id: &str) -> Rc<QueuePolicy> {
        self.named(client_id)
            .unwrap_or_else(|| Rc::clone(&self.default))
    }
}

fn names(name: &str, client_id: &str) -> bool {
    match name.strip_suffix('*') {
        Some(beginning) => client_id.starts_with(beginning),
        None => name == client_id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_names_a_client_holds() {
        let rule = |client_id: &str, bytes_max| QueueRule {
            client_id: client_id.to_owned(),
            policy: QueuePolicy::drop_oldest(bytes_max),
            classes: Vec::new(),
        };
        let mut policies = Policies::new(QueuePolicy::drop_oldest(9));
        policies.set(&[rule("pump-1", 1), rule("pump-*", 2), rule("x*y", 3)]);
        for (client_id, bytes_max) in [
            ("pump-1", 1),
            ("pump-2", 2),
            ("pump-", 2),
            ("pump", 9),
            ("x*y", 3),
            ("xay", 9),
        ] {
            assert_eq!(policies.of(client_id).bytes_max, bytes_max, "{client_id}");
        }
    }
}
