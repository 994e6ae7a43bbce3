//! HTTP/2 with prior knowledge, through the whole gateway.

use crate::stub::{Plan, gateway, handler};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use router_gateway::Gateway;
use router_link::Body;
use tokio::net::TcpStream;

pub(crate) type Client = SendRequest<Full<bytes::Bytes>>;

pub(crate) async fn connect(gateway: &Gateway) -> Client {
    let stream = TcpStream::connect(gateway.http_addr().unwrap()).await.unwrap();
    let (client, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) fn request(method: &str, path: &str, body: Vec<u8>) -> Request<Full<bytes::Bytes>> {
    Request::builder().method(method).uri(format!("http://a.example{path}")).body(Full::new(body.into())).unwrap()
}

fn echo() -> crate::stub::Handler {
    handler(|request: Request<Body>| async move {
        let host = request.headers().get("host").cloned();
        let mut response = Response::new(request.into_body());
        if let Some(host) = host {
            response.headers_mut().insert("x-host", host);
        }
        Some(response)
    })
}

#[tokio::test]
async fn many_streams_of_one_connection_are_answered_each_with_its_own() {
    let gateway = gateway(|_| {}).await;
    let _stub = Plan::new(&[("POST", "/echo")]).join(&gateway, echo()).await;
    let client = connect(&gateway).await;
    let asked: Vec<_> = (0..50_u8)
        .map(|number| {
            let mut client = client.clone();
            tokio::spawn(async move {
                let body = vec![number; 1000 * usize::from(number)];
                let response = client.send_request(request("POST", "/echo", body.clone())).await.unwrap();
                assert_eq!(response.status(), 200);
                assert_eq!(response.headers()["x-host"], "a.example");
                assert_eq!(response.headers()["via"], "2.0 gateway");
                assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
            })
        })
        .collect();
    for one in asked {
        one.await.unwrap();
    }
    assert_eq!(gateway.inflight_bytes(), 0);
}

#[tokio::test]
async fn uploads_that_wait_for_a_slot_do_not_keep_the_one_that_has_it_from_ending() {
    let gateway = gateway(|_| {}).await;
    let plan = Plan { lease: 1, ..Plan::new(&[("POST", "/echo")]) };
    let _stub = plan.join(&gateway, echo()).await;
    let client = connect(&gateway).await;
    let asked: Vec<_> = (0..12_u8)
        .map(|number| {
            let mut client = client.clone();
            tokio::spawn(async move {
                let body = vec![number; 200_000];
                let response = client.send_request(request("POST", "/echo", body.clone())).await.unwrap();
                assert_eq!(response.status(), 200);
                assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
            })
        })
        .collect();
    for one in asked {
        one.await.unwrap();
    }
}

#[tokio::test]
async fn refusals_leave_the_connection_as_it_is() {
    let gateway = gateway(|config| config.limits.max_request_bytes_per_call = "64KiB".parse().unwrap()).await;
    let _stub = Plan::new(&[("POST", "/echo")]).join(&gateway, echo()).await;
    let mut client = connect(&gateway).await;
    let table = [
        (request("GET", "/nowhere", Vec::new()), 404, "route_not_found"),
        (request("GET", "/echo", Vec::new()), 405, "method_not_allowed"),
        (request("POST", "/echo", vec![0; 1_000_000]), 413, "payload_too_large"),
        (request("POST", &format!("/{}", "x".repeat(20_000)), Vec::new()), 414, "uri_too_long"),
    ];
    for (request, status, code) in table {
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status(), status, "{code}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&body).contains(code), "{code}");
    }
    let response = client.send_request(request("POST", "/echo", b"still here".to_vec())).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "still here");
}

#[tokio::test]
async fn nothing_follows_the_head_of_an_answer_to_head() {
    let gateway = gateway(|_| {}).await;
    let _stub = Plan::new(&[("POST", "/echo")]).join(&gateway, echo()).await;
    let mut client = connect(&gateway).await;
    for (path, status) in [("/nowhere", 404), ("/echo", 405)] {
        let response = client.send_request(request("HEAD", path, Vec::new())).await.unwrap();
        assert_eq!(response.status(), status);
        assert_ne!(response.headers()["content-length"], "0", "what GET would have");
        let body = response.into_body().collect().await.expect("a stream that is well-formed");
        assert_eq!(body.to_bytes(), "");
    }
}

#[tokio::test]
async fn a_dropped_request_cancels_its_stream_alone() {
    let gateway = gateway(|_| {}).await;
    let (begun, cancelled) =
        (std::sync::Arc::new(tokio::sync::Notify::new()), std::sync::Arc::new(tokio::sync::Notify::new()));
    let (begins, ends) = (begun.clone(), cancelled.clone());
    let hangs = handler(move |request: Request<Body>| {
        let cancellation = request.extensions().get::<router_link::RequestContext>().unwrap().cancellation().clone();
        let ends = ends.clone();
        tokio::spawn(async move {
            cancellation.cancelled().await;
            ends.notify_one();
        });
        begins.notify_one();
        std::future::pending()
    });
    let _stub = Plan::new(&[("GET", "/hang")]).join(&gateway, hangs).await;
    let client = connect(&gateway).await;
    let mut one = client.clone();
    let asking = tokio::spawn(async move { one.send_request(request("GET", "/hang", Vec::new())).await.map(drop) });
    begun.notified().await;
    asking.abort();
    cancelled.notified().await;
    let mut other = client;
    assert_eq!(other.send_request(request("GET", "/nowhere", Vec::new())).await.unwrap().status(), 404);
}
