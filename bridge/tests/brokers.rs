//! A whole bridge between two mosquittos, over links that are cut.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a test waits with a clock of its own, and prints"
)]
#![allow(clippy::unwrap_used)]

#[path = "brokers/mosquitto.rs"]
mod mosquitto;
#[path = "brokers/proxy.rs"]
mod proxy;

use larder_bridge::{Config, Handle, LocalAddress, Rule, State, Status, TimeFloor, Tls, start};
use larder_packet::{Qos, Version};
use mosquitto::{Mosquitto, free_port};
use proxy::Proxy;
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{Client, Connection, Event, MqttOptions};
use std::collections::BTreeSet;
use std::io::{BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn nothing_is_missing_after_many_cuts_with_mqtt_5() {
    nothing_is_missing_after_many_cuts("cut5", Version::V5);
}

#[test]
fn nothing_is_missing_after_many_cuts_with_mqtt_3_1_1() {
    nothing_is_missing_after_many_cuts("cut4", Version::V311);
}

/// 2,000 messages up and 500 down; either link is cut again and again on the way.
fn nothing_is_missing_after_many_cuts(name: &str, version: Version) {
    const UP: u32 = 2_000;
    const DOWN: u32 = 500;
    const UP_PER_CUT: usize = 150;
    let (local, cloud) = (Mosquitto::start(name), Mosquitto::start(name));
    let (to_local, to_cloud) = (Proxy::start(local.port), Proxy::start(cloud.port));
    local.make_session(name);
    let above = Sink::start(cloud.port, "site/#");
    let below = Sink::start(local.port, "commands/#");
    let bridge = bridge(
        config(name, version, to_cloud.port),
        LocalAddress::Tcp(format!("127.0.0.1:{}", to_local.port)),
    );
    wait_for(&bridge, |state| *state == State::Linked);
    // A link comes before its subscriptions, and what is published between is nobody's.
    let deadline = Instant::now() + PATIENCE;
    while bridge.status().counters.received == 0 {
        assert!(Instant::now() < deadline, "{:?}", bridge.status());
        publish(cloud.port, "commands", 1);
    }

    let publishers = [(local.port, "plant", UP), (cloud.port, "commands", DOWN)]
        .map(|(port, topic, count)| thread::spawn(move || publish(port, topic, count)));
    let (mut up, mut down) = (Numbers::default(), Numbers::default());
    let mut cuts = 0;
    let deadline = Instant::now() + PATIENCE;
    while up.seen.len() < UP as usize || down.seen.len() < DOWN as usize {
        assert!(
            Instant::now() < deadline,
            "after {cuts} cuts these are missing: up {:?}, down {:?}: {:?}",
            (0..UP)
                .filter(|number| !up.seen.contains(number))
                .collect::<Vec<_>>(),
            (0..DOWN)
                .filter(|number| !down.seen.contains(number))
                .collect::<Vec<_>>(),
            bridge.status()
        );
        down.take(&below, Duration::ZERO);
        up.take(&above, Duration::from_millis(5));
        if up.seen.len() / UP_PER_CUT > cuts {
            cuts += 1;
            if cuts % 3 == 0 { &to_local } else { &to_cloud }.cut();
        }
    }
    for publisher in publishers {
        publisher.join().unwrap();
    }
    let counters = bridge.status().counters;
    println!(
        "{name}: {cuts} cuts, 0 missing, doubled {} up and {} down; {counters:?}",
        up.doubled, down.doubled
    );
    assert!(cuts >= 10);
    assert_eq!(counters.set_aside(), 0);
    bridge.stop();
}

#[test]
fn what_waits_while_the_cloud_is_away_comes_when_it_is_back() {
    let name = "away";
    let (local, mut cloud) = (Mosquitto::start(name), Mosquitto::start(name));
    local.make_session(name);
    let mut config = config(name, Version::V5, cloud.port);
    config
        .urls
        .insert(0, format!("mqtt://127.0.0.1:{}", free_port()));
    cloud.stop();
    let bridge = bridge(config, LocalAddress::Unix(local.socket.clone()));
    wait_for(
        &bridge,
        |state| matches!(state, State::Waiting { error, .. } if error.starts_with("cloud: ")),
    );
    publish(local.port, "plant", 300);
    cloud.restart();
    let above = Sink::start(cloud.port, "site/#");
    let mut numbers = Numbers::default();
    let deadline = Instant::now() + PATIENCE;
    // The subscriber may have come after the bridge: the rest of what is owed then reaches it.
    publish(local.port, "plant", 400);
    while !(300..400).all(|number| numbers.seen.contains(&number)) {
        assert!(Instant::now() < deadline, "{:?}", bridge.status());
        numbers.take(&above, Duration::from_millis(50));
    }
    let deadline = Instant::now() + PATIENCE;
    while bridge.status().counters.forwarded < 700 {
        assert!(Instant::now() < deadline, "{:?}", bridge.status());
        thread::yield_now();
    }
    bridge.stop();
}

#[test]
fn the_first_address_has_the_link_again_once_it_answers() {
    let name = "first";
    let local = Mosquitto::start(name);
    let (mut first, second) = (Mosquitto::start(name), Mosquitto::start(name));
    local.make_session(name);
    let mut config = config(name, Version::V5, first.port);
    config
        .urls
        .push(format!("mqtt://localhost:{}", second.port));
    first.stop();
    let below = Sink::start(second.port, "site/#");
    let bridge = bridge(config, LocalAddress::Unix(local.socket.clone()));
    wait_for(&bridge, |state| *state == State::Linked);
    publish(local.port, "plant", 50);
    let mut numbers = Numbers::default();
    let deadline = Instant::now() + PATIENCE;
    while numbers.seen.len() < 50 {
        assert!(Instant::now() < deadline, "{:?}", bridge.status());
        numbers.take(&below, Duration::from_millis(50));
    }
    first.restart();
    let above = Sink::start(first.port, "site/#");
    let mut numbers = Numbers::default();
    let deadline = Instant::now() + PATIENCE;
    // Those that go to the second before the bridge returns are not seen here.
    while numbers.seen.is_empty() {
        assert!(Instant::now() < deadline, "{:?}", bridge.status());
        publish(local.port, "plant", 50);
        numbers.take(&above, Duration::from_millis(50));
    }
    assert_eq!(bridge.status().counters.set_aside(), 0);
    bridge.stop();
}

#[test]
fn a_message_that_closes_every_link_does_not_stop_the_others() {
    let name = "closer";
    let (local, cloud) = (Mosquitto::start(name), Mosquitto::start(name));
    let to_cloud = Proxy::start_poisoned(cloud.port, b"poison");
    local.make_session(name);
    let above = Sink::start(cloud.port, "site/#");
    let bridge = bridge(
        config(name, Version::V311, to_cloud.port),
        LocalAddress::Tcp(format!("127.0.0.1:{}", local.port)),
    );
    wait_for(&bridge, |state| *state == State::Linked);
    publish(local.port, "plant/poison", 1);
    publish(local.port, "plant", 10);
    let mut numbers = Numbers::default();
    let deadline = Instant::now() + PATIENCE;
    while numbers.seen.len() < 10 {
        assert!(Instant::now() < deadline, "{:?}", bridge.status());
        numbers.take(&above, Duration::from_millis(50));
    }
    let status = bridge.status();
    assert_eq!(status.counters.closes_links, 1);
    assert!(
        status
            .last_set_aside
            .is_some_and(|(_, what)| what.topic == "site/poison/0")
    );
    bridge.stop();
}

#[test]
fn stops_at_once_whatever_it_is_doing() {
    let name = "stop";
    let (local, cloud) = (Mosquitto::start(name), Mosquitto::start(name));
    local.make_session(name);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    for (port, state) in [
        (cloud.port, "linked"),
        (free_port(), "waiting"),
        (silent_port, "connecting"),
    ] {
        let mut config = config(name, Version::V5, port);
        config.reconnect_min = Duration::from_secs(30);
        config.reconnect_max = Duration::from_secs(30);
        let bridge = bridge(config, LocalAddress::Unix(local.socket.clone()));
        match state {
            "linked" => wait_for(&bridge, |state| *state == State::Linked),
            "waiting" => wait_for(&bridge, |state| matches!(state, State::Waiting { .. })),
            _ => drop(silent.accept().unwrap()),
        }
        let start = Instant::now();
        bridge.stop();
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{state}: {:?}",
            start.elapsed()
        );
    }
}

