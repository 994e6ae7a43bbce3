//! Certificates, keys and CAs from PEM files, and everything that can be wrong with them, found before they are used.
//!
//! It knows files and what stands in them; not who uses them, and not when they are read again.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use sha2::{Digest as _, Sha256};
use webpki::{EndEntityCert, KeyUsage};

use crate::explain;
use crate::provider;

/// Largest file of certificates or keys, in bytes: a bundle of all public CAs is a fifth of it.
const FILE_BYTES: u64 = 1024 * 1024;

/// What is wrong with a file of certificates or keys. Messages name the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateProblem {
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{}: larger than {FILE_BYTES} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("{}: not well-formed PEM: {problem}", path.display())]
    Pem { path: PathBuf, problem: String },
    #[error("{}: no certificate stands in it (`-----BEGIN CERTIFICATE-----`)", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{}: no private key stands in it (`-----BEGIN PRIVATE KEY-----`)", path.display())]
    NoKey { path: PathBuf },
    #[error("{}: the private key cannot be used: {problem}", path.display())]
    Key { path: PathBuf, problem: String },
    #[error("{}: certificate number {number} is malformed: {problem}", path.display())]
    Malformed { path: PathBuf, number: usize, problem: String },
    #[error("{}: the certificate expired on {on}", path.display())]
    Expired { path: PathBuf, on: String },
    #[error("{}: the certificate is not valid before {on}", path.display())]
    NotYetValid { path: PathBuf, on: String },
    #[error("{}: the certificate is not made for {usage} (extended key usage)", path.display())]
    Usage { path: PathBuf, usage: &'static str },
    #[error("{}: this is a CA's own certificate, which peers do not accept; let the CA sign one", path.display())]
    IsCa { path: PathBuf },
    #[error("{}: the key is not that of the certificate in {}", key.display(), certificate.display())]
    KeyMismatch { certificate: PathBuf, key: PathBuf },
    #[error("a certificate without its key, or a key without its certificate: name both")]
    HalfAPair,
    #[error("`{found}` is not a name that a certificate can be for: a DNS name or an IP address")]
    ServerName { found: String },
    #[error("name the CA that has signed the gateway's certificate (`ca`); for a public one the system's own bundle")]
    NoCa,
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

impl CertificateProblem {
    /// Whether the file is missing or out of reach on this machine, and not wrong in itself.
    #[must_use]
    pub const fn is_of_this_machine(&self) -> bool {
        matches!(self, Self::Unreadable { .. })
    }
}

/// What a certificate is to be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Usage {
    Server,
    Client,
}

/// A file's bytes. They may be a key's: nothing shows them.
pub(crate) struct Contents {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Contents {
    pub(crate) fn read(path: &Path) -> Result<Self, CertificateProblem> {
        let refuse = |source| CertificateProblem::Unreadable { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES + 1).read_to_end(&mut bytes)).map_err(refuse)?;
        if bytes.len() as u64 > FILE_BYTES {
            return Err(CertificateProblem::TooLarge { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), bytes })
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, CertificateProblem> {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        let all =
            all.map_err(|error| CertificateProblem::Pem { path: self.path.clone(), problem: error.to_string() })?;
        for (number, certificate) in (1..).zip(&all) {
            EndEntityCert::try_from(certificate).map_err(|error| CertificateProblem::Malformed {
                path: self.path.clone(),
                number,
                problem: error.to_string(),
            })?;
        }
        match all.is_empty() {
            true => Err(CertificateProblem::NoCertificate { path: self.path.clone() }),
            false => Ok(all),
        }
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, CertificateProblem> {
        use rustls::pki_types::pem::Error as Pem;
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|error| match error {
            Pem::NoItemsFound => CertificateProblem::NoKey { path: self.path.clone() },
            // What stands in a malformed key is not repeated.
            _ => {
                CertificateProblem::Pem { path: self.path.clone(), problem: "the private key is cut or garbled".into() }
            }
        })
    }

