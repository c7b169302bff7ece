//! What a server writes, but for the messages that it delivers: an acknowledgement only of what is durable.

use super::Oracle;
use crate::clock::Millis;
use crate::net::Conn;
use crate::wire::Wire;
use larder::limits::PACKET_WAIT;
use larder_packet::Qos;

impl Oracle {
    pub(super) fn packet_written(
        &mut self,
        at: usize,
        conn: Conn,
        wire: Wire,
    ) -> Result<(), String> {
        let (now, tick) = (self.now, self.tick);
        let server = &mut self.servers[at];
        let Some(link) = server.links.get_mut(&conn) else {
            return Ok(());
        };
        if !link.connected && !matches!(wire, Wire::ConnAck { .. } | Wire::Disconnect { .. }) {
            return Err(format!("{wire} left before the CONNACK [MQTT-3.2.0-1]"));
        }
        match wire {
            Wire::ConnAck {
                present, reason, ..
            } => server.connack(conn, present, reason, now),
            Wire::Publish(message) => {
                self.delivered += 1;
                self.delivery(at, conn, message)
            }
            Wire::PubAck { pid, reason } => self.taken(at, conn, Qos::AtLeastOnce, pid, reason),
            Wire::PubRec { pid, reason } => self.taken(at, conn, Qos::ExactlyOnce, pid, reason),
            Wire::PubRel { pid, reason } => self.pubrel(at, conn, pid, reason),
            Wire::PubComp { pid, .. } => self.pubcomp(at, conn, pid),
            Wire::SubAck { pid, reasons } => {
                let Some((_, filters)) = link.subscribing.pop_front().filter(|(of, _)| *of == pid)
                else {
                    return Err(format!("SUBACK #{pid} out of order"));
                };
                let client = link.client().unwrap_or_default();
                let key = server.keys.get(&client).copied();
                let Some(session) = server.sessions.get_mut(&client) else {
                    return Ok(());
                };
                for (filter, reason) in filters.iter().zip(reasons) {
                    if reason >= 0x80 {
                        return Err(format!(
                            "{client}: {} refused: 0x{reason:02X}",
                            filter.filter
                        ));
                    }
                    let on_disk = key.is_some_and(|key| {
                        server.subscriptions.contains(&(key, filter.filter.clone()))
                    });
                    for subscribed in &mut session.subscriptions {
                        if subscribed.filter == filter.filter && subscribed.ending.is_none() {
                            subscribed.granted.get_or_insert(tick);
                            if session.stored && !on_disk {
                                return Err(format!(
                                    "{client}: SUBACK of {} left before it was committed",
                                    filter.filter
                                ));
                            }
                        }
                    }
                }
                Ok(())
            }
            Wire::UnsubAck { pid } => {
                let Some((_, filters)) =
                    link.unsubscribing.pop_front().filter(|(of, _)| *of == pid)
                else {
                    return Err(format!("UNSUBACK #{pid} out of order"));
                };
                let client = link.client().unwrap_or_default();
                let Some(session) = server.sessions.get_mut(&client) else {
                    return Ok(());
                };
                for filter in filters {
                    let ending = session
                        .subscriptions
                        .iter_mut()
                        .filter(|of| of.filter == filter && of.ending.is_some());
                    ending.for_each(|of| of.ended = of.ended.or(Some(tick)));
                    // Subscribed again behind it: then it stands there, rightly.
                    let again = session
                        .subscriptions
                        .iter()
                        .any(|of| of.filter == filter && of.ending.is_none());
                    let key = server.keys.get(&client).copied();
                    let on_disk = key
                        .is_some_and(|key| server.subscriptions.contains(&(key, filter.clone())));
                    if session.stored && on_disk && !again {
                        return Err(format!(
                            "{client}: UNSUBACK of {filter} left before it was committed"
                        ));
                    }
                }
                Ok(())
            }
            Wire::Disconnect { reason, .. } => {
                let silence = now - link.heard;
                let packet_wait = PACKET_WAIT.as_millis() as Millis;
                let keep_alive = link.hello.as_ref().map_or(0, |hello| hello.keep_alive);
                match reason {
                    0x8E | 0x97 => Ok(()),
                    0x8D if silence >= u64::from(keep_alive) * 1500 && keep_alive > 0 => Ok(()),
                    0x8D => Err(format!(
                        "a link was closed after {silence} ms of silence, its keep alive is {keep_alive} s"
                    )),
                    // The rest of a packet never came: its link was cut.
                    0x80 if link.begun.is_some_and(|since| now - since >= packet_wait) => Ok(()),
                    _ => Err(format!(
                        "a client that kept the rules was sent DISCONNECT 0x{reason:02X}"
                    )),
                }
            }
            _ => Ok(()),
        }
    }

    /// A PUBACK or PUBREC leaves.
    fn taken(
        &mut self,
        at: usize,
        conn: Conn,
        qos: Qos,
        pid: u16,
        reason: u8,
    ) -> Result<(), String> {
        self.acknowledged += u64::from(reason < 0x80);
        let (now, tick) = (self.now, self.tick);
        let server = &mut self.servers[at];
        let Some(link) = server.links.get_mut(&conn) else {
            return Ok(());
        };
        let publisher = link.client().unwrap_or_default();
        let oldest = link.incoming.iter().position(|of| of.qos == qos);
        let oldest = oldest.and_then(|index| link.incoming.remove(index));
        let Some(incoming) = oldest.filter(|of| of.pid == pid) else {
            return Err(format!(
                "{publisher}: the acknowledgement of #{pid} is not for the oldest PUBLISH [MQTT-4.6.0-2, MQTT-4.6.0-3]"
            ));
        };
        let id = incoming.id;
        let transmission = server.transmissions.get_mut(&id).and_then(|all| {
            all.iter_mut()
                .find(|one| one.conn == conn && one.from == incoming.transmission)
        });
        if let Some(transmission) = transmission {
            transmission.to = Some(tick);
            transmission.refused = reason >= 0x80;
        }
        if reason >= 0x80 {
            if let Some(session) = server.sessions.get_mut(&publisher) {
                session.holding.remove(&pid);
            }
            let waited = now - incoming.read;
            return if reason != 0x97 {
                Err(format!("{id} was refused: 0x{reason:02X}"))
            } else if waited < server.park_max {
                Err(format!(
                    "{id} was refused after {waited} ms: only lasting fullness is final"
                ))
            } else {
                Ok(())
            };
        }
        server.acknowledged.insert((publisher.clone(), id));
        for client in &incoming.owed {
            let key = server.keys.get(client).copied();
            let Some(session) = server.sessions.get_mut(client) else {
                continue;
            };
            // Still subscribed, in the same session, since the PUBLISH was read?
            let own = *client == publisher;
            if !session.is_owed(&incoming.topic, own, incoming.taken) {
                continue;
            }
            let exempt = self
                .published
                .get(&id)
                .is_none_or(|published| published.is_exempt(session));
            if exempt || session.may_have_expired(now) {
                continue;
            }
            let on_disk = key.is_some_and(|key| server.rows_ever.contains(&(key, id)));
            if !on_disk && !session.got.contains(&id) {
                return Err(format!(
                    "the acknowledgement of {id} left, and for {client} it is neither on disk nor acknowledged"
                ));
            }
            if reason == 0x10 {
                return Err(format!(
                    "{id} matches {client}, and was told to match nobody"
                ));
            }
            session.owed.insert(id);
        }
        if qos == Qos::ExactlyOnce {
            self.pubrec(at, &publisher, pid, id)?;
        }
        Ok(())
    }
}
