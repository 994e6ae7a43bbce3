//! What a request may hold, and what is counted: 429, 503, one-way endpoints, retries of what nobody saw (SPEC 4, 5, 6).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{assert_problem, exchange, status};
use crate::http2;
use crate::stub::{Answers, Handler, Plan, gateway, gateway_in_memory, handler};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use router_common::endpoint::ClaimRequirement;
use router_common::frame::Reason;
use router_gateway::Gateway;
use router_link::Body;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::yield_now;

/// Reads nothing before it may.
fn reads_when_told(go: &Arc<Semaphore>) -> Handler {
    let go = Arc::clone(go);
    handler(move |request: Request<Body>| {
        let go = Arc::clone(&go);
        async move {
            go.acquire().await.ok()?.forget();
            let length = request.into_body().collect().await.ok()?.to_bytes().len();
            Some(Response::new(Body::from(length.to_string())))
        }
    })
}

async fn holds(gateway: &Gateway, bytes: u64) {
    while gateway.inflight_bytes() != bytes {
        yield_now().await;
    }
}

fn post(length: usize) -> Vec<u8> {
    let mut request =
        format!("POST /in HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    request.resize(request.len() + length, b'x');
    request
}

#[tokio::test]
async fn a_connection_that_holds_too_much_gets_429() {
    let change = |config: &mut router_config::RouterConfig<()>| {
        config.limits.max_request_bytes_per_connection = "16KiB".parse().unwrap();
    };
    let gateway = gateway(change).await;
    let go = Arc::new(Semaphore::new(0));
    let _stub = Plan::new(&[("POST", "/in")]).join(&gateway, reads_when_told(&go)).await;

    // Within one request: the body goes over the limit while nobody reads it.
    let answer = exchange(gateway.http_addr().unwrap(), &post(40_000)).await;
    assert_problem(&answer, "429", "connection_bytes_exceeded");
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    holds(&gateway, 0).await;

    // Beside another one of the same connection, which has filled it to the brim.
    let client = http2::connect(&gateway).await;
    let mut one = client.clone();
    let first = tokio::spawn(async move { one.send_request(http2::request("POST", "/in", vec![0; 16_384])).await });
    holds(&gateway, 16_384).await;
    let mut other = client.clone();
    let response = other.send_request(http2::request("POST", "/in", vec![0; 10])).await.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "1");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("connection_bytes_exceeded"));
    go.add_permits(10);
    let response = first.await.unwrap().unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "16384");
    holds(&gateway, 0).await;
}

#[tokio::test]
async fn a_node_that_holds_too_much_sends_further_bodies_away() {
    let change = |config: &mut router_config::RouterConfig<()>| {
        config.limits.max_aggregate_inflight_bytes = "16KiB".parse().unwrap();
    };
    let (gateway, clients) = gateway_in_memory(change).await;
    let go = Arc::new(Semaphore::new(0));
    let plan = Plan::new(&[("POST", "/in"), ("GET", "/in")]);
    let _stub = plan.join(&gateway, reads_when_told(&go)).await;
    let filling = clients.clone();
    let first = tokio::spawn(async move { filling.exchange(&post(16_384)).await });
    holds(&gateway, 16_384).await;

    let answer = clients.exchange(&post(10)).await;
    assert_problem(&answer, "503", "node_overloaded");
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    // What brings no body costs none.
    go.add_permits(1);
    assert_eq!(status(&first.await.unwrap()), "200");
    holds(&gateway, 0).await;

    // Over the limit while it is read.
    let answer = clients.exchange(&post(40_000)).await;
    assert_problem(&answer, "503", "node_overloaded");
    holds(&gateway, 0).await;
    go.add_permits(2);
    assert_eq!(status(&clients.exchange(&post(10)).await), "200");
    assert_eq!(status(&clients.get("/in", "").await), "200");
    holds(&gateway, 0).await;
}

fn one_way() -> Plan {
    let mut plan = Plan { lease: 1, ..Plan::new(&[("POST", "/event")]) };
    plan.endpoints[0].one_way = true;
    plan
}

fn slots_used(gateway: &Gateway) -> u32 {
    let table = gateway.registry().snapshot();
    table.services()[0].versions[0].candidates[0].instance.lease().in_flight()
}

