//! What can handle a request: any async function of extractors that returns a response.
//!
//! [`Handler`] is implemented for functions of up to twelve arguments and is not meant to be implemented by hand. It
//! knows extractors and responses; it does not know where a request came from.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::aside;
use crate::extract::{FromRequest, FromRequestParts};
use crate::invocation::Invocation;
use crate::message::{Request, Response};
use crate::response::IntoResponse;

/// A handler's work on one request.
pub type HandlerFuture = Pin<Box<dyn Future<Output = Response> + Send>>;

/// An async function whose arguments are extractors and whose result is a response.
///
/// `M` tells implementations apart and is always inferred; `S` is the service's state.
#[diagnostic::on_unimplemented(
    message = "this function is no endpoint of a service whose state is `{S}`",
    label = "not an endpoint for the state `{S}`",
    note = "every argument but the last implements `FromRequestParts<{S}>`, the last one may implement `FromRequest<{S}>`, and the result implements `IntoResponse`",
    note = "if it takes `State<T>`: give the service that state, `Microservice::new(..).state(..)`, before its endpoints, or implement `FromRef<{S}> for T`"
)]
pub trait Handler<M, S>: Clone + Send + Sync + Sized + 'static {
    /// What the arguments look at.
    #[doc(hidden)]
    const READS: Reads = Reads::Fields;

    /// Takes the arguments out of the request, runs the function, and makes its result a response. What an extractor
    /// refuses is answered by its rejection.
    fn call(self, request: Request, state: Arc<S>) -> HandlerFuture;

    /// The same without the last two: the function with its arguments, to be run elsewhere.
    #[doc(hidden)]
    fn prepare(self, request: Request, state: Arc<S>) -> Preparing;
}

/// A handler with its arguments, not yet begun.
#[doc(hidden)]
pub type Work = Box<dyn FnOnce() -> HandlerFuture + Send>;

/// The arguments of a handler on their way. `Err`: what an extractor refused is answered so.
#[doc(hidden)]
pub type Preparing = Pin<Box<dyn Future<Output = Result<Work, Response>> + Send>>;

/// How much of a request a handler looks at.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reads {
    Nothing,
    /// All but the header fields.
    Line,
    Fields,
}

impl<F, Fut, R, S> Handler<((),), S> for F
where
    F: FnOnce() -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = R> + Send,
    R: IntoResponse,
    S: Send + Sync + 'static,
{
    const READS: Reads = Reads::Nothing;

    fn call(self, _request: Request, _state: Arc<S>) -> HandlerFuture {
        Box::pin(async move { self().await.into_response() })
    }

    fn prepare(self, request: Request, state: Arc<S>) -> Preparing {
        let work: Work = Box::new(move || self.call(request, state));
        Box::pin(std::future::ready(Ok(work)))
    }
}

/// Takes the arguments out of a request, in a box.
macro_rules! taking {
    ([$($part:ident),*], $last:ident, $request:ident, $state:ident) => {
        Box::pin(async move {
            let (mut parts, body) = $request.into_parts();
            $(
                let $part = match $part::from_request_parts(&mut parts, &$state).await {
                    Ok(value) => value,
                    Err(rejection) => return Err(rejection.into_response()),
                };
            )*
            let request = Request::from_parts(parts, body);
            match $last::from_request(request, &$state).await {
                Ok($last) => Ok(($($part,)* $last,)),
                Err(rejection) => Err(rejection.into_response()),
            }
        })
    };
}

