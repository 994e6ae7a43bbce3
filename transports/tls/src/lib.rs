//! The TLS transport: frames as a byte stream that nobody else can read or change (SPEC 7, 8).
//!
//! It knows certificates, keys and the names in them: who may come in by a certificate, and what such a peer is called. What
//! a name may register is the gateway's to say; secrets and tokens are the session's. Cryptography is rustls' and
//! aws-lc-rs'.

mod client;
mod config;
mod connector;
#[cfg(feature = "development")]
pub mod development;
mod explain;
mod files;
mod fingerprint;
mod identity;
mod listener;
mod server;
mod stream;
mod verifier;

use std::sync::{Arc, LazyLock};

use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;

pub use client::{ClientTls, Versions};
pub use config::{
    CertificatePair, ClientCertificates, IdentityName, MinimumVersion, NamedIdentity, TlsListenerSettings,
};
pub use connector::{TlsConnector, TlsConnectorSettings};
pub use files::CertificateProblem;
pub use listener::TlsListener;
pub use server::{Credentials, Figures, Renewal};

/// Name of the transport, and scheme of its URLs.
pub(crate) const TRANSPORT: &str = "tls";

/// The cryptography of this transport: aws-lc-rs, named and not whichever happens to be linked.
///
/// A service offers AES-128 before AES-256: both are beyond reach, and the shorter key is the faster one.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.sort_by_key(|suite| (suite.tls13().is_none(), !is_aes_128(suite.suite())));
        Arc::new(provider)
    });
    Arc::clone(&PROVIDER)
}

const fn is_aes_128(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_suites_are_offered_the_short_key_first_and_the_new_version_before_the_old() {
        let (own, usual) = (provider(), rustls::crypto::aws_lc_rs::default_provider());
        let suites: Vec<_> = own.cipher_suites.iter().map(|suite| suite.suite()).collect();
        assert_eq!(suites.len(), usual.cipher_suites.len());
        assert_eq!(suites[..2], [CipherSuite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS13_AES_256_GCM_SHA384]);
        assert_eq!(suites[3], CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
    }
}
