//! The Key Usage of a certificate [RFC 5280 4.2.1.3], which webpki does not look at.

/// What a key may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    /// To prove in a handshake that its owner has it.
    DigitalSignature,
    /// To sign certificates.
    KeyCertSign,
}

/// Whether a certificate allows a use of its key. One without the extension allows all; one that cannot be read, none.
pub(super) fn allows(certificate: &[u8], usage: Usage) -> bool {
    match key_usage(certificate) {
        Some(None) => true,
        Some(Some(bits)) => {
            let mask = match usage {
                Usage::DigitalSignature => 0x80,
                Usage::KeyCertSign => 0x04,
            };
            bits & mask != 0
        }
        None => false,
    }
}

const BOOLEAN: u8 = 0x01;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// `[3]`, the place of the extensions in a certificate.
const EXTENSIONS: u8 = 0xa3;
/// 2.5.29.15
const ID_CE_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];

/// The first byte of the extension's bits, the highest bit being digitalSignature; `Some(None)`: there is no such
/// extension; `None`: the certificate cannot be read.
fn key_usage(certificate: &[u8]) -> Option<Option<u8>> {
    let mut certificate = Der(certificate).expect(SEQUENCE)?;
    let mut fields = certificate.expect(SEQUENCE)?;
    let mut extensions = loop {
        match fields.next() {
            None if fields.0.is_empty() => return Some(None),
            None => return None,
            Some((EXTENSIONS, mut extensions)) => break extensions.expect(SEQUENCE)?,
            Some(_) => {}
        }
    };
    while !extensions.0.is_empty() {
        let mut extension = extensions.expect(SEQUENCE)?;
        if extension.expect(OBJECT_IDENTIFIER)?.0 != ID_CE_KEY_USAGE {
            continue;
        }
        let mut value = match extension.next()? {
            (BOOLEAN, _) => extension.expect(OCTET_STRING)?,
            (OCTET_STRING, value) => value,
            _ => return None,
        };
        // The first byte says how many bits of the last one mean nothing; those are 0.
        let bits = value.expect(BIT_STRING)?;
        return Some(Some(bits.0.get(1).copied().unwrap_or(0)));
    }
    Some(None)
}

/// What is left of DER [X.690] to read.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: its tag and what is in it.
    fn next(&mut self) -> Option<(u8, Der<'a>)> {
        let (&[tag, first], rest) = self.0.split_first_chunk()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x83 => {
                let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let length = length
                    .iter()
                    .fold(0, |length, byte| length << 8 | usize::from(*byte));
                (length, rest)
            }
            _ => return None,
        };
        let (inside, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, Der(inside)))
    }

    fn expect(&mut self, tag: u8) -> Option<Der<'a>> {
        match self.next()? {
            (found, inside) if found == tag => Some(inside),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use rcgen::{CertificateParams, KeyPair, KeyUsagePurpose};

    fn certificate(usages: &[KeyUsagePurpose]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.key_usages = usages.to_vec();
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn what_a_certificate_says_of_its_key() {
        let (sign, certify) = (Usage::DigitalSignature, Usage::KeyCertSign);
        let of = |usages: &[KeyUsagePurpose]| {
            let certificate = certificate(usages);
            [sign, certify].map(|usage| allows(&certificate, usage))
        };
        assert_eq!(of(&[]), [true, true]);
        assert_eq!(of(&[KeyUsagePurpose::DigitalSignature]), [true, false]);
        assert_eq!(of(&[KeyUsagePurpose::KeyCertSign]), [false, true]);
        assert_eq!(of(&[KeyUsagePurpose::CrlSign]), [false, false]);
        assert_eq!(of(&[KeyUsagePurpose::KeyEncipherment]), [false, false]);
    }

    #[test]
    fn what_is_cut_off_allows_nothing_and_does_not_panic() {
        let certificate = certificate(&[KeyUsagePurpose::DigitalSignature]);
        for length in 0..certificate.len() {
            assert!(!allows(&certificate[..length], Usage::DigitalSignature));
        }
    }
}
