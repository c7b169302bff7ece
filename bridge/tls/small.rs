//! TLS 1.3 by embedded-tls, for boards that are short of flash.
//!
//! It speaks one cipher (AES-128-GCM) and one key exchange (P-256). Of ours are the verdict on the server ([`chain`]), the
//! proof that it has its key, and a [guard](super::guard) over the records; embedded-tls's own verifiers are not used. It
//! can show one certificate, with an ECDSA key on P-256, without those between it and its CA.
//!
//! It panics at some messages that a server can only send when it has been verified. The task that it runs in ends by
//! that, and its link.

use super::chain::{self, Roots};
use super::guard::{Breach, Guard, SEALED_BYTES_MAX};
use super::{TimeFloor, Tls, TlsFault, files};
use crate::client::LinkError;
use embedded_io_async::Write;
use embedded_tls::{
    Aes128GcmSha256, Certificate, CertificateEntryRef, CertificateRef, CertificateVerifyRef,
    CryptoProvider, CryptoRngCore, SignatureScheme, TlsConfig, TlsConnection, TlsContext, TlsError,
    TlsVerifier,
};
use pki_types::{CertificateDer, PrivateKeyDer, ServerName, SignatureVerificationAlgorithm};
use rand_core::OsRng;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, Signature};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use webpki::EndEntityCert;

/// Room for a record as it comes, and for one to go.
const READ_BYTES: usize = SEALED_BYTES_MAX + 64;
const WRITE_BYTES: usize = 8 * 1024;
/// Bytes of the client that are carried at a time.
const NEAR_BYTES: usize = 4 * 1024;

/// How long what a server has said last is waited for.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// All that a connection is made with.
pub(super) struct Client {
    roots: Roots,
    identity: Option<Identity>,
    alpn: Option<String>,
    floor: TimeFloor,
}

struct Identity {
    certificate: CertificateDer<'static>,
    key: EcdsaKeyPair,
}

/// A connection to a server that was verified, kept by a task of its own: it cannot be moved.
pub(crate) struct Stream {
    near: oneshot::Sender<UnixStream>,
    task: Task,
}

/// Ends with whoever waits for it.
struct Task(JoinHandle<Result<(), LinkError>>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    pub(super) fn new(tls: &Tls, floor: TimeFloor) -> Result<Client, TlsFault> {
        let identity = tls.identity()?;
        Ok(Client {
            roots: files::roots(tls.ca.as_deref())?,
            identity: identity
                .map(|(cert, key)| identify(cert, key))
                .transpose()?,
            alpn: tls.alpn.clone(),
            floor,
        })
    }

    pub(super) async fn connect(
        self,
        server: ServerName<'static>,
        name: &str,
        socket: TcpStream,
    ) -> Result<Stream, LinkError> {
        let (near, start) = oneshot::channel();
        let (opened, is_open) = oneshot::channel();
        let name = name.to_owned();
        let task = tokio::task::spawn_local(live(self, server, name, socket, opened, start));
        let mut task = Task(task);
        match is_open.await {
            Ok(()) => Ok(Stream { near, task }),
            Err(_) => Err(ended(&mut task).await.err().unwrap_or_else(fault)),
        }
    }
}

impl Stream {
    /// Carries bytes both ways until one end has closed.
    pub(crate) async fn carry(self, near: UnixStream) -> Result<(), LinkError> {
        let Stream {
            near: start,
            mut task,
        } = self;
        let _ = start.send(near);
        ended(&mut task).await
    }
}

/// What a task has come to.
async fn ended(task: &mut Task) -> Result<(), LinkError> {
    (&mut task.0).await.unwrap_or_else(|_| Err(fault()))
}

fn fault() -> LinkError {
    LinkError::ours("TLS failed: the server sent what this TLS cannot handle")
}

fn identify(cert: &Path, key: &Path) -> Result<Identity, TlsFault> {
    let (chain, private) = files::identity(cert, key)?;
    let unsupported = || {
        files::key_unsupported(
            key,
            "ECDSA P-256 in PKCS #8 (openssl pkcs8 -topk8 -nodes); this is Larder's small TLS",
        )
    };
    let PrivateKeyDer::Pkcs8(private) = private else {
        return Err(unsupported());
    };
    let pair = EcdsaKeyPair::from_pkcs8(
        &ECDSA_P256_SHA256_ASN1_SIGNING,
        private.secret_pkcs8_der(),
        &SystemRandom::new(),
    )
    .map_err(|_| unsupported())?;
    let mut chain = chain.into_iter();
    let (Some(certificate), None) = (chain.next(), chain.next()) else {
        let fault = format!(
            "{} has more than one certificate, and Larder's small TLS can show one",
            cert.display()
        );
        return Err(TlsFault::new("cert", fault));
    };
    let belongs = EndEntityCert::try_from(&certificate).is_ok_and(|certificate| {
        let public = certificate.subject_public_key_info();
        public.ends_with(pair.public_key().as_ref())
    });
    if !belongs {
        return Err(files::key_of_another(key, cert));
    }
    Ok(Identity {
        certificate,
        key: pair,
    })
}

