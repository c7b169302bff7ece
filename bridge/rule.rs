//! Which topics cross, under which name, and whether a set of rules is one that can be run.

use larder_packet::{Qos, Version, topic};
use std::fmt;

/// What crosses in one direction, and under which name. Of the rules of a direction the first that matches decides, so a
/// message crosses once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Topic Filter on the side that the message comes from.
    pub filter: String,
    /// Taken from the front of the topic. A topic that does not begin with it keeps its whole name (`a` under the filter
    /// `a/#`, stripped of `a/`).
    pub strip_prefix: String,
    /// Then put in front of it: the remote prefix of a forward rule, the local prefix of a receive rule.
    pub add_prefix: String,
    /// The highest Quality of Service with which messages cross: 0 or 1.
    pub qos: Qos,
}

/// Which way a rule carries messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the local broker to the cloud.
    Forward,
    /// From the cloud to the local broker.
    Receive,
}

/// Whether these rules can be run: every filter is one before and after its prefixes, and nothing goes round.
///
/// MQTT 5.0 has No Local: the cloud does not send back what the bridge published. With 3.1.1 nothing but the names keeps
/// the directions apart, so a forward rule whose topics could match a receive rule is refused.
///
/// # Errors
/// The first rule that cannot be run, and why.
pub fn check(forward: &[Rule], receive: &[Rule], version: Version) -> Result<(), RuleError> {
    for (direction, rules) in [(Direction::Forward, forward), (Direction::Receive, receive)] {
        for rule in rules {
            rule.check(direction)?;
        }
    }
    if version == Version::V5 {
        return Ok(());
    }
    for outbound in forward {
        let arrives_as = outbound.translate(&outbound.filter);
        if let Some(inbound) = receive
            .iter()
            .find(|rule| topic::intersects(&arrives_as, &rule.filter))
        {
            return Err(RuleError::Loop {
                forward: outbound.filter.clone(),
                arrives_as,
                receive: inbound.filter.clone(),
                returns_as: inbound.translate(&inbound.filter),
            });
        }
    }
    Ok(())
}

impl Rule {
    /// The name on the other side of a topic, or of a filter, of this one.
    #[must_use]
    pub fn translate(&self, topic: &str) -> String {
        let stripped = topic.strip_prefix(&self.strip_prefix).unwrap_or(topic);
        [&self.add_prefix, stripped].concat()
    }

    fn check(&self, direction: Direction) -> Result<(), RuleError> {
        let fault = if topic::filter_is_valid(&self.filter) {
            self.fault()
        } else {
            Some(Fault::Filter)
        };
        match fault {
            None => Ok(()),
            Some(fault) => Err(RuleError::Rule {
                direction,
                rule: self.clone(),
                fault,
            }),
        }
    }

    fn fault(&self) -> Option<Fault> {
        let wildcard = |prefix: &str| prefix.contains(['+', '#', '\0']);
        if self.filter.starts_with("$share/") {
            Some(Fault::Shared)
        } else if wildcard(&self.strip_prefix) || wildcard(&self.add_prefix) {
            Some(Fault::WildcardInPrefix)
        } else if !self.filter.starts_with(&self.strip_prefix) {
            Some(Fault::StripsOther)
        } else if !topic::filter_is_valid(&self.translate(&self.filter)) {
            Some(Fault::Translation)
        } else if self.qos == Qos::ExactlyOnce {
            Some(Fault::Qos)
        } else {
            None
        }
    }
}

/// Why a set of rules is refused. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleError {
    /// One rule is wrong by itself.
    Rule {
        /// Its list.
        direction: Direction,
        /// The rule.
        rule: Rule,
        /// What is wrong with it.
        fault: Fault,
    },
    /// What one rule forwards, another would bring back.
    Loop {
        /// The forward rule's filter.
        forward: String,
        /// The names that it gives to topics at the cloud.
        arrives_as: String,
        /// The receive rule's filter, which matches some of them.
        receive: String,
        /// The names under which they would come back.
        returns_as: String,
    },
}

