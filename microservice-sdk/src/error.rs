//! Errors as clients see them: problem details (RFC 9457) with a stable code.
//!
//! What is the client's fault is told to the client; what is ours is logged and told to nobody. Nothing here knows the
//! codes of a service: those are its own, by `#[derive(EndpointError)]` or [`Problem::new`].

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use router_common::problem::{Document, MEDIA_TYPE, ProblemCode, STANDARD_MEMBERS, retry_after_seconds};
use router_link::BodyError;
use serde_json::{Map, Value};

use crate::bytes::Bytes;
use crate::message::Response;

/// An error type of a service's endpoints. Derive it: `#[derive(EndpointError)]`.
pub trait EndpointError: Error {
    /// What the client is told.
    fn problem(&self) -> Problem;
}

/// One answer of `application/problem+json` (RFC 9457): a status, a stable code, and what the client may know.
///
/// Its document has the shape of the gateway's own (SPEC 12): `type` is `urn:stella:problem:` and the code, and
/// `request_id` is the request's `x-request-id`.
///
/// ```
/// use microservice_sdk::{Problem, http::StatusCode};
///
/// let problem = Problem::new(StatusCode::NOT_FOUND, "order_not_found").detail("There is no order 7.").with("order", 7);
/// ```
#[derive(Debug, Clone)]
pub struct Problem(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    status: StatusCode,
    code: Cow<'static, str>,
    title: Option<Cow<'static, str>>,
    detail: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    members: Map<String, Value>,
}

impl Problem {
    /// A problem with the status's own phrase as its title.
    #[must_use]
    pub fn new(status: StatusCode, code: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            status,
            code: code.into(),
            title: None,
            detail: None,
            retry_after: None,
            members: Map::new(),
        }))
    }

    /// Replaces the title: the same for every occurrence of the code.
    #[must_use]
    pub fn title(mut self, title: impl Into<Cow<'static, str>>) -> Self {
        self.0.title = Some(title.into());
        self
    }

    /// What was wrong this time and what to do, written for the client.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Sent as `Retry-After`, rounded up to whole seconds.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// A member of the service's own. The standard ones, `code` and `request_id` cannot be replaced.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.0.members.insert(name.into(), value.into());
        self
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// The detail, if there is one.
    #[must_use]
    pub fn detail_text(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// 500 `internal_error`, which says nothing: what happened is for the log.
    #[must_use]
    pub fn internal() -> Self {
        Self::from(ProblemCode::InternalError)
    }

    /// 500 for what only a mistake in the service's code can bring about.
    pub(crate) fn misuse(what: &'static str) -> Self {
        tracing::error!("{what}");
        Self::internal()
    }
}

impl From<ProblemCode> for Problem {
    fn from(code: ProblemCode) -> Self {
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(status, code.as_str()).title(code.title())
    }
}

impl From<router_common::problem::Problem> for Problem {
    fn from(problem: router_common::problem::Problem) -> Self {
        let mut own = Self::from(problem.code);
        own.0.detail = problem.detail;
        own.0.retry_after = problem.retry_after;
        own
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0.status.as_u16(), self.0.code)?;
        match &self.0.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl Error for Problem {}

impl EndpointError for Problem {
    fn problem(&self) -> Problem {
        self.clone()
    }
}

impl Problem {
    /// The problem as its client gets it, but for the request's id: see [`name_request`].
    pub(crate) fn render(mut self) -> Response {
        self.0.members.retain(|name, _| !STANDARD_MEMBERS.contains(&name.as_str()));
        let document = self.document(self.0.status, None);
        let mut response = Response::new(document.clone().into());
        *response.status_mut() = self.0.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, const { HeaderValue::from_static(MEDIA_TYPE) });
        if let Some(after) = self.0.retry_after {
            headers.insert(header::RETRY_AFTER, retry_after_seconds(after).into());
        }
        response.extensions_mut().insert(Rendered { problem: self, document });
        response
    }

    /// The document, in the shape of the gateway's own.
    fn document(&self, status: StatusCode, request_id: Option<&str>) -> Bytes {
        let inner = &*self.0;
        let title = inner.title.as_deref().or_else(|| status.canonical_reason()).unwrap_or("Error");
        let document = Document::new(&inner.code, title, status.as_u16(), &inner.members)
            .detail(inner.detail.as_deref())
            .request_id(request_id);
        // Names are strings and values are JSON already, so this cannot fail.
        serde_json::to_vec(&document).map(Bytes::from).unwrap_or_default()
    }
}

