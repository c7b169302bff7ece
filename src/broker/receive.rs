//! From bytes to packets to their handlers; and what becomes of a link whose next packet cannot be taken yet.

use super::Broker;
use super::link::{Parked, Phase};
use super::reason_string;
use super::timers::Timer;
use crate::limits::{CONNECT_BYTES, LINK_PACKETS};
use crate::net::LinkId;
use crate::time::Now;
use larder_packet::{
    Disconnect, Frame, Malformed, Packet, ReasonCode, Version, connect_level, frame, packet,
};

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// It was taken.
    Taken,
    /// There is no room for it now. `refuse`: after a time it is refused, otherwise it waits.
    Park { refuse: bool },
    /// The link is closed with this reason.
    Close(ReasonCode),
    /// The packet breaks a rule of the standard: the link is closed [MQTT 4.13].
    Fault(Malformed),
    /// The link is closed; what the peer is to know is in its outbox.
    HangUp,
}

const SECOND_CONNECT: Malformed = Malformed::protocol("MQTT-3.1.0-2", "there is a second CONNECT");

impl Broker {
    /// Whether a link may be read now. If not, it is rearmed when it may.
    pub fn wants(&mut self, id: LinkId) -> bool {
        let Some(link) = self.links.get_mut(id) else {
            return false;
        };
        let readable = link.is_readable();
        link.unread |= !readable;
        readable
    }

    /// Bytes have come on a link.
    pub fn receive(&mut self, id: LinkId, bytes: &[u8], now: Now) {
        self.counters.bytes_received += bytes.len() as u64;
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let mut inbox = std::mem::take(&mut link.inbox);
        let wanted = inbox.len() + bytes.len();
        if inbox.is_empty() {
            let used = self.packets(id, bytes, now);
            self.keep(id, inbox, &bytes[used..], now);
        } else if self.buffers.grow(&mut inbox, wanted) {
            inbox.extend_from_slice(bytes);
            self.inbox_packets(id, inbox, now);
        } else {
            self.buffers.give(inbox);
            self.shed(id, now);
        }
    }

    /// Works on what is in the inbox already.
    pub(super) fn inbox_packets(&mut self, id: LinkId, mut inbox: Vec<u8>, now: Now) {
        let used = self.packets(id, &inbox, now);
        if used == inbox.len() {
            self.buffers.give(inbox);
            return;
        }
        inbox.drain(..used);
        match self.links.get_mut(id) {
            Some(link) => link.inbox = inbox,
            None => self.buffers.give(inbox),
        }
    }

    /// Keeps the beginning of a packet, or what a parked link has sent.
    fn keep(&mut self, id: LinkId, mut inbox: Vec<u8>, rest: &[u8], now: Now) {
        let Some(link) = self
            .links
            .get_mut(id)
            .filter(|link| !rest.is_empty() && link.phase != Phase::Closing)
        else {
            return;
        };
        if self
            .buffers
            .grow(&mut inbox, link.inbox_needs.max(rest.len()))
        {
            inbox.extend_from_slice(rest);
            link.inbox = inbox;
        } else {
            self.shed(id, now);
        }
    }

    /// The pool of buffers is used up: whoever needs more of it now is closed, and nobody else notices.
    pub(super) fn shed(&mut self, id: LinkId, now: Now) {
        self.counters.links_shed += 1;
        self.close(id, ReasonCode::QuotaExceeded, now);
    }

    /// Takes the whole packets at the beginning of `bytes`, and says how many bytes they were.
    fn packets(&mut self, id: LinkId, bytes: &[u8], now: Now) -> usize {
        let mut used = 0;
        let mut taken = 0;
        loop {
            let Some(link) = self.links.get_mut(id) else {
                return bytes.len();
            };
            link.inbox_needs = 0;
            let packet_max = match link.phase {
                Phase::Opened => CONNECT_BYTES.min(self.limits.packet_max as usize),
                _ => self.limits.packet_max as usize,
            };
            match link.phase {
                Phase::Closing => return bytes.len(),
                Phase::Connecting => return used,
                Phase::Opened | Phase::Connected => {}
            }
            if used == bytes.len() {
                return used;
            }
            if taken == LINK_PACKETS {
                // The rest comes in the next turn, so that none starves another.
                self.again = true;
                self.park(id, false, now);
                return used;
            }
            if !link.acks.has_room(&self.buffers.acks) {
                self.park(id, false, now);
                return used;
            }
            let version = link.version;
            let mut end = bytes.len();
            let flow = match frame(&bytes[used..], packet_max) {
                Ok(Frame::Incomplete { len }) => {
                    link.inbox_needs = len.unwrap_or(0);
                    link.held_up.partial_since.get_or_insert(now.mono);
                    self.watch(id);
                    return used;
                }
                Ok(Frame::Complete { len }) => {
                    end = used + len;
                    let whole = &bytes[used..end];
                    link.heard = now.mono;
                    if link.held_up.partial_since.is_some() {
                        link.held_up.partial_since = None;
                    }
                    let flow = match packet(version, whole) {
                        Ok(packet) => self.packet(id, &packet, len, now),
                        Err(malformed) => Flow::Fault(malformed),
                    };
                    self.counters.packets_received += u64::from(!matches!(flow, Flow::Park { .. }));
                    if flow == Flow::Taken {
                        used += len;
                        taken += 1;
                        self.forget_retried(id);
                    }
                    flow
                }
                Err(malformed) => Flow::Fault(malformed),
            };
            match flow {
                Flow::Taken => {}
                Flow::Park { refuse } => {
                    self.park(id, refuse, now);
                    return used;
                }
                Flow::Close(reason) => {
                    self.close(id, reason, now);
                    return bytes.len();
                }
                Flow::Fault(fault) => {
                    self.fault(id, &fault, &bytes[used..end], now);
                    return bytes.len();
                }
                Flow::HangUp => {
                    self.hang_up(id, now);
                    return bytes.len();
                }
            }
        }
    }

