//! The physical limit: what goes through a broker, goes through this without being MQTT.
//!
//! It reads once and writes once for each connection and turn, as Larder does, and moves the same bytes. It has no sessions,
//! no windows, no Packet Identifiers and no topic tree: PUBLISH packets are copied whole to all who have subscribed to the first
//! one's topic, and each packet is answered at once by its four bytes. So no broker with this many reads and writes is faster.

use crate::Result;
use crate::wire::{PUBACK, PUBCOMP, PUBREC, PUBREL};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

/// As Larder reads from one link in one turn.
const READ_BYTES: usize = 16 * 1024;
const LISTENER: Token = Token(usize::MAX);

/// What all PUBLISH packets of a peer have in common.
struct Shape {
    len: usize,
    packet_id_at: usize,
    receivers: Vec<usize>,
}

struct Peer {
    stream: TcpStream,
    filter: Vec<u8>,
    shape: Option<Shape>,
    rest: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    is_readable: bool,
    is_full: bool,
}

/// Relays until it is ended.
pub(crate) fn run(address: SocketAddr) -> Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(address)?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(256);
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let is_busy = peers.iter().flatten().any(|peer| peer.is_readable);
        let at_most = is_busy.then_some(std::time::Duration::ZERO);
        match poll.poll(&mut events, at_most) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, &poll, &mut peers)?;
            } else if let Some(peer) = &mut peers[event.token().0] {
                peer.is_readable |= event.is_readable();
                peer.is_full &= !event.is_writable();
            }
        }
        for at in 0..peers.len() {
            if !receive(&mut peers, at, &mut buffer) {
                peers[at] = None;
            }
        }
        for place in &mut peers {
            if place.as_mut().is_some_and(|peer| !peer.send()) {
                *place = None;
            }
        }
    }
}

fn accept(listener: &TcpListener, poll: &Poll, peers: &mut Vec<Option<Peer>>) -> Result<()> {
    while let Ok((mut stream, _)) = listener.accept() {
        stream.set_nodelay(true)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry()
            .register(&mut stream, Token(peers.len()), interest)?;
        peers.push(Some(Peer {
            stream,
            filter: Vec::new(),
            shape: None,
            rest: Vec::new(),
            out: Vec::new(),
            written: 0,
            is_readable: false,
            is_full: false,
        }));
    }
    Ok(())
}

/// Reads once; `false` at the end of the connection.
fn receive(peers: &mut [Option<Peer>], at: usize, buffer: &mut [u8]) -> bool {
    let Some(peer) = peers[at].as_mut().filter(|peer| peer.is_readable) else {
        return true;
    };
    let kept = peer.rest.len();
    buffer[..kept].copy_from_slice(&peer.rest);
    let bytes = match peer.stream.read(&mut buffer[kept..]) {
        Ok(0) => return false,
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            peer.is_readable = false;
            return true;
        }
        Err(_) => return false,
    };
    peer.is_readable = kept + bytes == buffer.len();
    let mut unread = &buffer[..kept + bytes];
    while let Some(taken) = take(peers, at, unread) {
        unread = &unread[taken..];
    }
    if let Some(peer) = &mut peers[at] {
        peer.rest.clear();
        peer.rest.extend_from_slice(unread);
    }
    true
}

/// Takes what comes first: a run of PUBLISH packets, or one other packet. Gives back its bytes; `None` if it is not whole.
fn take(peers: &mut [Option<Peer>], at: usize, bytes: &[u8]) -> Option<usize> {
    let &[first, len, ..] = bytes else {
        return None;
    };
    if first >> 4 == 3 {
        return relay(peers, at, bytes);
    }
    let peer = peers[at].as_mut()?;
    // What is not PUBLISH and comes from the generator is short, but for a SUBSCRIBE of a crowd, which is not sent here.
    let packet = bytes.get(..2 + usize::from(len))?;
    match first {
        0x10 => peer.out.extend_from_slice(&[0x20, 2, 0, 0]),
        0x82 => {
            peer.filter = packet[6..packet.len() - 1].to_vec();
            let &[high, low] = &packet[2..4] else {
                return None;
            };
            peer.out
                .extend_from_slice(&[0x90, 3, high, low, packet[packet.len() - 1]]);
        }
        PUBREC => peer
            .out
            .extend_from_slice(&[PUBREL, 2, packet[2], packet[3]]),
        PUBREL => peer
            .out
            .extend_from_slice(&[PUBCOMP, 2, packet[2], packet[3]]),
        _ => {}
    }
    Some(packet.len())
}

