//! The acknowledgements of a link that wait, and the pool that they wait in.
//!
//! An acknowledgement gets into an outbox in one way only: [`Acks::push`] takes it together with what it rests on, and
//! [`Acks::leave`] gives it out as [`Ready`] when that is done, in the order of what was acknowledged
//! [MQTT-4.6.0-2, MQTT-4.6.0-3, MQTT-4.6.0-4]. They all share one FIFO, from CONNACK to PUBCOMP: a second one would let
//! none of them leave earlier that matters, since a commit completes all that was recorded before it.
//!
//! The FIFOs of all links are chains through one table. A link in whose FIFO nothing waits holds nothing of it; a few
//! places are every link's own, the others are for whoever needs them.

use super::journal::{Journal, RestsOn};
use crate::limits::{LINK_ACKS, LINK_OTHER_ACKS};
use crate::record::Ticket;
use larder_packet::{Packet, PacketId, ReasonCode, Version};

/// An acknowledgement that names a PUBLISH by its Packet Identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckOf {
    /// PUBACK
    Publish,
    /// PUBREC
    Receipt,
    /// PUBREL
    Release,
    /// PUBCOMP
    Completion,
}

/// An acknowledgement.
pub(super) enum Kind {
    Numbered(AckOf, PacketId, ReasonCode),
    /// A rarer one.
    Encoded(Box<Encoded>),
}

/// An acknowledgement that is encoded already.
pub(super) struct Encoded {
    pub(super) bytes: Vec<u8>,
    is_connack: bool,
}

/// A place of the table.
struct Waiting {
    /// `None`: it is free.
    kind: Option<Kind>,
    rests_on: RestsOn,
    /// The next one of the link's, or of the free ones; or [`NO_PLACE`].
    next: u32,
}

const NO_PLACE: u32 = u32::MAX;

/// The table of all that wait.
pub(super) struct AckPool {
    places: Vec<Waiting>,
    free: u32,
    /// Taken beyond what is each link's own.
    shared: usize,
    shared_max: usize,
    /// One link's, at most.
    link_max: usize,
}

impl AckPool {
    /// For so many links, whose clients have so many messages under way.
    pub(super) fn new(links: u32, receive_maximum: u16) -> AckPool {
        AckPool {
            places: Vec::with_capacity(acks_max(links, receive_maximum)),
            free: NO_PLACE,
            shared: 0,
            shared_max: shared_max(links, receive_maximum),
            link_max: link_max(receive_maximum),
        }
    }

    fn take(&mut self, kind: Kind, rests_on: RestsOn) -> u32 {
        let taken = Waiting {
            kind: Some(kind),
            rests_on,
            next: NO_PLACE,
        };
        if let Some(place) = self.places.get_mut(self.free as usize) {
            let at = std::mem::replace(&mut self.free, place.next);
            *place = taken;
            return at;
        }
        self.places.push(taken);
        u32::try_from(self.places.len() - 1).unwrap_or(NO_PLACE)
    }

    /// Gives a place back, and says what stood there and what comes next.
    fn give(&mut self, at: u32) -> Option<(Kind, u32)> {
        let place = self.places.get_mut(at as usize)?;
        let next = std::mem::replace(&mut place.next, self.free);
        self.free = at;
        Some((place.kind.take()?, next))
    }
}

/// An acknowledgement whose ground is durable. Only [`Acks::leave`] makes one.
pub(super) struct Ready(pub(super) Kind);

impl Ready {
    /// Whether it is the CONNACK, after which everything else may leave.
    pub(super) fn is_connack(&self) -> bool {
        matches!(&self.0, Kind::Encoded(encoded) if encoded.is_connack)
    }

    /// Whether it tells a publisher that its message was taken.
    pub(super) fn is_success(&self) -> bool {
        matches!(self.0, Kind::Numbered(AckOf::Publish | AckOf::Receipt, _, reason) if !reason.is_error())
    }
}

/// The acknowledgements of a link that wait, in their order: as many as messages may be under way from the client, and a
/// few others. PUBRELs share their places with the PUBACKs: where there is none, the link is not read until a commit
/// makes some.
pub(super) struct Acks {
    first: u32,
    last: u32,
    waiting: u32,
    numbered: u32,
    /// Somebody found no room since it was asked last.
    refused: bool,
}

impl Default for Acks {
    fn default() -> Acks {
        Acks {
            first: NO_PLACE,
            last: NO_PLACE,
            waiting: 0,
            numbered: 0,
            refused: false,
        }
    }
}

