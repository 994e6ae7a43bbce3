//! The attribute, derive and function-like macros of `microservice-sdk`, which documents and re-exports them.
//!
//! Each macro goes parse -> model -> expand and collects its errors in one sink, so that a mistake is told at its own
//! span and several are told at once. Nothing here knows what a request is or how a service runs: what the macros
//! write are descriptions and assertions; the handler is the user's function as it stands.

mod endpoint;
mod endpoints;
mod problem;
mod service;
mod sink;
mod value;
mod version;

use proc_macro::TokenStream;

/// Declares an async function to be an endpoint: `#[endpoint(METHOD, "/path/{parameter}", options..)]`.
///
/// The function stays what it is and can be called and tested directly; [`endpoints!`] collects what to serve. The
/// first line of its doc comment becomes the endpoint's summary.
///
/// | option | meaning |
/// |---|---|
/// | `timeout = "5s"` | time to answer: `ms`, `s`, `m`, `h` |
/// | `idempotent` | may run more than once for one request (`GET` implies nothing) |
/// | `streaming`, `streaming(request)`, `streaming(response)` | bodies that flow while the handler runs |
/// | `one_way` | 202 on admission; a client that leaves does not cancel the work |
/// | `detached` | the handler runs to its end though the request was cancelled |
/// | `blocking` | it computes for long or calls what blocks: it runs on a thread of its own, from which nothing drops it |
/// | `claims(scope = "orders:read", role = ["a", "b"], admin)` | all must hold; a list means one of; a bare name any value |
/// | `max_request_bytes = "16MiB"` | largest request body: bytes, or `KiB`, `MiB`, `GiB` |
/// | `summary = ".."`, `tags = ["..", ..]`, `deprecated` | for documents |
#[proc_macro_attribute]
pub fn endpoint(arguments: TokenStream, item: TokenStream) -> TokenStream {
    endpoint::expand(arguments.into(), item.into()).into()
}

/// Makes the methods with `#[endpoint(..)]` of an impl block the endpoints of its type: `Microservice::service(value)`.
///
/// Such a method takes `&self` and extractors; what it needs beside the request lies in `self`. Other methods stay what
/// they are, and all of them can be called directly.
#[proc_macro_attribute]
pub fn service(arguments: TokenStream, item: TokenStream) -> TokenStream {
    service::expand(arguments.into(), item.into()).into()
}

/// The endpoints to serve, by the names of their functions: `endpoints![get_order, orders::create]`.
#[proc_macro]
pub fn endpoints(list: TokenStream) -> TokenStream {
    endpoints::expand(list.into()).into()
}

/// Maps an error type to problem responses (RFC 9457): `#[problem(404, code = "order_not_found")]` on each variant.
///
/// | in `#[problem(..)]` | meaning |
/// |---|---|
/// | `404` | the status, 400 to 599, first |
/// | `code = "order_not_found"` | the stable code; default: the variant's name in snake case |
/// | `title = ".."` | default: the status's own phrase |
/// | `detail = ".."` | default: the error's `Display` text below 500, nothing (but a log line) from 500 on |
/// | `detail` | the error's `Display` text, from 500 on too |
/// | `retry_after = "5s"` | sent as `Retry-After` |
/// | `transparent` | alone: the variant's only field decides |
///
/// On the enum itself it is the default of variants without their own.
#[proc_macro_derive(EndpointError, attributes(problem))]
pub fn endpoint_error(item: TokenStream) -> TokenStream {
    problem::expand(item.into()).into()
}

/// The version of the crate that is being compiled (`CARGO_PKG_VERSION`), or of a literal, checked at compile time.
#[proc_macro]
pub fn version(input: TokenStream) -> TokenStream {
    version::expand(input.into()).into()
}
