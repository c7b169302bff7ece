//! TLS towards the cloud. A server is always verified; there is no switch for that.
//!
//! - [`chain`]: whether the server is who it should be. One verdict, and one sentence for each that is bad.
//! - [`files`]: certificates and keys. They are read for each connection, so that new ones are used by the next.
//! - [`time`]: by which time.
//! - the protocol itself, as the features have it: [`standard`] by rustls, or [`small`] by embedded-tls. Both verify with
//!   [`chain`] and nothing else.

mod chain;
mod files;
#[cfg(not(feature = "tls"))]
mod guard;
mod key_usage;
#[cfg(not(feature = "tls"))]
mod small;
#[cfg(feature = "tls")]
mod standard;
mod time;

#[cfg(not(any(feature = "tls", feature = "small-tls")))]
compile_error!("a bridge needs TLS: one of the features `tls` and `small-tls`");

#[cfg(not(feature = "tls"))]
use small::Client;
#[cfg(not(feature = "tls"))]
pub(crate) use small::Stream;
#[cfg(feature = "tls")]
use standard::Client;
#[cfg(feature = "tls")]
pub(crate) use standard::Stream;
pub use time::TimeFloor;

use crate::client::LinkError;
use pki_types::ServerName;
use std::fmt;
use std::path::{Path, PathBuf};
use tokio::net::TcpStream;

/// Bytes that the TLS of one bridge takes at most: the CAs, a record and what waits for the socket each way, and the
/// sockets between it and the MQTT client.
pub const TLS_BYTES: usize = 640 << 10;
/// The longest name of a protocol [RFC 7301 3.1].
const ALPN_BYTES_MAX: usize = 255;

/// What TLS towards the cloud is made with. All defaults: the system's CAs, no certificate of our own, the name in the
/// address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The CAs that are trusted, and no others: PEM. `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// Our certificate, and those between it and its CA: PEM. With `key`.
    pub cert: Option<PathBuf>,
    /// The private key that belongs to it: PEM, not encrypted.
    pub key: Option<PathBuf>,
    /// Whom the server's certificate must be for, and the name that it is asked for (SNI). `None`: the address's host.
    pub server_name: Option<String>,
    /// The protocol to ask for (ALPN).
    pub alpn: Option<String>,
}

/// What is wrong with one of the values of [`Tls`], or the file that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFault {
    /// The value's name.
    pub key: &'static str,
    /// What is wrong, and what to do.
    pub fault: String,
}

impl TlsFault {
    fn new(key: &'static str, fault: impl Into<String>) -> Self {
        let fault = fault.into();
        Self { key, fault }
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.fault)
    }
}

impl std::error::Error for TlsFault {}

impl Tls {
    /// Whether it can be used as it is now: reads the files.
    ///
    /// # Errors
    /// The first value that cannot.
    pub fn check(&self) -> Result<(), TlsFault> {
        if let Some(name) = &self.server_name {
            if ServerName::try_from(name.as_str()).is_err() {
                let fault = format!("{name:?} is neither a host name nor an IP address");
                return Err(TlsFault::new("server_name", fault));
            }
        }
        if let Some(alpn) = &self.alpn {
            if !(1..=ALPN_BYTES_MAX).contains(&alpn.len()) {
                let fault = format!("must have 1 to {ALPN_BYTES_MAX} bytes");
                return Err(TlsFault::new("alpn", fault));
            }
        }
        if let Some(key) = &self.key {
            files::key_is_private(key)?;
        }
        Client::new(self, TimeFloor::default()).map(|_| ())
    }

    /// Whom a server at `host` must prove to be.
    pub(crate) fn name<'a>(&'a self, host: &'a str) -> &'a str {
        self.server_name.as_deref().unwrap_or(bare(host))
    }

    /// Connects to a server and shakes hands with it. What the stream then carries, the server has been verified for.
    pub(crate) async fn connect(
        &self,
        host: &str,
        port: u16,
        floor: TimeFloor,
    ) -> Result<Stream, LinkError> {
        let client =
            Client::new(self, floor).map_err(|fault| LinkError::ours(fault.to_string()))?;
        let name = self.name(host);
        let server = ServerName::try_from(name.to_owned()).map_err(|_| {
            LinkError::ours(format!(
                "{name:?} is no name that a certificate can be for: set server_name"
            ))
        })?;
        let socket = TcpStream::connect((bare(host), port))
            .await
            .map_err(|error| LinkError::from_io(&error))?;
        socket
            .set_nodelay(true)
            .map_err(|error| LinkError::from_io(&error))?;
        client.connect(server, name, socket).await
    }

    /// The files of our certificate and of its key.
    fn identity(&self) -> Result<Option<(&Path, &Path)>, TlsFault> {
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Ok(Some((cert, key))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(TlsFault::new("cert", "a certificate needs its `key`")),
            (None, Some(_)) => Err(TlsFault::new("key", "a private key needs its `cert`")),
        }
    }
}

/// An IPv6 address without its brackets, and any other host.
fn bare(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}
