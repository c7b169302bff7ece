//! Certificates, right and wrong.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// Somebody who signs, rightly or not.
pub(crate) struct Authority {
    certificate: rcgen::Certificate,
    key: KeyPair,
    /// From its own certificate up to, and without, the one that is trusted.
    pub(crate) chain: Vec<Vec<u8>>,
}

/// What somebody shows of itself.
pub(crate) struct Identity {
    /// Its own certificate first.
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) key: KeyPair,
}

/// What a server of this name has.
pub(crate) fn leaf(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// What a CA of this name has.
pub(crate) fn ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Authority {
    /// A root.
    pub(crate) fn new(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        Authority {
            certificate: ca(name).self_signed(&key).unwrap(),
            key,
            chain: Vec::new(),
        }
    }

    /// Somebody between this one and others.
    pub(crate) fn between(&self, params: CertificateParams) -> Authority {
        let key = KeyPair::generate().unwrap();
        let certificate = params
            .signed_by(&key, &self.certificate, &self.key)
            .unwrap();
        let mut chain = vec![certificate.der().to_vec()];
        chain.extend(self.chain.clone());
        Authority {
            certificate,
            key,
            chain,
        }
    }

    pub(crate) fn issue(&self, params: CertificateParams) -> Identity {
        let Authority { key, chain, .. } = self.between(params);
        Identity { chain, key }
    }

    pub(crate) fn der(&self) -> &[u8] {
        self.certificate.der()
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }
}

impl Identity {
    pub(crate) fn self_signed(params: CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let chain = vec![params.self_signed(&key).unwrap().der().to_vec()];
        Identity { chain, key }
    }
}
