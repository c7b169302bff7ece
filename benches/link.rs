//! One connection of the generator.

use crate::Result;
use crate::wire::{self, DISCONNECT};
use larder_packet::Qos;
use mio::net::TcpStream;
use std::io::{ErrorKind, Read, Write};
use std::net::{self, SocketAddr};
use std::time::Duration;

/// How long a broker may take for a handshake: it may have to recover, or to sync.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(30);

/// Who connects, and what it subscribes to.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) client_id: String,
    pub(crate) clean_session: bool,
    pub(crate) filters: Vec<String>,
    pub(crate) qos: Qos,
}

impl Client {
    pub(crate) fn publisher(client_id: String) -> Client {
        Client {
            client_id,
            clean_session: true,
            filters: Vec::new(),
            qos: Qos::AtMostOnce,
        }
    }

    /// Connects, subscribes to its filters if it has some, and waits for the answers.
    pub(crate) fn connect(&self, address: SocketAddr) -> Result<net::TcpStream> {
        let mut stream = net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(HANDSHAKE_WAIT))?;
        stream.write_all(&wire::connect(&self.client_id, self.clean_session))?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        if answer[0] != 0x20 || answer[3] != 0 {
            return Err(format!("{}: the CONNACK is {answer:?}", self.client_id).into());
        }
        if !self.filters.is_empty() {
            self.subscribe(&mut stream)?;
        }
        Ok(stream)
    }

    /// Subscribes to all its filters with one packet, and waits for the SUBACK.
    pub(crate) fn subscribe(&self, stream: &mut net::TcpStream) -> Result<()> {
        let packet = wire::subscribe(&self.filters, self.qos).ok_or("a filter is none")?;
        stream.write_all(&packet)?;
        let mut answer = vec![0; suback_len(self.filters.len())];
        stream.read_exact(&mut answer)?;
        let granted = &answer[answer.len() - self.filters.len()..];
        if answer[0] != 0x90 || granted.contains(&0x80) {
            return Err(format!("{}: the SUBACK is {answer:?}", self.client_id).into());
        }
        Ok(())
    }
}

fn suback_len(filters: usize) -> usize {
    let body = 2 + filters;
    1 + if body < 128 { 1 } else { 2 } + body
}

/// A connection in the generator's loop: it neither blocks nor writes twice what fits at once.
pub(crate) struct Link {
    pub(crate) stream: TcpStream,
    /// What waits to be written.
    pub(crate) out: Vec<u8>,
    written: usize,
    is_full: bool,
    /// The beginning of a packet that is not whole.
    rest: Vec<u8>,
}

impl Link {
    pub(crate) fn new(stream: net::TcpStream) -> Result<Link> {
        stream.set_nonblocking(true)?;
        Ok(Link {
            stream: TcpStream::from_std(stream),
            out: Vec::new(),
            written: 0,
            is_full: false,
            rest: Vec::new(),
        })
    }

    /// The system has room again.
    pub(crate) fn writable(&mut self) {
        self.is_full = false;
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        while !self.is_full && self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(bytes) => self.written += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_full = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
        Ok(())
    }

    /// Reads until the socket is empty and hands whole packets to `take`, together with what is to be written.
    pub(crate) fn receive(
        &mut self,
        buffer: &mut [u8],
        mut take: impl FnMut(wire::Received, &mut Vec<u8>),
    ) -> Result<()> {
        loop {
            let kept = self.rest.len();
            buffer[..kept].copy_from_slice(&self.rest);
            let bytes = match self.stream.read(&mut buffer[kept..]) {
                Ok(0) => return Err("the broker has closed a connection".into()),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let mut unread = &buffer[..kept + bytes];
            while let Some((packet, len)) = wire::next(unread) {
                take(packet, &mut self.out);
                unread = &unread[len..];
            }
            self.rest.clear();
            self.rest.extend_from_slice(unread);
            if kept + bytes < buffer.len() {
                return Ok(());
            }
        }
    }

    pub(crate) fn disconnect(mut self) -> Result<()> {
        self.out.extend_from_slice(&DISCONNECT);
        self.flush()
    }
}
