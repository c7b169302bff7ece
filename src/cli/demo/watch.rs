//! What the gateway says of itself under `$SYS`.

use super::client::{Client, Login};
use larder_packet::{Packet, Publish, Qos, Version};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

const RETRY: Duration = Duration::from_millis(50);
const ATTENTION: Duration = Duration::from_secs(1);
const BACKLOG: &str = "$SYS/broker/store/messages/count";
const DISK: &str = "$SYS/larder/disk/used";

/// A subscriber to `$SYS`, on a thread that ends with the process.
#[derive(Debug)]
pub(super) struct Watch {
    said: Arc<Said>,
}

#[derive(Debug, Default)]
struct Said {
    /// `None` until it has been told since the last [`Watch::forget`].
    backlog: Mutex<Option<u64>>,
    disk: AtomicU64,
}

impl Watch {
    pub(super) fn start(gateway: SocketAddr) -> io::Result<Watch> {
        let said = Arc::new(Said::default());
        let watch = Watch {
            said: Arc::clone(&said),
        };
        thread::Builder::new().name("watch".into()).spawn(move || {
            loop {
                // It ends when the gateway is killed; a new one begins.
                let _ = listen(gateway, &said);
                thread::sleep(RETRY);
            }
        })?;
        Ok(watch)
    }

    /// Messages that wait on the gateway's disk, if it has said.
    pub(super) fn backlog(&self) -> Option<u64> {
        *lock(&self.said.backlog)
    }

    /// Bytes that they, and all else, take there.
    pub(super) fn disk(&self) -> u64 {
        self.said.disk.load(Ordering::Relaxed)
    }

    /// What was said holds no longer.
    pub(super) fn forget(&self) {
        *lock(&self.said.backlog) = None;
    }
}

fn listen(gateway: SocketAddr, said: &Said) -> io::Result<()> {
    let login = Login {
        version: Version::V5,
        client_id: "watch",
        clean_start: true,
        session_expiry: 0,
        receive_maximum: 1,
    };
    let mut client = Client::connect(gateway, login)?;
    client.subscribe(&[BACKLOG, DISK], Qos::AtMostOnce)?;
    loop {
        client.receive(ATTENTION, |packet, _| {
            if let Packet::Publish(publish) = packet {
                said.note(&publish);
            }
        })?;
    }
}

impl Said {
    fn note(&self, publish: &Publish<'_>) {
        let value = std::str::from_utf8(publish.payload).map(str::parse);
        match (publish.topic, value) {
            (BACKLOG, Ok(Ok(value))) => *lock(&self.backlog) = Some(value),
            (DISK, Ok(Ok(value))) => self.disk.store(value, Ordering::Relaxed),
            _ => {}
        }
    }
}

fn lock(value: &Mutex<Option<u64>>) -> std::sync::MutexGuard<'_, Option<u64>> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
