//! The composition of `router.yaml`: the common settings, and those of every transport this gateway can serve.
//!
//! This file and `main.rs` are the only ones that name transports.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use router_common::identity::KeyId;
use router_common::session::{Secret, Secrets};
use router_common::token::TokenError;
#[cfg(feature = "tls")]
use router_common::token::{Token, Tokens};
use router_config::{Checks, RouterConfig, SecretError, SharedSecrets, Validate};
use router_link::{BoxListener, LinkError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
#[cfg(feature = "rabbitmq")]
use transport_rabbitmq::{RabbitListener, RabbitListenerOptions, RabbitListenerSettings};
use transport_tcp::{TcpListener, TcpListenerSettings};
#[cfg(feature = "tls")]
use transport_tls::{CertificateProblem, Credentials, TlsListener, TlsListenerSettings};
#[cfg(feature = "udp")]
use transport_udp::{UdpListener, UdpListenerSettings};

#[cfg(feature = "tls")]
use crate::certificates::CertificateFigures;
use crate::certificates::Certificates;
use crate::sockets::{Purpose, Sockets};

/// All of `router.yaml`.
pub type Settings = RouterConfig<Transports>;

/// The `transports` section: what stands in it is served.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Transports {
    /// Services in the gateway's own process.
    pub in_memory: Option<InMemorySettings>,
    pub tcp: Option<TcpListenerSettings>,
    #[cfg(feature = "rabbitmq")]
    pub rabbitmq: Option<RabbitListenerSettings>,
    #[cfg(feature = "tls")]
    pub tls: Option<TlsListenerSettings>,
    #[cfg(feature = "udp")]
    pub udp: Option<UdpListenerSettings>,
}

/// The in-memory transport has nothing to set: an embedded gateway has it without being asked.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InMemorySettings {}

impl Validate for Transports {
    fn validate(&self, checks: &mut Checks) {
        if let Some(tcp) = &self.tcp {
            checks.section("tcp", tcp);
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            checks.section("tls", tls);
        }
        #[cfg(feature = "udp")]
        if let Some(udp) = &self.udp {
            checks.section("udp", udp);
        }
        #[cfg(feature = "rabbitmq")]
        if let Some(rabbitmq) = &self.rabbitmq {
            checks.section("rabbitmq", rabbitmq);
        }
    }
}

