//! The W3C trace context: passed on and never interpreted (SPEC 12).

use http::{HeaderMap, HeaderName, HeaderValue};

/// The W3C trace context of the request: what belongs into the requests that follow from it, and into logs.
#[derive(Debug, Clone, Default)]
pub struct TraceContext {
    parent: Option<HeaderValue>,
    state: Option<HeaderValue>,
}

impl TraceContext {
    const PARENT: HeaderName = HeaderName::from_static("traceparent");
    const STATE: HeaderName = HeaderName::from_static("tracestate");

    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self { parent: headers.get(Self::PARENT).cloned(), state: headers.get(Self::STATE).cloned() }
    }

    /// `traceparent`, if the request has one.
    #[must_use]
    pub fn parent(&self) -> Option<&str> {
        self.parent.as_ref()?.to_str().ok()
    }

    /// `tracestate`, if the request has one.
    #[must_use]
    pub fn state(&self) -> Option<&str> {
        self.state.as_ref()?.to_str().ok()
    }

    /// Puts it into a request that has none of its own.
    pub fn pass_on(&self, headers: &mut HeaderMap) {
        if headers.contains_key(Self::PARENT) {
            return;
        }
        if let Some(parent) = &self.parent {
            headers.insert(Self::PARENT, parent.clone());
            if let Some(state) = &self.state {
                headers.insert(Self::STATE, state.clone());
            }
        }
    }
}