#[test]
fn a_panic_restarts_the_bridge() {
    let name = "panic";
    let (local, cloud) = (Mosquitto::start(name), Mosquitto::start(name));
    local.make_session(name);
    let panicked = AtomicBool::new(false);
    let listener = move |status: Status| {
        assert!(
            status.state != State::Linked || panicked.swap(true, Relaxed),
            "a fault, as this test wants it"
        );
    };
    let config = config(name, Version::V5, cloud.port);
    let bridge = start(
        config,
        LocalAddress::Unix(local.socket.clone()),
        1,
        TimeFloor::default(),
        listener,
    )
    .unwrap();
    wait_for(
        &bridge,
        |state| matches!(state, State::Waiting { error, .. } if error.contains("fault")),
    );
    wait_for(&bridge, |state| *state == State::Linked);
    bridge.stop();
}

/// `cargo test -p larder-bridge --release --test brokers -- --ignored --nocapture`
#[test]
#[ignore = "a measurement: messages per second through the bridge, from a full session"]
fn throughput() {
    const MESSAGES: u32 = 50_000;
    for (name, version) in [("rate5", Version::V5), ("rate4", Version::V311)] {
        let cloud = Mosquitto::start(name);
        let config = config(name, version, cloud.port);
        let full = FullSession::start(MESSAGES, config.window);
        let start = Instant::now();
        let bridge = bridge(
            config,
            LocalAddress::Tcp(format!("127.0.0.1:{}", full.port)),
        );
        full.acknowledged.recv_timeout(PATIENCE).unwrap();
        let rate = f64::from(MESSAGES) / start.elapsed().as_secs_f64();
        println!("{name}: {rate:.0} msg/s, each of 256 bytes");
        bridge.stop();
    }
}

