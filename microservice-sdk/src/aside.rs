//! Aside: handlers of `blocking` endpoints, on threads that nobody else needs (SPEC 4, life).
//!
//! Such a handler may compute for seconds, or call what blocks: it has a thread of tokio's blocking pool to itself, from
//! its beginning to its end. Its arguments are taken beforehand, on the runtime, so that a client that sends slowly holds
//! no thread. Nothing here knows links or endpoints.

use std::future::Future;
use std::panic::resume_unwind;

use router_link::Cancellation;
use tokio::runtime::Handle;

use crate::error::Problem;
use crate::message::Response;

/// Runs it to its end. One that still waits for a thread when nobody wants its answer any more is not begun; from then on
/// nothing can stop it.
pub(crate) async fn run<F: Future<Output = Response>>(
    work: impl FnOnce() -> F + Send + 'static,
    unwanted: Option<Cancellation>,
) -> Response {
    let runtime = Handle::current();
    let ended = tokio::task::spawn_blocking(move || {
        if unwanted.is_some_and(|cancellation| cancellation.is_cancelled()) {
            return None;
        }
        Some(runtime.block_on(work()))
    });
    match ended.await {
        Ok(Some(response)) => response,
        // Nobody reads it.
        Ok(None) => Problem::internal().render(),
        Err(error) => match error.try_into_panic() {
            // A panic is the handler's, and told as one.
            Ok(panic) => resume_unwind(panic),
            // The runtime is shutting down.
            Err(_) => Problem::internal().render(),
        },
    }
}
