//! RETAIN of a PUBLISH [MQTT 3.3.1.3]: which message a topic retains, what of it the store is told, and when.
//!
//! A change of QoS 1 or 2, or by the Will of a stored session, is recorded with the message that makes it, and its
//! acknowledgement rests on that. Another one of QoS 0 is recorded too, but of one topic no more often than every
//! [`RETAINED_WAIT`]; what comes meanwhile waits in memory, but for large ones while that is wanted. What begins with `$`
//! is the server's own, and is not recorded.

use super::Broker;
use super::admit::{Admission, NO_MESSAGE};
use super::journal::{MessageNo, RestsOn, RetainedChange};
use super::levels::{Key, key_of, topic_of};
use super::message::Content;
use super::publish::{NOBODY, Publication, Published};
use super::retained::{Retained, Room, Stored};
use crate::limits::{RETAINED_STEPS, RETAINED_SWEEP, RETAINED_WAIT};
use crate::record::{RETAINED_HELD_BYTES, RecoveredRetained, Ticket};
use crate::time::{Mono, Now};
use larder_packet::Qos;
use std::rc::Rc;

/// What a message does to what its topic retains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retaining {
    /// Nothing: RETAIN is 0 [MQTT-3.3.1-8].
    Nothing,
    /// It takes the place of the last one [MQTT-3.3.1-5].
    Replace,
    /// It has no payload: the last one goes, and it is not retained itself [MQTT-3.3.1-6, MQTT-3.3.1-7].
    Remove,
    /// There is no room for it. The last one goes all the same: it is out of date.
    Discard,
}

/// When the retained messages are looked through for what has expired.
#[derive(Default)]
pub(super) struct Sweep {
    due: Option<Mono>,
    /// They were looked through up to here.
    after: Option<Key>,
}

impl Broker {
    /// What a message does; or that there is no room for it, and its publisher can be told.
    pub(super) fn retaining(&mut self, publication: &Publication) -> Result<Retaining, Published> {
        if !publication.retain {
            return Ok(Retaining::Nothing);
        }
        if publication.content.payload.is_empty() {
            return Ok(Retaining::Remove);
        }
        let room = self.retained.room(&publication.content);
        if room == Room::Yes {
            return Ok(Retaining::Replace);
        }
        let is_clients = publication.publisher.is_some() && !publication.is_will;
        if publication.qos == Qos::AtMostOnce || !is_clients {
            return Ok(Retaining::Discard);
        }
        Err(match room {
            Room::Later => Published::Wait(Admission::Wait),
            _ => Published::Rejected,
        })
    }

    /// Does it. `message`: where the message is in the journal, if it is there. `is_recorded`: it is recorded with it in any
    /// case. Gives back what its acknowledgement rests on.
    pub(super) fn retain(
        &mut self,
        publication: &Publication,
        retaining: Retaining,
        message: Option<MessageNo>,
        is_recorded: bool,
        now: Now,
    ) -> Option<Ticket> {
        let none = Content {
            payload: &[],
            ..publication.content
        };
        let content = match retaining {
            Retaining::Nothing => return None,
            Retaining::Replace => publication.content,
            Retaining::Remove => none,
            Retaining::Discard => {
                self.counters.not_retained += 1;
                none
            }
        };
        if content.expires_at.is_some() {
            let due = now.mono.after(RETAINED_SWEEP);
            self.retained_sweep.due.get_or_insert(due);
        }
        self.set_retained(&content, publication.qos, message, is_recorded, now)
    }

    /// Sets what a topic retains; an empty payload: nothing.
    fn set_retained(
        &mut self,
        content: &Content,
        qos: Qos,
        message: Option<MessageNo>,
        is_recorded: bool,
        now: Now,
    ) -> Option<Ticket> {
        let topic = content.topic;
        let is_removal = content.payload.is_empty();
        let found = self.retained.stored(topic);
        let before = found.unwrap_or_default();
        if topic.starts_with('$') {
            self.retained.set(content, qos, Stored::default());
            return None;
        }
        if is_removal && found.is_none() && !self.retained.is_partial {
            // There is none; whoever is told so rests on its removal.
            let removed = self.retained_removed;
            if !is_recorded || self.journal.is_done(RestsOn::Ticket(removed)) {
                return None;
            }
        }
        let is_unknown = is_removal && !before.is_known && !self.retained.is_partial;
        let len = content.properties.len() + content.payload.len();
        let is_pressing = len > RETAINED_HELD_BYTES && self.retained.is_filling();
        let is_early = before.is_recent && !is_pressing;
        let tells =
            is_recorded || !(is_early || is_unknown || !self.may_record(content.len(), now));
        let told = tells.then(|| {
            let change = if is_removal {
                RetainedChange::None(topic)
            } else {
                let message = message.unwrap_or_else(|| self.journal.message(content, NOBODY));
                RetainedChange::Message(message, qos)
            };
            let urgent = is_recorded || is_pressing;
            self.journal
                .record_retained(change, before.told, urgent, now)
        });
        let stored = Stored {
            is_known: if tells { !is_removal } else { before.is_known },
            is_stale: !tells && !is_unknown,
            is_recent: before.is_recent || !is_recorded,
            told: told.or(before.told),
        };
        if is_removal && !stored.is_recent {
            self.retained.remove(&key_of(topic));
        } else {
            self.retained.set(content, qos, stored);
        }
        if stored.is_recent && !before.is_recent {
            let until = now.mono.after(RETAINED_WAIT);
            self.retained.push_recent(&key_of(topic), until);
        }
        let ticket = told.filter(|_| is_recorded)?.ticket();
        if is_removal {
            self.retained_removed = ticket;
        }
        Some(ticket)
    }