    /// One handler per packet, found by its name; the packet has `len` bytes.
    fn packet(&mut self, id: LinkId, packet: &Packet, len: usize, now: Now) -> Flow {
        let Some(link) = self.links.get(id) else {
            return Flow::HangUp;
        };
        if link.phase == Phase::Opened {
            return match packet {
                Packet::Connect(connect) => self.handle_connect(id, connect, now),
                // The first packet must be a CONNECT [MQTT-3.1.0-1].
                _ => Flow::HangUp,
            };
        }
        let Some(place) = link.session else {
            return Flow::HangUp;
        };
        match packet {
            Packet::Publish(publish) => {
                if let Some(flow) = self.comes_too_early(id, len, now) {
                    return flow;
                }
                let flow = match publish.properties.topic_alias() {
                    Some(alias) => self.handle_aliased_publish(id, publish, alias, now),
                    None => self.handle_publish(id, publish, now),
                };
                if flow == Flow::Taken {
                    self.count_against_rate(id, len, now);
                }
                flow
            }
            Packet::PubAck(_) | Packet::PubRec(_) | Packet::PubRel(_) | Packet::PubComp(_)
                if !self.takes_acks(place) =>
            {
                Flow::Park { refuse: false }
            }
            Packet::PubAck(ack) => self.handle_puback(place, ack, now),
            Packet::PubRec(ack) => self.handle_pubrec(id, place, ack, now),
            Packet::PubRel(ack) => self.handle_pubrel(id, place, ack, now),
            Packet::PubComp(ack) => self.handle_pubcomp(place, ack, now),
            Packet::Subscribe(subscribe) => self.handle_subscribe(id, subscribe, now),
            Packet::Unsubscribe(unsubscribe) => self.handle_unsubscribe(id, unsubscribe, now),
            Packet::PingReq => {
                self.handle_pingreq(id);
                Flow::Taken
            }
            Packet::Disconnect(disconnect) => self.handle_disconnect(id, disconnect, now),
            Packet::Connect(_) => Flow::Fault(SECOND_CONNECT),
            Packet::Auth(_) => Flow::Fault(Malformed::protocol(
                "MQTT-4.12.0-7",
                "there is an AUTH, and the CONNECT had no Authentication Method",
            )),
            _ => Flow::Fault(Malformed::protocol(
                "MQTT 2.1.2",
                "there is a packet that a client does not send",
            )),
        }
    }

    fn handle_pingreq(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(id) {
            link.pings_owed = link.pings_owed.saturating_add(1);
            self.send_pingresps(id);
        }
    }

    pub(super) fn send_pingresps(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        while link.pings_owed > 0
            && link
                .outbox
                .control(&Packet::PingResp, link.version, &mut self.buffers)
        {
            link.pings_owed -= 1;
        }
        self.note_sending(id);
    }

    fn handle_disconnect(&mut self, id: LinkId, disconnect: &Disconnect, now: Now) -> Flow {
        let place = self.links.get(id).and_then(|link| link.session);
        let Some((place, session)) =
            place.and_then(|place| Some((place, self.sessions.get_mut(place)?)))
        else {
            return Flow::HangUp;
        };
        let before = session.expiry_interval;
        let asked = disconnect.properties.session_expiry_interval();
        if before == 0 && asked.is_some_and(|asked| asked > 0) {
            return Flow::Fault(Malformed::protocol(
                "MQTT 3.14.2.2.2",
                "a session that was to end with its connection cannot be kept after all",
            ));
        }
        if let Some(asked) = asked.filter(|_| !session.configured) {
            session.expiry_interval = asked.min(self.limits.session_expiry_max);
        }
        // One that ends now is dropped; a record of it would be for nothing.
        if session.expiry_interval != before && session.expiry_interval > 0 {
            self.save_session(place, false, now);
        }
        if disconnect.reason == ReasonCode::Success {
            self.discard_will(place, now);
        }
        Flow::HangUp
    }

