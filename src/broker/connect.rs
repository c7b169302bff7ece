//! CONNECT: which session the link gets, and the CONNACK [MQTT 3.1, 3.2].

use super::Broker;
use super::handover::is_ended;
use super::journal::RestsOn;
use super::link::{KeepAlive, Phase};
use super::queue::Queue;
use super::reason_string;
use super::receive::Flow;
use super::rules::RESERVED_CLIENT_IDS;
use super::session::Session;
use super::will::asked_bytes;
use crate::limits::{CLIENT_ID_BYTES, SESSION_LANES};
use crate::net::LinkId;
use crate::record::SessionKey;
use crate::time::Now;
use larder_packet::{ConnAck, Connect, Packet, Property, PropertyBuf, ReasonCode, Version};
use std::time::Duration;

/// Changes that a CONNECT may bring: the end of a session, a new one with its reserve and its lanes, and a Will.
const CONNECT_CHANGES: usize = 5 + 2 * SESSION_LANES;

impl Broker {
    pub(super) fn handle_connect(&mut self, id: LinkId, connect: &Connect, now: Now) -> Flow {
        let Some(link) = self.links.get_mut(id) else {
            return Flow::HangUp;
        };
        link.version = connect.version;
        link.packet_max = connect.properties.maximum_packet_size().unwrap_or(u32::MAX);
        let problem_information = connect.properties.request_problem_information();
        link.problem_information = problem_information.unwrap_or(true);
        let packet_max = link.packet_max;
        let private = link.origin.private;
        if let Err(reason) = acceptable(connect, private) {
            return self.refuse_connect(id, connect, reason, reason_string::of_connect(reason));
        }
        let assigned = connect.client_id.is_empty().then(|| self.new_client_id());
        let client_id = assigned.as_deref().unwrap_or(connect.client_id);
        if let Some(will) = &connect.will {
            let place = self.sessions.find(client_id);
            if let Err(reason) = self.admit_will(place, will, connect.version) {
                let words = reason_string::of_will(reason);
                return self.refuse_connect(id, connect, reason, words);
            }
        }
        let expiry_interval = self.session_expiry(connect);
        // Room for what it may change: an end, a beginning, a reserve, a Will.
        let touches_store = expiry_interval > 0 || self.is_stored_session(client_id);
        let will_bytes = connect.will.as_ref().map_or(0, asked_bytes);
        let bytes = CLIENT_ID_BYTES + self.policies.names_bytes(client_id) + will_bytes;
        if touches_store && !self.journal.has_room_for_changes(bytes, CONNECT_CHANGES) {
            return Flow::Park { refuse: false };
        }
        let keep_alive = match self.limits.keep_alive_max {
            // 3.1.1 cannot be told another one.
            Some(max)
                if connect.version == Version::V5
                    && (connect.keep_alive == 0 || connect.keep_alive > max) =>
            {
                max
            }
            _ => connect.keep_alive,
        };
        let properties = self.connack_properties(
            id,
            connect,
            assigned.as_deref(),
            expiry_interval,
            keep_alive,
        );
        let mut connack = ConnAck {
            session_present: false,
            reason: ReasonCode::Success,
            properties: properties.as_properties(),
        };
        if Packet::ConnAck(connack).encoded_len(connect.version) > packet_max as usize {
            // [MQTT-3.1.2-24]
            let reason = ReasonCode::PacketTooLarge;
            return self.refuse_connect(id, connect, reason, reason_string::of_connect(reason));
        }

        let Ok(found) = self.session_to_resume(client_id, connect.clean_start, now) else {
            return Flow::Park { refuse: false };
        };
        connack.session_present = found.is_some();
        let place = match found {
            Some(place) => {
                self.stop_handover(place);
                self.resume_session(place, expiry_interval, now)
            }
            None if self.sessions.is_full() => {
                self.counters.connects_shed += 1;
                let reason = ReasonCode::QuotaExceeded;
                let words = reason_string::of_connect(reason);
                return self.refuse_connect(id, connect, reason, words);
            }
            None => self.new_session(client_id, expiry_interval, false, now),
        };
        self.set_will(place, connect.will.as_ref(), now);
        let Some(session) = self.sessions.get_mut(place) else {
            return Flow::HangUp;
        };
        // Without a stored session it rests on the end of the last one: it may have been this client's.
        let rests_on = RestsOn::Ticket(match session.queue {
            Some(_) => session.ticket,
            None => self.ended,
        });
        session.link = Some(id);
        self.connected += 1;
        self.counters.connected_max = self.counters.connected_max.max(self.connected);

        let Some(link) = self.links.get_mut(id) else {
            return Flow::HangUp;
        };
        link.phase = Phase::Connecting;
        link.session = Some(place);
        link.keep_alive = KeepAlive::new(keep_alive);
        link.receive_maximum = connect.properties.receive_maximum().unwrap_or(u16::MAX);
        let (packet, pool) = (Packet::ConnAck(connack), &mut self.buffers.acks);
        link.acks.connack(&packet, connect.version, rests_on, pool);
        self.counters.connects += 1;
        self.watch(id);
        self.note_releasable(id);
        Flow::Taken
    }

