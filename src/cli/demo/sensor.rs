//! The sensors: each publishes its numbers at QoS 1, and sends again after a broken connection what was not acknowledged.

use super::client::{Client, Login};
use super::tally::Tally;
use larder_packet::{Ack, Packet, PacketId, Properties, Publish, Qos, Version};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Half of them speak MQTT 3.1.1, half 5.0.
pub(super) const SENSORS: usize = 8;
/// Messages that a sensor may have unacknowledged; the gateway's Receive Maximum.
pub(super) const WINDOW: u16 = 64;

/// A pace beyond what anybody reaches: as fast as the acknowledgements come.
pub(super) const FULL: u32 = u32::MAX;

const SESSION_EXPIRY_SECONDS: u32 = 600;
const RETRY: Duration = Duration::from_millis(20);
/// How late a message may be and still keep the pace.
const MAKE_UP: Duration = Duration::from_millis(20);
/// How soon a sensor that waits for acknowledgements hears of a new pace.
const ATTENTION: Duration = Duration::from_millis(20);

/// All sensors, each on a thread of its own that ends with the process.
#[derive(Debug)]
pub(super) struct Sensors {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Messages a second of each sensor.
    pace: AtomicU32,
    finish: AtomicBool,
    connected: AtomicUsize,
    finished: AtomicUsize,
    resent: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl Sensors {
    /// Starts them, silent at first.
    pub(super) fn start(gateway: SocketAddr, tally: &Arc<Tally>) -> io::Result<Sensors> {
        let shared = Arc::new(Shared::default());
        for index in 0..SENSORS {
            let sensor = Sensor {
                index,
                version: if index % 2 == 0 {
                    Version::V311
                } else {
                    Version::V5
                },
                gateway,
                tally: Arc::clone(tally),
                shared: Arc::clone(&shared),
                unacknowledged: VecDeque::new(),
                due: Instant::now(),
            };
            thread::Builder::new()
                .name(format!("sensor {index}"))
                .spawn(move || sensor.run())?;
        }
        Ok(Sensors { shared })
    }

    /// How many messages a second each publishes from now on, as long as the window has room; 0: none.
    pub(super) fn pace(&self, per_second: u32) {
        self.shared.pace.store(per_second, Ordering::Relaxed);
    }

    /// Lets them publish nothing new, and leave when all is acknowledged.
    pub(super) fn finish(&self) {
        self.shared.finish.store(true, Ordering::Relaxed);
    }

    /// How many have left.
    pub(super) fn finished(&self) -> usize {
        self.shared.finished.load(Ordering::Relaxed)
    }

    /// How many are connected.
    pub(super) fn connected(&self) -> usize {
        self.shared.connected.load(Ordering::Relaxed)
    }

    /// How many messages were sent a second time.
    pub(super) fn resent(&self) -> u64 {
        self.shared.resent.load(Ordering::Relaxed)
    }

    /// A message that the gateway has refused, in words.
    pub(super) fn trouble(&self) -> Option<String> {
        self.shared
            .trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

struct Sensor {
    index: usize,
    version: Version,
    gateway: SocketAddr,
    tally: Arc<Tally>,
    shared: Arc<Shared>,
    /// Numbers of messages, oldest first.
    unacknowledged: VecDeque<u32>,
    /// When the next message may be published.
    due: Instant,
}

impl Sensor {
    fn run(mut self) {
        loop {
            if let Ok(client) = self.connect() {
                self.shared.connected.fetch_add(1, Ordering::Relaxed);
                let end = self.converse(client);
                self.shared.connected.fetch_sub(1, Ordering::Relaxed);
                if end.is_ok() {
                    break;
                }
            }
            thread::sleep(RETRY);
        }
        self.shared.finished.fetch_add(1, Ordering::Relaxed);
    }

    fn connect(&self) -> io::Result<Client> {
        let login = Login {
            version: self.version,
            client_id: &format!("sensor-{}", self.index),
            clean_start: false,
            session_expiry: SESSION_EXPIRY_SECONDS,
            receive_maximum: WINDOW,
        };
        Client::connect(self.gateway, login)
    }

    /// Publishes until it is to finish, and all is acknowledged.
    fn converse(&mut self, mut client: Client) -> io::Result<()> {
        for &number in &self.unacknowledged {
            self.send(&mut client, number, true);
        }
        self.shared
            .resent
            .fetch_add(self.unacknowledged.len() as u64, Ordering::Relaxed);
        loop {
            let finish = self.shared.finish.load(Ordering::Relaxed);
            if finish && self.unacknowledged.is_empty() {
                return client.disconnect();
            }
            let mut wait = ATTENTION;
            while !finish && self.unacknowledged.len() < usize::from(WINDOW) {
                wait = self.wait();
                if !wait.is_zero() {
                    break;
                }
                let number = self.tally.publish(self.index);
                self.unacknowledged.push_back(number);
                self.send(&mut client, number, false);
                wait = ATTENTION;
            }
            client.receive(wait, |packet, _| {
                if let Packet::PubAck(ack) = packet {
                    self.acknowledged(&ack);
                }
            })?;
        }
    }

    /// How long it is until the next message; zero: it is due, and taken.
    fn wait(&mut self) -> Duration {
        let now = Instant::now();
        match self.shared.pace.load(Ordering::Relaxed) {
            0 => ATTENTION,
            _ if self.due > now => (self.due - now).min(ATTENTION),
            per_second => {
                // A little lateness is made up for; more would be a burst.
                let late = now - MAKE_UP;
                self.due = self.due.max(late) + Duration::from_secs(1) / per_second;
                Duration::ZERO
            }
        }
    }

    fn send(&self, client: &mut Client, number: u32, dup: bool) {
        // What is unacknowledged spans far fewer numbers than there are identifiers.
        let packet_id = u16::try_from(number % u32::from(u16::MAX))
            .ok()
            .and_then(|below| PacketId::MIN.checked_add(below));
        let celsius = 20.0 + f64::from(number % 100) / 10.0;
        client.send(&Packet::Publish(Publish {
            dup,
            qos: Qos::AtLeastOnce,
            retain: false,
            topic: &format!("sensors/{}/temperature", self.index),
            packet_id,
            properties: Properties::EMPTY,
            payload: format!("{{\"n\":{number},\"celsius\":{celsius:.1}}}").as_bytes(),
        }));
    }

    fn acknowledged(&mut self, ack: &Ack<'_>) {
        if ack.reason.is_error() {
            let trouble = format!(
                "the gateway refuses a message of sensor {}: {}",
                self.index, ack.reason
            );
            *self
                .shared
                .trouble
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(trouble);
            return;
        }
        let id = u32::from(ack.packet_id.get()) - 1;
        let place = self
            .unacknowledged
            .iter()
            .position(|number| number % u32::from(u16::MAX) == id);
        if let Some(number) = place.and_then(|place| self.unacknowledged.remove(place)) {
            self.tally.acknowledge(self.index, number);
        }
    }
}

/// The sensor and the number of a message, from its topic below the prefix and its payload.
pub(super) fn identify(topic: &str, payload: &[u8]) -> Option<(usize, u32)> {
    let (sensor, _) = topic.strip_prefix("sensors/")?.split_once('/')?;
    let payload = std::str::from_utf8(payload).ok()?;
    let (number, _) = payload.strip_prefix("{\"n\":")?.split_once(',')?;
    Some((sensor.parse().ok()?, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_known_by_its_topic_and_payload() {
        let payload = b"{\"n\":70000,\"celsius\":20.0}";
        assert_eq!(
            identify("sensors/3/temperature", payload),
            Some((3, 70_000))
        );
        assert_eq!(identify("sensors/3", payload), None);
        assert_eq!(identify("sensors/3/temperature", b"20.0"), None);
    }
}
