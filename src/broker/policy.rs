//! Policies: what the owner allows a session's queue, and what becomes of a message that does not fit.

use crate::time::ServiceSeconds;
use std::rc::Rc;
use std::time::Duration;

/// What becomes of a message for a queue that is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// It is taken, and the oldest messages that were never sent go.
    #[default]
    DropOldest,
    /// It is dropped for this session; whoever else is owed it gets it.
    DropNewest,
    /// Its publisher keeps it: the PUBLISH is refused for all its receivers. 5.0: 0x97; 3.1.1 has no word for that: the link
    /// is closed.
    Reject,
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
}

/// The policies that the configuration gives, and the one of all other sessions.
pub(super) struct Policies {
    rules: Vec<(Box<str>, Rc<QueuePolicy>)>,
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
        let shared =
            |rule: &QueueRule| (rule.client_id.as_str().into(), Rc::new(rule.policy.clone()));
        self.rules = rules.iter().map(shared).collect();
    }

    /// The policy of the first rule that names this client.
    pub(super) fn named(&self, client_id: &str) -> Option<Rc<QueuePolicy>> {
        let (_, policy) = self.rules.iter().find(|(name, _)| names(name, client_id))?;
        Some(Rc::clone(policy))
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
