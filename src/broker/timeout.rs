//! What time brings about: how long the turn may sleep, and what is done when a timer is due.

use super::Broker;
use super::link::Phase;
use super::timers::Timer;
use crate::limits::{AWAY_NOTE, CONNECT_WAIT};
use crate::net::LinkId;
use crate::time::{Mono, Now};
use larder_packet::ReasonCode;
use std::time::Duration;

impl Broker {
    /// How long the turn may sleep; `None`: until something happens.
    #[must_use]
    pub fn poll_timeout(&mut self, now: Now) -> Option<Duration> {
        let waits = !self.dirty.is_empty()
            || !self.releasable.is_empty()
            || !self.sending.is_empty()
            || (!self.parked.is_empty() && self.journal.has_made_room());
        if waits {
            return Some(Duration::ZERO);
        }
        let batch = if self.journal.is_committing() {
            None
        } else {
            self.batch_due()
        };
        let next = [batch, self.timers.next(), self.sys_due]
            .into_iter()
            .flatten()
            .min()?;
        Some(next.since(now.mono))
    }

    /// Does what is due by now.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(timer) = self.timers.poll(now.mono) {
            match timer {
                Timer::Silent(id) => self.link_is_silent(id, now),
                Timer::Parked(id) => self.park_is_over(id, now),
                Timer::Away(place) => self.session_is_away(place, now),
                Timer::Read(place) => self.note_dirty(place),
            }
        }
        self.publish_sys(now);
    }

    pub(super) fn set_silent_timer(&mut self, id: LinkId, at: Mono) {
        if let Some(link) = self.links.get_mut(id) {
            if let Some(old) = link.timer.take() {
                self.timers.clear(old, Timer::Silent(id));
            }
            if at < Mono(u64::MAX) {
                link.timer = Some(at);
                self.timers.set(at, Timer::Silent(id));
            }
        }
    }

    fn link_is_silent(&mut self, id: LinkId, now: Now) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        link.timer = None;
        match link.phase {
            // Its CONNECT has come and waits for room.
            Phase::Opened if link.parked.is_some() => {
                self.set_silent_timer(id, now.mono.after(CONNECT_WAIT));
            }
            Phase::Opened => {
                log::info!("link {}: closed: no CONNECT came in time", id.index);
                self.hang_up(id, now);
            }
            Phase::Connecting | Phase::Connected => {
                // A link that we leave unread for our own reasons cannot be blamed for its silence.
                let is_held = link.parked.is_some() || link.phase == Phase::Connecting;
                let heard = if is_held { now.mono } else { link.heard };
                let due = heard.after(link.keep_alive);
                if due > now.mono {
                    self.set_silent_timer(id, due);
                } else {
                    self.close(id, ReasonCode::KeepAliveTimeout, now);
                }
            }
            Phase::Closing => {}
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
        let ends = left.after(Duration::from_secs(u64::from(session.expiry_interval)));
        let noted = (!session.left_noted).then(|| left.after(AWAY_NOTE));
        let at = noted.map_or(ends, |noted| noted.min(ends));
        session.timer = Some(at);
        self.timers.set(at, Timer::Away(place));
    }

    fn session_is_away(&mut self, place: u32, now: Now) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        session.timer = None;
        let Some(left) = session.left else { return };
        if now.mono.since(left) >= Duration::from_secs(u64::from(session.expiry_interval)) {
            log::info!(
                "session {}: ended: it was away for longer than its Session Expiry Interval",
                session.client_id
            );
            self.end_session(place, now);
            return;
        }
        session.left_noted = true;
        self.save_session(place, false, now);
        self.set_away_timer(place);
    }
}