/// One connection, from its handshake to its end.
async fn live(
    client: Client,
    server: ServerName<'static>,
    name: String,
    socket: TcpStream,
    opened: oneshot::Sender<()>,
    start: oneshot::Receiver<UnixStream>,
) -> Result<(), LinkError> {
    let mut read = vec![0; READ_BYTES];
    let mut write = vec![0; WRITE_BYTES];
    let socket = Guarded::new(socket);
    let watch = socket.clone();
    let mut connection: TlsConnection<'_, Guarded, Aes128GcmSha256> =
        TlsConnection::new(socket, &mut read, &mut write);

    let protocols: Vec<&[u8]> = client.alpn.iter().map(String::as_bytes).collect();
    let mut config = TlsConfig::new().enable_rsa_signatures();
    if !protocols.is_empty() {
        config = config.with_alpn(&protocols);
    }
    // An address is not asked for by name [RFC 6066 3].
    if let ServerName::DnsName(name) = &server {
        config = config.with_server_name(name.as_ref());
    }
    let mut verifier = Verifier {
        roots: &client.roots,
        server: &server,
        floor: &client.floor,
        shown: None,
        proved: false,
        verdict: None,
    };
    let provider = Provider {
        verifier: &mut verifier,
        identity: client.identity.as_ref(),
    };
    let shaken = connection.open(TlsContext::new(&config, provider)).await;
    if let Some(verdict) = verifier.verdict.take() {
        return Err(LinkError::ours(verdict.told(&name)));
    }
    shaken.map_err(|error| explained(error, &watch, &name))?;
    // Whoever skips a part of the handshake has shown nothing.
    if !verifier.proved {
        return Err(LinkError::ours(Verdict::Nothing.told(&name)));
    }
    watch.open();
    if opened.send(()).is_err() {
        return Ok(());
    }
    let Ok(near) = start.await else {
        return Ok(());
    };
    let ended = carry(&mut connection, near).await;
    match ended {
        Ok(()) => {
            // Nobody is left who would want to know how that went.
            let _ = connection.close().await;
            Ok(())
        }
        Err(TlsError::ConnectionClosed) => Ok(()),
        Err(error) => Err(explained(error, &watch, &name)),
    }
}

/// Carries bytes both ways until one end has closed, or TLS has failed.
async fn carry(
    connection: &mut TlsConnection<'_, Guarded, Aes128GcmSha256>,
    mut near: UnixStream,
) -> Result<(), TlsError> {
    let (mut from_near, mut to_near) = near.split();
    let (mut reader, mut writer) = connection.split();
    let down = async {
        loop {
            let mut bytes = reader.read_buffered().await?;
            if to_near.write_all(bytes.pop_all()).await.is_err() {
                return Ok(());
            }
        }
    };
    let up = async {
        let mut bytes = vec![0; NEAR_BYTES];
        loop {
            let read = from_near.read(&mut bytes).await.unwrap_or(0);
            if read == 0 {
                return Ok(());
            }
            let mut left = &bytes[..read];
            while !left.is_empty() {
                let written = Write::write(&mut writer, left).await?;
                left = &left[written..];
            }
            Write::flush(&mut writer).await?;
        }
    };
    tokio::pin!(down);
    tokio::select! {
        ended = &mut down => ended,
        ended = up => match ended {
            Ok(()) => Ok(()),
            // The server may have said why it reads no more.
            Err(error) => tokio::time::timeout(LAST_WORDS, down).await.unwrap_or(Err(error)),
        },
    }
}

/// The socket, with the guard over what it reads. The halves of a connection have a clone each.
#[derive(Clone)]
struct Guarded(Rc<(TcpStream, RefCell<Watch>)>);

struct Watch {
    guard: Guard,
    breach: Option<Breach>,
    error: Option<io::Error>,
}

