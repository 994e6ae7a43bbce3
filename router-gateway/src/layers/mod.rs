//! The middleware of the stack, one file each, and the one way in which they are tower layers.
//!
//! What all of them do fits one shape: look at the request (and change or refuse it), then look at the response. That
//! is [`Policy`]; [`PolicyLayer`] makes a tower layer of it, without boxing a future.

mod access_log;
mod identify;
mod intermediary;
mod message;
mod upgrade;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use router_link::Body;
use tower::{Layer, Service};

pub use access_log::AccessLog;
pub use identify::Identify;
pub use intermediary::Intermediary;
pub use message::Message;

/// One middleware: something before, something after.
pub trait Policy {
    /// What is remembered from the request for its response.
    type Kept;

    /// Looks at the request before it goes on.
    ///
    /// # Errors
    /// The response that is given instead of going on; `after` does not see it.
    #[allow(clippy::result_large_err, reason = "a refusal is as large as the response that it stands for")]
    fn before(&self, request: &mut Request<Body>) -> Result<Self::Kept, Response<Body>>;

    /// Looks at the response before it goes back.
    fn after(&self, kept: Self::Kept, response: &mut Response<Body>);

    /// This one, and another one within it: as one, so that a request is not handed on for each.
    fn then<P: Policy>(self, inner: P) -> Then<Self, P>
    where
        Self: Sized,
    {
        Then { outer: self, inner }
    }
}

/// Two middlewares, one within the other; see [`Policy::then`].
#[derive(Debug)]
pub struct Then<O, I> {
    outer: O,
    inner: I,
}

impl<O: Policy, I: Policy> Policy for Then<O, I> {
    type Kept = (O::Kept, I::Kept);

    fn before(&self, request: &mut Request<Body>) -> Result<Self::Kept, Response<Body>> {
        let kept = self.outer.before(request)?;
        match self.inner.before(request) {
            Ok(inner) => Ok((kept, inner)),
            Err(mut refusal) => {
                self.outer.after(kept, &mut refusal);
                Err(refusal)
            }
        }
    }

    fn after(&self, (outer, inner): Self::Kept, response: &mut Response<Body>) {
        self.inner.after(inner, response);
        self.outer.after(outer, response);
    }
}

/// Makes a tower layer of a [`Policy`].
#[derive(Debug)]
pub struct PolicyLayer<P>(Arc<P>);

impl<P> PolicyLayer<P> {
    pub fn new(policy: P) -> Self {
        Self(Arc::new(policy))
    }
}

impl<P, S> Layer<S> for PolicyLayer<P> {
    type Service = Governed<P, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Governed { policy: Arc::clone(&self.0), inner }
    }
}

/// A service under a [`Policy`].
#[derive(Debug)]
pub struct Governed<P, S> {
    policy: Arc<P>,
    inner: S,
}

impl<P, S: Clone> Clone for Governed<P, S> {
    fn clone(&self) -> Self {
        Self { policy: Arc::clone(&self.policy), inner: self.inner.clone() }
    }
}

impl<P, S> Service<Request<Body>> for Governed<P, S>
where
    P: Policy,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = GovernedFuture<P, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match self.policy.before(&mut request) {
            Ok(kept) => GovernedFuture::Running {
                inner: self.inner.call(request),
                policy: Arc::clone(&self.policy),
                kept: Some(kept),
            },
            Err(refusal) => GovernedFuture::Refused { response: Some(Box::new(refusal)) },
        }
    }
}

pin_project_lite::pin_project! {
    /// The future of [`Governed`].
    #[project = GovernedProjection]
    #[derive(Debug)]
    pub enum GovernedFuture<P: Policy, F> {
        /// The request went on.
        Running { #[pin] inner: F, policy: Arc<P>, kept: Option<P::Kept> },
        /// It did not.
        Refused { response: Option<Box<Response<Body>>> },
    }
}

impl<P, F> Future for GovernedFuture<P, F>
where
    P: Policy,
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            GovernedProjection::Running { inner, policy, kept } => {
                let Ok(mut response) = ready!(inner.poll(cx));
                if let Some(kept) = kept.take() {
                    policy.after(kept, &mut response);
                }
                Poll::Ready(Ok(response))
            }
            GovernedProjection::Refused { response } => match response.take() {
                Some(response) => Poll::Ready(Ok(*response)),
                None => Poll::Pending,
            },
        }
    }
}
