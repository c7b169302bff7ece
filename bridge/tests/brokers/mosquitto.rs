//! A mosquitto that a test starts, stops and starts again.

use super::{PATIENCE, client};
use rumqttc::v5::Event;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet};
use rumqttc::{Outgoing, Transport};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A mosquitto with a TCP port and a Unix socket. Version 2.0.11 exceeds the Receive Maximum of its clients; its own limit
/// keeps it below the window of the bridge.
pub(crate) struct Mosquitto {
    pub(crate) port: u16,
    pub(crate) socket: PathBuf,
    directory: PathBuf,
    process: Child,
}

impl Mosquitto {
    pub(crate) fn start(name: &str) -> Self {
        let port = free_port();
        let directory = std::env::temp_dir().join(format!(
            "larder-bridge-{name}-{}-{port}",
            std::process::id()
        ));
        std::fs::create_dir_all(&directory).unwrap();
        let socket = directory.join("socket");
        std::fs::write(
            directory.join("conf"),
            format!(
                "listener {port} 127.0.0.1\nlistener 0 {}\nallow_anonymous true\nmax_queued_messages 0\n\
                 max_inflight_messages 50\nset_tcp_nodelay true\nuser root\n",
                socket.display()
            ),
        )
        .unwrap();
        let process = run(&directory, port);
        Self {
            port,
            socket,
            directory,
            process,
        }
    }

    /// Makes the bridge's session, as the broker does from its configuration.
    pub(crate) fn make_session(&self, name: &str) {
        let (client, mut connection) =
            client(&format!("$larder/bridge/{name}"), self.port, |options| {
                options
                    .set_clean_start(false)
                    .set_session_expiry_interval(Some(u32::MAX));
                options.set_transport(Transport::Tcp);
            });
        let filter = Filter {
            nolocal: true,
            preserve_retain: true,
            ..Filter::new("plant/#", QoS::AtLeastOnce)
        };
        client.subscribe_many([filter]).unwrap();
        for event in connection.iter() {
            match event.unwrap() {
                Event::Incoming(Packet::SubAck(_)) => client.disconnect().unwrap(),
                Event::Outgoing(Outgoing::Disconnect) => return,
                _ => {}
            }
        }
    }

    pub(crate) fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub(crate) fn restart(&mut self) {
        self.process = run(&self.directory, self.port);
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn run(directory: &Path, port: u16) -> Child {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|directory| directory.join("mosquitto"))
        .find(|program| program.is_file())
        .expect("this test needs mosquitto in PATH or /usr/sbin: apt-get install mosquitto");
    let process = Command::new(program)
        .arg("-c")
        .arg(directory.join("conf"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(
            Instant::now() < deadline,
            "mosquitto does not listen on port {port}"
        );
        thread::sleep(Duration::from_millis(5));
    }
    process
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
