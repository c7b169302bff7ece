//! Wills [MQTT 3.1.2.5]: the message that a client leaves here, to be published when its link ends in any other way than
//! by its DISCONNECT.
//!
//! A Will belongs to its session. It is *due* when the link has ended and the Will Delay Interval has passed, or the
//! session ends. A stored session's Will stands on disk too, and goes from there in the batch that owes it: a crash
//! publishes it neither twice nor never. While there is no room for it, it waits, and a session that is to end waits
//! with it; only lasting fullness lets a Will wait without its session, in memory alone.

use super::Broker;
use super::admit::Admission;
use super::message::{Content, Kept};
use super::publish::{NOBODY, Publication, Published, Publisher};
use super::rules::may_publish;
use super::timers::Timer;
use crate::limits::{TOPIC_BYTES, WILL_BYTES, WILL_COST_BYTES};
use crate::record::{Change, RecoveredWill, Will as SavedWill, WillRecord};
use crate::time::{Mono, Now, ServiceSeconds};
use larder_packet::property::id as property_id;
use larder_packet::{Qos, ReasonCode, Version, Will as AskedWill};
use std::collections::VecDeque;
use std::time::Duration;

/// A Will.
pub(super) struct Will {
    /// Without `expires_at`: it expires by its publication.
    message: Kept,
    record: WillRecord,
    /// When it is due; `None`: its link stands.
    due: Option<Mono>,
    /// It found no room, and stands in the list of those that wait for some.
    waits: bool,
}

impl Will {
    fn asked(asked: &AskedWill) -> Will {
        let mut properties = Vec::new();
        for (id, encoded) in asked.properties.iter_raw() {
            let travels = id != property_id::WILL_DELAY_INTERVAL
                && id != property_id::MESSAGE_EXPIRY_INTERVAL;
            properties.extend_from_slice(if travels { encoded } else { &[] });
        }
        Will {
            message: Kept::new(&Content {
                topic: asked.topic,
                properties: &properties,
                payload: asked.payload,
                expires_at: None,
            }),
            record: WillRecord {
                qos: asked.qos as u8,
                retain: asked.retain,
                delay_interval: asked.properties.will_delay_interval().unwrap_or(0),
                message_expiry_interval: asked.properties.message_expiry_interval(),
            },
            due: None,
            waits: false,
        }
    }

    /// One that recovery found: its link has ended now.
    pub(super) fn recovered(found: &RecoveredWill, now: Mono) -> Will {
        let message = &found.message;
        Will {
            message: Kept::new(&Content {
                topic: &message.topic,
                properties: &message.properties,
                payload: &message.payload,
                expires_at: None,
            }),
            record: found.record,
            due: Some(now.after(delay(found.record))),
            waits: false,
        }
    }

    fn content(&self, now: Now) -> Content<'_> {
        let expiry = self.record.message_expiry_interval;
        Content {
            expires_at: expiry.map(|seconds| ServiceSeconds(now.service.0 + u64::from(seconds))),
            ..self.message.content()
        }
    }

    /// Whether it is to be published, new link or not.
    fn is_due(&self, now: Mono) -> bool {
        self.waits || self.due.is_some_and(|due| due <= now)
    }

    /// Bytes that it takes in memory.
    fn cost(&self) -> usize {
        self.message.len() + WILL_COST_BYTES
    }
}

const _: () = assert!(size_of::<Will>() + size_of::<Waiting>() <= WILL_COST_BYTES);

fn delay(record: WillRecord) -> Duration {
    Duration::from_secs(u64::from(record.delay_interval))
}

/// Bytes of a Will as it comes: no fewer than are kept of it.
pub(super) fn asked_bytes(asked: &AskedWill) -> usize {
    asked.topic.len() + asked.properties.as_bytes().len() + asked.payload.len()
}

/// What can be said against a Will by itself.
fn acceptable(will: &AskedWill, version: Version) -> Result<(), ReasonCode> {
    if will.topic.len() > TOPIC_BYTES || !may_publish(will.topic) {
        return Err(match version {
            Version::V5 => ReasonCode::TopicNameInvalid,
            Version::V311 => ReasonCode::NotAuthorized,
        });
    }
    if asked_bytes(will) > WILL_BYTES {
        return Err(ReasonCode::PacketTooLarge);
    }
    Ok(())
}

