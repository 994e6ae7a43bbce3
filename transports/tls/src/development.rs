//! Certificates of one's own, for trials on one machine and for tests: a CA, and what it signs.
//!
//! It writes no file. Nothing here is for production: the CA's key lies beside what it has signed.

use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

/// How long certificates are valid, in days. A development CA that has to be renewed weekly is one that is worked around.
const DAYS: i64 = 365;
/// Clocks differ: a certificate is valid from a little before it was made.
const HOUR: i64 = 60 * 60;

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("a certificate cannot be made: {0}")]
pub struct DevelopmentError(#[from] rcgen::Error);

/// A certificate with its key, both as PEM.
#[derive(Clone)]
pub struct DevelopmentCertificate {
    pub certificate: String,
    pub key: String,
    /// The certificate's SHA-256, as `identities` names it: `sha256:` and 64 digits.
    pub fingerprint: String,
}

impl std::fmt::Debug for DevelopmentCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DevelopmentCertificate").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// What a certificate is to say.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// DNS names and IP addresses.
    pub names: Vec<String>,
    pub uris: Vec<String>,
    pub usage: Usage,
    /// Absent: from an hour ago for a year.
    pub valid: Option<(SystemTime, SystemTime)>,
}

/// What a certificate is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Usage {
    Server,
    Client,
    #[default]
    Both,
}

/// A CA that signs what it is told to.
#[derive(Debug)]
pub struct DevelopmentCa {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    key: String,
}

impl DevelopmentCa {
    /// A new one, with a key of its own.
    ///
    /// # Errors
    /// The cryptography's.
    pub fn new() -> Result<Self, DevelopmentError> {
        let key = KeyPair::generate()?;
        // Two of them must not be taken for one another: who trusts a CA looks for it by its name first.
        let id = crate::fingerprint::hex(Sha256::digest(key.public_key_pem()).get(..4).unwrap_or_default());
        let mut params = params(&format!("Stella Router development CA {id}"), None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        let pem = key.serialize_pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate, key: pem })
    }

    /// Its certificate, as PEM: what peers are told to believe.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its private key, as PEM.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// For a gateway of these names and addresses.
    ///
    /// # Errors
    /// A name that no certificate can be for.
    pub fn gateway(&self, names: &[&str]) -> Result<DevelopmentCertificate, DevelopmentError> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        self.sign(&Wanted { names, usage: Usage::Server, ..Wanted::default() })
    }

    /// For a service with this URI as its name.
    ///
    /// # Errors
    /// A URI that no certificate can hold.
    pub fn service(&self, uri: &str) -> Result<DevelopmentCertificate, DevelopmentError> {
        self.sign(&Wanted { uris: vec![uri.to_owned()], usage: Usage::Client, ..Wanted::default() })
    }

    /// As wanted.
    ///
    /// # Errors
    /// A name or a URI that no certificate can hold.
    pub fn sign(&self, wanted: &Wanted) -> Result<DevelopmentCertificate, DevelopmentError> {
        let key = KeyPair::generate()?;
        let common = wanted.names.iter().chain(&wanted.uris).next().map_or("Stella Router", String::as_str);
        let mut params = params(common, wanted.valid);
        params.subject_alt_names = CertificateParams::new(wanted.names.clone())?.subject_alt_names;
        for uri in &wanted.uris {
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = match wanted.usage {
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        let certificate = params.signed_by(&key, &self.issuer)?;
        let fingerprint = crate::fingerprint::hex(&crate::fingerprint::fingerprint(certificate.der()));
        Ok(DevelopmentCertificate {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            fingerprint: format!("sha256:{fingerprint}"),
        })
    }
}

fn params(common_name: &str, valid: Option<(SystemTime, SystemTime)>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = OffsetDateTime::now_utc();
    let (from, until) = match valid {
        Some((from, until)) => (from.into(), until.into()),
        None => (now - time::Duration::seconds(HOUR), now + time::Duration::days(DAYS)),
    };
    (params.not_before, params.not_after) = (from, until);
    params
}
