//! The way from rumqttc, which has no transport that one could bring, to a TLS stream: it connects to a Unix socket of
//! this process, and a task carries the bytes on. What is queued in it is a few socket buffers; nothing is acknowledged
//! by it, and it ends with its link.

use crate::client::LinkError;
use crate::tls::{Stream, TimeFloor, Tls};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// Where a tunnel leads.
#[derive(Clone, Debug)]
pub(crate) struct Far {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: Arc<Tls>,
    pub(crate) floor: TimeFloor,
}

impl Far {
    pub(crate) async fn connect(&self) -> Result<Stream, LinkError> {
        self.tls
            .connect(&self.host, self.port, self.floor.clone())
            .await
    }
}

/// A tunnel for one connection.
pub(crate) struct Tunnel {
    far: Far,
    path: String,
    carrier: Option<JoinHandle<Result<(), LinkError>>>,
}

impl Tunnel {
    pub(crate) fn new(far: Far) -> Self {
        // An abstract name: it needs no directory, and is gone with its socket. Nobody can take it before us who cannot
        // guess it.
        let random = RandomState::new().build_hasher().finish();
        Self {
            far,
            path: format!("\0larder-bridge-{random:016x}"),
            carrier: None,
        }
    }

    /// What to connect to once it is open.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Connects to the far end, which may take until `timeout`, and waits there for one connection from this process. Done
    /// already, it does nothing.
    pub(crate) async fn open(&mut self, timeout: Duration) -> Result<(), LinkError> {
        if self.carrier.is_some() {
            return Ok(());
        }
        let stream = tokio::time::timeout(timeout, self.far.connect())
            .await
            .unwrap_or_else(|_| Err(LinkError::ours("no connection in time")))?;
        let listener =
            UnixListener::bind(&self.path).map_err(|error| LinkError::from_io(&error))?;
        self.carrier = Some(tokio::task::spawn_local(carry(listener, stream)));
        Ok(())
    }

    /// Why the link has ended: the client saw no more than that.
    pub(crate) async fn why(&mut self, seen: LinkError) -> LinkError {
        match &mut self.carrier {
            Some(carrier) if seen.is_bare && carrier.is_finished() => match carrier.await {
                Ok(Err(error)) => error,
                _ => seen,
            },
            _ => seen,
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if let Some(carrier) = &self.carrier {
            carrier.abort();
        }
    }
}

async fn carry(listener: UnixListener, far: Stream) -> Result<(), LinkError> {
    let near = from_ourselves(listener)
        .await
        .map_err(|error| LinkError::from_io(&error))?;
    far.carry(near).await
}

async fn from_ourselves(listener: UnixListener) -> io::Result<UnixStream> {
    loop {
        let (stream, _) = listener.accept().await?;
        let process = stream.peer_cred()?.pid();
        if process.and_then(|id| u32::try_from(id).ok()) == Some(std::process::id()) {
            return Ok(stream);
        }
    }
}
