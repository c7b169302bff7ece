//! What time brings about: how long the turn may sleep, and what is done when a timer is due.

use super::Broker;
use super::link::Due;
use super::timers::Timer;
use crate::limits::{AWAY_NOTE, SWEEP_WAIT_MIN};
use crate::net::LinkId;
use crate::time::Now;
use larder_packet::ReasonCode;
use std::time::Duration;

impl Broker {
    /// How long the turn may sleep; `None`: until something happens.
    #[must_use]
    pub fn poll_timeout(&mut self, now: Now) -> Option<Duration> {
        let waits = !self.dirty.is_empty()
            || !self.releasable.is_empty()
            || self.journal.has_released()
            || !self.sending.is_empty()
            || self.buffers.is_relieved()
            || self.again
            || (self.waits_for_room() && self.journal.has_made_room());
        if waits {
            return Some(Duration::ZERO);
        }
        let batch = if self.journal.is_committing() {
            None
        } else {
            self.batch_due()
        };
        let scarce = self.scarce_due(now);
        let (sys, retained) = (self.sys.due, self.retained_due());
        let next = [batch, self.timers.next(), sys, retained, scarce];
        let next = next.into_iter().flatten().min()?;
        Some(next.since(now.mono))
    }

    /// Does what is due by now.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(timer) = self.timers.poll(now.mono) {
            match timer {
                Timer::Link(id) => self.link_is_due(id, now),
                Timer::Parked(id) => self.park_is_over(id, now),
                Timer::Rate(id) => self.rate_allows(id, now),
                Timer::Away(place) => self.session_is_away(place, now),
                Timer::Sweep(place) => self.sweep(place, now),
                Timer::Backlog(place) => {
                    if let Some(session) = self.sessions.get_mut(place) {
                        session.backlog_due = None;
                    }
                    self.note_dirty(place);
                }
                Timer::Will(place) => self.will_is_due(place, now),
                Timer::Read(place) => {
                    self.retry_handover(place);
                    self.retry_compaction(place);
                    self.note_dirty(place);
                }
            }
        }
        self.tend_scarcity(now);
        self.tend_retained(now);
        self.publish_sys(now);
    }

    /// Sets a link's timer to what is due first.
    pub(super) fn watch(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let due = link.due().map(|(at, _)| at);
        if link.timer == due {
            return;
        }
        if let Some(old) = link.timer.take() {
            self.timers.clear(old, Timer::Link(id));
        }
        if let Some(at) = due {
            link.timer = Some(at);
            self.timers.set(at, Timer::Link(id));
        }
    }

    fn link_is_due(&mut self, id: LinkId, now: Now) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        link.timer = None;
        match link.due() {
            Some((at, due)) if at <= now.mono => {
                let reason = match due {
                    Due::Silent => ReasonCode::KeepAliveTimeout,
                    Due::Connect | Due::Packet | Due::Stuck => ReasonCode::UnspecifiedError,
                };
                match due {
                    Due::Silent => {}
                    Due::Connect | Due::Packet => self.counters.links_late += 1,
                    Due::Stuck => self.counters.links_stuck += 1,
                }
                self.close_saying(id, reason, due.why(), now);
            }
            _ => self.watch(id),
        }
    }

    pub(super) fn set_away_timer(&mut self, place: u32) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let Some(left) = session.left else { return };
        if session.configured {
            return;
        }
        let left_in_all = Duration::from_secs(u64::from(session.expiry_interval));
        let ends = left.after(left_in_all.saturating_sub(session.away_before));
        let noted = (!session.left_noted).then(|| left.after(AWAY_NOTE));
        let at = noted.map_or(ends, |noted| noted.min(ends));
        session.timer = Some(at);
        self.timers.set(at, Timer::Away(place));
    }

    /// Sets when a queue is looked through for messages that are too old, if its policy knows such: sixteen times in that
    /// age.
    pub(super) fn set_sweep_timer(&mut self, place: u32, now: Now) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        if session.sweep.is_some() {
            return;
        }
        let queues = session.queues().filter(|queue| queue.messages() > 0);
        let Some(age_max) = queues.filter_map(|queue| queue.policy().age_max).min() else {
            return;
        };
        let at = now.mono.after((age_max / 16).max(SWEEP_WAIT_MIN));
        session.sweep = Some(at);
        self.timers.set(at, Timer::Sweep(place));
    }

    fn sweep(&mut self, place: u32, now: Now) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        session.sweep = None;
        for queue in session.queues_mut() {
            queue.drop_aged(&mut self.journal, now);
        }
        self.note_committing(place);
        self.set_sweep_timer(place, now);
    }

    fn session_is_away(&mut self, place: u32, now: Now) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        session.timer = None;
        if session.left.is_none() {
            return;
        }
        if session.is_over(now.mono) {
            log::info!(
                "session {}: ended: it was away for longer than its Session Expiry Interval",
                session.client_id
            );
            self.counters.sessions_expired += 1;
            self.end_session(place, now);
            return;
        }
        session.left_noted = true;
        self.save_session(place, false, now);
        self.set_away_timer(place);
    }
}