#[tokio::test]
async fn a_one_way_endpoint_answers_on_admission_and_keeps_its_slot_until_the_handler_has_ended() {
    let (gateway, clients) = gateway_in_memory(|_| {}).await;
    let go = Arc::new(Notify::new());
    let goes = Arc::clone(&go);
    let works_on = handler(move |_| {
        let goes = Arc::clone(&goes);
        async move {
            let end = futures_util::stream::once(async move {
                goes.notified().await;
                Ok::<_, std::convert::Infallible>(Frame::data(Bytes::new()))
            });
            let body = Body::stream(http_body_util::StreamBody::new(end));
            Some(Response::builder().status(202).body(body).unwrap())
        }
    });
    let _stub = one_way().join(&gateway, works_on).await;
    let answer = clients.exchange(b"POST /event HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&answer), "202", "{answer}");
    assert!(answer.ends_with("\r\n\r\n") || answer.ends_with("0\r\n\r\n"), "the answer is whole: {answer}");
    assert_eq!(slots_used(&gateway), 1);
    go.notify_one();
    while slots_used(&gateway) != 0 {
        yield_now().await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_does_not_cancel_a_one_way_request() {
    /// Tells how its handler ended.
    struct Ended(Option<oneshot::Sender<&'static str>>);
    impl Drop for Ended {
        fn drop(&mut self) {
            if let Some(tell) = self.0.take() {
                let _ = tell.send("cancelled");
            }
        }
    }
    let (gateway, clients) = gateway_in_memory(|_| {}).await;
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, told) = oneshot::channel();
    let (begins, goes, tell) = (Arc::clone(&begun), Arc::clone(&go), std::sync::Mutex::new(Some(tell)));
    let works = handler(move |_| {
        let (begins, goes) = (Arc::clone(&begins), Arc::clone(&goes));
        let mut ended = Ended(tell.lock().unwrap().take());
        async move {
            begins.notify_one();
            goes.notified().await;
            if let Some(tell) = ended.0.take() {
                let _ = tell.send("finished");
            }
            Some(Response::builder().status(202).body(Body::empty()).unwrap())
        }
    });
    let _stub = one_way().join(&gateway, works).await;
    let mut client = clients.connect().await;
    client.write_all(b"POST /event HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    begun.notified().await;
    drop(client);
    while gateway.in_flight() != 0 {
        yield_now().await;
    }
    // A cancellation would travel on the same link, before this request of another client's does.
    assert_problem(&clients.get("/event", "").await, "405", "method_not_allowed");
    go.notify_one();
    assert_eq!(told.await.unwrap(), "finished");
    while slots_used(&gateway) != 0 {
        yield_now().await;
    }
}

#[tokio::test]
async fn what_nobody_saw_goes_elsewhere_three_times() {
    let (gateway, clients) = gateway_in_memory(|_| {}).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let mut stubs = Vec::new();
    for id in ["a", "b", "c", "d", "e", "f"] {
        let asked = Arc::clone(&asked);
        let answers: Answers = Arc::new(move |_, responder| {
            asked.fetch_add(1, Ordering::SeqCst);
            responder.reject(Reason::Refused);
        });
        stubs.push(Plan { id, ..Plan::new(&[("POST", "/full")]) }.join_as(&gateway, answers).await);
    }
    let answer = clients
        .exchange(b"POST /full HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nabcde")
        .await;
    assert_problem(&answer, "503", "no_capacity");
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    assert_eq!(asked.load(Ordering::SeqCst), 4, "once, and three times again");
    assert_eq!(gateway.inflight_bytes(), 0);
}

#[tokio::test]
async fn required_claims_keep_everybody_out_while_nobody_can_prove_any() {
    let (gateway, clients) = gateway_in_memory(|_| {}).await;
    let mut plan = Plan::new(&[("GET", "/secret"), ("GET", "/open")]);
    plan.endpoints[0].requiring_claims =
        vec![ClaimRequirement { kind: "scope".to_owned(), any_of: vec!["orders:read".to_owned()] }];
    let answers = handler(|_| async { Some(Response::new(Body::from("in"))) });
    let _stub = plan.join(&gateway, answers).await;
    for pretence in ["", "Authorization: Bearer abc\r\n", "X-Stella-Claims: scope=orders:read\r\n"] {
        let answer = clients.get("/secret", pretence).await;
        assert_problem(&answer, "401", "unauthenticated");
        assert!(answer.contains("\r\nwww-authenticate: "), "{answer}");
        assert!(!answer.contains("orders:read"), "what would do is told to those who may: {answer}");
    }
    assert_eq!(status(&clients.get("/open", "").await), "200");
}
