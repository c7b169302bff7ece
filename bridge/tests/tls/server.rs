//! A server that plays the cloud: it shows what it is told to, and answers a CONNECT.

use crate::authority::{Authority, Identity};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;

pub(crate) type Version = &'static SupportedProtocolVersion;
pub(crate) const TLS12: Version = &rustls::version::TLS12;
pub(crate) const TLS13: Version = &rustls::version::TLS13;

/// CONNACK of 5.0: success, no properties.
pub(crate) const CONNACK: [u8; 5] = [0x20, 3, 0, 0, 0];

/// What it does after the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Answers the CONNECT, and stays.
    Serve,
    /// The same, and knows one protocol.
    Alpn(&'static str),
    /// Answers, and closes TLS as it should be closed.
    Close,
    /// Answers, and closes the socket in the middle of a record.
    CutInRecord,
    /// Answers, and closes the socket without closing TLS.
    CutWithoutNotice,
    /// Answers, and sends a record with a seal that is not its own.
    Garbage,
    /// Answers, and says in the clear that it closes, as anybody on the way could.
    CloseWithoutSeal,
    /// Answers, changes its keys, and stays.
    NewKeys,
}

pub(crate) struct Server {
    pub(crate) port: u16,
    seen: Arc<Seen>,
}

#[derive(Default, Debug)]
struct Seen {
    /// Bytes that came through TLS.
    heard: AtomicUsize,
    asked_for: Mutex<Option<String>>,
}

impl Server {
    /// A server of TLS; with `clients` it wants certificates of theirs.
    pub(crate) fn tls(
        identity: &Identity,
        versions: &[Version],
        clients: Option<&Authority>,
        behaviour: Behaviour,
    ) -> Server {
        let seen = Arc::new(Seen::default());
        let key = PrivateKeyDer::try_from(identity.key.serialize_der()).unwrap();
        let chain = identity.chain.iter().cloned().map(CertificateDer::from);
        let shown = CertifiedKey::new(
            chain.collect(),
            ring::sign::any_supported_type(&key).unwrap(),
        );
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.der().to_vec().into()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let mut config =
            builder.with_cert_resolver(Arc::new(Shown(shown.into(), Arc::clone(&seen))));
        if let Behaviour::Alpn(protocol) = behaviour {
            config.alpn_protocols = vec![protocol.into()];
        }
        let config = Arc::new(config);
        let told = Arc::clone(&seen);
        let port = listen(move |socket| serve(socket, &config, behaviour, &told));
        Server { port, seen }
    }

    /// A server that answers whatever comes with these bytes, and closes.
    pub(crate) fn bytes(bytes: Vec<u8>) -> Server {
        let port = listen(move |mut socket| {
            let _ = socket.read(&mut [0; 4096]);
            let _ = socket.write_all(&bytes);
            let _ = socket.shutdown(Shutdown::Write);
            // Until the other end has read them: unread bytes would reset the connection.
            while socket.read(&mut [0; 4096]).is_ok_and(|bytes| bytes > 0) {}
        });
        Server {
            port,
            seen: Arc::default(),
        }
    }

    /// Bytes of MQTT that it has seen.
    pub(crate) fn heard(&self) -> usize {
        self.seen.heard.load(Relaxed)
    }

    /// The name that it was asked for last.
    pub(crate) fn asked_for(&self) -> Option<String> {
        self.seen.asked_for.lock().unwrap().clone()
    }
}

/// Serves each connection on a thread of its own, for as long as the test lives.
pub(crate) fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(socket));
        }
    });
    port
}

fn serve(mut socket: TcpStream, config: &Arc<ServerConfig>, behaviour: Behaviour, seen: &Seen) {
    let mut tls = ServerConnection::new(Arc::clone(config)).unwrap();
    let mut bytes = [0; 1024];
    let heard = rustls::Stream::new(&mut tls, &mut socket).read(&mut bytes);
    let Ok(heard @ 1..) = heard else {
        // Closed with unread bytes, the socket would be reset, and what it has said lost.
        let _ = socket.shutdown(Shutdown::Write);
        while socket.read(&mut bytes).is_ok_and(|bytes| bytes > 0) {}
        return;
    };
    seen.heard.fetch_add(heard, Relaxed);
    let _ = rustls::Stream::new(&mut tls, &mut socket).write_all(&CONNACK);
    match behaviour {
        Behaviour::Serve | Behaviour::Alpn(_) => {
            let mut stream = rustls::Stream::new(&mut tls, &mut socket);
            while stream.read(&mut bytes).is_ok_and(|bytes| bytes > 0) {}
        }
        Behaviour::Close => {
            tls.send_close_notify();
            let _ = tls.complete_io(&mut socket);
        }
        Behaviour::CutInRecord => {
            let _ = socket.write_all(&[23, 3, 3, 0, 100, 1, 2, 3]);
        }
        Behaviour::CutWithoutNotice => {}
        Behaviour::CloseWithoutSeal => {
            let _ = socket.write_all(&[21, 3, 3, 0, 2, 1, 0]);
        }
        Behaviour::NewKeys => {
            tls.refresh_traffic_keys().unwrap();
            let mut stream = rustls::Stream::new(&mut tls, &mut socket);
            let _ = stream.flush();
            while stream.read(&mut bytes).is_ok_and(|bytes| bytes > 0) {}
        }
        Behaviour::Garbage => {
            let _ = socket.write_all(&[23, 3, 3, 0, 20]);
            let _ = socket.write_all(&[9; 20]);
        }
    }
    let _ = socket.shutdown(Shutdown::Write);
    while socket.read(&mut bytes).is_ok_and(|bytes| bytes > 0) {}
}

/// Shows one certificate to all who ask.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>, Arc<Seen>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        *self.1.asked_for.lock().unwrap() = hello.server_name().map(str::to_owned);
        Some(Arc::clone(&self.0))
    }
}