    /// The place of the session that a new link of this client takes up, if any. The old link is closed, a session that is
    /// to go ends, a Will that is due goes out; an error says that there is no room for that yet.
    fn session_to_resume(
        &mut self,
        client_id: &str,
        clean_start: bool,
        now: Now,
    ) -> Result<Option<u32>, NoRoomYet> {
        let place = self.sessions.find(client_id);
        if let Some(link) = place.and_then(|place| self.sessions.get(place)?.link) {
            // [MQTT-3.1.4-3]; a volatile session ends with its link.
            self.close(link, ReasonCode::SessionTakenOver, now);
        }
        let Some(place) = self.sessions.find(client_id) else {
            return Ok(None);
        };
        let session = self.sessions.get(place);
        if clean_start || session.is_some_and(|session| session.is_over(now.mono)) {
            let has_ended = self.end_session(place, now);
            return has_ended.then_some(None).ok_or(NoRoomYet);
        }
        let is_out = self.will_before_resumption(place, now);
        is_out.then_some(Some(place)).ok_or(NoRoomYet)
    }

    /// What a CONNACK that accepts announces.
    fn connack_properties(
        &mut self,
        id: LinkId,
        connect: &Connect,
        assigned: Option<&str>,
        expiry_interval: u32,
        keep_alive: u16,
    ) -> PropertyBuf {
        let mut properties = PropertyBuf::new();
        if connect.version == Version::V311 {
            return properties;
        }
        let asked = connect.properties.session_expiry_interval().unwrap_or(0);
        if expiry_interval != asked {
            properties.push(Property::SessionExpiryInterval(expiry_interval));
        }
        properties.push(Property::ReceiveMaximum(self.limits.receive_maximum));
        properties.push(Property::MaximumPacketSize(self.limits.packet_max));
        if let Some(link) = self.links.get_mut(id) {
            let asked = connect.properties.topic_alias_maximum().unwrap_or(0);
            link.aliases.to_client.allow(asked);
            match link.aliases.from_client.announce(&self.buffers.aliases) {
                0 => {}
                maximum => properties.push(Property::TopicAliasMaximum(maximum)),
            }
        }
        if let Some(assigned) = assigned {
            properties.push(Property::AssignedClientIdentifier(assigned));
        }
        if keep_alive != connect.keep_alive {
            properties.push(Property::ServerKeepAlive(keep_alive));
        }
        properties
    }

    fn refuse_connect(
        &mut self,
        id: LinkId,
        connect: &Connect,
        reason: ReasonCode,
        words: &str,
    ) -> Flow {
        log::info!(
            "link {}: CONNECT of {:?} refused: {} (0x{:02X}){}{words}",
            id.index,
            connect.client_id,
            reason.name(),
            reason as u8,
            if words.is_empty() { "" } else { ": " },
        );
        self.send_refusal(id, reason, words);
        Flow::HangUp
    }