/// Stays with the response of a problem, because a problem is rendered before it is known which request it answers.
#[derive(Debug, Clone)]
struct Rendered {
    problem: Problem,
    document: Bytes,
}

/// Says in the document of a problem which request it answers. Any other response, and a document that the service has
/// replaced since, stay as they are.
pub(crate) fn name_request<'a>(response: &mut Response, request_id: impl FnOnce() -> Option<&'a str>) {
    if response.extensions().is_empty() {
        return;
    }
    let Some(Rendered { problem, document }) = response.extensions_mut().remove::<Rendered>() else { return };
    let (status, request_id) = (response.status(), request_id());
    if request_id.is_none() && status == problem.status() {
        return;
    }
    let is_untouched = |body: Bytes| body.as_ptr() == document.as_ptr() && body.len() == document.len();
    if !response.body().whole().is_some_and(is_untouched) {
        return;
    }
    let document = problem.document(status, request_id);
    if let Some(length) = response.headers_mut().get_mut(header::CONTENT_LENGTH) {
        *length = document.len().into();
    }
    *response.body_mut() = document.into();
}

/// The response of an endpoint's error. From 500 on it is our fault, so the whole chain of causes is logged.
pub(crate) fn respond(error: &(impl EndpointError + ?Sized)) -> Response {
    let problem = error.problem();
    if problem.status().is_server_error() {
        if nobody_waits(error.source()) {
            tracing::debug!(code = problem.code(), error = %Chain(error), "{NOBODY_WAITS}");
        } else {
            tracing::error!(code = problem.code(), error = %Chain(error), "an endpoint failed");
        }
    }
    problem.render()
}

/// Any error that is nobody's business but ours: 500 `internal_error` to the client, the chain of causes to the log.
///
/// As an endpoint's error type it takes every standard error by `?`.
#[derive(Debug)]
pub struct Internal(Box<dyn Error + Send + Sync>);

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Internal {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl Internal {
    /// Logs what happened, and tells the client nothing of it.
    pub(crate) fn render(self) -> Response {
        if nobody_waits(Some(&*self.0)) {
            tracing::debug!(error = %Chain(&*self.0), "{NOBODY_WAITS}");
        } else {
            tracing::error!(error = %Chain(&*self.0), "an endpoint failed");
        }
        Problem::internal().render()
    }
}

const NOBODY_WAITS: &str = "an endpoint ended with its request";

/// Whether an endpoint failed because its request was cancelled from the other side: a client that leaves in the middle
/// of its upload is no failure of ours, and must not fill our log.
fn nobody_waits(mut cause: Option<&(dyn Error + 'static)>) -> bool {
    while let Some(error) = cause {
        if let Some(BodyError::Cancelled { .. }) = error.downcast_ref() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// An error with its causes, on one line. A cause that the error before it has told already is not told twice.
pub(crate) struct Chain<'a, E: ?Sized>(pub(crate) &'a E);

impl<E: Error + ?Sized> fmt::Display for Chain<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = self.0.to_string();
        f.write_str(&told)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !told.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            told = text;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use router_common::frame::Reason;

    #[derive(Debug, thiserror::Error)]
    enum Layered {
        #[error("connecting to x: {0}")]
        Told(#[source] std::io::Error),
        #[error("the store is down")]
        Untold(#[source] Box<Self>),
    }

    #[test]
    fn a_cancelled_body_is_nobodys_failure_however_deep_it_lies() {
        let cancelled = || BodyError::Cancelled { reason: Reason::ClientDisconnected, text: String::new() };
        assert!(nobody_waits(Some(&*Internal::from(cancelled()).0)));
        let deep = Internal::from(std::io::Error::other(Upload(cancelled())));
        assert!(nobody_waits(Some(&*deep.0)));
        assert!(!nobody_waits(Some(&*Internal::from(BodyError::Lost).0)));
        assert!(!nobody_waits(Some(&*Internal::from(std::io::Error::other("disk")).0)));
    }

    #[derive(Debug, thiserror::Error)]
    #[error("the upload failed")]
    struct Upload(#[source] BodyError);

    #[test]
    fn a_chain_tells_each_cause_once() {
        let told = || Layered::Told(std::io::Error::other("refused"));
        assert_eq!(Chain(&told()).to_string(), "connecting to x: refused");
        let untold = Layered::Untold(Box::new(told()));
        assert_eq!(Chain(&untold).to_string(), "the store is down: connecting to x: refused");
    }
}
