//! Clients that are there and do nothing: what a broker's work should not grow with.

use crate::Result;
use crate::link::Client;
use larder_packet::Qos;
use std::net::{SocketAddr, TcpStream};

/// Topic Filters in one SUBSCRIBE.
const FILTERS: usize = 100;

/// What the crowd has subscribed to; nothing is ever published there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Exact,
    /// A `+` in the last level.
    Plus,
    /// A `#` there.
    Hash,
}

impl Form {
    fn filter(self, number: usize) -> String {
        match self {
            Form::Exact => format!("crowd/{number}/state"),
            Form::Plus => format!("crowd/{number}/+"),
            Form::Hash => format!("crowd/{number}/#"),
        }
    }
}

/// Connections without traffic.
pub(crate) struct Crowd {
    links: Vec<TcpStream>,
}

impl Crowd {
    /// Connects `clients`, each with as many subscriptions of its own.
    pub(crate) fn connect(
        address: SocketAddr,
        clients: usize,
        subscriptions: usize,
        form: Form,
    ) -> Result<Crowd> {
        let mut links = Vec::with_capacity(clients);
        for client in 0..clients {
            let first = client * subscriptions;
            let filters: Vec<String> = (first..first + subscriptions)
                .map(|number| form.filter(number))
                .collect();
            let mut batches = filters.chunks(FILTERS);
            let mut client = Client {
                client_id: format!("crowd-{client}"),
                clean_session: true,
                filters: batches.next().unwrap_or_default().to_vec(),
                qos: Qos::AtMostOnce,
            };
            let mut stream = client.connect(address)?;
            for filters in batches {
                client.filters = filters.to_vec();
                client.subscribe(&mut stream)?;
            }
            links.push(stream);
        }
        Ok(Crowd { links })
    }

    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }
}
