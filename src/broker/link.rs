//! A link: one connection of a client, from its first byte to its last.

use super::acks::Acks;
use super::alias::Aliases;
use super::outbox::Outbox;
use super::rare::{Empty, Rare};
use super::rate::Rate;
use super::reason_string::Terms;
use crate::limits::{CONNECT_WAIT, PACKET_WAIT, STUCK_WAIT};
use crate::net::{LinkId, Origin};
use crate::time::Mono;
use larder_packet::Version;
use std::num::NonZeroU16;
use std::time::Duration;

/// How far a link has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No CONNECT yet.
    Opened,
    /// Connected; the CONNACK waits for the disk. Nothing is read or delivered until it has left [MQTT-3.2.0-1].
    Connecting,
    /// Connected.
    Connected,
    /// What is in the outbox still leaves, then the link is closed.
    Closing,
}

/// A Keep Alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeepAlive(NonZeroU16);

impl KeepAlive {
    /// Of so many seconds; 0: there is none.
    pub(super) fn new(seconds: u16) -> Option<KeepAlive> {
        NonZeroU16::new(seconds).map(KeepAlive)
    }

    /// How long a client may be silent [MQTT-3.1.2-22].
    fn patience(self) -> Duration {
        Duration::from_millis(u64::from(self.0.get()) * 1500)
    }
}

/// Why a link stopped being read while it holds a packet that cannot be taken yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parked {
    pub(super) since: Mono,
    /// The packet is refused after a time; otherwise it waits as long as it takes.
    pub(super) refuse: bool,
}

/// What keeps a link from being read, or from being written to.
#[derive(Default)]
pub(super) struct HeldUp {
    pub(super) parked: Option<Parked>,
    /// The same, while the packet is being tried again.
    pub(super) retried: Option<Parked>,
    /// Since when its inbox holds the beginning of a packet.
    pub(super) partial_since: Option<Mono>,
    /// Since when it takes nothing of its outbox.
    pub(super) blocked_since: Option<Mono>,
}

impl Empty for HeldUp {
    const EMPTY: &'static HeldUp = &HeldUp {
        parked: None,
        retried: None,
        partial_since: None,
        blocked_since: None,
    };
}

/// A link.
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) origin: Origin,
    pub(super) phase: Phase,
    pub(super) version: Version,
    /// Bytes of a packet that is not whole, or that is parked, and what came after it.
    pub(super) inbox: Vec<u8>,
    /// Length of the packet that begins there, if that is known.
    pub(super) inbox_needs: usize,
    pub(super) outbox: Outbox,
    pub(super) acks: Acks,
    /// PINGRESPs for which there was no room.
    pub(super) pings_owed: u16,
    /// The place of its session.
    pub(super) session: Option<u32>,
    /// Its Keep Alive, if it has one.
    pub(super) keep_alive: Option<KeepAlive>,
    pub(super) heard: Mono,
    /// The timer that is set for it.
    pub(super) timer: Option<Mono>,
    /// What keeps it from being read or written, if anything does or has.
    pub(super) held_up: Rare<HeldUp>,
    /// Bytes may be waiting in the socket that were left unread.
    pub(super) unread: bool,
    pub(super) aliases: Aliases,
    /// What its client may publish at present, if that is limited and it has published.
    pub(super) rate: Option<Box<Rate>>,
    /// The client's Receive Maximum.
    pub(super) receive_maximum: u16,
    /// The client's Maximum Packet Size.
    pub(super) packet_max: u32,
    /// The client's Request Problem Information.
    pub(super) problem_information: bool,
    /// Whether it stands on the list of links with acknowledgements that wait.
    pub(super) is_waiting: bool,
    /// Whether it stands on the list of links with bytes to send.
    pub(super) is_sending: bool,
}

