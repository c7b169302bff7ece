//! One direction of the relay: what has come from one side and has not been acknowledged there yet.

use crate::message::Message;
use crate::relay::{Millis, Reason, SetAside, Terms};
use larder_packet::Qos;
use std::collections::VecDeque;

/// A message at whose sending so many links in a row were closed by the other side is set aside.
const CLOSED_LINKS_MAX: u8 = 5;
/// After so many it is sent alone, so that the next closing is about no other message.
const CLOSED_LINKS_SUSPECT: u8 = 2;

/// The messages of one direction, in the order in which they arrived.
///
/// It holds no copy that anybody relies on: each QoS 1 message here is still in its source's session, and is forgotten
/// here when the source's link ends, because the next link brings it again.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    entries: VecDeque<Entry>,
    /// Entries before this one are not [`Stage::Waiting`].
    next_unsent: usize,
    /// How many entries are [`Stage::Sent`].
    sent: usize,
    /// Sent on the destination's link that still is, while the source's link ended: their ids, so that their acks are
    /// known and the destination's window is counted right.
    orphans: VecDeque<u64>,
    /// QoS 0, not offered yet.
    volatile: VecDeque<Message>,
    /// QoS 0, offered and not written to the destination's link yet.
    unwritten: usize,
    next_id: u64,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    /// The packet identifier on the source's link.
    tag: u16,
    arrived: Millis,
    stage: Stage,
    /// Was sent on a link that ended: sending it again may double it.
    resent: bool,
    /// Links in a row that the destination closed while this was the first message on them.
    closed_links: u8,
}

#[derive(Debug)]
enum Stage {
    Waiting(Message),
    Sent(Message),
    /// The source may have its ack, as soon as all before it have theirs.
    Done,
}

/// What the destination can be given next.
#[derive(Debug)]
pub(crate) enum Offer {
    Publish {
        id: u64,
        message: Message,
        resent: bool,
    },
    SetAside(SetAside),
    Expired,
}

impl Flow {
    /// QoS 1 messages that the source has no ack for.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes a QoS 1 message; it waits for the destination.
    pub(crate) fn push(&mut self, tag: u16, message: Message, now: Millis) {
        self.push_entry(tag, Stage::Waiting(message), now);
    }

    /// Takes the ack of a QoS 1 message that needs nothing of the destination.
    pub(crate) fn push_done(&mut self, tag: u16, now: Millis) {
        self.push_entry(tag, Stage::Done, now);
    }

    /// Takes a QoS 0 message, unless `room` of them are on their way already.
    pub(crate) fn push_volatile(&mut self, message: Message, room: usize) -> bool {
        let fits = self.volatile.len() + self.unwritten < room;
        if fits {
            self.volatile.push_back(message);
        }
        fits
    }

    /// The packet identifier of the first message if it may be acknowledged; the flow forgets it.
    pub(crate) fn pop_done(&mut self) -> Option<u16> {
        let front = self.entries.front()?;
        if !matches!(front.stage, Stage::Done) {
            return None;
        }
        let tag = front.tag;
        self.entries.pop_front();
        self.next_unsent = self.next_unsent.saturating_sub(1);
        Some(tag)
    }

    /// What to give to the destination, whose link has these `terms`, if it has room for more.
    pub(crate) fn next_offer(
        &mut self,
        terms: &Terms,
        window: usize,
        now: Millis,
    ) -> Option<Offer> {
        if let Some(message) = self.volatile.pop_front() {
            return Some(self.offer_volatile(message, terms));
        }
        while matches!(
            self.entries.get(self.next_unsent)?.stage,
            Stage::Done | Stage::Sent(_)
        ) {
            self.next_unsent += 1;
        }
        if self.sent + self.orphans.len() >= self.room(terms, window) {
            return None;
        }
        let entry = self.entries.get_mut(self.next_unsent)?;
        let Stage::Waiting(message) = std::mem::replace(&mut entry.stage, Stage::Done) else {
            return None;
        };
        let waited = u32::try_from(now.saturating_sub(entry.arrived) / 1_000).unwrap_or(u32::MAX);
        let Some(offered) = message.clone().after(waited) else {
            return Some(Offer::Expired);
        };
        let offered = offered.under(terms);
        if let Some(reason) = too_large(&offered, terms) {
            return Some(Offer::SetAside(SetAside::of(&offered, reason)));
        }
        let mut id = 0;
        if offered.qos == Qos::AtMostOnce {
            // The destination takes no QoS 1 at all: written is all that it can become, and it is done.
            self.unwritten += 1;
        } else {
            id = entry.id;
            entry.stage = Stage::Sent(message);
            self.sent += 1;
        }
        Some(Offer::Publish {
            id,
            message: offered,
            resent: entry.resent,
        })
    }