    /// Answers a packet that breaks a rule [MQTT 4.13]: 5.0 with the Reason Code, 3.1.1 by closing the
    /// link.
    fn fault(&mut self, id: LinkId, fault: &Malformed, bytes: &[u8], now: Now) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        // Whatever else is wrong with it: its Reason Codes are those of a CONNACK.
        let is_second_connect = link.phase != Phase::Opened && connect_level(bytes).is_some();
        let fault = if is_second_connect {
            &SECOND_CONNECT
        } else {
            fault
        };
        let words = reason_string::of_malformed(fault);
        if link.phase == Phase::Opened {
            // Only a CONNECT is answered, in the form of the level that it states.
            let version = match connect_level(bytes) {
                Some(level) if level >= Version::V5 as u8 => Some(Version::V5),
                Some(_) if fault.reason == ReasonCode::UnsupportedProtocolVersion => {
                    Some(Version::V311)
                }
                _ => None,
            };
            if let Some(version) = version {
                link.version = version;
                self.send_refusal(id, fault.reason, &words);
            }
        }
        self.close_saying(id, fault.reason, &words, now);
    }

    // --- Parking ---

    fn park(&mut self, id: LinkId, refuse: bool, now: Now) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        // A packet that has to wait once more waits since when it first did.
        let retried = link
            .held_up
            .retried
            .take_if(|retried| retried.refuse == refuse);
        if retried.is_none() && refuse {
            self.timers
                .set(now.mono.after(self.limits.park_max), Timer::Parked(id));
        }
        link.held_up.parked = Some(retried.unwrap_or(Parked {
            since: now.mono,
            refuse,
        }));
        self.parked.push_back(id);
    }

    /// The packet that was parked is not waiting any more.
    fn forget_retried(&mut self, id: LinkId) {
        let Some(link) = self
            .links
            .get_mut(id)
            .filter(|link| link.held_up.retried.is_some())
        else {
            return;
        };
        let retried = link.held_up.retried.take();
        if let Some(retried) = retried.filter(|retried| retried.refuse) {
            self.timers
                .clear(retried.since.after(self.limits.park_max), Timer::Parked(id));
        }
    }

    /// Whether somebody waits for room in the journal.
    pub(super) fn waits_for_room(&self) -> bool {
        !self.parked.is_empty()
            || !self.unsettled.is_empty()
            || !self.handing.is_empty()
            || self.wills.is_waiting()
    }

    /// Lets parked links try again, if room was made.
    pub fn resume_parked(&mut self, now: Now) {
        let again = std::mem::take(&mut self.again);
        if !self.journal.take_made_room() && !again {
            return;
        }
        self.publish_waiting_wills(now);
        for place in std::mem::take(&mut self.unsettled) {
            self.note_dirty(place);
        }
        for _ in 0..self.parked.len() {
            let Some(id) = self.parked.pop_front() else {
                return;
            };
            if self.publishes_too_fast(id) {
                self.parked.push_back(id);
            } else {
                self.resume(id, now);
            }
        }
    }

    /// Lets a link try its next packet again.
    pub(super) fn resume(&mut self, id: LinkId, now: Now) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        link.held_up.retried = link.held_up.parked.take();
        link.heard = now.mono;
        let inbox = std::mem::take(&mut link.inbox);
        self.inbox_packets(id, inbox, now);
        self.forget_retried(id);
        self.watch(id);
        self.rearm_if_readable(id);
    }

    /// Lets what was left unread be read.
    pub(super) fn rearm_if_readable(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(id).filter(|link| link.is_readable()) else {
            return;
        };
        if std::mem::take(&mut link.unread) {
            self.rearm.push(id);
        }
    }

    /// A packet has been parked for too long: fullness is lasting, and it is refused.
    pub(super) fn park_is_over(&mut self, id: LinkId, now: Now) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        if link.held_up.parked.take().is_none() {
            return;
        }
        self.parked.retain(|other| *other != id);
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let mut inbox = std::mem::take(&mut link.inbox);
        let len = match frame(&inbox, self.limits.packet_max as usize) {
            Ok(Frame::Complete { len }) => len,
            _ => 0,
        };
        let flow = match packet(link.version, &inbox[..len]) {
            Ok(Packet::Publish(publish)) => {
                self.refuse_publish(id, &publish, ReasonCode::QuotaExceeded)
            }
            _ => Flow::Close(ReasonCode::QuotaExceeded),
        };
        if let Flow::Close(reason) = flow {
            self.buffers.give(inbox);
            self.close(id, reason, now);
            return;
        }
        inbox.drain(..len);
        self.inbox_packets(id, inbox, now);
        self.rearm_if_readable(id);
    }
}