impl Link {
    pub(super) fn new(id: LinkId, origin: Origin, now: Mono) -> Link {
        Link {
            id,
            origin,
            phase: Phase::Opened,
            version: Version::V311,
            inbox: Vec::new(),
            inbox_needs: 0,
            outbox: Outbox::default(),
            acks: Acks::default(),
            pings_owed: 0,
            session: None,
            keep_alive: None,
            heard: now,
            timer: None,
            held_up: Rare::default(),
            unread: false,
            aliases: Aliases::default(),
            rate: None,
            receive_maximum: u16::MAX,
            packet_max: u32::MAX,
            problem_information: true,
            is_waiting: false,
            is_sending: false,
        }
    }

    pub(super) fn terms(&self) -> Terms {
        Terms {
            version: self.version,
            packet_max: self.packet_max,
            problem_information: self.problem_information,
        }
    }

    /// Whether bytes may be read from it now.
    pub(super) fn is_readable(&self) -> bool {
        self.held_up.parked.is_none()
            && matches!(self.phase, Phase::Opened | Phase::Connected)
            && !self.outbox.is_flooded()
    }
}

/// Why a link is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Connect,
    Silent,
    Packet,
    Stuck,
}

impl Due {
    pub(super) fn why(self) -> &'static str {
        match self {
            Due::Connect => "no CONNECT came in time",
            Due::Silent => "nothing came for 1.5 times its Keep Alive",
            Due::Packet => "a packet was begun and not finished in time",
            Due::Stuck => "it took nothing of what waits for it for too long",
        }
    }
}

impl Link {
    /// Since when it holds memory for bytes that its peer neither takes nor completes.
    pub(super) fn holds_since(&self) -> Option<Mono> {
        let since = [self.held_up.blocked_since, self.held_up.partial_since];
        since.into_iter().flatten().min()
    }

    /// Bytes of memory that it holds.
    pub(super) fn holds_bytes(&self) -> usize {
        self.inbox.capacity() + self.outbox.capacity()
    }

    /// What is due first, and when.
    pub(super) fn due(&self) -> Option<(Mono, Due)> {
        // A link that is left unread for our own reasons cannot be blamed for its silence.
        let is_read = self.held_up.parked.is_none();
        let connect = (self.phase == Phase::Opened && is_read)
            .then(|| (self.heard.after(CONNECT_WAIT), Due::Connect));
        let keep_alive = self
            .keep_alive
            .filter(|_| self.phase == Phase::Connected && is_read);
        let silent = keep_alive.map(|of| (self.heard.after(of.patience()), Due::Silent));
        let packet = self
            .held_up
            .partial_since
            .filter(|_| is_read && self.phase == Phase::Connected)
            .map(|since| {
                let in_all = PACKET_WAIT + Duration::from_millis(self.inbox_needs as u64);
                (since.after(in_all), Due::Packet)
            });
        let stuck = self
            .held_up
            .blocked_since
            .map(|since| (since.after(STUCK_WAIT), Due::Stuck));
        let all = [connect, silent, packet, stuck];
        all.into_iter()
            .flatten()
            .filter(|_| self.phase != Phase::Closing)
            .min_by_key(|(at, _)| *at)
    }
}

/// All links, by the place that the network gave them.
pub(super) struct Links {
    /// As long as it was ever needed; it does not move when it becomes longer.
    places: Vec<Option<Link>>,
    len: usize,
}

impl Links {
    pub(super) fn new(max: u32) -> Links {
        Links {
            places: Vec::with_capacity(max as usize),
            len: 0,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.places.iter().flatten()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, link: Link) {
        let place = link.id.index as usize;
        if place >= self.places.len() {
            self.places.resize_with(place + 1, || None);
        }
        self.len += 1;
        self.places[place] = Some(link);
    }

    pub(super) fn remove(&mut self, id: LinkId) -> Option<Link> {
        let link = self
            .places
            .get_mut(id.index as usize)?
            .take_if(|link| link.id == id)?;
        self.len -= 1;
        Some(link)
    }

    pub(super) fn get(&self, id: LinkId) -> Option<&Link> {
        self.places
            .get(id.index as usize)?
            .as_ref()
            .filter(|link| link.id == id)
    }

    pub(super) fn get_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.places
            .get_mut(id.index as usize)?
            .as_mut()
            .filter(|link| link.id == id)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = LinkId> + '_ {
        self.places.iter().flatten().map(|link| link.id)
    }
}
