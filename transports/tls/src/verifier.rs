//! Client certificates: signed by a CA that is trusted here, valid now, and among those that may come in.
//!
//! What a certificate's holder may do is not known here.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use crate::config::ClientCertificates;
use crate::files::CertificateProblem;
use crate::fingerprint::{fingerprint, hex};
use crate::identity::Names;
use crate::provider;

#[derive(Debug)]
pub(crate) struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    pub(crate) names: Names,
}

impl ClientVerifier {
    pub(crate) fn new(
        roots: RootCertStore,
        wanted: ClientCertificates,
        names: Names,
    ) -> Result<Arc<Self>, CertificateProblem> {
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let builder = match wanted {
            ClientCertificates::Required => builder,
            ClientCertificates::Optional | ClientCertificates::None => builder.allow_unauthenticated(),
        };
        let chain = builder.build().map_err(|error| CertificateProblem::Tls(error.to_string()))?;
        Ok(Arc::new(Self { chain, names }))
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.chain.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        match self.names.of(end_entity) {
            Some(_) => Ok(verified),
            None => {
                let fingerprint = hex(&fingerprint(end_entity));
                tracing::warn!(%fingerprint, "a valid certificate whose names are not among `identities`");
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
