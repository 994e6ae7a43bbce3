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
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}
