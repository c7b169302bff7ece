//! A whole conversation with the core: links that say anything, break, and do not read; time, crashes and a disk that
//! stalls. Whatever is heard is MQTT, and the server comes to rest after each step.

use crate::world::World;
use larder::limits::Limits;
use larder::net::LinkId;
use larder_packet::{Frame, Packet, Version, connect_level, frame, packet};
use std::collections::BTreeMap;
use std::time::Duration;

/// The number of a step: its first byte, modulo 16. Those below are [`Step::Send`].
const KINDS: u8 = 16;
/// A step in which bytes are sent.
pub(crate) const SEND: u8 = 0;
/// A step in which time passes.
pub(crate) const PASS: u8 = Step::Pass as u8;
/// Steps of one conversation.
const STEPS_MAX: usize = 200;
/// Links of one conversation.
const LINKS: u8 = 8;
/// 2 to this power, in milliseconds, is the longest time that passes at once: a month.
const POWER_MAX: u32 = 31;

/// What is done beside sending.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The link breaks.
    Lose = 10,
    /// So many milliseconds pass: 2 to the power of the second byte.
    Pass,
    /// The server is killed and started again.
    Crash,
    /// The disk commits nothing until it is told to again.
    Stall,
    Unstall,
    /// The peer reads a few bytes more.
    Choke,
}

/// Writes a step: its kind, link or number, and the bytes with their length before them.
pub(crate) fn write_step(into: &mut Vec<u8>, kind: u8, number: u8, bytes: &[u8]) {
    for (at, part) in bytes.chunks(usize::from(u16::MAX)).enumerate() {
        if at > 0 {
            into.extend([kind, number]);
        }
        if at == 0 {
            into.extend([kind, number]);
        }
        into.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
        into.extend(part);
    }
    if bytes.is_empty() {
        into.extend([kind, number, 0, 0]);
    }
}

pub(crate) fn conversation(mut input: &[u8]) {
    let mut play = Play {
        world: Some(World::new(limits())),
        links: BTreeMap::new(),
    };
    for _ in 0..STEPS_MAX {
        let [kind, number, high, low, rest @ ..] = input else {
            break;
        };
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (bytes, rest) = rest.split_at(len);
        input = rest;
        play.step(kind % KINDS, *number, bytes);
        play.listen();
    }
    play.world().unstall();
    play.listen();
}

/// Small, so that full is reached.
fn limits() -> Limits {
    Limits {
        links: 16,
        sessions: 16,
        packet_max: 4096,
        subscriptions_per_session: 8,
        subscription_pool_bytes: 8 << 10,
        buffer_pool_bytes: 64 << 10,
        transient_pool_bytes: 32 << 10,
        retained_pool_bytes: 16 << 10,
        disk_max: 1 << 20,
        session_disk_max: 256 << 10,
        ..Limits::default()
    }
}

struct Play {
    /// `None` only while it crashes.
    world: Option<World>,
    links: BTreeMap<u8, Link>,
}

struct Link {
    id: LinkId,
    /// As its first packet says, once that is whole.
    version: Option<Version>,
    /// What was sent until then.
    sent: Vec<u8>,
    heard: Vec<u8>,
}

impl Play {
    fn world(&mut self) -> &mut World {
        self.world.as_mut().unwrap()
    }

    fn step(&mut self, kind: u8, number: u8, bytes: &[u8]) {
        let name = number % LINKS;
        let link = self.links.get(&name).map(|link| link.id);
        match (kind, link) {
            (kind, Some(link)) if kind == Step::Lose as u8 => {
                self.world().lose(link);
                self.links.remove(&name);
            }
            (kind, Some(link)) if kind == Step::Choke as u8 => {
                self.world().read_only(link, usize::from(number));
            }
            (kind, _) if kind == Step::Pass as u8 => {
                let time = Duration::from_millis(1 << (u32::from(number) % POWER_MAX));
                // A month of reports to nobody takes a second of ours.
                self.world().pass(time.min(Duration::from_secs(4_000)));
            }
            (kind, _) if kind == Step::Crash as u8 => {
                let world = self.world.take().unwrap();
                self.world = Some(world.crash());
                self.links.clear();
            }
            (kind, _) if kind == Step::Stall as u8 => self.world().stall(),
            (kind, _) if kind == Step::Unstall as u8 => self.world().unstall(),
            (kind, None) if kind >= Step::Lose as u8 => {}
            _ => self.send(name, bytes),
        }
    }

    fn send(&mut self, name: u8, bytes: &[u8]) {
        let is_open = self.links.get(&name).is_some_and(|link| {
            let world = self.world.as_mut().unwrap();
            !world.is_closed(link.id)
        });
        if !is_open {
            let id = self.world().open();
            let link = Link {
                id,
                version: None,
                sent: Vec::new(),
                heard: Vec::new(),
            };
            self.links.insert(name, link);
        }
        let link = self.links.get_mut(&name).unwrap();
        if link.version.is_none() {
            link.sent.extend(bytes);
            if let Ok(Frame::Complete { len }) = frame(&link.sent, 1 << 20) {
                link.version = match connect_level(&link.sent[..len]) {
                    Some(level) if level >= 5 => Some(Version::V5),
                    _ => Some(Version::V311),
                };
            }
        }
        let id = link.id;
        self.world().say(id, bytes);
    }

    /// What was heard is whole packets of a server, but for the last.
    fn listen(&mut self) {
        let world = self.world.as_mut().unwrap();
        for link in self.links.values_mut() {
            link.heard.extend(world.received(link.id));
            let version = link.version.unwrap_or(Version::V311);
            let mut at = 0;
            loop {
                let bytes = &link.heard[at..];
                let Frame::Complete { len } = frame(bytes, 1 << 20).unwrap() else {
                    break;
                };
                let decoded = packet(version, &bytes[..len])
                    .unwrap_or_else(|error| panic!("{error}: {:02x?}", &bytes[..len]));
                let is_of_a_client = matches!(
                    decoded,
                    Packet::Connect(_)
                        | Packet::Subscribe(_)
                        | Packet::Unsubscribe(_)
                        | Packet::PingReq
                );
                assert!(!is_of_a_client, "{decoded:?}");
                at += len;
            }
            link.heard.drain(..at);
        }
    }
}
