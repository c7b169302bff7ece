//! The checks of a bridge's rules. What makes a rule right is the bridge's to say; here it is said at the key.

use super::check::Checker;
use super::error::ConfigError;
use super::file::{Forward, Key, Receive};
use larder_bridge::Rule;
use larder_bridge::rule::{self, Fault, RuleError};
use larder_packet::{Qos, Version};
use std::ops::Range;
use std::slice::from_ref;
use toml::Spanned;

/// What goes to the cloud, and what comes from it.
pub(super) type Rules = (Vec<Rule>, Vec<Rule>);

impl Checker<'_> {
    /// `at`: the table of the bridge.
    pub(super) fn rules(
        &self,
        forward: &[Spanned<Forward>],
        receive: &[Spanned<Receive>],
        version: Version,
        at: &Range<usize>,
    ) -> Result<Rules, ConfigError> {
        if forward.is_empty() && receive.is_empty() {
            return Err(self.fault_at(
                at,
                "carries nothing; write for example forward = [{ filter = \"sensors/#\" }], or a receive list",
            ));
        }
        let keys = forward.iter().map(Keys::of_forward).collect::<Vec<_>>();
        let outbound = self.checked(&keys, |rule| rule::check(from_ref(rule), &[], version))?;
        let inbound_keys = receive.iter().map(Keys::of_receive).collect::<Vec<_>>();
        let inbound = self.checked(&inbound_keys, |rule| {
            rule::check(&[], from_ref(rule), version)
        })?;
        for (rule, keys) in inbound.iter().zip(&inbound_keys) {
            let comes_as = rule.translate(&rule.filter);
            if comes_as.starts_with('$') {
                let fault = format!(
                    "what the cloud sends would come as {comes_as:?}, and topics that begin with $ are the broker's \
                     own; choose other prefixes"
                );
                return Err(self.fault_at(&keys.at, fault));
            }
        }
        for (rule, keys) in outbound.iter().zip(&keys) {
            rule::check(from_ref(rule), &inbound, version)
                .map_err(|error| self.fault_at(&keys.at, error.to_string()))?;
        }
        Ok((outbound, inbound))
    }

    fn checked(
        &self,
        rules: &[Keys<'_>],
        check: impl Fn(&Rule) -> Result<(), RuleError>,
    ) -> Result<Vec<Rule>, ConfigError> {
        let checked = |keys: &Keys<'_>| {
            let rule = self.rule(keys)?;
            match check(&rule) {
                Ok(()) => Ok(rule),
                Err(error) => Err(self.fault_at(&keys.blamed_for(&error), error.to_string())),
            }
        };
        rules.iter().map(checked).collect()
    }

    fn rule(&self, keys: &Keys<'_>) -> Result<Rule, ConfigError> {
        let Some(filter) = keys.filter else {
            return Err(self.fault_at(
                &keys.at,
                "has no filter; write for example { filter = \"sensors/#\" }",
            ));
        };
        let prefix = |key: &Key<String>| {
            key.as_ref()
                .map(|key| key.get_ref().clone())
                .unwrap_or_default()
        };
        let qos = match keys.qos.as_ref().map(|key| (key, key.get_ref())) {
            Some((_, 0)) => Qos::AtMostOnce,
            None | Some((_, 1)) => Qos::AtLeastOnce,
            Some((_, 2)) => Qos::ExactlyOnce,
            Some((key, other)) => {
                return Err(self.fault(key, format!("{other} is no QoS; write 0 or 1")));
            }
        };
        Ok(Rule {
            filter: filter.get_ref().clone(),
            strip_prefix: prefix(keys.strip_prefix),
            add_prefix: prefix(keys.add_prefix),
            qos,
        })
    }
}

/// A rule as the file has it, of either direction.
struct Keys<'a> {
    at: Range<usize>,
    filter: &'a Key<String>,
    strip_prefix: &'a Key<String>,
    add_prefix: &'a Key<String>,
    qos: &'a Key<u64>,
}

impl<'a> Keys<'a> {
    fn of_forward(rule: &'a Spanned<Forward>) -> Keys<'a> {
        let Forward {
            filter,
            strip_prefix,
            remote_prefix,
            qos,
        } = rule.get_ref();
        Keys {
            at: rule.span(),
            filter,
            strip_prefix,
            add_prefix: remote_prefix,
            qos,
        }
    }

    fn of_receive(rule: &'a Spanned<Receive>) -> Keys<'a> {
        let Receive {
            filter,
            strip_prefix,
            local_prefix,
            qos,
        } = rule.get_ref();
        Keys {
            at: rule.span(),
            filter,
            strip_prefix,
            add_prefix: local_prefix,
            qos,
        }
    }

    /// The key that an error is about, or the rule where it is about several.
    fn blamed_for(&self, error: &RuleError) -> Range<usize> {
        let span = |key: &Key<String>| key.as_ref().map(Spanned::span);
        let key = match error {
            RuleError::Rule {
                fault: Fault::Filter | Fault::Shared,
                ..
            } => span(self.filter),
            RuleError::Rule {
                fault: Fault::StripsOther,
                ..
            } => span(self.strip_prefix),
            RuleError::Rule {
                fault: Fault::Qos, ..
            } => self.qos.as_ref().map(Spanned::span),
            RuleError::Rule {
                fault: Fault::WildcardInPrefix | Fault::Translation,
                ..
            }
            | RuleError::Loop { .. } => None,
        };
        key.unwrap_or_else(|| self.at.clone())
    }
}
