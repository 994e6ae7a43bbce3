//! How the HTTP library is set up for one connection: its limits and windows, and who runs its tasks.

use std::future::Future;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;
use tokio_util::task::TaskTracker;

use crate::edge::{EdgeContext, connect};

/// Between two pings to an HTTP/2 client, and until a missing answer ends the connection.
const H2_PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(15));

/// The largest window there is (RFC 9113 6.9.1).
const H2_WINDOW_MAX: u32 = (1 << 31) - 1;
/// Bytes of one request body that an HTTP/2 client may send ahead of its reader.
const H2_STREAM_WINDOW: u32 = 64 * 1024;

pub(super) fn http1_builder(context: &EdgeContext) -> http1::Builder {
    let settings = &context.settings;
    let mut builder = http1::Builder::new();
    // Patience is the byte stream's, which can say 408; the library's own timer cannot.
    builder.timer(TokioTimer::new()).header_read_timeout(None);
    // The byte stream sees whether a client has gone.
    builder.half_close(true);
    builder.max_header_size(settings.max_header_bytes);
    // Any other number than the library's own costs two allocations a request.
    if settings.max_headers != LIBRARY_MAX_HEADERS {
        builder.max_headers(settings.max_headers);
    }
    builder
}

/// The number of fields that the HTTP library has room for on its stack, and its limit unless told otherwise.
const LIBRARY_MAX_HEADERS: usize = 100;

pub(super) fn http2_builder(context: &EdgeContext, tasks: TaskTracker) -> http2::Builder<Spawn> {
    let settings = &context.settings;
    // Room for every body that may wait unread, so that none keeps the others of its connection from getting on: one of
    // them may be what it waits for.
    let connection_window = H2_STREAM_WINDOW.saturating_mul(settings.max_concurrent_streams).min(H2_WINDOW_MAX);
    let mut builder = http2::Builder::new(Spawn(tasks));
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(H2_PING.0)
        .keep_alive_timeout(H2_PING.1)
        .max_concurrent_streams(settings.max_concurrent_streams)
        .enable_connect_protocol()
        .max_header_list_size(u32::try_from(settings.max_header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(connection_window);
    builder
}

/// Runs the library's tasks (one an HTTP/2 stream) under the worker's tracker, so that they are waited for.
#[derive(Clone)]
pub(super) struct Spawn(TaskTracker);

impl<F> hyper::rt::Executor<F> for Spawn
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        // But what sends on a tunnel is the tunnel's.
        if let Some(future) = connect::take_over(future) {
            self.0.spawn(future);
        }
    }
}
