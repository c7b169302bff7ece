//! TLS towards the cloud: 1.2 and 1.3 by rustls. A server is always verified; there is no switch for that.
//!
//! - [`chain`]: whether the server is who it should be. One verdict, and one sentence for each that is bad.
//! - [`files`]: certificates and keys. They are read for each connection, so that new ones are used by the next.
//! - [`time`]: by which time.

mod chain;
mod files;
mod key_usage;
mod time;

pub use time::TimeFloor;

use crate::client::LinkError;
use chain::Roots;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::time_provider::TimeProvider;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct,
    InvalidMessage, OtherError, PeerIncompatible, SignatureScheme,
};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

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
        self.client(TimeFloor::default()).map(|_| ())
    }

    /// Whom a server at `host` must prove to be.
    pub(crate) fn name<'a>(&'a self, host: &'a str) -> &'a str {
        self.server_name.as_deref().unwrap_or(bare(host))
    }

    fn client(&self, floor: TimeFloor) -> Result<ClientConfig, TlsFault> {
        let provider = Arc::new(ring::default_provider());
        let builder = self.verifying(&provider, floor)?;
        let mut config = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let identity = files::identity(cert, key, &provider)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
            }
            (None, None) => builder.with_no_client_auth(),
            (Some(_), None) => return Err(TlsFault::new("cert", "a certificate needs its `key`")),
            (None, Some(_)) => return Err(TlsFault::new("key", "a private key needs its `cert`")),
        };
        config.alpn_protocols = self.alpn.iter().map(|alpn| alpn.clone().into()).collect();
        // Each connection has a configuration of its own: there is nothing to resume.
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    fn verifying(
        &self,
        provider: &Arc<CryptoProvider>,
        floor: TimeFloor,
    ) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsFault> {
        let roots = files::roots(self.ca.as_deref())?;
        ClientConfig::builder_with_details(Arc::clone(provider), Arc::new(floor))
            .with_safe_default_protocol_versions()
            .map(|builder| {
                // What rustls calls dangerous is to bring a verifier; ours looks at more than its own.
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(Verifier {
                        roots,
                        provider: Arc::clone(provider),
                    }))
            })
            .map_err(|error| TlsFault::new("ca", format!("TLS cannot be set up: {error}")))
    }

    /// Connects to a server and shakes hands with it. What the stream then carries, the server has been verified for.
    pub(crate) async fn connect(
        &self,
        host: &str,
        port: u16,
        floor: TimeFloor,
    ) -> Result<TlsStream<TcpStream>, LinkError> {
        let config = self
            .client(floor)
            .map_err(|fault| LinkError::ours(fault.to_string()))?;
        let host = bare(host);
        let name = self.name(host);
        let server = ServerName::try_from(name.to_owned()).map_err(|_| {
            LinkError::ours(format!(
                "{name:?} is no name that a certificate can be for: set server_name"
            ))
        })?;
        let socket = TcpStream::connect((host, port))
            .await
            .map_err(|error| LinkError::ours(error.to_string()))?;
        socket
            .set_nodelay(true)
            .map_err(|error| LinkError::ours(error.to_string()))?;
        TlsConnector::from(Arc::new(config))
            .connect(server, socket)
            .await
            .map_err(|error| explained(&error, name))
    }
}

/// An IPv6 address without its brackets, and any other host.
fn bare(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}

impl TimeProvider for TimeFloor {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.now())
    }
}

#[derive(Debug)]
struct Verifier {
    roots: Roots,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        chain::verify(
            end_entity,
            intermediates,
            &self.roots,
            algorithms,
            server_name,
            now,
        )
        .map(|()| ServerCertVerified::assertion())
        .map_err(|fault| CertificateError::Other(OtherError(Arc::new(fault))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Why there is no TLS with a server, or not any more, and what its owner can do.
pub(crate) fn explained(error: &io::Error, name: &str) -> LinkError {
    let Some(error) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                LinkError::peer("cut off in the middle of TLS, by the server or on the way")
            }
            _ => LinkError::from_io(error),
        };
    };
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(fault))) => {
            LinkError::ours(format!("the certificate of {name} {fault}"))
        }
        rustls::Error::InvalidCertificate(CertificateError::BadSignature) => {
            LinkError::ours(format!(
                "{name} does not prove that it has the key of its certificate: it may not be the cloud"
            ))
        }
        rustls::Error::InvalidCertificate(error) => LinkError::ours(format!(
            "the certificate of {name} cannot be used ({error:?})"
        )),
        rustls::Error::NoCertificatesPresented => LinkError::ours(format!(
            "{name} shows no certificate: it may not be the cloud"
        )),
        rustls::Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        )
        | rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            LinkError::ours(format!(
                "{name} speaks neither TLS 1.2 nor 1.3: older ones are not safe, the cloud must learn a newer one"
            ))
        }
        rustls::Error::AlertReceived(alert) => refused(*alert, name),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            LinkError::ours(format!("{name} does not speak TLS on this port: mend url"))
        }
        error => LinkError::ours(format!("TLS with {name} failed: {error}")),
    }
}

/// The server ended TLS and said why.
fn refused(alert: AlertDescription, name: &str) -> LinkError {
    use AlertDescription as A;
    LinkError::peer(match alert {
        A::CertificateRequired => {
            format!("{name} wants a certificate of this bridge: set `cert` and `key`")
        }
        A::BadCertificate
        | A::UnsupportedCertificate
        | A::CertificateRevoked
        | A::CertificateExpired
        | A::CertificateUnknown
        | A::UnknownCA
        | A::AccessDenied
        | A::DecryptError => format!(
            "{name} does not accept the certificate of this bridge ({alert:?}): see `cert`, and what the cloud knows of it"
        ),
        A::UnrecognisedName => {
            format!("{name} says that it is not called so: set server_name or mend url")
        }
        A::NoApplicationProtocol => {
            format!("{name} does not know the protocol in `alpn`: see what the cloud wants there")
        }
        A::HandshakeFailure => format!(
            "{name} refused the handshake: it may want a certificate of this bridge (`cert` and `key`), or know no \
             cipher of today"
        ),
        alert => format!("{name} ended TLS ({alert:?})"),
    })
}
