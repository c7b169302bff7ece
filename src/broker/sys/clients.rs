//! `$SYS/larder/client/…`: what was dropped on its way to which client, of which class, and why.
//!
//! Only what is not zero is told, and only when it has changed, of the [`SYS_CLIENTS`] clients that have lost something
//! most recently. Of a client whose session has ended, or in whose place others have come, nothing is retained any more.

use super::super::Broker;
use super::super::handover::is_ended;
use super::super::session::Drops;
use crate::limits::{CLIENT_ID_BYTES, SESSION_LANES, SYS_CLIENTS};
use crate::time::Now;
use std::collections::VecDeque;
use std::fmt::Write;

/// What was dropped of a class; `None`: of what is in none.
type Dropped = (Option<Box<str>>, Drops);

/// A client of which something is told.
pub(super) struct Client {
    client_id: Box<str>,
    /// What was told last.
    told: Vec<Dropped>,
}

/// Bytes of a client of which something is told, without the topics.
pub(in super::super) const SYS_CLIENT_BYTES: usize =
    size_of::<Client>() + CLIENT_ID_BYTES + (SESSION_LANES + 1) * (size_of::<Dropped>() + 64);

impl Broker {
    /// Tells what has changed since the last time.
    pub(super) fn publish_clients(&mut self, now: Now) {
        let mut shown = std::mem::take(&mut self.sys.clients);
        let mut changed = VecDeque::new();
        for _ in 0..shown.len() {
            let Some(mut client) = shown.pop_front() else {
                break;
            };
            let is_there = self.sessions.find(&client.client_id).is_some();
            match self.tell_client(&mut client, now) {
                _ if !is_there => {}
                true => changed.push_back(client),
                false => shown.push_back(client),
            }
        }
        let others = self.sessions.iter().filter(|(_, session)| {
            session.drops.sum() != session.drops_told && !is_ended(&session.client_id)
        });
        let others = others.take(SYS_CLIENTS - changed.len());
        let others: Vec<Box<str>> = others.map(|(_, of)| of.client_id.clone()).collect();
        for client_id in others {
            let told = Vec::new();
            let mut client = Client { client_id, told };
            self.tell_client(&mut client, now);
            changed.push_back(client);
        }
        shown.append(&mut changed);
        while shown.len() > SYS_CLIENTS {
            if let Some(client) = shown.pop_front() {
                self.tell_changes(&client, &[], now);
            }
        }
        self.sys.clients = shown;
    }

    /// Tells what has changed of a client, all of it if its session has ended; `false`: nothing has.
    fn tell_client(&mut self, client: &mut Client, now: Now) -> bool {
        if let Some(place) = self.sessions.find(&client.client_id) {
            if let Some(session) = self.sessions.get_mut(place) {
                session.drops_told = session.drops.sum();
            }
        }
        let drops: Vec<Dropped> = self
            .drops_of(&client.client_id)
            .into_iter()
            .filter(|(_, drops)| *drops != Drops::default())
            .map(|(class, drops)| (class.map(Box::from), drops))
            .collect();
        if drops == client.told {
            return false;
        }
        self.tell_changes(client, &drops, now);
        client.told = drops;
        true
    }

    /// Tells what is another figure in `drops` than was told. What is zero again is not retained any more.
    fn tell_changes(&mut self, client: &Client, drops: &[Dropped], now: Now) {
        let of = |all: &[Dropped], class: &Option<Box<str>>| {
            let found = all.iter().find(|(other, _)| other == class);
            found.map_or_else(Drops::default, |(_, drops)| *drops)
        };
        let gone = client.told.iter().map(|(class, _)| class);
        let gone = gone.filter(|class| drops.iter().all(|(other, _)| other != *class));
        let client_id = encoded(&client.client_id);
        let (mut topic, mut payload) = (String::new(), String::new());
        for class in drops.iter().map(|(class, _)| class).chain(gone) {
            let (told, is) = (of(&client.told, class), of(drops, class));
            for ((reason, told), (_, figure)) in told.by_reason().into_iter().zip(is.by_reason()) {
                if figure == told {
                    continue;
                }
                topic.clear();
                payload.clear();
                // Writing into a String cannot fail.
                let _ = match class {
                    None => write!(topic, "$SYS/larder/client/{client_id}/dropped/{reason}"),
                    Some(class) => write!(
                        topic,
                        "$SYS/larder/client/{client_id}/class/{class}/dropped/{reason}"
                    ),
                };
                if figure > 0 {
                    let _ = write!(payload, "{figure}");
                }
                self.publish_own(&topic, payload.as_bytes(), now);
            }
        }
    }
}

/// A Client Identifier as one level of a Topic Name: what levels and wildcards are written with is percent-encoded.
fn encoded(client_id: &str) -> String {
    let mut level = String::with_capacity(client_id.len());
    for character in client_id.chars() {
        match character {
            '/' | '+' | '#' | '%' => {
                let _ = write!(level, "%{:02X}", u32::from(character));
            }
            _ => level.push(character),
        }
    }
    level
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_identifier_is_one_level() {
        assert_eq!(encoded("press-1 Süd"), "press-1 Süd");
        assert_eq!(
            encoded("$larder/bridge/a+b#%2F"),
            "$larder%2Fbridge%2Fa%2Bb%23%252F"
        );
    }
}