/// The Wills of all sessions together.
#[derive(Default)]
pub(super) struct Wills {
    /// Bytes that they take in memory.
    bytes: usize,
    /// Those that are due and found no room, in their order.
    waiting: VecDeque<Waiting>,
}

enum Waiting {
    /// That of the session at this place.
    Of(u32),
    /// One whose session has ended, or has another Will by now.
    Left(Box<Will>),
}

impl Wills {
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether any would be lost if the program ended now.
    pub(super) fn has_left(&self) -> bool {
        self.left().next().is_some()
    }

    fn left(&self) -> impl Iterator<Item = &Will> {
        self.waiting.iter().filter_map(|waiting| match waiting {
            Waiting::Left(will) => Some(&**will),
            Waiting::Of(_) => None,
        })
    }
}

impl Broker {
    // --- CONNECT and DISCONNECT ---

    /// Whether the Will of a client is kept, whose session, if it has one, is at this place. What waits without a session
    /// goes before a client is refused, the oldest first.
    pub(super) fn admit_will(
        &mut self,
        place: Option<u32>,
        asked: &AskedWill,
        version: Version,
    ) -> Result<(), ReasonCode> {
        acceptable(asked, version)?;
        let before = place
            .and_then(|place| self.sessions.get(place)?.will.as_ref())
            .map_or(0, |will| will.cost());
        let wanted = asked_bytes(asked) + WILL_COST_BYTES;
        let room = self.limits.will_pool_bytes;
        let left: usize = self.wills.left().map(Will::cost).sum();
        if self.wills.bytes - left - before + wanted > room {
            return Err(ReasonCode::QuotaExceeded);
        }
        while self.wills.bytes - before + wanted > room {
            let oldest = self
                .wills
                .waiting
                .iter()
                .position(|waiting| matches!(waiting, Waiting::Left(_)));
            let Some(Waiting::Left(will)) =
                oldest.and_then(|oldest| self.wills.waiting.remove(oldest))
            else {
                return Err(ReasonCode::QuotaExceeded);
            };
            self.wills.bytes -= will.cost();
            self.counters.wills_dropped += 1;
            log::warn!(
                "a Will for {:?} was dropped: it has waited for room on disk, and its memory is wanted for a client",
                will.message.topic()
            );
        }
        Ok(())
    }

    /// A new link takes up the session at this place: a Will that is not due by now is not sent [MQTT-3.1.3-9], one that
    /// is goes out before another takes its place. `false`: not yet.
    pub(super) fn will_before_resumption(&mut self, place: u32, now: Now) -> bool {
        let will = self
            .sessions
            .get(place)
            .and_then(|session| session.will.as_ref());
        will.is_none_or(|will| !will.is_due(now.mono)) || self.will_leaves(place, now)
    }

    /// The session's Will is now what its new link says. One that stays the same is not written again.
    pub(super) fn set_will(&mut self, place: u32, asked: Option<&AskedWill>, now: Now) {
        let before = self.take_will(place);
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let is_same = before.as_ref().map(|will| (&will.message, will.record));
        session.will = asked.map(|asked| Box::new(Will::asked(asked)));
        let will = session.will.as_ref();
        self.wills.bytes += will.map_or(0, |will| will.cost());
        if is_same == will.map(|will| (&will.message, will.record)) {
            return;
        }
        let Some(session_key) = session.key() else {
            return;
        };
        let saved = will.map(|will| {
            let message = self.journal.message(&will.content(now), NOBODY);
            SavedWill {
                message: self.journal.index_of(message),
                record: will.record,
            }
        });
        let change = Change::SaveWill {
            session: session_key,
            will: saved,
        };
        session.ticket = self.journal.record(change, true, now);
    }

    /// The client says goodbye, and takes its Will back [MQTT-3.14.4-3].
    pub(super) fn discard_will(&mut self, place: u32, now: Now) {
        if self.take_will(place).is_some() {
            self.remove_stored_will(place, now);
        }
    }

    /// Takes the Will out of memory.
    fn take_will(&mut self, place: u32) -> Option<Box<Will>> {
        let will = self.sessions.get_mut(place)?.will.take()?;
        self.wills.bytes -= will.cost();
        if let Some(due) = will.due {
            self.timers.clear(due, Timer::Will(place));
        }
        if will.waits {
            self.wills
                .waiting
                .retain(|waiting| !matches!(waiting, Waiting::Of(other) if *other == place));
        }
        Some(will)
    }