    /// Puts a CONNACK that refuses into a link's outbox, unless it is larger than the client takes [MQTT-3.1.2-24].
    pub(super) fn send_refusal(&mut self, id: LinkId, reason: ReasonCode, words: &str) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let mut buffer = PropertyBuf::new();
        let refusal = link.terms().explained(words, &mut buffer, |properties| {
            Packet::ConnAck(ConnAck {
                session_present: false,
                reason,
                properties,
            })
        });
        if refusal.encoded_len(link.version) <= link.packet_max as usize {
            link.outbox
                .control(&refusal, link.version, &mut self.buffers);
        }
    }

    /// Seconds for which the session outlives its link; 0: it is volatile.
    fn session_expiry(&self, connect: &Connect) -> u32 {
        let asked = match connect.version {
            Version::V5 => connect.properties.session_expiry_interval().unwrap_or(0),
            Version::V311 if connect.clean_start => 0,
            Version::V311 => u32::MAX,
        };
        asked.min(self.limits.session_expiry_max)
    }

    fn is_stored_session(&self, client_id: &str) -> bool {
        self.sessions
            .find(client_id)
            .is_some_and(|place| self.is_stored(place))
    }

    fn new_client_id(&mut self) -> String {
        loop {
            let client_id = format!("auto-{:016x}", self.random.next());
            if self.sessions.find(&client_id).is_none() {
                return client_id;
            }
        }
    }

    /// Makes a session; a stored one if it is to outlive its link.
    pub(super) fn new_session(
        &mut self,
        client_id: &str,
        expiry_interval: u32,
        configured: bool,
        now: Now,
    ) -> u32 {
        let queue = (expiry_interval > 0).then(|| {
            let key = self.next_key;
            self.next_key = SessionKey(key.0 + 1);
            Box::new(Queue::new(key, self.policies.of(client_id)))
        });
        let classes = self.policies.classes_of(client_id);
        let has_lanes = queue
            .as_ref()
            .is_some_and(|queue| !classes.is_empty() || queue.policy().order.lanes_of_rest() > 0);
        let place = self.sessions.insert(Session {
            queue,
            expiry_interval,
            configured,
            ..Session::new(client_id, self.limits.window, classes)
        });
        self.save_session(place, true, now);
        if let Some(queue) = self
            .sessions
            .get_mut(place)
            .and_then(|session| session.queue.as_mut())
        {
            if has_lanes {
                queue.has_a_part();
            }
            queue.reserve(&mut self.journal, true, now);
        }
        self.note_committing(place);
        self.make_lanes(place, now);
        place
    }

    /// Takes up a stored session again; what changes of its record is written.
    fn resume_session(&mut self, place: u32, expiry_interval: u32, now: Now) -> u32 {
        self.make_lanes(place, now);
        let Some(session) = self.sessions.get_mut(place) else {
            return place;
        };
        session.left = None;
        session.away_before = Duration::ZERO;
        if let Some(at) = session.timer.take() {
            self.timers.clear(at, super::Timer::Away(place));
        }
        let noted = std::mem::take(&mut session.left_noted);
        if !session.configured && session.expiry_interval != expiry_interval {
            session.expiry_interval = expiry_interval;
        } else if !noted {
            return place;
        }
        self.save_session(place, true, now);
        place
    }

    /// The CONNACK has left: the link may be read, and delivered to.
    pub(super) fn connected(&mut self, id: LinkId, now: Now) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        link.phase = Phase::Connected;
        link.heard = now.mono;
        let place = link.session;
        let inbox = std::mem::take(&mut link.inbox);
        if let Some(place) = place {
            self.note_dirty(place);
        }
        self.watch(id);
        self.inbox_packets(id, inbox, now);
        self.rearm_if_readable(id);
    }
}

/// The journal has no room for what a CONNECT brings about.
struct NoRoomYet;

/// What can be said against a CONNECT without looking at sessions.
fn acceptable(connect: &Connect, private: bool) -> Result<(), ReasonCode> {
    if connect.properties.authentication_method().is_some() {
        return Err(ReasonCode::BadAuthenticationMethod);
    }
    let client_id = connect.client_id;
    let reserved = is_ended(client_id) || (client_id.starts_with(RESERVED_CLIENT_IDS) && !private);
    // A 3.1.1 client without an identifier cannot have a stored session [MQTT 3.1.1 MQTT-3.1.3-8].
    let nameless = client_id.is_empty() && connect.version == Version::V311 && !connect.clean_start;
    if reserved || nameless || client_id.len() > CLIENT_ID_BYTES {
        return Err(ReasonCode::ClientIdentifierNotValid);
    }
    Ok(())
}
