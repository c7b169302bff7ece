//! A bridge between a local broker that only says yes and the server under test.

use crate::authority::{Authority, Identity};
use crate::server::{CONNACK, Server, listen};
use larder_bridge::{Config, Handle, LocalAddress, Rule, State, TimeFloor, Tls, TlsFault, start};
use larder_packet::{Qos, Version};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// TLS with nothing but the CA that the bench trusts.
pub(crate) fn tls() -> Tls {
    Tls::default()
}

pub(crate) struct Bench {
    directory: PathBuf,
    local: u16,
    pub(crate) floor: TimeFloor,
}

impl Bench {
    pub(crate) fn new(trusted: &Authority) -> Bench {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Relaxed);
        let name = format!("larder-tls-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let local = listen(|mut socket| {
            let mut bytes = [0; 1024];
            if socket.read(&mut bytes).is_ok() && socket.write_all(&CONNACK).is_ok() {
                while socket.read(&mut bytes).is_ok_and(|bytes| bytes > 0) {}
            }
        });
        let bench = Bench {
            directory,
            local,
            floor: TimeFloor::default(),
        };
        bench.trust(trusted);
        bench
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    pub(crate) fn trust(&self, authority: &Authority) {
        // As a whole: the bridge may be reading it.
        let new = self.file("new.pem", &authority.pem());
        fs::rename(new, self.ca()).unwrap();
    }

    /// A file that only its owner may read.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// TLS with this certificate and its key.
    pub(crate) fn showing(&self, identity: &Identity) -> Tls {
        let pem = |der: &Vec<u8>| pem_of("CERTIFICATE", der) + "\n";
        Tls {
            cert: Some(self.file(
                "cert.pem",
                &identity.chain.iter().map(pem).collect::<String>(),
            )),
            key: Some(self.file("key.pem", &identity.key.serialize_pem())),
            ..tls()
        }
    }

    pub(crate) fn checked(&self, tls: &Tls) -> Result<(), TlsFault> {
        self.with_ca(tls.clone()).check()
    }

    fn with_ca(&self, tls: Tls) -> Tls {
        Tls {
            ca: Some(self.ca()),
            ..tls
        }
    }

    pub(crate) fn start(&self, tls: Tls, host: &str, server: &Server) -> Handle {
        let config = Config {
            name: "cloud".into(),
            urls: vec![format!("mqtts://{host}:{}", server.port)],
            tls: self.with_ca(tls),
            version: Version::V5,
            client_id: "gateway".into(),
            username: None,
            password: None,
            forward: vec![Rule {
                filter: "sensors/#".into(),
                strip_prefix: String::new(),
                add_prefix: String::new(),
                qos: Qos::AtLeastOnce,
            }],
            receive: Vec::new(),
            window: 16,
            packet_max: 16 * 1024,
            keep_alive: Duration::from_secs(10),
            reconnect_min: Duration::from_millis(20),
            reconnect_max: Duration::from_millis(100),
            return_after: Duration::from_secs(600),
        };
        let local = LocalAddress::Tcp(format!("127.0.0.1:{}", self.local));
        start(config, local, 1, self.floor.clone(), |_| {}).unwrap()
    }

    /// The link comes to be.
    pub(crate) fn linked(&self, tls: Tls, host: &str, server: &Server) {
        let bridge = self.start(tls, host, server);
        self.is_linked(&bridge);
        bridge.stop();
    }

    pub(crate) fn is_linked(&self, bridge: &Handle) {
        until(bridge, |state| (*state == State::Linked).then_some(()));
    }

    /// What is said of a server to which there is no link, or none for long.
    pub(crate) fn refused(&self, tls: Tls, server: &Server) -> String {
        let bridge = self.start(tls, "localhost", server);
        let told = self.waits(&bridge);
        bridge.stop();
        told
    }

    pub(crate) fn waits(&self, bridge: &Handle) -> String {
        self.waits_for(bridge, "cloud: ")
    }

    /// What the bridge says while it waits, once that has `part`.
    pub(crate) fn waits_for(&self, bridge: &Handle, part: &str) -> String {
        until(bridge, |state| match state {
            State::Waiting { error, .. } if error.contains(part) => Some(error.clone()),
            _ => None,
        })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(Path::new(&self.directory));
    }
}

fn until<T>(bridge: &Handle, wanted: impl Fn(&State) -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = bridge.status();
        if let Some(found) = wanted(&status.state) {
            return found;
        }
        assert!(Instant::now() < deadline, "{status:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// PEM [RFC 7468].
fn pem_of(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for (index, group) in der.chunks(3).enumerate() {
        if index % 16 == 0 {
            text.push('\n');
        }
        let bits = group
            .iter()
            .fold(0, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= group.len() {
                letter.into()
            } else {
                '='
            });
        }
    }
    format!("-----BEGIN {label}-----{text}\n-----END {label}-----")
}
