//! Why a service does not start, or ended by itself.
//!
//! Mistakes of the definition are collected, so that all of them are told at once.

use std::fmt;

use router_common::endpoint::{DescriptorError, TemplateError};
use router_common::frame::CloseCode;
use router_common::identity::{InstanceId, NameError};
use router_common::limits;
use router_common::session::RegisterError;
use router_config::ConfigError;

/// Why [`Microservice::run`](crate::Microservice::run) ended in an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The service is not well defined; all that is wrong with it.
    #[error("the service is not well defined:{}", Bulleted(.0))]
    Definition(Vec<Mistake>),
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no gateway to connect to.
    #[error(
        "no gateway is named: call `gateway(\"tcp://127.0.0.1:5100\")`, or name one under `gateways` in microservice.yaml"
    )]
    NoGateway,
    /// A gateway refused endpoints, and the service is to fail then (SPEC 2).
    #[error("{gateway} refused endpoints (set `on_refused: warn` to serve the others):{}", Bulleted(.refusals))]
    Refused {
        gateway: String,
        /// Each endpoint with the reason.
        refusals: Vec<String>,
    },
    /// The endpoint set cannot be offered at all.
    #[error("the endpoints cannot be offered to {gateway}: {error}")]
    Register { gateway: String, error: RegisterError },
    /// A gateway closed the first link to it for a reason that waiting does not mend.
    #[error("{gateway} does not let this service in: {code}{}{text}", if text.is_empty() { "" } else { ": " })]
    NotLetIn { gateway: String, code: CloseCode, text: String },
    /// Another process of the same service, version, region and instance id took over. This one must not come back.
    #[error("another process took over the instance `{instance}` at {gateway}")]
    Superseded { gateway: String, instance: InstanceId },
    /// The signals that end the service cannot be listened to.
    #[error("listening to signals: {0}")]
    Signals(#[source] std::io::Error),
    /// A task of the SDK itself ended by a panic.
    #[error("a task of the service panicked: {0}")]
    Panicked(String),
    /// The service has ended already.
    #[error("the service has ended")]
    Ended,
}

/// One thing that is wrong with a service's definition.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Mistake {
    #[error(transparent)]
    Name(NameError),
    #[error("`{path}` is not a path template: {error}")]
    Template { path: String, error: TemplateError },
    #[error("{second} is the same endpoint as {first}: names of parameters do not tell endpoints apart")]
    Duplicate { first: String, second: String },
    #[error("{endpoint} has {error}")]
    Endpoint { endpoint: String, error: DescriptorError },
    #[error("more than {max} endpoints", max = limits::ENDPOINTS)]
    TooManyEndpoints,
    #[error("`{0}(..)` is about the gateway named before it, and there is none: call `gateway(..)` first")]
    BeforeGateway(&'static str),
    #[error("{0} links to a gateway: 1 to {max} are allowed", max = limits::LINKS)]
    Links(u16),
    #[error("a lease of {0}: 1 to {max} are allowed", max = limits::LEASE_MAX)]
    Lease(u32),
    #[error("more than {max} gateways")]
    TooManyGateways { max: usize },
    #[error("gateway `{url}`: {problem}")]
    Gateway { url: String, problem: String },
    #[error("microservice.yaml says service.{key} `{configured}`, but the code says `{coded}`: they must be the same")]
    Identity { key: &'static str, configured: String, coded: String },
}

struct Bulleted<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Bulleted<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|item| write!(f, "\n  - {item}"))
    }
}
