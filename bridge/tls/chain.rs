//! Whether a server is who it should be: its certificates, from its own to one of the CAs that are trusted.

use super::key_usage::{self, Usage};
use super::time::Shown;
use pki_types::{
    CertificateDer, ServerName, SignatureVerificationAlgorithm, TrustAnchor, UnixTime,
};
use std::error::Error;
use std::fmt;
use webpki::EndEntityCert;

/// The CAs that are trusted.
#[derive(Debug)]
pub(super) struct Roots {
    pub(super) anchors: Vec<TrustAnchor<'static>>,
    /// Whether they were given as `ca`; else they are the system's.
    pub(super) given: bool,
}

/// Why a server's certificates do not prove who it is. Its text goes into a sentence that says whose they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// They are not a chain that holds.
    Chain {
        error: webpki::Error,
        /// Whether the CAs were given as `ca`.
        ca_given: bool,
    },
    /// The server's key may not be used to prove anything.
    KeyUsage,
}

/// Verifies a chain: signatures, basic constraints, key usage and extended key usage, name constraints, dates, and the
/// name. That the server has the key that belongs to it is the handshake's to show.
pub(super) fn verify(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &Roots,
    algorithms: &[&dyn SignatureVerificationAlgorithm],
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), Fault> {
    let fault = |error| Fault::Chain {
        error,
        ca_given: roots.given,
    };
    let certificate = EndEntityCert::try_from(end_entity).map_err(fault)?;
    let may_sign = |path: &webpki::VerifiedPath<'_>| {
        let all = path
            .intermediate_certificates()
            .all(|issuer| key_usage::allows(&issuer.der(), Usage::KeyCertSign));
        all.then_some(()).ok_or(webpki::Error::EndEntityUsedAsCa)
    };
    certificate
        .verify_for_usage(
            algorithms,
            &roots.anchors,
            intermediates,
            now,
            webpki::KeyUsage::server_auth(),
            None,
            Some(&may_sign),
        )
        .map_err(fault)?;
    certificate
        .verify_is_valid_for_subject_name(name)
        .map_err(fault)?;
    if !key_usage::allows(end_entity, Usage::DigitalSignature) {
        return Err(Fault::KeyUsage);
    }
    Ok(())
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use webpki::Error as E;
        let (error, ca_given) = match self {
            Fault::KeyUsage => {
                return f
                    .write_str("has a key that may not be used for TLS; the cloud needs another");
            }
            Fault::Chain { error, ca_given } => (error, *ca_given),
        };
        match error {
            E::CertNotValidYet { time, not_before } => write!(
                f,
                "is not valid before {}, and the clock of this machine says {}: set the clock if it is wrong",
                Shown(*not_before),
                Shown(*time)
            ),
            E::CertExpired { time, not_after } => write!(
                f,
                "was valid until {}, and the clock of this machine says {}: the cloud needs a new one, unless the clock \
                 is wrong",
                Shown(*not_after),
                Shown(*time)
            ),
            E::CertNotValidForName(context) => write!(
                f,
                "is for {}: set server_name or mend url, if that is the cloud",
                Names(&context.presented)
            ),
            E::UnknownIssuer if ca_given => f.write_str(
                "is signed by none of the CAs in `ca`: give the certificate of the CA that signed it",
            ),
            E::UnknownIssuer => f.write_str(
                "is signed by a CA that this system does not know: give the CA's certificate as `ca`",
            ),
            E::InvalidSignatureForPublicKey => f.write_str(
                "has a signature that is broken: it is damaged or forged, or `ca` has an older certificate of the CA",
            ),
            E::CaUsedAsEndEntity => {
                f.write_str("is the certificate of a CA: the cloud needs one of its own")
            }
            E::EndEntityUsedAsCa | E::PathLenConstraintViolated | E::NameConstraintViolation => {
                write!(
                    f,
                    "is signed by a certificate that may not do that ({error:?}): whoever shows it may not be the cloud"
                )
            }
            E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => {
                f.write_str("is not for servers (extended key usage): the cloud needs another")
            }
            other => write!(f, "cannot be used ({other:?}): the cloud needs another"),
        }
    }
}

impl Error for Fault {}

/// The names in a certificate, as far as a log line has room.
struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        if self.0.is_empty() {
            return f.write_str("no name at all");
        }
        for (index, name) in self.0.iter().take(SHOWN).enumerate() {
            // DnsName("a.example") and IpAddress(10.0.0.1).
            let name = name.split_once('(').map_or(name.as_str(), |(_, name)| name);
            let name = name.trim_end_matches(')').trim_matches('"');
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{}", name.escape_debug())?;
        }
        if self.0.len() > SHOWN {
            f.write_str(" and others")?;
        }
        Ok(())
    }
}
