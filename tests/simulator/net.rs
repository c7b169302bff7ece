//! The network as one server sees it. Bytes arrive when the world says; reads and writes take as much as chance has it.
//!
//! It keeps the promises of [`Net`] and no more: what the sockets leave open (how bytes are split and merged, when there
//! is room again) is decided at random. Everything that passes is noted in [`SimNet::taps`], in its order.

use crate::random::Random;
use larder::net::{LinkId, Moved, Net, NetEvent, Origin};
use larder::time::Mono;
use std::collections::VecDeque;
use std::time::Duration;

/// Names a connection over the whole life of the world.
pub type Conn = u64;

/// What passed between server and network.
pub enum Tap {
    Opened(Conn),
    /// The server read these bytes.
    Read(Conn, Vec<u8>),
    /// The network took these bytes from the server.
    Wrote(Conn, Vec<u8>),
    /// The server closed it, or was told that it is gone.
    Closed(Conn),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Empty,
    Due,
    Told,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Writing {
    Free,
    Full,
    Due,
}

struct Link {
    conn: Conn,
    arrived: VecDeque<u8>,
    /// Nothing arrives behind what has arrived.
    finished: bool,
    /// Broken: nothing can be written, and nothing arrives behind what has arrived.
    broken: bool,
    reading: Reading,
    writing: Writing,
    /// Bytes that the network would take now.
    room: usize,
    calm: bool,
}

#[derive(Default)]
struct Place {
    generation: u32,
    link: Option<Link>,
}

/// One server's network.
pub struct SimNet {
    random: Random,
    places: Vec<Place>,
    waiting: VecDeque<(Conn, Origin, usize)>,
    due: VecDeque<u32>,
    this_turn: usize,
    pub taps: Vec<Tap>,
    /// What the last [`Net::wait`] asked for.
    pub asked: Option<Duration>,
    /// Events told in this turn.
    pub told: usize,
    /// Whether the server did anything in this turn.
    pub acted: bool,
    calm: bool,
}

impl SimNet {
    pub fn new(links: usize, random: Random) -> SimNet {
        SimNet {
            random,
            places: (0..links).map(|_| Place::default()).collect(),
            waiting: VecDeque::new(),
            due: VecDeque::new(),
            this_turn: 0,
            taps: Vec::new(),
            asked: None,
            told: 0,
            acted: false,
            calm: false,
        }
    }

    /// From now on it takes and gives as much as it can.
    pub fn calm(&mut self) {
        self.calm = true;
        for link in self
            .places
            .iter_mut()
            .filter_map(|place| place.link.as_mut())
        {
            link.calm = true;
        }
    }

    /// A peer connects; `room` is how many bytes its socket buffer takes.
    pub fn connect(&mut self, conn: Conn, private: bool, room: usize) {
        let origin = Origin {
            listener: u16::from(private),
            private,
        };
        self.waiting.push_back((conn, origin, room));
    }

    /// Bytes arrive. `false` if the server does not have the link (any more).
    pub fn arrive(&mut self, conn: Conn, bytes: &[u8]) -> bool {
        let Some(index) = self.find(conn) else {
            return false;
        };
        if let Some(link) = &mut self.places[index].link {
            link.arrived.extend(bytes);
        }
        self.readable(index);
        true
    }

    /// The peer sends nothing more.
    pub fn finish(&mut self, conn: Conn) {
        if let Some(index) = self.find(conn) {
            if let Some(link) = &mut self.places[index].link {
                link.finished = true;
            }
            self.readable(index);
        }
    }

    /// The link breaks. `reads`: what has arrived can still be read.
    pub fn break_link(&mut self, conn: Conn, reads: bool) {
        self.waiting.retain(|(waiting, ..)| *waiting != conn);
        if let Some(index) = self.find(conn) {
            if let Some(link) = &mut self.places[index].link {
                link.broken = true;
                if !reads {
                    link.arrived.clear();
                }
            }
            self.readable(index);
        }
    }

    /// The network takes so many bytes more.
    pub fn make_room(&mut self, conn: Conn, bytes: usize) {
        let Some(index) = self.find(conn) else {
            return;
        };
        if let Some(link) = &mut self.places[index].link {
            link.room += bytes;
            if link.writing == Writing::Full {
                link.writing = Writing::Due;
                self.queue(index);
            }
        }
    }

    /// Whether the server has this link.
    pub fn has(&self, conn: Conn) -> bool {
        self.find(conn).is_some() || self.waiting.iter().any(|(waiting, ..)| *waiting == conn)
    }

    /// Whether the server has taken this link in.
    pub fn is_accepted(&self, conn: Conn) -> bool {
        self.find(conn).is_some()
    }

    /// All connections that the server has.
    pub fn conns(&self) -> Vec<Conn> {
        let links = self.places.iter().filter_map(|place| place.link.as_ref());
        links
            .map(|link| link.conn)
            .chain(self.waiting.iter().map(|(conn, ..)| *conn))
            .collect()
    }