    /// The destination acknowledged this one, with this Reason Code.
    pub(crate) fn acknowledged(&mut self, id: u64, reason: u8) -> Acknowledged {
        if let Some(index) = self.orphans.iter().position(|orphan| *orphan == id) {
            self.orphans.remove(index);
            return Acknowledged::Unknown;
        }
        let Ok(index) = self.entries.binary_search_by_key(&id, |entry| entry.id) else {
            return Acknowledged::Unknown;
        };
        match std::mem::replace(&mut self.entries[index].stage, Stage::Done) {
            Stage::Sent(message) => {
                self.sent -= 1;
                if reason < 0x80 {
                    Acknowledged::Delivered
                } else {
                    Acknowledged::Refused(SetAside::of(&message, Reason::Refused(reason)))
                }
            }
            other => {
                self.entries[index].stage = other;
                Acknowledged::Unknown
            }
        }
    }

    /// A QoS 0 message was written to the destination's link.
    pub(crate) fn written(&mut self) {
        self.unwritten = self.unwritten.saturating_sub(1);
    }

    /// The source's link ended: its session will bring again what it has no ack for. Returns how many of these may
    /// arrive twice.
    pub(crate) fn source_unlinked(&mut self) -> u64 {
        let sent = self
            .entries
            .iter()
            .filter(|entry| matches!(entry.stage, Stage::Sent(_)));
        self.orphans.extend(sent.map(|entry| entry.id));
        let doubled = self
            .entries
            .iter()
            .filter(|entry| entry.resent || !matches!(entry.stage, Stage::Waiting(_)));
        let doubled = doubled.count() as u64;
        self.entries.clear();
        self.next_unsent = 0;
        self.sent = 0;
        doubled
    }

    /// The destination's link ended: what it did not acknowledge waits again.
    pub(crate) fn destination_unlinked(&mut self, closed_by_peer: bool) -> Unlinked {
        let dropped = (self.volatile.len() + self.unwritten) as u64;
        self.volatile.clear();
        self.unwritten = 0;
        self.orphans.clear();
        let mut set_aside = None;
        let mut first = true;
        for entry in &mut self.entries {
            entry.stage = match std::mem::replace(&mut entry.stage, Stage::Done) {
                Stage::Sent(message) => {
                    let blamed = std::mem::take(&mut first) && closed_by_peer;
                    entry.closed_links += u8::from(blamed);
                    entry.resent = true;
                    if blamed && entry.closed_links == CLOSED_LINKS_MAX {
                        set_aside = Some(SetAside::of(
                            &message,
                            Reason::ClosesLinks(CLOSED_LINKS_MAX),
                        ));
                        Stage::Done
                    } else {
                        Stage::Waiting(message)
                    }
                }
                stage => stage,
            };
        }
        self.sent = 0;
        self.next_unsent = 0;
        Unlinked { dropped, set_aside }
    }

    fn push_entry(&mut self, tag: u16, stage: Stage, now: Millis) {
        self.next_id += 1;
        self.entries.push_back(Entry {
            id: self.next_id,
            tag,
            arrived: now,
            stage,
            resent: false,
            closed_links: 0,
        });
    }

    fn offer_volatile(&mut self, message: Message, terms: &Terms) -> Offer {
        let message = message.under(terms);
        if let Some(reason) = too_large(&message, terms) {
            return Offer::SetAside(SetAside::of(&message, reason));
        }
        self.unwritten += 1;
        Offer::Publish {
            id: 0,
            message,
            resent: false,
        }
    }

    /// How many messages may be unacknowledged by the destination.
    fn room(&self, terms: &Terms, window: usize) -> usize {
        let head = self
            .entries
            .iter()
            .find(|entry| !matches!(entry.stage, Stage::Done));
        if head.is_some_and(|entry| entry.closed_links >= CLOSED_LINKS_SUSPECT) {
            1
        } else {
            window.min(usize::from(terms.receive_maximum))
        }
    }
}

/// What an ack of the destination meant.
#[derive(Debug)]
pub(crate) enum Acknowledged {
    Delivered,
    Refused(SetAside),
    /// Its message is not waited for (any more).
    Unknown,
}

/// What the end of the destination's link cost.
#[derive(Debug)]
pub(crate) struct Unlinked {
    /// QoS 0 messages.
    pub(crate) dropped: u64,
    /// The message that has ended too many links.
    pub(crate) set_aside: Option<SetAside>,
}

impl Message {
    /// As it is after so many seconds [MQTT-3.3.2-6]; `None` if it has expired [MQTT-3.3.2-5].
    fn after(mut self, seconds: u32) -> Option<Self> {
        if let Some(interval) = &mut self.properties.message_expiry {
            *interval = interval.checked_sub(seconds)?;
            if *interval == 0 && seconds > 0 {
                return None;
            }
        }
        Some(self)
    }

    /// As the destination takes it [MQTT-3.2.2-11, MQTT-3.2.2-14].
    fn under(mut self, terms: &Terms) -> Self {
        self.qos = self.qos.min(terms.qos_max);
        self.retain &= terms.retain_available;
        self
    }
}

fn too_large(message: &Message, terms: &Terms) -> Option<Reason> {
    let max = terms.packet_size_max?;
    let size = message.packet_size();
    (size > max as usize).then_some(Reason::TooLarge { size, max })
}
