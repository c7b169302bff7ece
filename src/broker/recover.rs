//! Start is recovery: the sessions that the store found, and those that the configuration names.

use super::Broker;
use super::handover::is_ended;
use super::policy::{QueuePolicy, QueueRule};
use super::qos2::Held;
use super::queue::Queue;
use super::rare::Rare;
use super::session::Session;
use super::will::Will;
use super::window::Window;
use crate::limits::Limits;
use crate::record::{Recovered, RecoveredSession, SessionKey, SubscriptionRecord};
use crate::time::Now;
use std::rc::Rc;
use std::time::Duration;

/// A session that the configuration names: it exists from the first second, and never expires.
#[derive(Clone, Debug)]
pub struct ConfiguredSession {
    /// Its Client Identifier.
    pub client_id: String,
    /// Its subscriptions: all that it has.
    pub subscriptions: Vec<(String, SubscriptionRecord)>,
    /// Bytes queued before its oldest unsent message goes.
    pub disk_max: u64,
    /// PUBLISH packets that may be in flight to its client.
    pub window: u16,
    /// Bytes of messages that may be in flight to it, and one message more.
    pub window_bytes: u64,
}

impl Broker {
    /// Sets the policies of queues, before the first session is there. The first rule that names a client holds; a session
    /// without one loses its oldest unsent messages beyond `session_disk_max`.
    pub fn set_policies(&mut self, rules: &[QueueRule]) {
        self.policies.set(rules);
    }

    /// Takes over what the store found. Links are gone: every session is away since now, or since when it was noted.
    pub fn recover(&mut self, recovered: &Recovered, now: Now) {
        self.disk_used = recovered.disk_used;
        self.next_key = SessionKey(recovered.last_session.0 + 1);
        let sessions = recovered.sessions.len().max(self.limits.sessions as usize);
        self.journal
            .raise_changes_max(Limits::batch_changes_for(sessions));
        self.recover_retained(&recovered.retained, now);
        for session in &recovered.sessions {
            self.recover_session(session, now);
        }
    }

    fn recover_session(&mut self, found: &RecoveredSession, now: Now) {
        let away = found
            .record
            .left_at
            .map_or(0, |left| now.service.0.saturating_sub(left.0));
        let place = self.sessions.insert(Session {
            held: Rare::new(Held::recovered(&found.held)),
            queue: Some(Box::new(Queue::recovered(
                found,
                self.policies.of(&found.client_id),
                self.limits.window,
                2 * self.limits.batch_changes(),
            ))),
            expiry_interval: if found.record.configured {
                u32::MAX
            } else {
                found
                    .record
                    .expiry_interval
                    .min(self.limits.session_expiry_max)
            },
            configured: found.record.configured,
            filters: found
                .subscriptions
                .iter()
                .map(|(filter, _)| filter.as_str().into())
                .collect(),
            will: found
                .will
                .as_ref()
                .map(|will| Box::new(Will::recovered(will, now.mono))),
            left: Some(now.mono),
            away_before: Duration::from_secs(away),
            left_noted: found.record.left_at.is_some(),
            ..Session::new(
                &found.client_id,
                self.limits.window,
                self.policies.classes_of(&found.client_id),
            )
        });
        self.recover_lanes(place, found, now);
        if is_ended(&found.client_id) {
            self.recover_ended(place);
            return;
        }
        self.held += found.held.len();
        for (filter, options) in &found.subscriptions {
            self.router.subscribe(filter, place, *options);
        }
        self.set_away_timer(place);
        self.set_sweep_timer(place, now);
        self.watch_recovered_will(place);
    }

    /// Makes the sessions that the configuration names what it says, before a listener opens. Gives back the Client
    /// Identifiers of those that an earlier configuration named and this one does not; they keep their queue.
    pub fn configure(&mut self, configured: &[ConfiguredSession], now: Now) -> Vec<String> {
        for wanted in configured {
            let place = match self.sessions.find(&wanted.client_id) {
                Some(place) => place,
                None => self.new_session(&wanted.client_id, u32::MAX, true, now),
            };
            self.configure_session(place, wanted, now);
        }
        let is_named = |session: &Session| {
            configured
                .iter()
                .any(|wanted| *wanted.client_id == *session.client_id)
        };
        self.sessions
            .iter()
            .filter(|(_, session)| session.configured && !is_named(session))
            .map(|(_, session)| session.client_id.to_string())
            .collect()
    }

    fn configure_session(&mut self, place: u32, wanted: &ConfiguredSession, now: Now) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let ids = session.window.ids;
        session.window = Window::new(wanted.window, wanted.window_bytes);
        session.window.ids = ids;
        let policy = self.policies.named(&wanted.client_id);
        if let Some(queue) = &mut session.queue {
            // A rule of the owner's goes before what comes with the session.
            if policy.is_none() {
                queue.set_policy(QueuePolicy::drop_oldest(wanted.disk_max));
            }
        }
        for queue in session.queues_mut() {
            queue.widen_maybe_sent(wanted.window);
        }
        if !session.configured {
            session.configured = true;
            session.expiry_interval = u32::MAX;
            if let Some(at) = session.timer.take() {
                self.timers.clear(at, super::Timer::Away(place));
            }
            self.save_session(place, true, now);
        }
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let is_wanted = |filter: &str| {
            wanted
                .subscriptions
                .iter()
                .any(|(other, _)| other == filter)
        };
        let gone: Vec<Rc<str>> = session
            .filters
            .iter()
            .filter(|filter| !is_wanted(filter))
            .cloned()
            .collect();
        for filter in gone {
            self.unsubscribe(place, &filter, now);
        }
        for (filter, options) in &wanted.subscriptions {
            if let Err(reason) = self.add_subscription(place, filter, *options, now) {
                log::error!("session {}: {filter}: {}", wanted.client_id, reason.name());
            }
        }
    }
}
