//! The load: publishers and subscribers in one loop on one thread.
//!
//! *Closed*: a publisher has a bounded number of messages on their way, which is to the broker until they are acknowledged
//! (QoS 1 and 2), and through it until all its subscribers have them. So what is measured is what the broker does, and not
//! what it can put off. *Paced*: messages are sent when it is time for them, whatever became of the others, and their
//! latency counts from that time: a stall of the broker delays all that were to be sent meanwhile, and is seen in all.

use crate::Result;
use crate::link::{Client, Link};
use crate::tally::{Faults, Stream};
use crate::wire::{PUBACK, PUBCOMP, PUBREC, PUBREL, Received, Stamp, Template};
use larder_packet::Qos;
use mio::{Events, Interest, Poll, Token};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const READ_BYTES: usize = 256 * 1024;
/// With no progress for so long, what is missing is lost.
const LOST_WAIT: Duration = Duration::from_secs(3);
/// The poll sleeps in whole milliseconds, so the last bit before a message is due is spent awake.
const SPIN: Duration = Duration::from_millis(2);

/// Who sends what to whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    /// In topics and Client Identifiers.
    pub(crate) name: &'static str,
    pub(crate) publishers: usize,
    pub(crate) subscribers: usize,
    /// Topics: publishers and subscribers are dealt out to them in turn.
    pub(crate) topics: usize,
    pub(crate) qos: Qos,
    /// Bytes of a message.
    pub(crate) payload: usize,
    /// Messages of one publisher on their way.
    pub(crate) window: u64,
    /// Whether the subscribers have stored sessions.
    pub(crate) stored: bool,
}

impl Traffic {
    fn topic(&self, index: usize) -> String {
        format!("bench/{}/{}", self.name, index % self.topics)
    }

    fn publisher(&self, index: usize) -> Client {
        Client::publisher(format!("{}-publisher-{index}", self.name))
    }

    fn subscriber(&self, index: usize, again: bool) -> Client {
        Client {
            client_id: format!("{}-subscriber-{index}", self.name),
            clean_session: !self.stored,
            filters: if again {
                Vec::new()
            } else {
                vec![self.topic(index)]
            },
            qos: self.qos,
        }
    }

    /// Subscribers to whom a publisher's message goes.
    fn receivers(&self, publisher: usize) -> u64 {
        let topic = publisher % self.topics;
        let receivers = (0..self.subscribers).filter(|index| index % self.topics == topic);
        receivers.count() as u64
    }
}

/// When the loop is left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Until {
    pub(crate) elapsed: Duration,
    /// Messages that were sent, of all publishers.
    pub(crate) sent: u64,
}

impl Until {
    pub(crate) fn elapsed(elapsed: Duration) -> Until {
        Until {
            elapsed,
            sent: u64::MAX,
        }
    }

    pub(crate) fn sent(sent: u64) -> Until {
        Until {
            elapsed: Duration::MAX,
            sent,
        }
    }
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    pub(crate) received: u64,
}

struct Publisher {
    template: Template,
    next_id: u16,
    sent: u64,
    acknowledged: u64,
    /// Deliveries, to all its receivers together.
    received: u64,
    receivers: u64,
}

impl Publisher {
    fn append(&mut self, stamp: Stamp, out: &mut Vec<u8>) {
        self.template.append(self.next_id, stamp, out);
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        self.sent += 1;
    }

    /// Messages on their way.
    fn under_way(&self, has_acks: bool, is_delivered: bool) -> u64 {
        let acknowledged = if has_acks {
            self.acknowledged
        } else {
            self.sent
        };
        let delivered = match self.receivers {
            0 => self.sent,
            _ if !is_delivered => self.sent,
            receivers => self.received / receivers,
        };
        self.sent - acknowledged.min(delivered)
    }
}

/// The load on one broker.
pub(crate) struct Load {
    traffic: Traffic,
    address: SocketAddr,
    poll: Poll,
    buffer: Vec<u8>,
    began: Instant,
    /// Publishers first, then subscribers.
    links: Vec<Option<Link>>,
    publishers: Vec<Publisher>,
    /// By subscriber, then by publisher.
    streams: Vec<Vec<Stream>>,
    counts: Counts,
    /// Latencies of paced messages, in nanoseconds.
    latencies: Vec<u64>,
    is_paced: bool,
}

