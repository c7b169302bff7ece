//! The messages that a server delivers: what it may deliver, in which order, and under which Packet Identifier.

use super::Oracle;
use super::session::{Sent, Subscribed};
use crate::disk::PART;
use crate::net::Conn;
use crate::plan::CLASSED;
use crate::wire::{Id, Message};
use larder_packet::{Qos, topic};

impl Oracle {
    pub(super) fn delivery(
        &mut self,
        at: usize,
        conn: Conn,
        message: Message,
    ) -> Result<(), String> {
        let server = &mut self.servers[at];
        let life = server.life;
        let Some(link) = server.links.get_mut(&conn) else {
            return Ok(());
        };
        let client = link.client().unwrap_or_default();
        // On a link that was taken over, what was in the outbox may still leave; a volatile session ended with it.
        let Some(session) = server
            .sessions
            .get_mut(&client)
            .filter(|session| session.stored || session.conn == Some(conn))
        else {
            return Ok(());
        };
        let Some(id) = Id::of(&message.payload) else {
            return Err(format!("{client}: a payload that nobody has published"));
        };
        let (Some(published), Some(transmissions)) =
            (self.published.get(&id), server.transmissions.get(&id))
        else {
            return Err(format!("{client}: {id} was never published here"));
        };
        if message.payload != id.payload(published.len) {
            return Err(format!("{client}: {id} came with another payload"));
        }
        // Somebody published it while there was a subscription for it.
        let matching = session
            .subscriptions
            .iter()
            .filter(|of| topic::matches(&of.filter, &message.topic));
        let wanted = matching.filter(|of| {
            transmissions.iter().any(|one| {
                let before_its_end = of.ended.is_none_or(|ended| one.from < ended);
                let after_its_begin = one.to.is_none_or(|to| of.asked < to);
                !one.refused && before_its_end && after_its_begin
            })
        });
        let wanted: Vec<&Subscribed> = wanted.collect();
        if wanted.is_empty() {
            return Err(format!(
                "{client}: {id} on {} came without a subscription that it was published under",
                message.topic
            ));
        }
        // With the Quality of Service of one that matches, and no less than of one that stood all the time.
        let transmitted = || transmissions.iter().map(|one| one.qos);
        let granted = |of: &&Subscribed, qos: Qos| of.qos.min(qos);
        let can_be = wanted
            .iter()
            .any(|of| transmitted().any(|qos| granted(of, qos) == message.qos));
        let stands = |of: &&&Subscribed| {
            let since = of.granted.unwrap_or(u64::MAX);
            of.ending.is_none() && transmissions.iter().all(|one| since < one.from)
        };
        let least = wanted
            .iter()
            .filter(stands)
            .filter_map(|of| transmitted().map(|qos| granted(of, qos)).min())
            .max();
        if !can_be || least.is_some_and(|least| message.qos < least) {
            return Err(format!(
                "{client}: {id} came with another Quality of Service"
            ));
        }
        let key = (
            id.publisher,
            message.topic.clone(),
            published.qos,
            message.qos,
        );
        if session.seen.insert(id) {
            let highest = session.highest.entry(key).or_insert(id);
            // One that had expired may come after all behind the others when the server has started since: the time since
            // it was last written down is forgotten.
            let in_order = !(self.reorders && client.starts_with(CLASSED));
            if id.number < highest.number && !published.expires && in_order {
                // Unless it was published again behind the other.
                let again = transmissions.last().map(|one| one.from);
                let first = server.transmissions[highest].first().map(|one| one.from);
                // What is sent before it is on disk may be forgotten by a crash, and be published again.
                let once = message.qos == Qos::ExactlyOnce;
                if once || again < first {
                    return Err(format!(
                        "{client}: {id} came for the first time after {highest} of the same topic"
                    ));
                }
            } else if id.number > highest.number {
                *highest = id;
            }
        }
        if message.qos == Qos::AtMostOnce {
            return Ok(());
        }
        if message.qos == Qos::ExactlyOnce {
            self.exactly_once_delivery(at, &client, id, &message)?;
        }
        let server = &mut self.servers[at];
        let (Some(link), Some(session), Some(published)) = (
            server.links.get_mut(&conn),
            server.sessions.get_mut(&client),
            self.published.get(&id),
        ) else {
            return Ok(());
        };
        if message.qos == Qos::ExactlyOnce {
            session.exactly.insert(id);
        }
        // Packet Identifiers.
        let pid = message.pid;
        // Each class keeps its order, and none keeps that of another.
        let lane = match self.classes && client.starts_with(CLASSED) {
            true => (pid - 1) / PART as u16,
            false => 0,
        };
        let last_ordinal = link.last_ordinals.get(&lane).copied().unwrap_or(0);
        let receive_maximum = link
            .hello
            .as_ref()
            .map_or(u16::MAX, |hello| hello.receive_maximum);
        link.in_flight.insert(pid);
        if link.in_flight.len() > usize::from(receive_maximum) {
            return Err(format!(
                "{client}: more than its Receive Maximum of {receive_maximum} in flight [MQTT-3.3.4-9]"
            ));
        }
        // Each start leaves out a block of numbers: after so many they come round.
        let no_wrap = life < session.began + 6;
        // One that has expired meanwhile has given its identifier back, and nobody hears of it.
        let gives_back = |sent: &Sent| {
            let expires = self.published.get(&sent.id).is_some_and(|of| of.expires);
            !no_wrap && !sent.acknowledged && expires
        };
        let before = session.sent.get(&pid).filter(|sent| !gives_back(sent));
        let same = |sent: &Sent| sent.message.is_same(&message);
        let verdict = match (message.dup, before) {
            (true, Some(sent)) if !sent.acknowledged && !same(sent) => Err(format!(
                "{client}: #{pid} is sent again with another content: {} was {}",
                id, sent.id
            )),
            (false, Some(sent)) if !sent.acknowledged => Err(format!(
                "{client}: #{pid} without DUP, though {} was sent under it and is not acknowledged",
                sent.id
            )),
            (false, Some(sent)) if same(sent) && no_wrap => Err(format!(
                "{client}: #{pid} ({id}) is sent again without DUP [MQTT-3.3.1-1]"
            )),
            (_, Some(sent)) if !same(sent) && no_wrap => Err(format!(
                "{client}: #{pid} is used for {id} and was used for {}",
                sent.id
            )),
            _ => Ok(()),
        };
        // Numbers have come round, and what was published twice has the identifier of its first copy; with DUP, if it may have
        // been sent before a start.
        let comes_round = |ordinal| {
            let is_new = !message.dup || ordinal <= last_ordinal;
            !no_wrap && is_new && before.is_some_and(|sent| sent.acknowledged)
        };
        let ordinal = match session.ordinals.get(&(pid, id)) {
            Some(ordinal) if !comes_round(*ordinal) => *ordinal,
            _ => {
                session.first_sent += 1;
                session.ordinals.insert((pid, id), session.first_sent);
                session.first_sent
            }
        };
        let sent = Sent {
            message,
            id,
            acknowledged: false,
            received: false,
            released: false,
            life,
        };
        session.sent.insert(pid, sent);
        if published.expires {
            return verdict;
        }
        if ordinal <= last_ordinal {
            return Err(format!(
                "{client}: #{pid} ({id}) is not sent in the original order [MQTT-4.6.0-1]"
            ));
        }
        link.last_ordinals.insert(lane, ordinal);
        verdict
    }
}