    /// Whether a message of `bytes` bytes may be recorded that nobody waits for.
    fn may_record(&mut self, bytes: usize, now: Now) -> bool {
        match self.admit(bytes, 0, true, NO_MESSAGE) {
            Admission::Admit => true,
            Admission::Wait => false,
            Admission::WaitForDisk => {
                self.ask_disk(now);
                false
            }
        }
    }

    /// Takes over what the store found, as far as there is room.
    pub(super) fn recover_retained(&mut self, found: &[RecoveredRetained], now: Now) {
        let mut without_room = 0_u64;
        for RecoveredRetained {
            message,
            qos,
            left_out,
        } in found
        {
            let content = Content {
                topic: &message.topic,
                properties: &message.properties,
                payload: &message.payload,
                expires_at: message.expires_at,
            };
            let stored = Stored {
                is_known: true,
                ..Stored::default()
            };
            if self.retained.room(&content) != Room::Yes {
                without_room += 1;
            } else if let Some(left_out) = *left_out {
                self.retained.set_on_disk(&content, left_out, *qos, stored);
            } else {
                self.retained.set(&content, *qos, stored);
            }
        }
        if self.retained.can_expire() {
            self.retained_sweep.due = Some(now.mono);
        }
        if without_room > 0 {
            self.retained.is_partial = true;
            log::error!(
                "{without_room} retained messages stay on disk and are not sent to new subscribers: there is no room for them \
                 in memory. Raise limits.memory_max"
            );
        }
    }

    // --- What time brings about ---

    /// When something is to be done about retained messages.
    pub(super) fn retained_due(&self) -> Option<Mono> {
        let times = [self.retained.recent_until(), self.retained_sweep.due];
        times.into_iter().flatten().min()
    }

    /// Tells the store of what has waited long enough, and removes what has expired.
    pub(super) fn tend_retained(&mut self, now: Now) {
        for _ in 0..RETAINED_STEPS {
            let Some(key) = self.retained.poll_recent(now.mono) else {
                break;
            };
            self.end_recent(&key, now);
            drop(key);
            self.retained.forget_left();
        }
        if self.retained_sweep.due.is_some_and(|due| due <= now.mono) {
            self.sweep_retained(now);
        }
    }

    /// A topic has stood among the recent ones for its time.
    fn end_recent(&mut self, key: &Key, now: Now) {
        let Some(found) = self.retained.get(key) else {
            return;
        };
        let (stored, is_removed) = (found.stored, found.is_removed());
        if stored.is_stale {
            self.tell(key, now);
            let until = now.mono.after(RETAINED_WAIT);
            self.retained.push_recent(key, until);
        } else if is_removed {
            self.retained.remove(key);
        } else {
            let stored = Stored {
                is_recent: false,
                ..stored
            };
            self.retained.set_stored(key, stored);
        }
    }

    /// Tells the store what a topic retains, if there is room.
    fn tell(&mut self, key: &Key, now: Now) -> bool {
        let len = self.retained.get(key).map_or(0, Retained::len);
        if !self.may_record(key.len() + len, now) {
            return false;
        }
        let Some(found) = self.retained.get(key) else {
            return true;
        };
        let mut topic = Vec::new();
        // What the store is to be told is in memory.
        let Some(content) = found.content(topic_of(key, &mut topic)) else {
            return true;
        };
        let change = if found.is_removed() {
            RetainedChange::None(content.topic)
        } else {
            RetainedChange::Message(self.journal.message(&content, NOBODY), found.qos)
        };
        let told = self
            .journal
            .record_retained(change, found.stored.told, false, now);
        let stored = Stored {
            is_known: !found.is_removed(),
            is_stale: false,
            told: Some(told),
            ..found.stored
        };
        self.retained.set_stored(key, stored);
        true
    }

    /// Tells the store of all that it was not told of yet, as far as there is room: the program is about to end.
    pub(super) fn tell_all(&mut self, now: Now) {
        let stale = |key: &&Key| {
            let found = self.retained.get(key);
            found.is_some_and(|found| found.stored.is_stale)
        };
        let keys: Vec<Key> = self.retained.recent().filter(stale).cloned().collect();
        for key in keys {
            if !self.tell(&key, now) {
                return;
            }
        }
    }

    fn sweep_retained(&mut self, now: Now) {
        let mut expired = Vec::new();
        let mut after = None;
        let from = self.retained_sweep.after.take();
        for (index, (key, found)) in self.retained.after(from.as_ref()).enumerate() {
            if index == RETAINED_STEPS {
                break;
            }
            let is_expired = !found.is_removed() && !found.is_valid(now.service);
            expired.extend(is_expired.then(|| Rc::clone(key)));
            after = (index + 1 == RETAINED_STEPS).then(|| Rc::clone(key));
        }
        let mut topic = Vec::new();
        for key in expired {
            let none = Content {
                topic: topic_of(&key, &mut topic),
                ..Content::default()
            };
            self.set_retained(&none, Qos::AtMostOnce, None, false, now);
        }
        self.retained_sweep.due = match after {
            Some(_) => Some(now.mono),
            None => self
                .retained
                .can_expire()
                .then(|| now.mono.after(RETAINED_SWEEP)),
        };
        self.retained_sweep.after = after;
    }
}