/// What can be wrong with one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The filter is no Topic Filter [MQTT 4.7].
    Filter,
    /// A shared subscription: the members of a group would each have a part of the messages.
    Shared,
    /// A prefix is a piece of a topic name, which has no wildcards.
    WildcardInPrefix,
    /// The filter does not begin with the prefix to strip.
    StripsOther,
    /// The filter is none any more once the prefixes are applied.
    Translation,
    /// Quality of Service 2 does not cross.
    Qos,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule {
                direction,
                rule,
                fault,
            } => {
                let filter = &rule.filter;
                write!(f, "{direction} rule `{filter}`: ")?;
                match fault {
                    Fault::Filter => write!(
                        f,
                        "not a topic filter: `#` must come last, `+` and `#` fill a level"
                    ),
                    Fault::Shared => write!(
                        f,
                        "a shared subscription cannot be bridged; name its filter alone"
                    ),
                    Fault::WildcardInPrefix => {
                        write!(f, "a prefix must not contain `+`, `#` or U+0000")
                    }
                    Fault::StripsOther => {
                        write!(
                            f,
                            "the filter does not begin with strip_prefix `{}`",
                            rule.strip_prefix
                        )
                    }
                    Fault::Translation => write!(
                        f,
                        "with its prefixes it becomes `{}`, which is no topic filter; end the prefixes with `/`",
                        rule.translate(filter)
                    ),
                    Fault::Qos => write!(f, "qos 2 does not cross a bridge; use 1"),
                }
            }
            Self::Loop {
                forward,
                arrives_as,
                receive,
                returns_as,
            } => write!(
                f,
                "forward rule `{forward}` publishes to the cloud as `{arrives_as}`, which receive rule `{receive}` \
                 brings back as `{returns_as}`; MQTT 3.1.1 has no No Local, so use prefixes that keep the two apart, \
                 or version 5"
            ),
        }
    }
}

impl std::error::Error for RuleError {}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "forward",
            Self::Receive => "receive",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(filter: &str, strip_prefix: &str, add_prefix: &str) -> Rule {
        Rule {
            filter: filter.into(),
            strip_prefix: strip_prefix.into(),
            add_prefix: add_prefix.into(),
            qos: Qos::AtLeastOnce,
        }
    }

    fn fault(rule: Rule) -> Option<Fault> {
        match check(&[rule], &[], Version::V311) {
            Ok(()) => None,
            Err(RuleError::Rule { fault, .. }) => Some(fault),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn strips_then_adds() {
        assert_eq!(
            rule("plant/#", "plant/", "site/7/").translate("plant/a/b"),
            "site/7/a/b"
        );
        assert_eq!(
            rule("plant/#", "plant/", "site/7/").translate("plant"),
            "site/7/plant"
        );
        assert_eq!(rule("#", "", "").translate("a"), "a");
    }

    #[test]
    fn a_rule_wrong_by_itself_is_refused() {
        assert_eq!(fault(rule("a/#", "a/", "b/")), None);
        assert_eq!(fault(rule("a/#/b", "", "")), Some(Fault::Filter));
        assert_eq!(fault(rule("", "", "")), Some(Fault::Filter));
        assert_eq!(fault(rule("$share/g/a", "", "")), Some(Fault::Shared));
        assert_eq!(fault(rule("+/a", "+/", "")), Some(Fault::WildcardInPrefix));
        assert_eq!(fault(rule("a/#", "b/", "")), Some(Fault::StripsOther));
        assert_eq!(fault(rule("#", "", "site")), Some(Fault::Translation));
        assert_eq!(fault(rule("a", "a", "")), Some(Fault::Translation));
        assert_eq!(
            fault(Rule {
                qos: Qos::ExactlyOnce,
                ..rule("a", "", "")
            }),
            Some(Fault::Qos)
        );
    }

    #[test]
    fn without_no_local_a_loop_is_refused_and_spelled_out() {
        let forward = [rule("sensors/#", "", "site/7/")];
        let receive = [
            rule("site/+/commands", "", ""),
            rule("site/7/#", "site/7/", ""),
        ];
        let refused = check(&forward, &receive, Version::V311);
        assert_eq!(
            refused.map_err(|error| error.to_string()),
            Err("forward rule `sensors/#` publishes to the cloud as `site/7/sensors/#`, which receive rule \
                 `site/7/#` brings back as `#`; MQTT 3.1.1 has no No Local, so use prefixes that keep the two \
                 apart, or version 5"
                .to_owned())
        );
        assert_eq!(check(&forward, &receive[..1], Version::V311), Ok(()));
        assert_eq!(check(&forward, &receive, Version::V5), Ok(()));
    }
}