    fn find(&self, conn: Conn) -> Option<usize> {
        self.places
            .iter()
            .position(|place| place.link.as_ref().is_some_and(|link| link.conn == conn))
    }

    fn readable(&mut self, index: usize) {
        if let Some(link) = &mut self.places[index].link {
            if link.reading == Reading::Empty {
                link.reading = Reading::Due;
                self.queue(index);
            }
        }
    }

    fn queue(&mut self, index: usize) {
        let index = index as u32;
        if !self.due.contains(&index) {
            self.due.push_back(index);
        }
    }

    fn link(&mut self, id: LinkId) -> Option<&mut Link> {
        let place = self.places.get_mut(id.index as usize)?;
        place
            .link
            .as_mut()
            .filter(|_| place.generation == id.generation)
    }

    fn accept(&mut self) -> Option<NetEvent> {
        let (conn, origin, room) = self.waiting.pop_front()?;
        let Some(index) = self.places.iter().position(|place| place.link.is_none()) else {
            self.taps.push(Tap::Closed(conn));
            return Some(NetEvent::Refused);
        };
        let place = &mut self.places[index];
        place.generation += 1;
        place.link = Some(Link {
            conn,
            arrived: VecDeque::new(),
            finished: false,
            broken: false,
            reading: Reading::Empty,
            writing: Writing::Free,
            room,
            calm: self.calm,
        });
        self.taps.push(Tap::Opened(conn));
        let id = LinkId {
            index: index as u32,
            generation: place.generation,
        };
        Some(NetEvent::Opened(id, origin))
    }
}

impl Net for SimNet {
    fn wait(&mut self, timeout: Option<Duration>) {
        self.asked = timeout;
        self.told = 0;
        self.acted = false;
        self.this_turn = self.due.len();
    }

    fn poll_event(&mut self, _now: Mono) -> Option<NetEvent> {
        while self.this_turn > 0 {
            let index = self.due.pop_front()?;
            self.this_turn -= 1;
            let place = &mut self.places[index as usize];
            let id = LinkId {
                index,
                generation: place.generation,
            };
            let Some(link) = &mut place.link else {
                continue;
            };
            let writable = link.writing == Writing::Due;
            if writable {
                link.writing = Writing::Free;
            }
            let readable = link.reading == Reading::Due;
            if writable {
                if readable {
                    self.due.push_back(index);
                }
                self.told += 1;
                return Some(NetEvent::Writable(id));
            }
            if readable {
                link.reading = Reading::Told;
                self.told += 1;
                return Some(NetEvent::Readable(id));
            }
        }
        let event = self.accept();
        self.told += usize::from(event.is_some());
        event
    }

    fn read(&mut self, id: LinkId, into: &mut [u8]) -> Moved {
        let chance = self.random.next();
        let Some(link) = self.link(id) else {
            return Moved::Gone;
        };
        let conn = link.conn;
        if (link.broken || link.finished) && link.arrived.is_empty() {
            return Moved::Gone;
        }
        if link.arrived.is_empty() {
            link.reading = Reading::Empty;
            return Moved::Blocked;
        }
        let most = link.arrived.len().min(into.len());
        let count = if link.calm || chance % 4 == 0 {
            most
        } else {
            1 + (chance >> 8) as usize % most
        };
        for (byte, read) in into.iter_mut().zip(link.arrived.drain(..count)) {
            *byte = read;
        }
        let more = !link.arrived.is_empty() || link.finished || link.broken;
        link.reading = if more { Reading::Due } else { Reading::Empty };
        if more {
            self.queue(id.index as usize);
        }
        self.taps.push(Tap::Read(conn, into[..count].to_vec()));
        Moved::Bytes(count)
    }

    fn rearm(&mut self, id: LinkId) {
        if let Some(link) = self.link(id) {
            link.reading = Reading::Due;
            self.queue(id.index as usize);
        }
    }

    fn write(&mut self, id: LinkId, bytes: &[u8]) -> Moved {
        self.acted = true;
        let chance = self.random.next();
        let Some(link) = self.link(id) else {
            return Moved::Gone;
        };
        if link.broken {
            return Moved::Gone;
        }
        if link.room == 0 {
            link.writing = Writing::Full;
            return Moved::Blocked;
        }
        let most = link.room.min(bytes.len());
        let count = if link.calm || chance % 4 != 0 {
            most
        } else {
            1 + (chance >> 8) as usize % most
        };
        link.room -= count;
        let conn = link.conn;
        if count < bytes.len() {
            // There may be room at once: then it is told in the next turn.
            link.writing = if link.room > 0 {
                Writing::Due
            } else {
                Writing::Full
            };
            if link.writing == Writing::Due {
                self.queue(id.index as usize);
            }
        }
        self.taps.push(Tap::Wrote(conn, bytes[..count].to_vec()));
        Moved::Bytes(count)
    }

    fn close(&mut self, id: LinkId) {
        self.acted = true;
        if self.link(id).is_some() {
            if let Some(link) = self.places[id.index as usize].link.take() {
                self.taps.push(Tap::Closed(link.conn));
            }
        }
    }
}
