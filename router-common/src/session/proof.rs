//! Shared secrets and the proofs of holding one (SPEC 4, handshake).
//!
//! `proof = HMAC-SHA256(key, role label || transcript || channel binding)`, where `key = HKDF-SHA256(secret, salt =
//! service nonce || gateway nonce)` and the transcript is the SHA-256 of all handshake frames so far. Random bytes are
//! arguments; nothing here draws any.

use std::collections::BTreeMap;
use std::fmt;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::identity::KeyId;
use crate::limits;
use crate::token::Tokens;

/// Names what a derived key is for, so that none serves two uses.
const KEY_INFO: &[u8] = b"stella/1 handshake proof";
const SERVICE_CARRIER_INFO: &[u8] = b"stella/1 carrier service";
const GATEWAY_CARRIER_INFO: &[u8] = b"stella/1 carrier gateway";

/// Who proves: the two proofs of a handshake are never equal, so neither can be reflected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prover {
    Service,
    Gateway,
}

impl Prover {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Service => b"stella/1 service",
            Self::Gateway => b"stella/1 gateway",
        }
    }
}

/// A shared secret of at least 32 bytes. It never shows itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

/// A shared secret is too short to protect anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a shared secret has at least {least} bytes, this one has {0}: make one with `openssl rand -hex 32`", least = limits::SECRET_BYTES)]
pub struct SecretTooShort(pub usize);

impl Secret {
    /// # Errors
    /// When `bytes` are fewer than 32.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Result<Self, SecretTooShort> {
        let bytes = bytes.into();
        if bytes.len() < limits::SECRET_BYTES {
            return Err(SecretTooShort(bytes.len()));
        }
        Ok(Self(bytes))
    }

    pub(super) fn prove(&self, prover: Prover, nonces: &Nonces, transcript: [u8; 32], binding: &[u8]) -> [u8; 32] {
        self.mac(prover, nonces, transcript, binding).finalize().into_bytes().into()
    }

    /// In constant time.
    pub(super) fn verify(
        &self,
        prover: Prover,
        nonces: &Nonces,
        transcript: [u8; 32],
        binding: &[u8],
        proof: &[u8; 32],
    ) -> bool {
        self.mac(prover, nonces, transcript, binding).verify_slice(proof).is_ok()
    }

    /// The keys of a link whose carrier protects each of its messages with a MAC, from the nonces of HELLO and CHALLENGE.
    #[must_use]
    pub fn carrier_keys(&self, service_nonce: [u8; 32], gateway_nonce: [u8; 32]) -> CarrierKeys {
        let nonces = Nonces { service: service_nonce, gateway: gateway_nonce };
        CarrierKeys {
            service: self.key(&nonces, SERVICE_CARRIER_INFO),
            gateway: self.key(&nonces, GATEWAY_CARRIER_INFO),
        }
    }

    fn key(&self, nonces: &Nonces, info: &[u8]) -> [u8; 32] {
        let mut salt = [0; 64];
        salt[..32].copy_from_slice(&nonces.service);
        salt[32..].copy_from_slice(&nonces.gateway);
        let mut key = [0; 32];
        Hkdf::<Sha256>::new(Some(&salt), &self.0).expand(info, &mut key).expect("HKDF-SHA256 gives 32 bytes");
        key
    }

    fn mac(&self, prover: Prover, nonces: &Nonces, transcript: [u8; 32], binding: &[u8]) -> Hmac<Sha256> {
        let key = self.key(nonces, KEY_INFO);
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes a key of any length");
        mac.update(prover.label());
        mac.update(&transcript);
        mac.update(binding);
        mac
    }
}

/// The keys of one link, one for what each side sends (SPEC 7: UDP, RabbitMQ). They never show themselves.
#[derive(Clone, PartialEq, Eq)]
pub struct CarrierKeys {
    /// For what the service sends.
    pub service: [u8; 32],
    /// For what the gateway sends.
    pub gateway: [u8; 32],
}

