//! The composition of `router.yaml`: the common settings, and those of every transport this gateway can serve.
//!
//! This file and `main.rs` are the only ones that name transports.

use std::io;
use std::net::SocketAddr;

use router_common::session::{Secret, Secrets};
use router_config::{Checks, RouterConfig, SecretError, SharedSecrets, Validate};
use router_link::{BoxListener, LinkError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
#[cfg(feature = "rabbitmq")]
use transport_rabbitmq::{RabbitListener, RabbitListenerOptions, RabbitListenerSettings};
use transport_tcp::{TcpListener, TcpListenerSettings};

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
        !matches!(
            self,
            Self::Secret { source: SecretError::NoVariable { .. } | SecretError::File { .. }, .. }
                | Self::Listen { .. }
                | Self::Unguarded { .. }
                | Self::Passed { .. }
        )
    }
}

/// Where services come in, and what they must prove.
pub struct ServiceListener {
    pub listener: BoxListener,
    pub secrets: Secrets,
    /// A copy of what it listens with, if that can be given to another process.
    pub socket: Option<Sockets>,
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
    if let Some(tcp) = &transports.tcp {
        let secrets = secrets("tcp", tcp.shared_secret.as_ref())?;
        let configured = tcp.listen.addr();
        let passed = |source| TransportError::Passed { transport: "tcp", source };
        let given = sockets.take(Purpose::Tcp, configured).into_iter().next();
        let bound = match given {
            Some(socket) => {
                let address = socket.local_addr().map_err(passed)?;
                // What the configuration was checked for is its own address.
                if !address.ip().is_loopback() && tcp.shared_secret.is_none() && !tcp.insecure {
                    return Err(TransportError::Unguarded { transport: "tcp", address });
                }
                socket
            }
            None => TcpListener::bind_std(configured)
                .map_err(|source| TransportError::Listen { transport: "tcp", source })?,
        };
        let mut socket = Sockets::default();
        socket.add(Purpose::Tcp, bound.try_clone().map_err(passed)?, Some(configured));
        let listener = TcpListener::from_std(bound).map_err(passed)?;
        listeners.push(ServiceListener { listener: Box::new(listener), secrets, socket: Some(socket) });
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
        listeners.push(ServiceListener {
            listener: Box::new(RabbitListener::start(broker, options)),
            secrets,
            socket: None,
        });
    }
    Ok(listeners)
}

/// Reads all secrets that the configuration names, and opens nothing.
///
/// # Errors
/// [`TransportError`] for the first that is missing or too short.
pub fn check_secrets(transports: &Transports) -> Result<(), TransportError> {
    if let Some(tcp) = &transports.tcp {
        secrets("tcp", tcp.shared_secret.as_ref())?;
    }
    #[cfg(feature = "rabbitmq")]
    if let Some(rabbitmq) = &transports.rabbitmq {
        secrets("rabbitmq", rabbitmq.shared_secret.as_ref())?;
    }
    Ok(())
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
