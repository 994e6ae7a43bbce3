//! What microservice.yaml says of single endpoints, over what the code says (SPEC 10).

use std::fmt;
use std::sync::Arc;

use router_config::microservice::EndpointOverride;

use crate::dispatch::Endpoint;

/// An override that meets no endpoint: a warning at start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unmet {
    wanted: String,
    /// The endpoint that was probably meant.
    nearest: Option<String>,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "microservice.yaml overrides `{}`, which is no endpoint of this service", self.wanted)?;
        match &self.nearest {
            Some(nearest) => write!(f, "; did you mean `{nearest}`?"),
            None => Ok(()),
        }
    }
}

/// Applies overrides by method and path; names of parameters do not matter. Returns those that meet no endpoint.
pub(crate) fn apply(endpoints: &mut [Endpoint], overrides: &[EndpointOverride]) -> Vec<Unmet> {
    let mut unmet = Vec::new();
    for over in overrides {
        let method: &http::Method = over.method.as_method();
        let path = over.path.canonical();
        let met = endpoints
            .iter_mut()
            .find(|endpoint| endpoint.descriptor.method == *method && endpoint.descriptor.path.canonical() == path);
        match met {
            Some(endpoint) => apply_one(endpoint, over),
            None => unmet.push(Unmet {
                wanted: format!("{method} {}", over.path),
                nearest: nearest(endpoints, &format!("{method} {path}")),
            }),
        }
    }
    unmet
}

fn apply_one(endpoint: &mut Endpoint, over: &EndpointOverride) {
    let descriptor = Arc::make_mut(&mut endpoint.descriptor);
    if let Some(timeout) = over.timeout {
        descriptor.timeout = Some(timeout.into());
    }
    if let Some(streaming) = over.streaming {
        descriptor.streaming_request = streaming.request();
        descriptor.streaming_response = streaming.response();
    }
    if let Some(claims) = &over.requiring_claims {
        descriptor.requiring_claims.clone_from(claims);
    }
    if let Some(bytes) = over.max_request_bytes {
        descriptor.max_request_bytes = Some(bytes.into());
    }
}

fn nearest(endpoints: &[Endpoint], wanted: &str) -> Option<String> {
    let likeness = |endpoint: &Endpoint| {
        let name = format!("{} {}", endpoint.descriptor.method, endpoint.descriptor.path.canonical());
        strsim::normalized_damerau_levenshtein(&name, wanted)
    };
    let (likeness, endpoint) = endpoints
        .iter()
        .map(|endpoint| (likeness(endpoint), endpoint))
        .max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (likeness > 0.5).then(|| format!("{} {}", endpoint.descriptor.method, endpoint.descriptor.path))
}