impl fmt::Debug for CarrierKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CarrierKeys(..)")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What a listener lets services in by: shared secrets by key id, several of each while one is being replaced; and, over
/// TLS, bearer tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    shared: BTreeMap<KeyId, Vec<Secret>>,
    tokens: Tokens,
}

impl Secrets {
    /// No secret: nothing has to be proved.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// One secret without a key id.
    #[must_use]
    pub fn sole(secret: Secret) -> Self {
        Self { shared: BTreeMap::from([(KeyId::sole(), vec![secret])]), tokens: Tokens::default() }
    }

    /// The same, and these tokens.
    #[must_use]
    pub fn with_tokens(mut self, tokens: Tokens) -> Self {
        self.tokens = tokens;
        self
    }

    /// Whether there is no shared secret.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.shared.is_empty()
    }

    pub(super) const fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Those that a proof under `key` may be made with.
    pub fn of<'a>(&'a self, key: &KeyId) -> impl Iterator<Item = &'a Secret> {
        self.shared.get(key).into_iter().flatten()
    }
}

impl FromIterator<(KeyId, Secret)> for Secrets {
    fn from_iter<I: IntoIterator<Item = (KeyId, Secret)>>(secrets: I) -> Self {
        let mut shared: BTreeMap<KeyId, Vec<Secret>> = BTreeMap::new();
        for (key, secret) in secrets {
            shared.entry(key).or_default().push(secret);
        }
        Self { shared, tokens: Tokens::default() }
    }
}

/// The random bytes of both sides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nonces {
    pub(super) service: [u8; 32],
    pub(super) gateway: [u8; 32],
}

/// The running hash of the handshake's frames, headers included.
#[derive(Debug, Clone, Default)]
pub(super) struct Transcript(Sha256);

impl Transcript {
    pub(super) fn add(&mut self, frame: &crate::frame::Frame) {
        let mut bytes = bytes::BytesMut::new();
        let body = crate::codec::encode(frame, &mut bytes);
        self.0.update(&bytes);
        self.0.update(&body);
    }

    pub(super) fn hash(&self) -> [u8; 32] {
        self.0.clone().finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_fits_one_secret_role_transcript_and_binding_only() {
        let secret = Secret::new([7; 32]).unwrap();
        let nonces = Nonces { service: [1; 32], gateway: [2; 32] };
        let proof = secret.prove(Prover::Service, &nonces, [3; 32], b"tls");
        assert!(secret.verify(Prover::Service, &nonces, [3; 32], b"tls", &proof));
        assert!(!secret.verify(Prover::Gateway, &nonces, [3; 32], b"tls", &proof));
        assert!(!secret.verify(Prover::Service, &nonces, [4; 32], b"tls", &proof));
        assert!(!secret.verify(Prover::Service, &nonces, [3; 32], b"", &proof));
        let swapped = Nonces { service: [2; 32], gateway: [1; 32] };
        assert!(!secret.verify(Prover::Service, &swapped, [3; 32], b"tls", &proof));
        assert!(!Secret::new([8; 32]).unwrap().verify(Prover::Service, &nonces, [3; 32], b"tls", &proof));
    }

    #[test]
    fn carrier_keys_differ_by_side_secret_and_nonces() {
        let keys = |secret: u8, service: u8, gateway: u8| {
            Secret::new([secret; 32]).unwrap().carrier_keys([service; 32], [gateway; 32])
        };
        let all = [keys(7, 1, 2), keys(8, 1, 2), keys(7, 3, 2), keys(7, 1, 3), keys(7, 2, 1)];
        let mut distinct: Vec<_> = all.iter().flat_map(|keys| [keys.service, keys.gateway]).collect();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 10);
        assert_eq!(keys(7, 1, 2), all[0]);
    }

    #[test]
    fn a_short_secret_is_refused_with_its_length() {
        assert_eq!(Secret::new([0; 31]), Err(SecretTooShort(31)));
    }
}
