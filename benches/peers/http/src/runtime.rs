//! The tokio runtime that service and proxy run on, and the loop that accepts for both.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::num::NonZeroUsize;

use anyhow::{Context as _, Result};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::Builder;

/// One thread: a single-threaded runtime; more: tokio's pool.
pub(crate) fn block_on<F: Future<Output = Result<()>>>(threads: NonZeroUsize, program: F) -> Result<()> {
    let mut builder =
        if threads == NonZeroUsize::MIN { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    if threads > NonZeroUsize::MIN {
        builder.worker_threads(threads.get());
    }
    builder.enable_all().build()?.block_on(program)
}

/// Serves HTTP/1.1 until the process is ended.
pub(crate) async fn serve<H, F, B>(listen: SocketAddr, handler: H) -> Result<()>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let handler = handler.clone();
        tokio::spawn(async move {
            let answer = move |request| {
                let answer = handler(request);
                async { Ok::<_, Infallible>(answer.await) }
            };
            // A client that leaves in the middle is its own affair.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .await;
        });
    }
}