macro_rules! impl_handler {
    ([$($part:ident),*], $last:ident) => {
        #[allow(non_snake_case, unused_mut, reason = "the arguments are named by their types")]
        impl<F, Fut, R, S, M, $($part,)* $last> Handler<(M, $($part,)* $last,), S> for F
        where
            F: FnOnce($($part,)* $last) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = R> + Send,
            R: IntoResponse,
            S: Send + Sync + 'static,
            $($part: FromRequestParts<S> + Send + 'static,)*
            $last: FromRequest<S, M> + Send + 'static,
        {
            const READS: Reads = if $last::FIELDS $(|| $part::FIELDS)* { Reads::Fields } else { Reads::Line };

            fn call(self, request: Request, state: Arc<S>) -> HandlerFuture {
                // In a box of its own, so that a handler that waits does not hold the room that its request took.
                let taking = taking!([$($part),*], $last, request, state);
                Box::pin(async move {
                    match taking.await {
                        Ok(($($part,)* $last,)) => self($($part,)* $last).await.into_response(),
                        Err(rejection) => rejection,
                    }
                })
            }

            fn prepare(self, request: Request, state: Arc<S>) -> Preparing {
                let taking = taking!([$($part),*], $last, request, state);
                Box::pin(async move {
                    let ($($part,)* $last,) = taking.await?;
                    let work: Work = Box::new(move || {
                        Box::pin(async move { self($($part,)* $last).await.into_response() })
                    });
                    Ok(work)
                })
            }
        }
    };
}

impl_handler!([], A1);
impl_handler!([A1], A2);
impl_handler!([A1, A2], A3);
impl_handler!([A1, A2, A3], A4);
impl_handler!([A1, A2, A3, A4], A5);
impl_handler!([A1, A2, A3, A4, A5], A6);
impl_handler!([A1, A2, A3, A4, A5, A6], A7);
impl_handler!([A1, A2, A3, A4, A5, A6, A7], A8);
impl_handler!([A1, A2, A3, A4, A5, A6, A7, A8], A9);
impl_handler!([A1, A2, A3, A4, A5, A6, A7, A8, A9], A10);
impl_handler!([A1, A2, A3, A4, A5, A6, A7, A8, A9, A10], A11);
impl_handler!([A1, A2, A3, A4, A5, A6, A7, A8, A9, A10, A11], A12);

/// A handler without its types.
#[derive(Clone)]
pub(crate) struct AnyHandler<S> {
    reads: Reads,
    call: Arc<dyn Call<S>>,
    prepare: Arc<dyn Prepare<S>>,
}

/// How a handler is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Where its request arrives.
    Ordinary,
    /// On a thread of its own.
    Blocking {
        /// It is begun though nobody waits for its answer.
        outlives: bool,
    },
}

impl<S: Send + Sync + 'static> AnyHandler<S> {
    pub(crate) fn new<M: 'static, H: Handler<M, S>>(handler: H) -> Self {
        let other = handler.clone();
        Self {
            reads: H::READS,
            call: Arc::new(move |request, state| handler.clone().call(request, state)),
            prepare: Arc::new(move |request, state| other.clone().prepare(request, state)),
        }
    }

    /// The handler with its state: what is left is a function of the request.
    pub(crate) fn bind(self, state: Arc<S>, manner: Manner) -> BoundHandler {
        let Self { reads, call, prepare } = self;
        let Manner::Blocking { outlives } = manner else {
            return BoundHandler { reads, call: Arc::new(move |request| call(request, Arc::clone(&state))) };
        };
        let call = move |request: Request| -> HandlerFuture {
            let context = request.extensions().get::<Invocation>().map(|invocation| &invocation.context);
            let unwanted = context.filter(|_| !outlives).map(|context| context.cancellation().clone());
            let preparing = prepare(request, Arc::clone(&state));
            Box::pin(async move {
                match preparing.await {
                    Ok(work) => aside::run(work, unwanted).await,
                    Err(rejection) => rejection,
                }
            })
        };
        // Its context, and so whether anybody waits for it, comes with the request.
        BoundHandler { reads: reads.max(Reads::Line), call: Arc::new(call) }
    }
}

impl<S> fmt::Debug for AnyHandler<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyHandler")
    }
}

trait Call<S>: Fn(Request, Arc<S>) -> HandlerFuture + Send + Sync {}
impl<S, F: Fn(Request, Arc<S>) -> HandlerFuture + Send + Sync> Call<S> for F {}

trait Prepare<S>: Fn(Request, Arc<S>) -> Preparing + Send + Sync {}
impl<S, F: Fn(Request, Arc<S>) -> Preparing + Send + Sync> Prepare<S> for F {}

/// A handler with its state.
#[derive(Clone)]
pub(crate) struct BoundHandler {
    reads: Reads,
    call: Arc<dyn Fn(Request) -> HandlerFuture + Send + Sync>,
}

impl BoundHandler {
    pub(crate) fn call(&self, request: Request) -> HandlerFuture {
        (self.call)(request)
    }

    /// How much of a request is to be made for it.
    pub(crate) const fn reads(&self) -> Reads {
        self.reads
    }
}

impl fmt::Debug for BoundHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoundHandler")
    }
}
