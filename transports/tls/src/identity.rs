//! What the holder of a certificate is called: by the names in it, or as the configuration says (SPEC 8).
//!
//! It reads certificates that somebody else has verified.

use std::sync::Arc;

use router_common::identity::Identity;
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::config::{IdentityName, NamedIdentity};
use crate::fingerprint::{fingerprint, hex};

/// What the identities of other kinds begin with: a URI that does so too could pass for one of them.
const RESERVED: [&str; 5] = ["key:", "token:", "dns:", "sha256:", "uri:"];

/// Which certificates may come in, and as whom; empty: all that are verified, under their own names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names(Vec<(IdentityName, Arc<str>)>);

impl Names {
    pub(crate) fn new(configured: &[NamedIdentity]) -> Self {
        Self(configured.iter().map(|one| (one.name.clone(), one.identity().into())).collect())
    }

    /// Whom a certificate is for; `None`: it is not among those that may come in.
    pub(crate) fn of(&self, certificate: &CertificateDer<'_>) -> Option<Identity> {
        let parsed = EndEntityCert::try_from(certificate).ok()?;
        if self.0.is_empty() {
            return Some(Identity::Certificate(own_name(certificate, &parsed)));
        }
        let fingerprint = fingerprint(certificate);
        let holds = |name: &IdentityName| match name {
            IdentityName::Uri(uri) => parsed.valid_uri_names().any(|own| own == uri),
            IdentityName::Dns(dns) => parsed.valid_dns_names().any(|own| own.eq_ignore_ascii_case(dns)),
            IdentityName::Sha256(digest) => *digest == fingerprint,
        };
        self.0.iter().find(|(name, _)| holds(name)).map(|(_, identity)| Identity::Certificate(Arc::clone(identity)))
    }
}

/// Its first URI as it is, else `dns:` and its first DNS name, else `sha256:` and its fingerprint.
fn own_name(certificate: &CertificateDer<'_>, parsed: &EndEntityCert<'_>) -> Arc<str> {
    let is_free = |uri: &&str| {
        let begins = |prefix: &str| uri.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        uri.contains(':') && !RESERVED.into_iter().any(begins)
    };
    if let Some(uri) = parsed.valid_uri_names().find(is_free) {
        return uri.into();
    }
    match parsed.valid_dns_names().next() {
        Some(name) => format!("dns:{}", name.to_ascii_lowercase()).into(),
        None => format!("sha256:{}", hex(&fingerprint(certificate))).into(),
    }
}
