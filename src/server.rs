//! The turn: the one loop that puts the network, the store and the core together. Whatever is generic here, the simulator
//! puts something else in its place.

use crate::broker::Broker;
use crate::limits::{LINK_READ_BYTES, SHUTDOWN_WAIT};
use crate::net::{Moved, Net, NetEvent};
use crate::record::Store;
use crate::time::{Clock, Now};

/// A server: a network, a store, and the core between them.
pub struct Server<N, S> {
    net: N,
    store: S,
    broker: Broker,
    /// What was read from the link that is being read.
    received: Box<[u8]>,
    now: Now,
}

impl<N: Net, S: Store> Server<N, S> {
    /// Puts a server together; `now` is when the core was made.
    #[must_use]
    pub fn new(net: N, store: S, broker: Broker, now: Now) -> Server<N, S> {
        let received = vec![0; LINK_READ_BYTES].into_boxed_slice();
        Server {
            net,
            store,
            broker,
            received,
            now,
        }
    }

    /// One turn.
    pub fn turn(&mut self, clock: &mut impl Clock) {
        // The only place that sleeps, and the only clock read.
        self.net.wait(self.broker.poll_timeout(self.now));
        let now = clock.now();
        self.now = now;

        while let Some(event) = self.store.poll_event() {
            self.broker.handle_store(event, now);
        }
        self.broker.resume_parked(now);
        while let Some(event) = self.net.poll_event(now.mono) {
            self.handle_net(event, now);
        }
        // After receiving: our own stall must not expire a client.
        self.broker.handle_timeout(now);
        self.broker.deliver(now);
        while let Some(request) = self.broker.poll_read() {
            self.store.read(request);
        }
        while let Some(topic) = self.broker.poll_read_retained() {
            self.store.read_retained(topic);
        }
        self.submit(now);
        self.send(now);
    }

    fn handle_net(&mut self, event: NetEvent, now: Now) {
        match event {
            NetEvent::Opened(link, origin) => self.broker.link_opened(link, origin, now),
            NetEvent::Refused => self.broker.link_refused(),
            NetEvent::Writable(link) => self.broker.writable(link),
            NetEvent::Readable(link) => {
                if !self.broker.wants(link) {
                    return;
                }
                match self.net.read(link, &mut self.received) {
                    Moved::Bytes(bytes) => self.broker.receive(link, &self.received[..bytes], now),
                    Moved::Blocked => {}
                    Moved::Gone => {
                        self.broker.link_lost(link, now);
                        self.net.close(link);
                    }
                }
            }
        }
    }

    fn submit(&mut self, now: Now) {
        if self.store.is_idle() {
            if let Some(batch) = self.broker.poll_batch(now) {
                self.store.submit(batch);
            }
        }
    }

    /// One write per link and turn.
    fn send(&mut self, now: Now) {
        while let Some(link) = self.broker.poll_send() {
            let outbox = self.broker.outbox(link);
            if outbox.is_empty() {
                continue;
            }
            match self.net.write(link, outbox) {
                Moved::Bytes(bytes) => self.broker.sent(link, bytes, now),
                Moved::Blocked => self.broker.sent(link, 0, now),
                Moved::Gone => {
                    self.broker.link_lost(link, now);
                    self.net.close(link);
                }
            }
        }
        while let Some(link) = self.broker.poll_close() {
            self.net.close(link);
            self.broker.link_lost(link, now);
        }
        while let Some(link) = self.broker.poll_rearm() {
            self.net.rearm(link);
        }
    }

    /// Says goodbye to all clients and writes what waits, settlements included. Not needed for anything that was
    /// acknowledged: what it saves is that those settlements are made again.
    pub fn shut_down(&mut self, clock: &mut impl Clock) {
        let now = clock.now();
        self.now = now;
        self.broker.shut_down(now);
        self.broker.hurry();
        self.send(now);
        let deadline = now.mono.after(SHUTDOWN_WAIT);
        while !self.broker.is_saved() && self.now.mono < deadline {
            self.submit(self.now);
            self.net.wait(Some(deadline.since(self.now.mono)));
            self.now = clock.now();
            // Nobody is served any more.
            while self.net.poll_event(self.now.mono).is_some() {}
            while let Some(event) = self.store.poll_event() {
                self.broker.handle_store(event, self.now);
            }
            // Wills that found no room.
            self.broker.resume_parked(self.now);
        }
    }

    /// When its last turn began.
    #[must_use]
    pub fn now(&self) -> Now {
        self.now
    }

    /// The core, to be looked at.
    #[must_use]
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// The network.
    pub fn net(&mut self) -> &mut N {
        &mut self.net
    }

    /// The store.
    pub fn store(&mut self) -> &mut S {
        &mut self.store
    }

    /// Takes the server apart: what a crash leaves.
    #[must_use]
    pub fn into_parts(self) -> (N, S) {
        (self.net, self.store)
    }
}
