//! Why a service does not start, or ended by itself.
//!
//! Mistakes of the definition are collected, so that all of them are told at once.

use std::fmt;

use router_common::endpoint::TemplateError;
use router_common::identity::NameError;
use router_common::limits;

/// Why [`Microservice::run`](crate::Microservice::run) ended in an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The service is not well defined; all that is wrong with it.
    #[error("the service is not well defined:{}", Bulleted(.0))]
    Definition(Vec<Mistake>),
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
    #[error("more than {max} endpoints", max = limits::ENDPOINTS)]
    TooManyEndpoints,
    #[error("`{0}(..)` is about the gateway named before it, and there is none: call `gateway(..)` first")]
    BeforeGateway(&'static str),
    #[error("{0} links to a gateway: 1 to {max} are allowed", max = limits::LINKS)]
    Links(u16),
    #[error("a lease of {0}: 1 to {max} are allowed", max = limits::LEASE_MAX)]
    Lease(u32),
}

struct Bulleted<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Bulleted<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|item| write!(f, "\n  - {item}"))
    }
}
