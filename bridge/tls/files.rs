//! Certificates and keys, as PEM files have them.

use super::TlsFault;
use super::chain::Roots;
use pki_types::pem::{self, PemObject};
use pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where systems keep the CAs that they trust, in one file: Debian, Alpine and OpenWrt; Fedora; the BSD way.
const SYSTEM_CAS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];
/// Four times what the CAs of all the world take.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What a private key's file may grant: reading to its group, as `ssl-cert` has it, and nothing to the world.
const KEY_MODE_MAX: u32 = 0o740;

/// The CAs in `ca`, or those of the system.
pub(super) fn roots(ca: Option<&Path>) -> Result<Roots, TlsFault> {
    let system = if ca.is_none() { system_cas() } else { None };
    let Some(path) = ca.or(system) else {
        return Err(TlsFault::new(
            "ca",
            format!(
                "this system has no CA certificates ({}): install ca-certificates, or give the cloud's CA as `ca`",
                SYSTEM_CAS.join(", ")
            ),
        ));
    };
    let mut anchors = Vec::new();
    for certificate in certificates("ca", path)? {
        match webpki::anchor_from_trusted_cert(&certificate) {
            Ok(anchor) => anchors.push(anchor.to_owned()),
            // A system's list may have what webpki does not know; whoever gives a file means all of it.
            Err(_) if ca.is_none() => {}
            Err(error) => {
                let fault = format!(
                    "{} has a certificate that cannot be used: {error:?}",
                    path.display()
                );
                return Err(TlsFault::new("ca", fault));
            }
        }
    }
    Ok(Roots {
        anchors,
        given: ca.is_some(),
    })
}

/// What the bridge shows of itself: the certificates in `cert`, its own first, and the key that should belong to it.
pub(super) fn identity(
    cert: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsFault> {
    let chain = certificates("cert", cert)?;
    let text = read("key", key)?;
    let path = key.display();
    let private = PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let fault = match error {
            pem::Error::NoItemsFound if text.windows(9).any(|word| word == b"ENCRYPTED") => format!(
                "{path} is encrypted, and nobody is there to be asked: take the password off (openssl pkey -in … -out …)"
            ),
            pem::Error::NoItemsFound => {
                format!("{path} has no private key in PEM (BEGIN PRIVATE KEY)")
            }
            error => format!("{path} is not PEM: {error}"),
        };
        TlsFault::new("key", fault)
    })?;
    Ok((chain, private))
}

pub(super) fn key_unsupported(key: &Path, kinds: &str) -> TlsFault {
    let fault = format!("{} is of no kind that is supported: {kinds}", key.display());
    TlsFault::new("key", fault)
}

pub(super) fn key_of_another(key: &Path, cert: &Path) -> TlsFault {
    let (key, cert) = (key.display(), cert.display());
    let fault = format!("{key} does not belong to the first certificate in {cert}");
    TlsFault::new("key", fault)
}

/// Whether others than the key's owner and group can get at it.
pub(super) fn key_is_private(key: &Path) -> Result<(), TlsFault> {
    let mode = File::open(key)
        .and_then(|file| file.metadata())
        .map_err(|error| unreadable("key", key, &error))?
        .mode()
        & 0o777;
    if mode & !KEY_MODE_MAX == 0 {
        return Ok(());
    }
    let path = key.display();
    let fault = format!("{path} is open to others (mode {mode:04o}): chmod 640 {path}, or 600");
    Err(TlsFault::new("key", fault))
}

fn system_cas() -> Option<&'static Path> {
    SYSTEM_CAS.iter().map(Path::new).find(|path| path.exists())
}

fn certificates(name: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let text = read(name, path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => {
            let fault = format!(
                "{} has no certificate in PEM (BEGIN CERTIFICATE)",
                path.display()
            );
            Err(TlsFault::new(name, fault))
        }
        Err(error) => {
            let fault = format!("{} is not PEM: {error}", path.display());
            Err(TlsFault::new(name, fault))
        }
    }
}

fn read(name: &'static str, path: &Path) -> Result<Vec<u8>, TlsFault> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text))
        .map_err(|error| unreadable(name, path, &error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let fault = format!(
            "{} is larger than a list of certificates can be",
            path.display()
        );
        return Err(TlsFault::new(name, fault));
    }
    Ok(text)
}

fn unreadable(name: &'static str, path: &Path, error: &std::io::Error) -> TlsFault {
    TlsFault::new(name, format!("{} cannot be read: {error}", path.display()))
}
