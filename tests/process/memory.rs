//! Memory is a number: what the program takes when nobody is there, and what a link does that says nothing.

use crate::broker::{Broker, Setup};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

/// Links that are there and say nothing.
const LINKS: usize = 9_000;
/// They come in groups of so many at a time.
const GROUP: usize = 50;
/// Bytes that each may take, with its session and a subscription.
const LINK_BYTES_MAX: usize = 1024;
/// Bytes without any link: most of them are pages of the program and its libraries, which cost nothing twice.
const IDLE_BYTES_MAX: usize = 11 << 19;
/// Of these, bytes that are the process's own.
const IDLE_OWN_BYTES_MAX: usize = 3 << 19;

#[test]
fn an_idle_link_with_a_subscription_takes_less_than_a_kibibyte() {
    allow_files(LINKS as u64 + 500);
    let broker = Setup::alone(&format!(
        "[limits]\nmemory_max = \"1 GiB\"\nlinks = {}\nsessions = {0}",
        LINKS + 10
    ))
    .start();
    let (idle, own) = memory(&broker);
    let mut links = Vec::with_capacity(LINKS);
    for number in (0..LINKS).step_by(GROUP) {
        let group: Vec<TcpStream> = (number..number + GROUP)
            .map(|of| open(&broker, of))
            .collect();
        for link in &group {
            // CONNACK, and SUBACK.
            expect(link, &[0x20, 2, 0, 0, 0x90, 3, 0, 1, 1]);
        }
        links.extend(group);
    }
    let (all, _) = memory(&broker);
    let each = (all - idle) / LINKS;
    println!(
        "RSS: {} kB idle, of which {} kB its own; {each} bytes for a link with a session and a subscription",
        idle >> 10,
        own >> 10
    );
    assert!(each < LINK_BYTES_MAX, "{each} bytes for a link");
    // An unreleased binary is larger.
    if !cfg!(debug_assertions) || std::env::var_os("LARDER_BINARY").is_some() {
        assert!(idle < IDLE_BYTES_MAX, "{idle} bytes without a link");
    }
    assert!(
        own < IDLE_OWN_BYTES_MAX,
        "{own} bytes of its own without a link"
    );
}

/// A 3.1.1 client that has asked for a subscription with its CONNECT.
fn open(broker: &Broker, number: usize) -> TcpStream {
    let mut link = TcpStream::connect(broker.address()).expect("there is room");
    let client_id = format!("client-{number:05}");
    let filter = format!("sensors/{number:05}/temperature");
    let connect = packet(
        0x10,
        &[b"\0\x04MQTT\x04\x02\x0e\x10", &*text(&client_id)].concat(),
    );
    let subscribe = packet(0x82, &[&[0, 1], &*text(&filter), &[1]].concat());
    link.write_all(&[connect, subscribe].concat())
        .expect("it is read");
    link
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [
        &[first, u8::try_from(body.len()).expect("it is short")],
        body,
    ]
    .concat()
}

fn text(text: &str) -> Vec<u8> {
    let len = u16::try_from(text.len()).expect("it is short");
    [&len.to_be_bytes(), text.as_bytes()].concat()
}

fn expect(mut link: &TcpStream, expected: &[u8]) {
    let mut received = vec![0; expected.len()];
    link.read_exact(&mut received).expect("it is answered");
    assert_eq!(received, expected);
}

/// Lets this process, and the broker that it starts, have so many files open.
fn allow_files(files: u64) {
    let allowed = getrlimit(Resource::Nofile);
    let enough = Rlimit {
        current: Some(files),
        maximum: allowed.maximum,
    };
    if allowed.current.is_some_and(|current| current < files) {
        setrlimit(Resource::Nofile, enough).expect("the hard limit allows it");
    }
}

/// Bytes of the broker that are resident, and of these the ones that are its own.
fn memory(broker: &Broker) -> (usize, usize) {
    let status = fs::read_to_string(format!("/proc/{}/status", broker.pid()));
    let status = status.expect("it runs");
    let figure = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kibibytes: usize = kibibytes.and_then(|of| of.parse().ok()).expect("a figure");
        kibibytes << 10
    };
    (figure("VmRSS:"), figure("RssAnon:"))
}