impl Guarded {
    fn new(socket: TcpStream) -> Self {
        let watch = Watch {
            guard: Guard::new(),
            breach: None,
            error: None,
        };
        Self(Rc::new((socket, RefCell::new(watch))))
    }

    fn open(&self) {
        self.0.1.borrow_mut().guard.open();
    }

    async fn read_some(&self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            self.0.0.readable().await?;
            match self.0.0.try_read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }

    async fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.0.0.writable().await?;
            match self.0.0.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return written,
            }
        }
    }

    /// Keeps an error, of which embedded-tls passes on no more than its kind.
    fn keep(&self, error: io::Error) -> io::Error {
        let kind = error.kind();
        self.0.1.borrow_mut().error = Some(error);
        kind.into()
    }
}

impl embedded_io::ErrorType for Guarded {
    type Error = io::Error;
}

impl embedded_io_async::Read for Guarded {
    async fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self
            .read_some(bytes)
            .await
            .map_err(|error| self.keep(error))?;
        let mut watch = self.0.1.borrow_mut();
        if let Err(breach) = watch.guard.see(&bytes[..read]) {
            watch.breach = Some(breach);
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(read)
    }
}

impl Write for Guarded {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_some(bytes)
            .await
            .map_err(|error| self.keep(error))
    }

    async fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why a server is not let through, whatever embedded-tls says.
enum Verdict {
    Chain(chain::Fault),
    NotItsKey,
    Nothing,
    Twice,
}

impl Verdict {
    fn told(&self, name: &str) -> String {
        match self {
            Self::Chain(fault) => format!("the certificate of {name} {fault}"),
            Self::NotItsKey => format!(
                "{name} does not prove that it has the key of its certificate: it may not be the cloud"
            ),
            Self::Nothing => format!("{name} shows no certificate: it may not be the cloud"),
            Self::Twice => format!("{name} shows its certificates twice: it may not be the cloud"),
        }
    }
}

struct Verifier<'a> {
    roots: &'a Roots,
    server: &'a ServerName<'static>,
    floor: &'a TimeFloor,
    /// The server's own certificate, once its chain holds, and the handshake up to there.
    shown: Option<(CertificateDer<'static>, Sha256)>,
    proved: bool,
    verdict: Option<Verdict>,
}

impl Verifier<'_> {
    fn refuse(&mut self, verdict: Verdict, error: TlsError) -> Result<(), TlsError> {
        self.verdict = Some(verdict);
        Err(error)
    }
}

impl TlsVerifier<Aes128GcmSha256> for Verifier<'_> {
    fn set_hostname_verification(&mut self, _hostname: &str) -> Result<(), TlsError> {
        // It knows already whom to expect.
        Ok(())
    }

    fn verify_certificate(
        &mut self,
        transcript: &Sha256,
        shown: CertificateRef<'_>,
    ) -> Result<(), TlsError> {
        if self.shown.is_some() {
            return self.refuse(Verdict::Twice, TlsError::InvalidCertificate);
        }
        let mut certificates = Vec::with_capacity(shown.entries.len());
        for entry in &shown.entries {
            match entry {
                CertificateEntryRef::X509(der) => certificates.push(CertificateDer::from(*der)),
                CertificateEntryRef::RawPublicKey(_) => return Err(TlsError::InvalidCertificate),
            }
        }
        let Some((own, others)) = certificates.split_first() else {
            return self.refuse(Verdict::Nothing, TlsError::InvalidCertificate);
        };
        let now = self.floor.now();
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        let verdict = chain::verify(own, others, self.roots, algorithms, self.server, now);
        if let Err(fault) = verdict {
            return self.refuse(Verdict::Chain(fault), TlsError::InvalidCertificate);
        }
        self.shown = Some((own.clone().into_owned(), transcript.clone()));
        Ok(())
    }

    fn verify_signature(&mut self, proof: CertificateVerifyRef<'_>) -> Result<(), TlsError> {
        let Some((certificate, transcript)) = &self.shown else {
            return self.refuse(Verdict::Nothing, TlsError::InvalidSignature);
        };
        // [RFC 8446 4.4.3]
        let mut message = vec![b' '; 64];
        message.extend_from_slice(b"TLS 1.3, server CertificateVerify\0");
        message.extend_from_slice(&transcript.clone().finalize());
        let holds = algorithm(proof.signature_scheme).is_some_and(|algorithm| {
            EndEntityCert::try_from(certificate).is_ok_and(|certificate| {
                certificate
                    .verify_signature(algorithm, &message, proof.signature)
                    .is_ok()
            })
        });
        if !holds {
            return self.refuse(Verdict::NotItsKey, TlsError::InvalidSignature);
        }
        self.proved = true;
        Ok(())
    }
}