impl Load {
    /// Connects all, subscribers first.
    pub(crate) fn connect(address: SocketAddr, traffic: Traffic) -> Result<Load> {
        let publishers = (0..traffic.publishers).map(|index| Publisher {
            template: Template::new(&traffic.topic(index), traffic.qos, traffic.payload),
            next_id: 1,
            sent: 0,
            acknowledged: 0,
            received: 0,
            receivers: traffic.receivers(index),
        });
        let mut load = Load {
            traffic,
            address,
            poll: Poll::new()?,
            buffer: vec![0; READ_BYTES],
            began: Instant::now(),
            links: Vec::new(),
            publishers: publishers.collect(),
            streams: vec![vec![Stream::default(); traffic.publishers]; traffic.subscribers],
            counts: Counts::default(),
            latencies: Vec::new(),
            is_paced: false,
        };
        load.links
            .resize_with(traffic.publishers + traffic.subscribers, || None);
        for index in 0..traffic.subscribers {
            load.open(
                traffic.publishers + index,
                &traffic.subscriber(index, false),
            )?;
        }
        for index in 0..traffic.publishers {
            load.open(index, &traffic.publisher(index))?;
        }
        Ok(load)
    }

    fn open(&mut self, at: usize, client: &Client) -> Result<()> {
        let mut link = Link::new(client.connect(self.address)?)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut link.stream, Token(at), interest)?;
        self.links[at] = Some(link);
        Ok(())
    }

    /// The subscribers go away; their sessions stay if they are stored.
    pub(crate) fn leave(&mut self) -> Result<()> {
        for link in &mut self.links[self.traffic.publishers..] {
            if let Some(link) = link.take() {
                link.disconnect()?;
            }
        }
        Ok(())
    }

    /// They come back to their sessions.
    pub(crate) fn come_back(&mut self) -> Result<()> {
        for index in 0..self.traffic.subscribers {
            self.open(
                self.traffic.publishers + index,
                &self.traffic.subscriber(index, true),
            )?;
        }
        Ok(())
    }

    /// Sends as the window allows.
    pub(crate) fn run_closed(&mut self, until: Until) -> Result<()> {
        let began = Instant::now();
        self.is_paced = false;
        while began.elapsed() < until.elapsed && self.counts.sent < until.sent {
            self.send_closed(until.sent);
            self.flush()?;
            self.wait(Duration::from_millis(20))?;
        }
        self.flush()
    }

    /// Sends `rate` messages in a second.
    pub(crate) fn run_paced(&mut self, rate: f64, elapsed: Duration) -> Result<()> {
        let began = Instant::now();
        self.is_paced = true;
        let messages = (rate * elapsed.as_secs_f64()) as u64;
        let due = |number: u64| Duration::from_secs_f64(number as f64 / rate);
        let mut number = 0;
        while number < messages {
            while number < messages && due(number) <= began.elapsed() {
                let intended = began + due(number);
                self.send(number as usize % self.publishers.len(), intended);
                number += 1;
            }
            self.flush()?;
            let left = due(number).saturating_sub(began.elapsed());
            self.wait(left.saturating_sub(SPIN))?;
        }
        self.flush()
    }

    /// Sends nothing more, until all that was sent has arrived, and is acknowledged. Without progress that ends.
    pub(crate) fn settle(&mut self) -> Result<()> {
        let mut last = (self.counts, Instant::now());
        while !self.is_settled() && last.1.elapsed() < LOST_WAIT {
            self.flush()?;
            self.wait(Duration::from_millis(20))?;
            let (was, now) = (last.0, self.counts);
            if (was.received, was.acknowledged) != (now.received, now.acknowledged) {
                last = (now, Instant::now());
            }
        }
        self.flush()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Meant for after [`Load::settle`].
    pub(crate) fn faults(&self) -> Faults {
        let mut faults = Faults::default();
        for (subscriber, streams) in self.streams.iter().enumerate() {
            for (publisher, stream) in streams.iter().enumerate() {
                if publisher % self.traffic.topics == subscriber % self.traffic.topics {
                    faults.add(stream.faults(self.publishers[publisher].sent));
                }
            }
        }
        faults
    }

    /// Latencies so far, in nanoseconds, sorted; from now on new ones are gathered.
    pub(crate) fn take_latencies(&mut self) -> Vec<u64> {
        let mut latencies = std::mem::take(&mut self.latencies);
        latencies.sort_unstable();
        latencies
    }

    fn has_acks(&self) -> bool {
        self.traffic.qos != Qos::AtMostOnce
    }

    fn is_delivered(&self) -> bool {
        self.links[self.traffic.publishers..]
            .iter()
            .any(Option::is_some)
    }

    fn is_settled(&self) -> bool {
        let (has_acks, is_delivered) = (self.has_acks(), self.is_delivered());
        let mut publishers = self.publishers.iter();
        publishers.all(|publisher| publisher.under_way(has_acks, is_delivered) == 0)
    }

    fn send_closed(&mut self, sent_max: u64) {
        let (has_acks, is_delivered) = (self.has_acks(), self.is_delivered());
        let now = Instant::now();
        for index in 0..self.publishers.len() {
            let under_way = self.publishers[index].under_way(has_acks, is_delivered);
            let room = self.traffic.window.saturating_sub(under_way);
            for _ in 0..room.min(sent_max.saturating_sub(self.counts.sent)) {
                self.send(index, now);
            }
        }
    }

    fn send(&mut self, index: usize, intended: Instant) {
        let Some(link) = &mut self.links[index] else {
            return;
        };
        let publisher = &mut self.publishers[index];
        let stamp = Stamp {
            publisher: index as u32,
            number: publisher.sent,
            intended: intended.saturating_duration_since(self.began).as_nanos() as u64,
        };
        publisher.append(stamp, &mut link.out);
        self.counts.sent += 1;
    }

    fn flush(&mut self) -> Result<()> {
        self.links.iter_mut().flatten().try_for_each(Link::flush)
    }

    fn wait(&mut self, at_most: Duration) -> Result<()> {
        let mut events = Events::with_capacity(256);
        match self.poll.poll(&mut events, Some(at_most)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &events {
            let at = event.token().0;
            if event.is_writable() {
                if let Some(link) = &mut self.links[at] {
                    link.writable();
                }
            }
            if event.is_readable() {
                self.receive(at)?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, at: usize) -> Result<()> {
        let now = self.began.elapsed().as_nanos() as u64;
        let Load {
            traffic,
            buffer,
            links,
            publishers,
            streams,
            counts,
            latencies,
            is_paced,
            ..
        } = self;
        let Some(link) = &mut links[at] else {
            return Ok(());
        };
        if let Some(subscriber) = at.checked_sub(traffic.publishers) {
            let streams = &mut streams[subscriber];
            return link.receive(buffer, |packet, out| match packet {
                Received::Publish {
                    qos,
                    packet_id: [high, low],
                    stamp,
                } => {
                    let publisher = stamp.publisher as usize;
                    if let Some(stream) = streams.get_mut(publisher) {
                        stream.receive(stamp.number);
                        publishers[publisher].received += 1;
                        counts.received += 1;
                        if *is_paced {
                            latencies.push(now.saturating_sub(stamp.intended));
                        }
                    }
                    match qos {
                        0 => {}
                        1 => out.extend_from_slice(&[PUBACK, 2, high, low]),
                        _ => out.extend_from_slice(&[PUBREC, 2, high, low]),
                    }
                }
                Received::Ack {
                    first: PUBREL,
                    packet_id: [high, low],
                } => out.extend_from_slice(&[PUBCOMP, 2, high, low]),
                Received::Ack { .. } | Received::Other => {}
            });
        }
        let publisher = &mut publishers[at];
        link.receive(buffer, |packet, out| match packet {
            Received::Ack {
                first: PUBACK | PUBCOMP,
                ..
            } => {
                publisher.acknowledged += 1;
                counts.acknowledged += 1;
            }
            Received::Ack {
                first: PUBREC,
                packet_id: [high, low],
            } => out.extend_from_slice(&[PUBREL, 2, high, low]),
            _ => {}
        })
    }
}
