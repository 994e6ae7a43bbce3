//! Extractors: the arguments of a handler, taken out of the request by their types.
//!
//! Arguments that need only the head implement [`FromRequestParts`] and stand in any order; one that reads the body
//! implements [`FromRequest`] and stands last. What cannot be extracted is answered with a precise problem (400, 413,
//! 415 or 422) before the handler runs. Nothing here knows links or gateways.

mod body;
mod head;
mod json;
mod path;
mod query;
mod state;
mod tunnel;
mod values;
#[cfg(feature = "websocket")]
pub mod websocket;

use std::future::Future;

pub use http::request::Parts;

pub use self::head::{Claims, Deadline, RequestInfo};
pub use self::json::Json;
pub use self::path::Path;
pub use self::query::Query;
pub use self::state::{AnyState, FromRef, State};
pub use self::tunnel::{Tunnel, TunnelStream};
#[cfg(feature = "websocket")]
pub use self::websocket::{WebSocket, WebSocketUpgrade};
use crate::message::Request;
use crate::response::IntoResponse;
pub use crate::trace::TraceContext;

/// An extractor that needs only the head of the request; it may stand anywhere in the arguments.
///
/// Implement it for every state, `impl<S: Send + Sync> FromRequestParts<S> for X`, with `Db: FromRef<S>` where a part of
/// the state is needed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be taken from the head of a request",
    label = "not an extractor for this place",
    note = "extractors of the head: `Path`, `Query`, `State`, `HeaderMap`, `Method`, `Uri`, `Deadline`, `Cancellation`, `Claims`, `TraceContext`, `Client`, `RequestInfo`, or your own `impl<S: Send + Sync> FromRequestParts<S> for ..`",
    note = "what reads the body (`Json`, `Bytes`, `String`, `Body`, `Request`, `Tunnel`, `WebSocketUpgrade`) must be the last argument"
)]
pub trait FromRequestParts<S>: Sized {
    /// What is answered when it cannot be extracted.
    type Rejection: IntoResponse;

    /// Whether it looks at header fields. Where no argument of a handler does, they are not read at all, which is most of
    /// what reading a request costs: a request that came from a gateway has then none.
    const FIELDS: bool = true;

    /// Takes the value out of the head.
    ///
    /// # Errors
    /// The response to give instead of running the handler.
    fn from_request_parts(parts: &mut Parts, state: &S) -> impl Future<Output = Result<Self, Self::Rejection>> + Send;
}

/// An extractor that may read the body; it stands last. Everything that implements [`FromRequestParts`] is one too; the
/// type `M` only tells these two cases apart.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be taken from a request",
    label = "not an extractor",
    note = "extractors: `Json`, `Bytes`, `String`, `Body`, `Request`, `Tunnel`, `WebSocketUpgrade` (last argument); `Path`, `Query`, `State`, `HeaderMap`, `Method`, `Uri`, `Deadline`, `Cancellation`, `Claims`, `TraceContext`, `Client`, `RequestInfo` (anywhere)",
    note = "`Json<T>` and `Query<T>` need `T: serde::de::DeserializeOwned`; an extractor of your own is `impl<S: Send + Sync> FromRequest<S> for ..`"
)]
pub trait FromRequest<S, M = private::ViaRequest>: Sized {
    /// What is answered when it cannot be extracted.
    type Rejection: IntoResponse;

    /// Whether it looks at header fields: see [`FromRequestParts::FIELDS`].
    const FIELDS: bool = true;

    /// Takes the value out of the request.
    ///
    /// # Errors
    /// The response to give instead of running the handler.
    fn from_request(request: Request, state: &S) -> impl Future<Output = Result<Self, Self::Rejection>> + Send;
}

impl<S, T> FromRequest<S, private::ViaParts> for T
where
    S: Send + Sync,
    T: FromRequestParts<S>,
{
    type Rejection = T::Rejection;
    const FIELDS: bool = T::FIELDS;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let (mut parts, _) = request.into_parts();
        T::from_request_parts(&mut parts, state).await
    }
}

/// Types that tell implementations apart.
#[doc(hidden)]
pub mod private {
    #[derive(Debug, Clone, Copy)]
    pub enum ViaParts {}
    #[derive(Debug, Clone, Copy)]
    pub enum ViaRequest {}
}