fn relay(peers: &mut [Option<Peer>], at: usize, bytes: &[u8]) -> Option<usize> {
    let mut shape = peers[at].as_mut()?.shape.take();
    if shape.is_none() {
        shape = learn(peers, bytes);
    }
    let known = shape.as_ref()?;
    let is_publish = |packet: &&[u8]| packet[0] >> 4 == 3;
    let packets = bytes.chunks_exact(known.len).take_while(is_publish).count();
    let run = &bytes[..packets * known.len];
    for &receiver in &known.receivers {
        if let Some(receiver) = &mut peers[receiver] {
            receiver.out.extend_from_slice(run);
        }
    }
    let peer = peers[at].as_mut()?;
    let answer = match bytes[0] >> 1 & 3 {
        0 => None,
        1 => Some(PUBACK),
        _ => Some(PUBREC),
    };
    if let Some(answer) = answer {
        for packet in run.chunks_exact(known.len) {
            let id = &packet[known.packet_id_at..];
            peer.out.extend_from_slice(&[answer, 2, id[0], id[1]]);
        }
    }
    peer.shape = shape;
    (packets > 0).then_some(run.len())
}

/// Looks at a peer's first PUBLISH.
fn learn(peers: &[Option<Peer>], bytes: &[u8]) -> Option<Shape> {
    let (_, len) = crate::wire::next(bytes)?;
    // The Remaining Length has one byte, or two.
    let topic_at = if bytes[1] < 128 { 4 } else { 5 };
    let topic_len = usize::from(bytes[topic_at - 1]);
    let topic = bytes.get(topic_at..topic_at + topic_len)?;
    let is_receiver = |peer: &Option<Peer>| peer.as_ref().is_some_and(|peer| peer.filter == topic);
    Some(Shape {
        len,
        packet_id_at: topic_at + topic_len,
        receivers: (0..peers.len())
            .filter(|&index| is_receiver(&peers[index]))
            .collect(),
    })
}

impl Peer {
    /// Writes once; `false` if that is no longer possible.
    fn send(&mut self) -> bool {
        if self.is_full || self.written == self.out.len() {
            return true;
        }
        match self.stream.write(&self.out[self.written..]) {
            Ok(bytes) => self.written += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        } else {
            self.is_full = true;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use crate::load::{Load, Traffic, Until};
    use crate::tally::Faults;
    use larder_packet::Qos;
    use std::net::TcpListener;
    use std::time::Duration;

    /// So generator and relay are both right, or wrong in the same way.
    #[test]
    fn the_generator_sees_that_nothing_is_lost() {
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        std::thread::spawn(move || super::run(address).map_err(|error| error.to_string()));
        while std::net::TcpStream::connect(address).is_err() {
            std::thread::yield_now();
        }
        for (qos, payload) in [
            (Qos::AtMostOnce, 100),
            (Qos::AtLeastOnce, 1024),
            (Qos::ExactlyOnce, 100),
        ] {
            let traffic = Traffic {
                name: ["qos0", "qos1", "qos2"][qos as usize],
                publishers: 4,
                subscribers: 6,
                topics: 2,
                qos,
                payload,
                window: 50,
                stored: false,
            };
            let mut load = Load::connect(address, traffic).unwrap();
            load.run_closed(Until::elapsed(Duration::from_millis(100)))
                .unwrap();
            load.settle().unwrap();
            load.run_paced(1000.0, Duration::from_millis(100)).unwrap();
            load.settle().unwrap();
            let counts = load.counts();
            assert!(counts.sent > 100);
            assert_eq!(counts.received, counts.sent * 3);
            assert_eq!(load.faults(), Faults::default());
            assert_eq!(load.take_latencies().len(), 300);
        }
    }
}
