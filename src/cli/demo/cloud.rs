//! The far end: which broker plays the cloud, and the subscriber there that counts what arrives.

use super::client::{Client, Login};
use super::sensor::identify;
use super::tally::Tally;
use larder_packet::{Ack, Packet, Properties, Publish, Qos, ReasonCode, Version};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Longer than any demonstration, so that nothing is lost if the subscriber's own connection breaks.
const SESSION_EXPIRY_SECONDS: u32 = 3_600;
/// Some brokers drop what is beyond it and a short queue.
const RECEIVE_MAXIMUM: u16 = u16::MAX;
const RETRY: Duration = Duration::from_millis(100);
/// How soon it hears that it is to stop.
const ATTENTION: Duration = Duration::from_millis(50);
const PORT: u16 = 1883;

/// A broker that answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cloud {
    pub(super) address: SocketAddr,
    /// 5.0 if it speaks it.
    pub(super) version: Version,
}

impl Cloud {
    /// The broker at `mqtt://host[:port]`.
    ///
    /// # Errors
    /// What is wrong with the address, or with the broker, and what to do.
    pub(super) fn at_url(url: &str) -> Result<Cloud, String> {
        let fault = |fault: String| format!("--cloud {url}: {fault}");
        let authority = match url.split_once("://") {
            Some(("mqtt", authority)) => authority.trim_end_matches('/'),
            Some(("mqtts" | "ssl" | "tls" | "ws" | "wss", _)) => {
                return Err(fault("the demo speaks plain mqtt:// only".into()));
            }
            _ => {
                return Err(fault(
                    "is no address; write for example mqtt://192.168.1.10:1883".into(),
                ));
            }
        };
        if authority.contains('@') {
            return Err(fault(
                "the demo connects without user name and password; name a broker that takes it so"
                    .into(),
            ));
        }
        let has_port = match authority.rsplit_once(']') {
            Some((_, rest)) => !rest.is_empty(),
            None => authority.contains(':'),
        };
        let resolved = if has_port {
            authority.to_socket_addrs()
        } else {
            format!("{authority}:{PORT}").to_socket_addrs()
        };
        let addresses = resolved.map_err(|error| fault(error.to_string()))?;
        let mut last = "the name has no address".to_owned();
        for address in addresses {
            match Cloud::at_address(address) {
                Ok(cloud) => return Ok(cloud),
                Err(error) => last = error.to_string(),
            }
        }
        Err(fault(format!("{last}; is an MQTT broker there?")))
    }

    fn at_address(address: SocketAddr) -> io::Result<Cloud> {
        let ask = |version| {
            let client_id = "larder-demo-hello";
            forget(Cloud { address, version }, client_id).map(|()| Cloud { address, version })
        };
        ask(Version::V5).or_else(|refused| ask(Version::V311).map_err(|_| refused))
    }
}

/// Ends this client's session, if there is one.
fn forget(cloud: Cloud, client_id: &str) -> io::Result<()> {
    let login = Login {
        version: cloud.version,
        client_id,
        clean_start: true,
        session_expiry: 0,
        receive_maximum: 1,
    };
    Client::connect(cloud.address, login)?.disconnect()
}

/// The subscriber with its stored session. When it is dropped, it leaves nothing behind at the broker: its own session
/// is ended, and the bridge's, which must have ended before.
#[derive(Debug)]
pub(super) struct Subscriber {
    cloud: Cloud,
    client_id: String,
    bridge_client_id: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Subscriber {
    /// Subscribes to what comes below the prefix, which ends with `/`.
    pub(super) fn start(
        cloud: Cloud,
        prefix: &str,
        client_id: String,
        bridge_client_id: String,
        tally: &Arc<Tally>,
    ) -> io::Result<Subscriber> {
        let client = connect(cloud, &client_id, prefix)?;
        let stop = Arc::new(AtomicBool::new(false));
        let receiver = Receiver {
            cloud,
            client_id: client_id.clone(),
            prefix: prefix.to_owned(),
            tally: Arc::clone(tally),
            stop: Arc::clone(&stop),
        };
        let thread = thread::Builder::new()
            .name("subscriber".into())
            .spawn(move || receiver.run(client))?;
        Ok(Subscriber {
            cloud,
            client_id,
            bridge_client_id,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has no result.
            let _ = thread.join();
        }
        for client_id in [&self.client_id, &self.bridge_client_id] {
            // A broker that has gone has nothing to be removed by us; its sessions expire.
            let _ = forget(self.cloud, client_id);
        }
    }
}

fn connect(cloud: Cloud, client_id: &str, prefix: &str) -> io::Result<Client> {
    let login = Login {
        version: cloud.version,
        client_id,
        clean_start: false,
        session_expiry: SESSION_EXPIRY_SECONDS,
        receive_maximum: RECEIVE_MAXIMUM,
    };
    let mut client = Client::connect(cloud.address, login)?;
    if !client.session_present() {
        client.subscribe(&[&format!("{prefix}sensors/#")], Qos::AtLeastOnce)?;
    }
    Ok(client)
}

struct Receiver {
    cloud: Cloud,
    client_id: String,
    prefix: String,
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
}

impl Receiver {
    fn run(self, client: Client) {
        let mut client = Some(client);
        while !self.stop.load(Ordering::Relaxed) {
            let Some(connected) = &mut client else {
                thread::sleep(RETRY);
                client = connect(self.cloud, &self.client_id, &self.prefix).ok();
                continue;
            };
            let received = connected.receive(ATTENTION, |packet, outbox| {
                if let Packet::Publish(publish) = packet {
                    self.arrived(&publish, outbox);
                }
            });
            if received.is_err() {
                client = None;
            }
        }
    }

    fn arrived(&self, publish: &Publish<'_>, outbox: &mut Vec<u8>) {
        let message = publish
            .topic
            .strip_prefix(&self.prefix)
            .and_then(|topic| identify(topic, publish.payload));
        match message {
            Some((sensor, number)) => self.tally.arrive(sensor, number),
            None => self.tally.arrive_strange(),
        }
        if let Some(packet_id) = publish.packet_id {
            let ack = Ack {
                packet_id,
                reason: ReasonCode::Success,
                properties: Properties::EMPTY,
            };
            Packet::PubAck(ack).encode(self.cloud.version, outbox);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_cannot_be_used_is_told_with_what_to_do() {
        for (url, expected) in [
            ("192.168.1.10", "is no address; write for example mqtt://"),
            ("mqtts://a.example", "plain mqtt:// only"),
            (
                "mqtt://user:secret@a.example",
                "without user name and password",
            ),
        ] {
            let told = Cloud::at_url(url).map_or_else(|fault| fault, |_| String::new());
            assert!(told.contains(expected), "{told}");
        }
    }
}