/// Those by which a handshake of TLS 1.3 may be signed [RFC 8446 4.2.3].
fn algorithm(scheme: SignatureScheme) -> Option<&'static dyn SignatureVerificationAlgorithm> {
    use webpki::ring as by;
    Some(match scheme {
        SignatureScheme::EcdsaSecp256r1Sha256 => by::ECDSA_P256_SHA256,
        SignatureScheme::EcdsaSecp384r1Sha384 => by::ECDSA_P384_SHA384,
        SignatureScheme::Ed25519 => by::ED25519,
        SignatureScheme::RsaPssRsaeSha256 => by::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        SignatureScheme::RsaPssRsaeSha384 => by::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
        SignatureScheme::RsaPssRsaeSha512 => by::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
        _ => return None,
    })
}

struct Provider<'a, 'b> {
    verifier: &'a mut Verifier<'b>,
    identity: Option<&'a Identity>,
}

impl CryptoProvider for Provider<'_, '_> {
    type CipherSuite = Aes128GcmSha256;
    type Signature = Signature;

    fn rng(&mut self) -> impl CryptoRngCore {
        OsRng
    }

    fn verifier(&mut self) -> Result<&mut impl TlsVerifier<Aes128GcmSha256>, TlsError> {
        Ok(&mut *self.verifier)
    }

    fn signer(
        &mut self,
    ) -> Result<(impl signature::SignerMut<Signature>, SignatureScheme), TlsError> {
        let identity = self.identity.ok_or(TlsError::InvalidPrivateKey)?;
        Ok((
            Signing(&identity.key),
            SignatureScheme::EcdsaSecp256r1Sha256,
        ))
    }

    fn client_cert(&mut self) -> Option<Certificate<impl AsRef<[u8]>>> {
        self.identity
            .map(|identity| Certificate::X509(&identity.certificate))
    }
}

struct Signing<'a>(&'a EcdsaKeyPair);

impl signature::Signer<Signature> for Signing<'_> {
    fn try_sign(&self, message: &[u8]) -> Result<Signature, signature::Error> {
        self.0
            .sign(&SystemRandom::new(), message)
            .map_err(|_| signature::Error::new())
    }
}

/// Why there is no TLS with a server, or not any more, and what its owner can do.
fn explained(error: TlsError, socket: &Guarded, name: &str) -> LinkError {
    let mut watch = socket.0.1.borrow_mut();
    if let Some(breach) = watch.breach {
        return LinkError::ours(match breach {
            Breach::NotTls => format!("{name} does not speak TLS on this port: mend url"),
            Breach::Alert(PROTOCOL_VERSION) | Breach::NotOffered => format!(
                "{name} does not speak TLS 1.3 with AES-128-GCM, and Larder's small TLS nothing else"
            ),
            Breach::KeyExchange => format!(
                "{name} does not exchange keys on P-256, and Larder's small TLS on nothing else"
            ),
            Breach::Alert(NO_APPLICATION_PROTOCOL) => format!(
                "{name} does not know the protocol in `alpn`: see what the cloud wants there"
            ),
            Breach::Alert(alert) => format!("{name} refused the handshake (alert {alert})"),
            Breach::Record => {
                format!("TLS with {name} failed: a record that is malformed or not sealed")
            }
        });
    }
    if let (TlsError::Io(_), Some(error)) = (error, watch.error.take()) {
        return LinkError::from_io(&error);
    }
    match error {
        TlsError::IoError => {
            LinkError::peer("cut off in the middle of TLS, by the server or on the way")
        }
        // Alerts that are sealed, whatever they say: in the handshake, and after it.
        TlsError::InvalidRecord => LinkError::peer(format!(
            "{name} ended the handshake: it may not know the protocol in `alpn`"
        )),
        TlsError::InternalError => LinkError::peer(format!(
            "{name} ended TLS: it may want a certificate of this bridge, or does not accept it (`cert` and `key`)"
        )),
        error => LinkError::ours(format!("TLS with {name} failed: {error:?}")),
    }
}

/// Descriptions of alerts [RFC 8446 6].
const PROTOCOL_VERSION: u8 = 70;
const NO_APPLICATION_PROTOCOL: u8 = 120;
