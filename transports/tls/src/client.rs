//! What a service shows and believes in TLS, read anew when its files have changed.
//!
//! It dials nobody.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::client::ResolvesClientCert;
use rustls::client::WebPkiServerVerifier;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme, version};

use crate::files::{self, CertificateProblem, Contents, Look, Usage};
use crate::provider;

/// Whom a service believes, and what it shows. All files are PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// The CAs of which one has signed the gateway's certificate. Required.
    pub ca: Option<PathBuf>,
    /// The service's own certificate, with the chain to its CA; absent: it shows none.
    pub certificate: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
    /// The name that the gateway's certificate must be for. Absent: the host of the URL.
    pub server_name: Option<String>,
}

impl ClientTls {
    /// Reads and checks the files, as a dial would.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn check(&self) -> Result<(), CertificateProblem> {
        read(self, Versions::default()).map(drop)
    }

    /// What the files say now, for carriers that dial by themselves.
    ///
    /// # Errors
    /// As [`ClientTls::check`].
    pub fn config(&self) -> Result<Arc<ClientConfig>, CertificateProblem> {
        read(self, Versions::default()).map(|(config, _)| config)
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.ca, &self.certificate, &self.key].into_iter().filter_map(Option::as_deref)
    }
}

/// Which TLS a connector speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Versions {
    /// 1.3, and 1.2 with whoever has no 1.3.
    #[default]
    Both,
    Tls12,
    Tls13,
}

/// The settings with what was read last.
#[derive(Debug)]
pub(crate) struct Client {
    settings: ClientTls,
    versions: Versions,
    read: Mutex<Read>,
}

#[derive(Debug)]
struct Read {
    config: Arc<ClientConfig>,
    look: Look,
    refused: Option<Look>,
}

impl Client {
    pub(crate) fn new(settings: ClientTls, versions: Versions) -> Result<Self, CertificateProblem> {
        let (config, look) = read(&settings, versions)?;
        Ok(Self { settings, versions, read: Mutex::new(Read { config, look, refused: None }) })
    }

    pub(crate) fn again(&self, versions: Versions) -> Result<Self, CertificateProblem> {
        Self::new(self.settings.clone(), versions)
    }

    /// What the files say now; where that cannot be used, what they said last. Blocks while it reads.
    ///
    /// Sessions are remembered with the configuration: one that was begun with other files is not resumed.
    pub(crate) fn current(&self) -> Arc<ClientConfig> {
        let mut last = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Look::at(self.settings.paths());
        if now != last.look && last.refused != Some(now) {
            match read(&self.settings, self.versions) {
                Ok((config, look)) => {
                    tracing::info!("new TLS certificates are in use");
                    *last = Read { config, look, refused: None };
                }
                Err(error) => {
                    tracing::error!(%error, "the new TLS certificates cannot be used; the last good ones stay in use");
                    last.refused = Some(now);
                }
            }
        }
        Arc::clone(&last.config)
    }
}

fn read(settings: &ClientTls, versions: Versions) -> Result<(Arc<ClientConfig>, Look), CertificateProblem> {
    let ca = Contents::read(settings.ca.as_deref().ok_or(CertificateProblem::NoCa)?)?;
    let set_up = |error: rustls::Error| CertificateProblem::Tls(error.to_string());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(ca.roots()?), provider())
        .build()
        .map_err(|error| CertificateProblem::Tls(error.to_string()))?;
    let mut contents = vec![ca];
    let own = match (&settings.certificate, &settings.key) {
        (Some(certificate), Some(key)) => {
            let (certificate, key) = (Contents::read(certificate)?, Contents::read(key)?);
            let pair = files::pair(&certificate, &key, Usage::Client, SystemTime::now())?;
            contents.extend([certificate, key]);
            Some(pair)
        }
        (None, None) => None,
        _ => return Err(CertificateProblem::HalfAPair),
    };
    let versions: &[_] = match versions {
        Versions::Both => &[&version::TLS13, &version::TLS12],
        Versions::Tls12 => &[&version::TLS12],
        Versions::Tls13 => &[&version::TLS13],
    };
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).map_err(set_up)?;
    let builder = builder.with_webpki_verifier(verifier);
    let mut config = match own {
        Some(pair) => builder.with_client_cert_resolver(Arc::new(Own(pair))),
        None => builder.with_no_client_auth(),
    };
    // What binds the session's proofs to this connection is only sound with it (RFC 9266).
    config.require_ems = true;
    Ok((Arc::new(config), Look::of(&contents)))
}

/// Shows one certificate to whoever asks, whatever CAs it says that it wants: its refusal says more than silence.
#[derive(Debug)]
struct Own(Arc<CertifiedKey>);

impl ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