/// A local broker with nothing but one full session, which keeps to the Receive Maximum (mosquitto 2.0.11 does not).
struct FullSession {
    port: u16,
    /// Hears of it when everything has been acknowledged.
    acknowledged: Receiver<()>,
}

impl FullSession {
    fn start(messages: u32, window: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (done, acknowledged) = channel();
        thread::spawn(move || {
            let (mut bridge, _) = listener.accept().unwrap();
            bridge.set_nodelay(true).unwrap();
            let mut packets = BufReader::new(bridge.try_clone().unwrap());
            assert_eq!(read_packet_type(&mut packets), 0x10, "CONNECT");
            // CONNACK with Session Present.
            bridge.write_all(&[0x20, 3, 1, 0, 0]).unwrap();
            let (mut sent, mut settled) = (0_u32, 0);
            while settled < messages {
                let mut batch = Vec::new();
                while sent < messages && sent - settled < u32::from(window) {
                    let id = (sent % 60_000 + 1) as u16;
                    // PUBLISH, QoS 1, Remaining Length 268: topic of 7 bytes, identifier, no properties, payload.
                    batch.extend([0x32, 0x8C, 0x02, 0, 7]);
                    batch.extend(b"plant/1");
                    batch.extend(id.to_be_bytes());
                    batch.push(0);
                    batch.extend([b'x'; 256]);
                    sent += 1;
                }
                bridge.write_all(&batch).unwrap();
                settled += u32::from(read_packet_type(&mut packets) == 0x40);
                while packets.buffer().len() >= 4 {
                    settled += u32::from(read_packet_type(&mut packets) == 0x40);
                }
            }
            done.send(()).unwrap();
            // Until the DISCONNECT, or whatever comes first.
            let _ = packets.read(&mut [0; 16]);
        });
        Self { port, acknowledged }
    }
}

/// Reads a packet of less than 16,384 bytes; returns its first byte.
fn read_packet_type(packets: &mut impl Read) -> u8 {
    let mut header = [0; 2];
    packets.read_exact(&mut header).unwrap();
    let mut remaining = usize::from(header[1] & 0x7F);
    if header[1] & 0x80 != 0 {
        let mut more = [0];
        packets.read_exact(&mut more).unwrap();
        remaining += usize::from(more[0]) << 7;
    }
    packets.read_exact(&mut vec![0; remaining]).unwrap();
    header[0]
}

