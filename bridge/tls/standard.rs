//! TLS 1.2 and 1.3 by rustls.

use super::chain::{self, Roots};
use super::{TimeFloor, Tls, TlsFault, files};
use crate::client::LinkError;
use pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct,
    InconsistentKeys, InvalidMessage, OtherError, PeerIncompatible, SignatureScheme,
};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Bytes that are carried at a time: those of a record.
const BUFFER_BYTES: usize = 16 * 1024;

/// All that a connection is made with.
pub(super) struct Client(Arc<ClientConfig>);

/// A connection to a server that was verified.
pub(crate) struct Stream {
    tls: TlsStream<TcpStream>,
    name: String,
}

impl Client {
    pub(super) fn new(tls: &Tls, floor: TimeFloor) -> Result<Client, TlsFault> {
        let provider = Arc::new(ring::default_provider());
        let builder = verifying(tls, &provider, floor)?;
        let mut config = match tls.identity()? {
            Some((cert, key)) => {
                let identity = identity(cert, key, &provider)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = tls.alpn.iter().map(|alpn| alpn.clone().into()).collect();
        // Each connection has a configuration of its own: there is nothing to resume.
        config.resumption = Resumption::disabled();
        Ok(Client(Arc::new(config)))
    }

    pub(super) async fn connect(
        self,
        server: ServerName<'static>,
        name: &str,
        socket: TcpStream,
    ) -> Result<Stream, LinkError> {
        let tls = TlsConnector::from(self.0).connect(server, socket).await;
        Ok(Stream {
            tls: tls.map_err(|error| explained(&error, name))?,
            name: name.to_owned(),
        })
    }
}

impl Stream {
    /// Carries bytes both ways until both ends have closed.
    pub(crate) async fn carry(mut self, mut near: UnixStream) -> Result<(), LinkError> {
        copy_bidirectional_with_sizes(&mut near, &mut self.tls, BUFFER_BYTES, BUFFER_BYTES)
            .await
            .map(|_| ())
            .map_err(|error| explained(&error, &self.name))
    }
}

fn verifying(
    tls: &Tls,
    provider: &Arc<CryptoProvider>,
    floor: TimeFloor,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsFault> {
    let roots = files::roots(tls.ca.as_deref())?;
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

fn identity(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, TlsFault> {
    let (chain, private): (_, PrivateKeyDer<'static>) = files::identity(cert, key)?;
    let Ok(private) = provider.key_provider.load_private_key(private) else {
        return Err(files::key_unsupported(
            key,
            "RSA from 2048 bits, ECDSA P-256 or P-384, Ed25519",
        ));
    };
    let identity = CertifiedKey::new(chain, private);
    match identity.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(identity),
        Err(_) => Err(files::key_of_another(key, cert)),
    }
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
fn explained(error: &io::Error, name: &str) -> LinkError {
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
