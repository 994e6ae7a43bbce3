//! What an endpoint is known by, whoever serves it (SPEC 1).
//!
//! Nothing here knows services, versions or where a path leads.

use std::fmt;
use std::sync::Arc;

use http::Method;
use router_common::endpoint::PathTemplate;

/// What an endpoint is known by: method and canonical template (SPEC 1). Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointKey(Arc<(MethodName, String)>);

/// A method that can be ordered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct MethodName(Method);

impl PartialOrd for MethodName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for MethodName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.as_str().cmp(other.0.as_str())
    }
}

impl EndpointKey {
    #[must_use]
    pub fn new(method: Method, template: &PathTemplate) -> Self {
        Self(Arc::new((MethodName(method), template.canonical())))
    }

    #[must_use]
    pub fn method(&self) -> &Method {
        &self.0.0.0
    }

    /// The template without the names of its parameters.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.0.1
    }
}

impl fmt::Display for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method(), self.canonical())
    }
}