impl Acks {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Whether another one fits; while not, the link is not read.
    pub(super) fn has_room(&mut self, pool: &AckPool) -> bool {
        let others = (self.waiting - self.numbered) as usize;
        let waiting = self.waiting as usize;
        let has_room = waiting < pool.link_max
            && others < LINK_OTHER_ACKS
            && (waiting < LINK_ACKS || pool.shared < pool.shared_max);
        self.refused |= !has_room;
        has_room
    }

    /// Whether there was no room, and is again; once.
    pub(super) fn take_relieved(&mut self, pool: &AckPool) -> bool {
        std::mem::take(&mut self.refused) && self.has_room(pool)
    }

    /// A PUBACK, PUBREC, PUBREL or PUBCOMP, and what it rests on.
    pub(super) fn numbered(
        &mut self,
        ack: AckOf,
        packet_id: PacketId,
        reason: ReasonCode,
        rests_on: RestsOn,
        pool: &mut AckPool,
    ) {
        self.push(Kind::Numbered(ack, packet_id, reason), rests_on, pool);
        self.numbered += 1;
    }

    /// A SUBACK or UNSUBACK, and what it rests on.
    pub(super) fn other(
        &mut self,
        packet: &Packet,
        version: Version,
        rests_on: RestsOn,
        pool: &mut AckPool,
    ) {
        self.push(encoded(packet, version, false), rests_on, pool);
    }

    /// The CONNACK, and what it rests on.
    pub(super) fn connack(
        &mut self,
        packet: &Packet,
        version: Version,
        rests_on: RestsOn,
        pool: &mut AckPool,
    ) {
        self.push(encoded(packet, version, true), rests_on, pool);
    }

    fn push(&mut self, kind: Kind, rests_on: RestsOn, pool: &mut AckPool) {
        let at = pool.take(kind, rests_on);
        match pool.places.get_mut(self.last as usize) {
            Some(last) => last.next = at,
            None => self.first = at,
        }
        self.last = at;
        self.count_one_more(pool);
    }

    /// The acknowledgement at the head, if what it rests on is done; `walked`: the session's last change, if its walks are
    /// over.
    pub(super) fn leave(
        &mut self,
        journal: &Journal,
        walked: Option<Ticket>,
        pool: &mut AckPool,
    ) -> Option<Ready> {
        let rests_on = match pool.places.get(self.first as usize)?.rests_on {
            RestsOn::Walks => RestsOn::Ticket(walked?),
            rests_on => rests_on,
        };
        if !journal.is_done(rests_on) {
            return None;
        }
        self.take_first(pool).map(Ready)
    }

    fn take_first(&mut self, pool: &mut AckPool) -> Option<Kind> {
        let (kind, next) = pool.give(self.first)?;
        self.first = next;
        if next == NO_PLACE {
            self.last = NO_PLACE;
        }
        pool.shared -= usize::from(self.waiting as usize > LINK_ACKS);
        self.waiting -= 1;
        self.numbered -= u32::from(matches!(kind, Kind::Numbered(..)));
        Some(kind)
    }

    /// Takes back an acknowledgement for which the outbox had no room: it is at the head again.
    pub(super) fn put_back(&mut self, ready: Ready, pool: &mut AckPool) {
        self.numbered += u32::from(matches!(ready.0, Kind::Numbered(..)));
        let at = pool.take(ready.0, RestsOn::Nothing);
        if let Some(place) = pool.places.get_mut(at as usize) {
            place.next = self.first;
        }
        self.first = at;
        if self.last == NO_PLACE {
            self.last = at;
        }
        self.count_one_more(pool);
    }

    fn count_one_more(&mut self, pool: &mut AckPool) {
        self.waiting += 1;
        pool.shared += usize::from(self.waiting as usize > LINK_ACKS);
    }

    /// The link has ended, and what waited for it with it.
    pub(super) fn discard(&mut self, pool: &mut AckPool) {
        while self.take_first(pool).is_some() {}
    }
}

fn encoded(packet: &Packet, version: Version, is_connack: bool) -> Kind {
    let mut bytes = Vec::with_capacity(packet.encoded_len(version));
    packet.encode(version, &mut bytes);
    Kind::Encoded(Box::new(Encoded { bytes, is_connack }))
}

fn link_max(receive_maximum: u16) -> usize {
    usize::from(receive_maximum) + LINK_OTHER_ACKS
}

/// Besides those that are each link's own: one link finds as many as its client may need.
fn shared_max(links: u32, receive_maximum: u16) -> usize {
    (links as usize * LINK_ACKS).max(link_max(receive_maximum))
}

/// Acknowledgements that may wait, of all links together.
#[must_use]
pub(crate) fn acks_max(links: u32, receive_maximum: u16) -> usize {
    links as usize * LINK_ACKS + shared_max(links, receive_maximum)
}

/// Bytes of an acknowledgement that waits.
pub(crate) const ACK_BYTES: usize = size_of::<Waiting>();