/// Why a listener for services cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("transports.{transport}.shared_secret: {source}")]
    Secret { transport: &'static str, source: SecretError },
    #[error("transports.{transport}.shared_secret: {source}")]
    Short { transport: &'static str, source: router_common::session::SecretTooShort },
    #[error("transports.{transport}.tokens: {source}")]
    Tokens { transport: &'static str, source: SecretError },
    #[error("transports.{transport}.tokens: {name}: {source}")]
    Token { transport: &'static str, name: KeyId, source: TokenError },
    #[cfg(feature = "tls")]
    #[error("transports.{transport}: {source}")]
    Certificates { transport: &'static str, source: CertificateProblem },
    #[error("transports.{transport}: {source}")]
    Listen { transport: &'static str, source: LinkError },
    #[error(
        "transports.{transport}: the socket that was passed listens on {address}, beyond loopback, without authentication: \
         set a shared_secret, or `insecure: true`"
    )]
    Unguarded { transport: &'static str, address: SocketAddr },
    #[error("transports.{transport}: the socket that was passed cannot be used: {source}")]
    Passed { transport: &'static str, source: io::Error },
}

impl TransportError {
    /// Whether the configuration itself is at fault, wherever it is used: a secret in it could be guessed. One that is
    /// kept elsewhere may be missing on this machine alone.
    #[must_use]
    pub const fn is_of_the_configuration(&self) -> bool {
        match self {
            Self::Secret { source, .. } | Self::Tokens { source, .. } => {
                !matches!(source, SecretError::NoVariable { .. } | SecretError::File { .. })
            }
            #[cfg(feature = "tls")]
            Self::Certificates { source, .. } => !source.is_of_this_machine(),
            Self::Short { .. } | Self::Token { .. } => true,
            Self::Listen { .. } | Self::Unguarded { .. } | Self::Passed { .. } => false,
        }
    }
}

/// Where services come in, and what they must prove.
pub struct ServiceListener {
    pub listener: BoxListener,
    pub secrets: Secrets,
    /// A copy of what it listens with, if that can be given to another process.
    pub socket: Option<Sockets>,
    /// What it shows and believes, if that can change while it listens.
    pub certificates: Option<Arc<dyn Certificates>>,
}

impl ServiceListener {
    /// One with nothing to give to another process, and no certificates.
    #[must_use]
    pub fn new(listener: BoxListener, secrets: Secrets) -> Self {
        Self { listener, secrets, socket: None, certificates: None }
    }
}

impl std::fmt::Debug for ServiceListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServiceListener({})", self.listener.local())
    }
}

/// Opens all listeners that the configuration names. To be called within the runtime that accepts.
///
/// # Errors
/// [`TransportError`], by the transport.
pub fn listen(settings: &Settings) -> Result<Vec<ServiceListener>, TransportError> {
    listen_with(settings, &mut Sockets::default())
}

/// The same, with those of these sockets that are for services in place of binding.
///
/// # Errors
/// [`TransportError`], by the transport.
pub fn listen_with(settings: &Settings, sockets: &mut Sockets) -> Result<Vec<ServiceListener>, TransportError> {
    let transports = &settings.transports;
    let mut listeners = Vec::new();
    // Then another process may still be there, with what cannot be passed.
    #[cfg(feature = "udp")]
    let is_passed_sockets = !sockets.is_empty();
    if let Some(tcp) = &transports.tcp {
        let secrets = secrets("tcp", tcp.shared_secret.as_ref())?;
        let needed = Needed {
            transport: "tcp",
            purpose: Purpose::Tcp,
            configured: tcp.listen.addr(),
            guarded: tcp.shared_secret.is_some() || tcp.insecure,
        };
        let (bound, socket) = needed.take_or(sockets, TcpListener::bind_std)?;
        let listener = TcpListener::from_std(bound).map_err(needed.unusable())?;
        let socket = Some(socket);
        listeners.push(ServiceListener { socket, ..ServiceListener::new(Box::new(listener), secrets) });
    }
    #[cfg(feature = "tls")]
    if let Some(tls) = &transports.tls {
        let (secrets, credentials) = over_tls(tls)?;
        let needed = Needed {
            transport: "tls",
            purpose: Purpose::Tls,
            configured: tls.listen.addr(),
            guarded: tls.is_authenticated() || tls.insecure,
        };
        let (bound, socket) = needed.take_or(sockets, TlsListener::bind_std)?;
        let listener = TlsListener::from_std(bound, tls, Arc::clone(&credentials)).map_err(needed.unusable())?;
        listeners.push(ServiceListener {
            socket: Some(socket),
            certificates: Some(Arc::new(OverTls(credentials))),
            ..ServiceListener::new(Box::new(listener), secrets)
        });
    }
    #[cfg(feature = "udp")]
    if let Some(udp) = &transports.udp {
        let secrets = secrets("udp", udp.shared_secret.as_ref())?;
        let bind = if is_passed_sockets { UdpListener::bind_or_wait } else { UdpListener::bind };
        let listener = bind(udp.listen.addr(), secrets.clone(), udp.datagram.as_usize())
            .map_err(|source| TransportError::Listen { transport: "udp", source })?;
        listeners.push(ServiceListener::new(Box::new(listener), secrets));
    }
    #[cfg(feature = "rabbitmq")]
    if let Some(rabbitmq) = &transports.rabbitmq {
        let secrets = secrets("rabbitmq", rabbitmq.shared_secret.as_ref())?;
        let broker = rabbitmq.broker().map_err(|source| TransportError::Listen { transport: "rabbitmq", source })?;
        let options = RabbitListenerOptions {
            prefetch: rabbitmq.prefetch,
            dead_after: settings.health.dead_after.into(),
            ..RabbitListenerOptions::new(settings.node.id.as_str(), secrets.clone())
        };
        // Who takes this process's place dials the broker itself.
        listeners.push(ServiceListener::new(Box::new(RabbitListener::start(broker, options)), secrets));
    }
    Ok(listeners)
}

/// A socket that a transport listens with.
struct Needed {
    transport: &'static str,
    purpose: Purpose,
    configured: SocketAddr,
    /// Whether it may be reached from other machines.
    guarded: bool,
}

impl Needed {
    /// The one of these sockets that is meant, or a new one; and a copy of it.
    fn take_or(
        &self,
        sockets: &mut Sockets,
        bind: fn(SocketAddr) -> Result<std::net::TcpListener, LinkError>,
    ) -> Result<(std::net::TcpListener, Sockets), TransportError> {
        let &Self { transport, purpose, configured, guarded } = self;
        let given = sockets.take(purpose, configured).into_iter().next();
        let bound = match given {
            Some(socket) => {
                let address = socket.local_addr().map_err(self.unusable())?;
                // What the configuration was checked for is its own address.
                if !address.ip().is_loopback() && !guarded {
                    return Err(TransportError::Unguarded { transport, address });
                }
                socket
            }
            None => bind(configured).map_err(|source| TransportError::Listen { transport, source })?,
        };
        let mut copy = Sockets::default();
        copy.add(purpose, bound.try_clone().map_err(self.unusable())?, Some(configured));
        Ok((bound, copy))
    }

    fn unusable(&self) -> impl Fn(io::Error) -> TransportError + use<> {
        let transport = self.transport;
        move |source| TransportError::Passed { transport, source }
    }
}

/// Reads all secrets, tokens and certificates that the configuration names, and opens nothing.
///
/// # Errors
/// [`TransportError`] for the first that is missing or cannot be used.
pub fn check_secrets(transports: &Transports) -> Result<(), TransportError> {
    if let Some(tcp) = &transports.tcp {
        secrets("tcp", tcp.shared_secret.as_ref())?;
    }
    #[cfg(feature = "rabbitmq")]
    if let Some(rabbitmq) = &transports.rabbitmq {
        secrets("rabbitmq", rabbitmq.shared_secret.as_ref())?;
    }
    #[cfg(feature = "tls")]
    if let Some(tls) = &transports.tls {
        over_tls(tls)?;
    }
    #[cfg(feature = "udp")]
    if let Some(udp) = &transports.udp {
        secrets("udp", udp.shared_secret.as_ref())?;
    }
    Ok(())
}

/// What services are let in by over TLS.
#[cfg(feature = "tls")]
fn over_tls(tls: &TlsListenerSettings) -> Result<(Secrets, Arc<Credentials>), TransportError> {
    let secrets = secrets("tls", tls.shared_secret.as_ref())?.with_tokens(tokens("tls", tls.tokens.as_ref())?);
    let credentials =
        Credentials::load(tls).map_err(|source| TransportError::Certificates { transport: "tls", source })?;
    Ok((secrets, credentials))
}

#[cfg(feature = "tls")]
#[derive(Debug)]
struct OverTls(Arc<Credentials>);

#[cfg(feature = "tls")]
impl Certificates for OverTls {
    fn renew(&self) {
        drop(self.0.renew());
    }

    fn figures(&self) -> CertificateFigures {
        let transport_tls::Figures { renewed, refused, full, resumed, failed, expires, .. } = self.0.figures();
        CertificateFigures { renewed, refused, full, resumed, failed, expires }
    }
}

#[cfg(feature = "tls")]
fn tokens(transport: &'static str, configured: Option<&SharedSecrets>) -> Result<Tokens, TransportError> {
    let Some(configured) = configured else { return Ok(Tokens::default()) };
    let resolved = configured.resolve().map_err(|source| TransportError::Tokens { transport, source })?;
    resolved
        .into_iter()
        .flat_map(|(name, tokens)| tokens.into_iter().map(move |token| (name.clone(), token)))
        .map(|(name, token)| {
            let text = std::str::from_utf8(token.expose()).map_err(|_| TokenError::Character);
            match text.and_then(Token::new) {
                Ok(token) => Ok((name, token)),
                Err(source) => Err(TransportError::Token { transport, name, source }),
            }
        })
        .collect()
}

fn secrets(transport: &'static str, configured: Option<&SharedSecrets>) -> Result<Secrets, TransportError> {
    let Some(configured) = configured else { return Ok(Secrets::none()) };
    let resolved = configured.resolve().map_err(|source| TransportError::Secret { transport, source })?;
    resolved
        .into_iter()
        .flat_map(|(id, secrets)| secrets.into_iter().map(move |secret| (id.clone(), secret)))
        .map(|(id, secret)| {
            let secret = Secret::new(secret.expose()).map_err(|source| TransportError::Short { transport, source })?;
            Ok((id, secret))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(secret: &str) -> Result<(), (bool, String)> {
        let shared_secret = Some(SharedSecrets::sole(secret.into()));
        let tcp = Some(TcpListenerSettings { shared_secret, ..TcpListenerSettings::default() });
        check_secrets(&Transports { tcp, ..Transports::default() })
            .map_err(|error| (error.is_of_the_configuration(), error.to_string()))
    }

    #[test]
    fn a_secret_that_is_too_short_is_found_without_serving_and_never_shown() {
        let (of_the_configuration, text) = check("hunter2").unwrap_err();
        assert!(of_the_configuration, "{text}");
        assert!(text.starts_with("transports.tcp.shared_secret: ") && !text.contains("hunter2"), "{text}");
        assert_eq!(check("a literal of at least thirty-two bytes"), Ok(()));
    }

    #[test]
    fn a_secret_that_is_kept_elsewhere_may_be_missing_here() {
        let (of_the_configuration, text) = check("env:NO_SUCH_VARIABLE_HERE").unwrap_err();
        assert!(!of_the_configuration, "{text}");
        assert!(text.contains("NO_SUCH_VARIABLE_HERE"), "{text}");
    }
}