    /// The CAs of a bundle.
    pub(crate) fn roots(&self) -> Result<RootCertStore, CertificateProblem> {
        let mut roots = RootCertStore::empty();
        for (number, certificate) in (1..).zip(self.certificates()?) {
            roots.add(certificate).map_err(|error| CertificateProblem::Malformed {
                path: self.path.clone(),
                number,
                problem: error.to_string(),
            })?;
        }
        Ok(roots)
    }
}

/// A digest of the files' contents: whether any of them has changed. A file that cannot be read counts by the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look([u8; 32]);

impl Look {
    pub(crate) fn at<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut hash = Sha256::new();
        for path in paths {
            match Contents::read(path) {
                Ok(contents) => hash.update(Sha256::digest(&contents.bytes)),
                Err(error) => hash.update(Sha256::digest(error.to_string())),
            }
        }
        Self(hash.finalize().into())
    }

    pub(crate) fn of<'a>(contents: impl IntoIterator<Item = &'a Contents>) -> Self {
        let mut hash = Sha256::new();
        for contents in contents {
            hash.update(Sha256::digest(&contents.bytes));
        }
        Self(hash.finalize().into())
    }
}

/// A chain with its key, checked: they belong together, and the certificate is valid now and for this use.
pub(crate) fn pair(
    certificate: &Contents,
    key: &Contents,
    usage: Usage,
    now: SystemTime,
) -> Result<Arc<CertifiedKey>, CertificateProblem> {
    let chain = certificate.certificates()?;
    let der = key.key()?;
    check(chain.first(), &certificate.path, usage, now)?;
    CertifiedKey::from_der(chain, der, &provider()).map(Arc::new).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            CertificateProblem::KeyMismatch { certificate: certificate.path.clone(), key: key.path.clone() }
        }
        other => CertificateProblem::Key { path: key.path.clone(), problem: other.to_string() },
    })
}

/// When the first certificate of a chain ends; `None`: nobody can tell.
pub(crate) fn expires(key: &CertifiedKey) -> Option<SystemTime> {
    let certificate = EndEntityCert::try_from(key.cert.first()?).ok()?;
    // As seen from the end of time every certificate has expired, and the error says when.
    let end_of_time = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX / 2));
    match verify(&certificate, Usage::Server, end_of_time) {
        Err(webpki::Error::CertExpired { not_after, .. }) => Some(explain::system_time(not_after)),
        _ => None,
    }
}

fn check(
    certificate: Option<&CertificateDer<'_>>,
    path: &Path,
    usage: Usage,
    now: SystemTime,
) -> Result<(), CertificateProblem> {
    let path = || path.to_owned();
    let certificate = certificate.ok_or_else(|| CertificateProblem::NoCertificate { path: path() })?;
    let malformed =
        |error: webpki::Error| CertificateProblem::Malformed { path: path(), number: 1, problem: error.to_string() };
    let certificate = EndEntityCert::try_from(certificate).map_err(malformed)?;
    let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    match verify(&certificate, usage, now) {
        // Nobody is trusted here: that its issuer is unknown is what is left when all else is well.
        Ok(()) | Err(webpki::Error::UnknownIssuer) => Ok(()),
        Err(webpki::Error::CertExpired { not_after, .. }) => {
            Err(CertificateProblem::Expired { path: path(), on: explain::date(not_after) })
        }
        Err(webpki::Error::CertNotValidYet { not_before, .. }) => {
            Err(CertificateProblem::NotYetValid { path: path(), on: explain::date(not_before) })
        }
        Err(webpki::Error::CaUsedAsEndEntity) => Err(CertificateProblem::IsCa { path: path() }),
        Err(webpki::Error::RequiredEkuNotFoundContext(_)) => Err(CertificateProblem::Usage {
            path: path(),
            usage: match usage {
                Usage::Server => "servers",
                Usage::Client => "clients",
            },
        }),
        Err(error) => Err(malformed(error)),
    }
}

/// Everything that a certificate says of itself; without a CA to trust, the last answer is that nobody is.
fn verify(certificate: &EndEntityCert<'_>, usage: Usage, now: UnixTime) -> Result<(), webpki::Error> {
    let usage = match usage {
        Usage::Server => KeyUsage::server_auth(),
        Usage::Client => KeyUsage::client_auth(),
    };
    let algorithms = provider().signature_verification_algorithms.all;
    certificate.verify_for_usage(algorithms, &[], &[], now, usage, None, None).map(drop)
}
