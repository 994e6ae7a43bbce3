//! Intermediary: what HTTP asks of whoever stands between client and service, in both directions (SPEC 12).

use http::header::EXPECT;
use http::{Method, Request, Response, StatusCode, Version};
use router_common::problem::{Problem, ProblemCode};
use router_link::Body;

use super::Policy;
use super::upgrade::{self, Asked};
use crate::edge::{Arrival, Explained};
use crate::http_semantics::{self, MaxForwards, TrustedProxies, Via, X_STELLA_EXPLAIN};
use crate::respond;
use crate::token::AdminToken;

/// What the router itself answers to `OPTIONS *`, and as the last hop of an OPTIONS.
const ROUTER_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Takes off what ends at this hop, says that this hop was passed, and who came.
#[derive(Debug)]
pub struct Intermediary {
    via: Via,
    trusted: TrustedProxies,
    explains_to: Option<AdminToken>,
}

/// What is remembered of a request.
#[derive(Debug)]
pub struct Passed {
    version: Version,
    explain: bool,
    /// The tunnel that it asks for.
    asked: Option<Box<Asked>>,
}

impl Intermediary {
    /// `pseudonym` names this node in `Via`.
    #[must_use]
    pub fn new(pseudonym: &str, trusted: TrustedProxies) -> Self {
        Self { via: Via::new(pseudonym), trusted, explains_to: None }
    }

    /// Has requests explained to whoever sends this token in `x-stella-explain` (SPEC 5). Without one, or to anybody
    /// else, the field is nothing but stripped.
    #[must_use]
    pub(crate) fn explains_to(mut self, token: Option<AdminToken>) -> Self {
        self.explains_to = token;
        self
    }
}

impl Policy for Intermediary {
    type Kept = Passed;

    fn before(&self, request: &mut Request<Body>) -> Result<Passed, Response<Body>> {
        if request.uri().path() == "*" {
            return Err(respond::allowed(ROUTER_METHODS));
        }
        let method = request.method().clone();
        if http_semantics::max_forwards(&method, request.headers_mut()) == MaxForwards::AnswerHere {
            return Err(if method == Method::OPTIONS {
                respond::allowed(ROUTER_METHODS)
            } else {
                let problem = Problem::new(ProblemCode::MethodNotAllowed).detail("This router does not answer TRACE.");
                respond::refusal(problem.allow(ROUTER_METHODS.to_owned()))
            });
        }
        let version = request.version();
        let arrival = request.extensions().get::<Arrival>();
        let sender = arrival.and_then(|arrival| arrival.sender.clone());
        let is_connect = arrival.is_some_and(|arrival| arrival.tunnel.is_some());
        let (mut asked, mut given) = (None, None);
        if http_semantics::ends_here(request.headers()) || is_connect {
            asked = upgrade::asked(request)?;
            given = http_semantics::strip_hop_by_hop(request.headers_mut());
        }
        let headers = request.headers_mut();
        // Met here: the body is read when the request goes on, and that makes the HTTP library say 100.
        headers.remove(EXPECT);
        self.via.append(version, headers);
        let mut explain = false;
        if let Some(sender) = sender {
            sender.set_host(headers);
            let client = http_semantics::forwarded(headers, &sender, &self.trusted);
            if let Some(arrival) = request.extensions_mut().get_mut::<Arrival>() {
                arrival.client = client;
                if let (Some(given), Some(token)) = (given, &self.explains_to) {
                    explain = token.is(given.as_bytes());
                    arrival.explain = explain;
                }
            }
        }
        Ok(Passed { version, explain, asked })
    }

    fn after(&self, passed: Passed, response: &mut Response<Body>) {
        let Passed { version, explain, asked } = passed;
        if response.status().is_informational() {
            // RFC 9110 15.2: interim responses are this hop's own affair; the protocol carries none.
            tracing::warn!(status = %response.status(), "a service answered with an interim response");
            *response = respond::refusal(Problem::new(ProblemCode::ServiceFailed));
        }
        let explained = if explain { response.extensions_mut().remove::<Explained>() } else { None };
        let wanted = upgrade::wanted(response);
        http_semantics::strip_hop_by_hop(response.headers_mut());
        if let Some(wanted) = wanted
            && version == Version::HTTP_11
        {
            upgrade::tell(wanted, response.headers_mut());
        }
        if let Some(asked) = asked {
            upgrade::answer(&asked, response);
        }
        let headers = response.headers_mut();
        if let Some(Explained(line)) = explained {
            headers.insert(X_STELLA_EXPLAIN, line);
        }
        self.via.append(version, headers);
        if matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            // RFC 9110 6.4.1: these end with their head, whatever a service gave.
            *response.body_mut() = Body::empty();
        }
    }
}
