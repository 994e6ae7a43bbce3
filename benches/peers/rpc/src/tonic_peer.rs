//! gRPC with tonic: a unary method with one `bytes` field each way. What `tonic-build` would generate is written by
//! hand, so that no protobuf compiler is needed.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::{Result, anyhow};
use bytes::Bytes;
use http::uri::PathAndQuery;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::server::{NamedService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower_service::Service;

use crate::load::Load;

#[derive(Clone, PartialEq, prost::Message)]
struct Payload {
    #[prost(bytes = "bytes", tag = "1")]
    octets: Bytes,
}

const METHOD: &str = "/bench.Echo/Echo";

#[derive(Clone, Copy)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Payload, Payload>::default());
            Ok(grpc.unary(Method, request).await)
        })
    }
}

struct Method;

impl UnaryService<Payload> for Method {
    type Response = Payload;
    type Future = Ready<Result<Response<Payload>, Status>>;

    fn call(&mut self, request: Request<Payload>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

pub(crate) async fn answer(load: Load, listener: std::net::TcpListener) -> Result<()> {
    let incoming = TcpIncoming::from(TcpListener::from_std(listener)?).with_nodelay(Some(true));
    let server = Server::builder().max_concurrent_streams(load.in_flight * 2).add_service(Echo);
    Ok(server.serve_with_incoming(incoming).await?)
}

pub(crate) async fn ask(load: Load, to: SocketAddr) -> Result<()> {
    let channel = Endpoint::from_shared(format!("http://{to}"))?.tcp_nodelay(true).connect().await?;
    let client = tonic::client::Grpc::new(channel);
    load.drive(move |octets| {
        let mut client = client.clone();
        async move {
            client.ready().await.map_err(|error| anyhow!("{error}"))?;
            let codec = ProstCodec::<Payload, Payload>::default();
            let path = PathAndQuery::from_static(METHOD);
            Ok(client.unary(Request::new(Payload { octets }), path, codec).await?.into_inner().octets.len())
        }
    })
    .await
}