fn config(name: &str, version: Version, cloud_port: u16) -> Config {
    let rule = |filter: &str, strip_prefix: &str, add_prefix: &str| Rule {
        filter: filter.into(),
        strip_prefix: strip_prefix.into(),
        add_prefix: add_prefix.into(),
        qos: Qos::AtLeastOnce,
    };
    Config {
        name: name.into(),
        urls: vec![format!("mqtt://localhost:{cloud_port}")],
        tls: Tls::default(),
        version,
        client_id: format!("gateway-{name}"),
        username: None,
        password: None,
        forward: vec![rule("plant/#", "plant/", "site/")],
        receive: vec![rule("commands/#", "", "")],
        window: 64,
        packet_max: 64 * 1024,
        keep_alive: Duration::from_secs(10),
        reconnect_min: Duration::from_millis(20),
        reconnect_max: Duration::from_millis(200),
        return_after: Duration::from_millis(100),
    }
}

fn bridge(config: Config, local: LocalAddress) -> Handle {
    start(config, local, 1, TimeFloor::default(), |_| {}).unwrap()
}

fn wait_for(bridge: &Handle, wanted: impl Fn(&State) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !wanted(&bridge.status().state) {
        assert!(Instant::now() < deadline, "{:?}", bridge.status());
        thread::sleep(Duration::from_millis(1));
    }
}

/// Publishes `0..count` at QoS 1 to `topic/NUMBER`, and returns when all are acknowledged.
fn publish(port: u16, topic: &str, count: u32) {
    let (client, mut connection) = client(&format!("publisher-{topic}-{count}"), port, |_| {});
    let topic = topic.to_owned();
    let sender = thread::spawn(move || {
        for number in 0..count {
            let payload = number.to_be_bytes().to_vec();
            client
                .publish(
                    format!("{topic}/{number}"),
                    QoS::AtLeastOnce,
                    false,
                    payload,
                )
                .unwrap();
        }
        client
    });
    let mut acknowledged = 0;
    for event in connection.iter() {
        acknowledged += u32::from(matches!(event.unwrap(), Event::Incoming(Packet::PubAck(_))));
        if acknowledged == count {
            break;
        }
    }
    drop(sender.join());
}

fn client(id: &str, port: u16, change: impl FnOnce(&mut MqttOptions)) -> (Client, Connection) {
    let mut options = MqttOptions::new(id, "127.0.0.1", port);
    options.set_outgoing_inflight_upper_limit(100);
    change(&mut options);
    Client::new(options, 10)
}

/// A subscriber that passes on the numbers that come.
struct Sink {
    numbers: Receiver<u32>,
    client: Client,
}

impl Sink {
    fn start(port: u16, filter: &str) -> Self {
        let (client, mut connection) = client(&format!("sink-{}", filter.len()), port, |_| {});
        client.subscribe(filter, QoS::AtLeastOnce).unwrap();
        let (sender, numbers) = channel();
        let (ready, subscribed) = channel();
        thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::SubAck(_))) => ready.send(()).unwrap(),
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let number = u32::from_be_bytes(publish.payload[..].try_into().unwrap());
                        if sender.send(number).is_err() {
                            return;
                        }
                    }
                    Ok(Event::Outgoing(Outgoing::Disconnect)) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        });
        subscribed.recv_timeout(PATIENCE).unwrap();
        Self { numbers, client }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.client.disconnect();
    }
}

#[derive(Default)]
struct Numbers {
    seen: BTreeSet<u32>,
    doubled: usize,
}

impl Numbers {
    /// Takes all that have come, and waits so long for one.
    fn take(&mut self, sink: &Sink, patience: Duration) {
        let first = sink.numbers.recv_timeout(patience).ok();
        for number in first.into_iter().chain(sink.numbers.try_iter()) {
            self.doubled += usize::from(!self.seen.insert(number));
        }
    }
}
