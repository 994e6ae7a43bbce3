//! A reverse proxy as hyper's own parts make it: its server in front, its pooled client behind, nothing between.
//!
//! It drops the hop-by-hop field that matters and adds none; it has no limits, no metrics and no deadlines.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{Either, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::runtime;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    listen: SocketAddr,
    /// Where the requests go.
    #[arg(long)]
    to: SocketAddr,
    /// 1 is a single-threaded runtime.
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let to = Authority::try_from(options.to.to_string())?;
    runtime::block_on(options.threads, async {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(512)
            .pool_idle_timeout(Duration::from_secs(3600))
            .build::<_, Incoming>(connector);
        runtime::serve(options.listen, move |request| forward(client.clone(), to.clone(), request)).await
    })
}

async fn forward(
    client: Client<HttpConnector, Incoming>,
    to: Authority,
    mut request: Request<Incoming>,
) -> Response<Either<Incoming, Empty<Bytes>>> {
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let target = Uri::builder().scheme(Scheme::HTTP).authority(to).path_and_query(path).build();
    let Ok(target) = target else { return status(StatusCode::BAD_REQUEST) };
    *request.uri_mut() = target;
    request.headers_mut().remove(header::CONNECTION);
    match client.request(request).await {
        Ok(mut response) => {
            response.headers_mut().remove(header::CONNECTION);
            response.map(Either::Left)
        }
        Err(_) => status(StatusCode::BAD_GATEWAY),
    }
}

fn status(status: StatusCode) -> Response<Either<Incoming, Empty<Bytes>>> {
    let mut response = Response::new(Either::Right(Empty::new()));
    *response.status_mut() = status;
    response
}