    /// Takes a stored session's Will from the disk.
    pub(super) fn remove_stored_will(&mut self, place: u32, now: Now) {
        let Some(session) = self.sessions.get_mut(place) else {
            return;
        };
        let Some(session_key) = session.key() else {
            return;
        };
        let change = Change::SaveWill {
            session: session_key,
            will: None,
        };
        session.ticket = self.journal.record(change, true, now);
    }

    /// The Will of a session that recovery found, if it has one: there is always room for it.
    pub(super) fn watch_recovered_will(&mut self, place: u32) {
        let session = self.sessions.get(place);
        let Some(will) = session.and_then(|session| session.will.as_ref()) else {
            return;
        };
        self.wills.bytes += will.cost();
        if let Some(due) = will.due {
            self.timers.set(due, Timer::Will(place));
        }
    }

    // --- Publication ---

    /// The session's link has ended, and the session goes on: its Will is due, now or later.
    pub(super) fn will_after_link(&mut self, place: u32, now: Now) {
        let session = self.sessions.get_mut(place);
        let Some(will) = session.and_then(|session| session.will.as_mut()) else {
            return;
        };
        let due = now.mono.after(delay(will.record));
        will.due = Some(due);
        if due <= now.mono {
            self.will_is_due(place, now);
        } else {
            self.timers.set(due, Timer::Will(place));
        }
    }

    /// Publishes the Will of a session, which is due, or lets it wait for room.
    pub(super) fn will_is_due(&mut self, place: u32, now: Now) {
        if self.try_will(place, now) != Admission::Admit {
            self.will_waits(place);
        }
    }

    /// The Will of a session that ends, or gets another one, leaves it. `false`: it stays, for it stands on disk with its
    /// session, and the journal will have room for it.
    pub(super) fn will_leaves(&mut self, place: u32, now: Now) -> bool {
        match self.try_will(place, now) {
            Admission::Admit => return true,
            Admission::Wait if self.is_stored(place) => {
                self.will_waits(place);
                return false;
            }
            Admission::Wait | Admission::WaitForDisk => {}
        }
        if let Some(will) = self.take_will(place) {
            self.remove_stored_will(place, now);
            self.wills.bytes += will.cost();
            self.wills.waiting.push_back(Waiting::Left(will));
        }
        true
    }

    fn will_waits(&mut self, place: u32) {
        let session = self.sessions.get_mut(place);
        let will = session.and_then(|session| session.will.as_mut());
        if let Some(will) = will.filter(|will| !will.waits) {
            will.waits = true;
            self.wills.waiting.push_back(Waiting::Of(place));
        }
    }

    /// Publishes the Will of the session at this place, if it has one and there is room.
    fn try_will(&mut self, place: u32, now: Now) -> Admission {
        let session = self.sessions.get_mut(place);
        let Some(will) = session.and_then(|session| session.will.take()) else {
            return Admission::Admit;
        };
        let admission = self.publish_will(&will, Some(place), now);
        if let Some(session) = self.sessions.get_mut(place) {
            session.will = Some(will);
        }
        if admission == Admission::Admit {
            self.take_will(place);
        }
        admission
    }

    fn publish_will(&mut self, will: &Will, place: Option<u32>, now: Now) -> Admission {
        let publication = Publication {
            content: will.content(now),
            qos: Qos::from_u8(will.record.qos).unwrap_or_default(),
            retain: will.record.retain,
            after: None,
            publisher: place.map(|place| Publisher {
                link: NOBODY,
                place,
                packet_id: None,
            }),
            is_will: true,
        };
        match self.publish(&publication, now) {
            // Nobody is there who could keep it: it is not rejected.
            Published::Taken { .. } | Published::Rejected => Admission::Admit,
            Published::Wait(admission) => admission,
        }
    }

    /// Room was made: Wills that wait are tried again, in their order.
    pub(super) fn publish_waiting_wills(&mut self, now: Now) {
        while let Some(waiting) = self.wills.waiting.pop_front() {
            let admission = match &waiting {
                Waiting::Of(place) => self.try_will(*place, now),
                Waiting::Left(will) => self.publish_will(will, None, now),
            };
            if admission != Admission::Admit {
                self.wills.waiting.push_front(waiting);
                return;
            }
            match waiting {
                Waiting::Of(place) => self.end_if_over(place, now),
                Waiting::Left(will) => self.wills.bytes -= will.cost(),
            }
        }
    }
}
