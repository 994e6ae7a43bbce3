//! A certificate's fingerprint, and how it is written.

use std::fmt::Write as _;

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

/// The SHA-256 of the whole certificate, as `openssl x509 -fingerprint -sha256` prints it.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

/// In lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
