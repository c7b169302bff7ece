//! Closing a link from our side: what the client is told, and what still leaves.

use super::Broker;
use super::link::Phase;
use super::reason_string;
use crate::net::LinkId;
use crate::time::Now;
use larder_packet::{Disconnect, Packet, PropertyBuf, ReasonCode, Version};

impl Broker {
    /// Closes a link from our side. A 5.0 client that is connected is told why.
    pub(super) fn close(&mut self, id: LinkId, reason: ReasonCode, now: Now) {
        self.close_saying(id, reason, reason_string::of_close(reason), now);
    }

    pub(super) fn close_saying(&mut self, id: LinkId, reason: ReasonCode, words: &str, now: Now) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        if link.phase == Phase::Closing {
            return;
        }
        if link.version == Version::V5 && matches!(link.phase, Phase::Connected) {
            // After a DISCONNECT nothing may follow [MQTT-3.14.4-1].
            self.leave_acks(id);
            let Some(link) = self.links.get_mut(id) else {
                return;
            };
            let mut buffer = PropertyBuf::new();
            let disconnect = link.terms().explained(words, &mut buffer, |properties| {
                Packet::Disconnect(Disconnect { reason, properties })
            });
            link.outbox
                .control(&disconnect, Version::V5, &mut self.buffers);
        }
        self.log_close(id, reason, words);
        self.hang_up(id, now);
    }

    fn log_close(&self, id: LinkId, reason: ReasonCode, words: &str) {
        let place = self.links.get(id).and_then(|link| link.session);
        let client_id = place
            .and_then(|place| self.sessions.get(place))
            .map_or("", |session| &*session.client_id);
        log::info!(
            "link {} ({client_id:?}): closed: {} (0x{:02X}){}{words}",
            id.index,
            reason.name(),
            reason as u8,
            if words.is_empty() { "" } else { ": " },
        );
    }

    /// Closes a link after what is in its outbox.
    pub(super) fn hang_up(&mut self, id: LinkId, now: Now) {
        self.detach(id, now);
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        if link.phase == Phase::Closing {
            return;
        }
        link.phase = Phase::Closing;
        self.closing.push(id);
        self.note_sending(id);
    }

    /// All 5.0 clients are told that the server shuts down, and all links closed.
    pub fn shut_down(&mut self, now: Now) {
        let ids: Vec<LinkId> = self.links.ids().collect();
        for id in ids {
            self.close(id, ReasonCode::ServerShuttingDown, now);
        }
    }
}
