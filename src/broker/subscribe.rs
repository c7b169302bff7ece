//! SUBSCRIBE and UNSUBSCRIBE, and their acknowledgements [MQTT 3.8 to 3.11].

use super::Broker;
use super::journal::RestsOn;
use super::reason_string;
use super::receive::Flow;
use super::router::subscription_bytes;
use crate::limits::{
    FILTER_LEVELS, SHARE_GROUPS, SUBSCRIBE_FILTERS, SUBSCRIBE_WALK_STEPS, TOPIC_BYTES,
};
use crate::net::LinkId;
use crate::record::{Change, SubscriptionRecord};
use crate::time::Now;
use larder_packet::{
    Packet, Properties, PropertyBuf, Qos, ReasonCode, SubAck, Subscribe, SubscriptionOptions,
    UnsubAck, Unsubscribe, Version, topic,
};

impl Broker {
    pub(super) fn handle_subscribe(&mut self, id: LinkId, subscribe: &Subscribe, now: Now) -> Flow {
        let Some((version, place)) = self
            .links
            .get(id)
            .and_then(|link| Some((link.version, link.session?)))
        else {
            return Flow::HangUp;
        };
        let bytes = subscribe
            .filters
            .iter()
            .map(|(filter, _)| filter.len())
            .sum();
        if let Some(flow) = self.changes_do_not_fit(id, place, bytes, subscribe.filters.len()) {
            return flow;
        }
        let identifier = subscribe.properties.subscription_identifier();
        let mut reasons = Vec::with_capacity(subscribe.filters.len());
        for (filter, options) in subscribe.filters.iter() {
            let reason = self.subscribe(place, filter, options, identifier, now);
            reasons.push(reason.map_or_else(|refused| refused as u8, |granted| granted as u8));
        }
        let Some(link) = self.links.get(id) else {
            return Flow::HangUp;
        };
        let words = reason_string::of_subscribe(&reasons);
        let mut buffer = PropertyBuf::new();
        let suback = link.terms().explained(words, &mut buffer, |properties| {
            Packet::SubAck(SubAck {
                packet_id: subscribe.packet_id,
                properties,
                reasons: &reasons,
            })
        });
        let flow = self.acknowledge_change(id, place, &suback, version);
        // A SUBACK that nothing is before and that rests on nothing leaves first. Those who subscribe before they publish,
        // in one go, get what was retained before what they publish.
        self.leave_acks(id);
        let mut steps = SUBSCRIBE_WALK_STEPS;
        self.walk(place, &mut steps, now);
        flow
    }

    pub(super) fn handle_unsubscribe(
        &mut self,
        id: LinkId,
        unsubscribe: &Unsubscribe,
        now: Now,
    ) -> Flow {
        let Some((version, place)) = self
            .links
            .get(id)
            .and_then(|link| Some((link.version, link.session?)))
        else {
            return Flow::HangUp;
        };
        let bytes = unsubscribe.filters.iter().map(str::len).sum();
        if let Some(flow) = self.changes_do_not_fit(id, place, bytes, unsubscribe.filters.len()) {
            return flow;
        }
        let mut reasons = Vec::with_capacity(unsubscribe.filters.len());
        for filter in unsubscribe.filters.iter() {
            let reason = if self.unsubscribe(place, filter, now) {
                ReasonCode::Success
            } else {
                ReasonCode::NoSubscriptionExisted
            };
            reasons.push(reason as u8);
        }
        let unsuback = UnsubAck {
            packet_id: unsubscribe.packet_id,
            properties: Properties::EMPTY,
            reasons: &reasons,
        };
        self.acknowledge_change(id, place, &Packet::UnsubAck(unsuback), version)
    }

    /// What becomes of a packet with so many filters, if it cannot be taken now.
    fn changes_do_not_fit(
        &self,
        id: LinkId,
        place: u32,
        bytes: usize,
        filters: usize,
    ) -> Option<Flow> {
        if filters > SUBSCRIBE_FILTERS {
            return Some(Flow::Close(ReasonCode::QuotaExceeded));
        }
        // [MQTT-3.1.2-24]: done and not acknowledged would be worse than not done.
        let packet_max = self.links.get(id).map_or(u32::MAX, |link| link.packet_max);
        if acknowledgement_len(filters) > packet_max as usize {
            return Some(Flow::Close(ReasonCode::PacketTooLarge));
        }
        let fits = !self.is_stored(place) || self.journal.has_room_for_changes(bytes, filters);
        (!fits).then_some(Flow::Park { refuse: false })
    }

    /// The acknowledgement rests on the session's last change, also where this packet changed nothing.
    fn acknowledge_change(
        &mut self,
        id: LinkId,
        place: u32,
        packet: &Packet,
        version: Version,
    ) -> Flow {
        let Some(session) = self.sessions.get(place) else {
            return Flow::HangUp;
        };
        let rests_on = match (&session.queue, session.walked()) {
            (None, _) => RestsOn::Nothing,
            (Some(_), Some(ticket)) => RestsOn::Ticket(ticket),
            (Some(_), None) => RestsOn::Walks,
        };
        if let Some(link) = self.links.get_mut(id) {
            let pool = &mut self.buffers.acks;
            link.acks.other(packet, version, rests_on, pool);
        }
        self.note_releasable(id);
        Flow::Taken
    }

    fn subscribe(
        &mut self,
        place: u32,
        filter: &str,
        options: SubscriptionOptions,
        identifier: Option<u32>,
        now: Now,
    ) -> Result<Qos, ReasonCode> {
        // The codec has closed a 5.0 link for what looks like a Shared Subscription and is none [MQTT-4.8.2-1]; 3.1.1 knows none.
        if filter.starts_with("$share/") && topic::shared(filter).is_none() {
            return Err(ReasonCode::TopicFilterInvalid);
        }
        if filter.len() > TOPIC_BYTES || topic::levels(filter).count() > FILTER_LEVELS {
            return Err(ReasonCode::TopicFilterInvalid);
        }
        let record = SubscriptionRecord {
            qos: options.qos as u8,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            retain_handling: options.retain_handling,
            identifier,
        };
        self.add_subscription(place, filter, record, now)?;
        Ok(options.qos)
    }

    /// Adds a subscription, or replaces the one with the same filter; one that stays the same is not written again.
    pub(super) fn add_subscription(
        &mut self,
        place: u32,
        filter: &str,
        record: SubscriptionRecord,
        now: Now,
    ) -> Result<(), ReasonCode> {
        let Some(session) = self.sessions.get_mut(place) else {
            return Err(ReasonCode::UnspecifiedError);
        };
        let is_full = session.filters.len() >= self.limits.subscriptions_per_session as usize
            || self.router.bytes() + subscription_bytes(filter)
                > self.limits.subscription_pool_bytes
            || self.router.has_no_group_for(filter, SHARE_GROUPS);
        if is_full && !session.filters.iter().any(|known| &**known == filter) {
            self.counters.subscriptions_shed += 1;
            return Err(ReasonCode::QuotaExceeded);
        }
        let before = self.router.subscribe(filter, place, record);
        if before.is_none() {
            session.filters.push(filter.into());
        }
        let is_new = before.is_none();
        let to_record = session.queue.is_some() && before != Some(record);
        if !self.begin_walk(place, filter, record, is_new, to_record) && to_record {
            self.record_subscription(place, filter, record, now);
        }
        Ok(())
    }

    /// Records a subscription of a stored session.
    pub(super) fn record_subscription(
        &mut self,
        place: u32,
        filter: &str,
        record: SubscriptionRecord,
        now: Now,
    ) {
        let session = self.sessions.get_mut(place);
        let Some((key, session)) = session.and_then(|session| Some((session.key()?, session)))
        else {
            return;
        };
        let filter = self.journal.bytes(filter.as_bytes());
        let change = Change::Subscribe {
            session: key,
            filter,
            record,
        };
        session.ticket = self.journal.record(change, true, now);
    }

    /// Removes a subscription; `false` if there was none.
    pub(super) fn unsubscribe(&mut self, place: u32, filter: &str, now: Now) -> bool {
        if !self.router.unsubscribe(filter, place) {
            return false;
        }
        if let Some(session) = self.sessions.get_mut(place) {
            session.filters.retain(|known| &**known != filter);
            if !session.walks.is_empty() {
                session.walks.all.retain(|walk| !walk.is_for(filter));
            }
            if let Some(key) = session.key() {
                let filter = self.journal.bytes(filter.as_bytes());
                session.ticket = self.journal.record(
                    Change::Unsubscribe {
                        session: key,
                        filter,
                    },
                    true,
                    now,
                );
            }
        }
        true
    }
}

/// Bytes of the SUBACK or UNSUBACK of 5.0 for so many filters: Packet Identifier, Property Length, and the Reason Codes
/// after a fixed header.
fn acknowledgement_len(filters: usize) -> usize {
    let body = 2 + 1 + filters;
    let length_len = if body < 128 { 1 } else { 2 };
    1 + length_len + body
}
