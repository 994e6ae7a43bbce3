//! Scenarios of what requests and answers carry.

use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use router_common::endpoint::{Claim, EndpointId};
use router_common::frame::Reason;
use router_common::head::{HeadError, Scheme};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::body::{feed, pattern, read};
use super::harness::{Ends, Pair, PairSettings, handler};
use crate::body::Body;
use crate::call::Call;
use crate::context::{Parameters, RequestContext};
use crate::exchange::CallError;

fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).body(body.into()).expect("a request")
}

/// Answers with the request's body, read whole first.
fn collecting() -> PairSettings {
    let service = handler(|request: Request<Body>| async {
        let (bytes, _) = read(request.into_body()).await.expect("a whole body");
        Response::new(bytes.into())
    });
    PairSettings { service, ..PairSettings::default() }
}

pub async fn a_small_request_and_its_answer_are_whole(ends: Ends) {
    let service = handler(|request: Request<Body>| async move {
        assert_eq!(request.body().whole().expect("came in one frame"), "question");
        Response::new("answer".into())
    });
    let pair = Pair::start(ends, PairSettings { service, ..PairSettings::default() }).await;
    let response = pair.call(post("/", "question")).await.expect("a response");
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.body().whole().expect("came in one frame"), "answer");
    pair.quiet().await;
}

pub async fn bodies_of_every_size_class_come_back_exact(ends: Ends) {
    let pair = Pair::start(ends, collecting()).await;
    for size in [0, 1, 16 * 1024, 16 * 1024 + 1, 64 * 1024, 64 * 1024 + 1, 1024 * 1024] {
        let sent = pattern(size, size);
        let whole = pair.call(post("/whole", sent.clone())).await.expect("a response");
        assert!(read(whole.into_body()).await.expect("a body").0 == sent, "{size} bytes, whole");
        let (feed, body) = feed();
        let (pieces, copy) = (sent.clone(), sent.clone());
        let feeding = tokio::spawn(async move {
            for piece in pieces.chunks(10_000) {
                feed.bytes(copy.slice_ref(piece)).await;
            }
        });
        let streamed = pair.call(post("/streamed", body)).await.expect("a response");
        assert!(read(streamed.into_body()).await.expect("a body").0 == sent, "{size} bytes, streamed");
        feeding.await.expect("no panic");
    }
    pair.quiet().await;
}

pub async fn heads_arrive_as_they_were_sent(ends: Ends) {
    let service = handler(|request: Request<Body>| async move {
        assert_eq!(request.method(), Method::from_bytes(b"BREW").expect("a method"));
        assert_eq!(request.uri(), "/pots/%C3%A9?milk=no&milk=yes");
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::IM_A_TEAPOT;
        *response.headers_mut() = request.headers().clone();
        response
    });
    let pair = Pair::start(ends, PairSettings { service, ..PairSettings::default() }).await;
    let mut headers = HeaderMap::new();
    headers.append("accept-additions", HeaderValue::from_static("cream"));
    headers.append("x-bytes", HeaderValue::from_bytes(b"\xff\x80 tab\there").expect("legal"));
    headers.append("accept-additions", HeaderValue::from_static("sugar, \"brown\""));
    headers.append("x-empty", HeaderValue::from_static(""));
    let mut request = Request::builder().method("BREW").uri("/pots/%C3%A9?milk=no&milk=yes");
    *request.headers_mut().expect("no error") = headers.clone();
    let response = pair.call(request.body(Body::empty()).expect("a request")).await.expect("a response");
    assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(response.headers(), &headers);
}

pub async fn the_context_of_a_request_arrives(ends: Ends) {
    let (seen, mut contexts) = mpsc::channel(1);
    let service = handler(move |request: Request<Body>| {
        let seen = seen.clone();
        async move {
            let context = request.extensions().get::<RequestContext>().expect("every request has one").clone();
            seen.send((context, request.uri().to_string())).await.expect("somebody looks");
            Response::new(Body::empty())
        }
    });
    let pair = Pair::start(ends, PairSettings { service, ..PairSettings::default() }).await;
    let now = pair.gateway.handle.environment().now();
    let claim = Claim { kind: "scope".to_owned(), value: "orders:read".to_owned() };
    let call = Call {
        endpoint: EndpointId::new(17),
        deadline: Some(now + Duration::from_secs(60)),
        hops: 3,
        scheme: Scheme::Https,
        parameters: Parameters::new(&[(8, 2)]),
        client: Some("[2001:db8::1]:443".parse().expect("an address")),
        claims: Some([claim.clone()].into()),
        permit: Some(pair.permit()),
        ..Call::default()
    };
    let request = Request::get("/orders/42?x=1").header("host", "shop.example").body(Body::empty());
    pair.gateway.handle.call(request.expect("a request"), call).await.expect("a response");
    let (context, target) = contexts.recv().await.expect("a context");
    assert_eq!(context.endpoint, EndpointId::new(17));
    let left = context.deadline.expect("a deadline").saturating_duration_since(now);
    assert!((59..=121).contains(&left.as_secs()), "{left:?}");
    assert_eq!((context.hops, context.scheme), (3, Scheme::Https));
    assert_eq!(context.authority.as_ref().map(http::uri::Authority::as_str), Some("shop.example"));
    assert_eq!(context.client, Some("[2001:db8::1]:443".parse().expect("an address")));
    assert_eq!(context.claims(), [claim]);
    assert_eq!(context.parameters.values(&target).collect::<Vec<_>>(), ["42"]);
}

pub async fn both_directions_stream_at_once(ends: Ends) {
    let pair = Pair::start(ends, PairSettings::default()).await;
    let (feed, body) = feed();
    let (response, _) = tokio::join!(pair.call(post("/echo", body)), feed.bytes("0"));
    let mut body = response.expect("the head comes while the request goes on").into_body();
    let mut next = async || {
        let frame = body.frame().await.expect("more").expect("no error");
        frame.into_data().expect("bytes")
    };
    assert_eq!(next().await, "0");
    for turn in 1..100 {
        let ping = Bytes::from(turn.to_string());
        assert!(feed.bytes(ping.clone()).await);
        assert_eq!(next().await, ping);
    }
    drop(feed);
    assert!(body.frame().await.is_none());
    pair.quiet().await;
}

pub async fn an_answer_may_come_before_the_request_has_ended(ends: Ends) {
    let service = handler(|_| async { Response::new("enough".into()) });
    let pair = Pair::start(ends, PairSettings { service, ..PairSettings::default() }).await;
    let (feed, body) = feed();
    let (response, _) = tokio::join!(pair.call(post("/", body)), feed.bytes(pattern(0, 100_000)));
    assert_eq!(read(response.expect("a response").into_body()).await.expect("a body").0, "enough");
    // Nobody takes the rest.
    feed.abandoned().await;
    pair.quiet().await;
}

pub async fn trailers_pass_both_ways(ends: Ends) {
    let pair = Pair::start(ends, PairSettings::default()).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    for size in [0, 5, 100_000] {
        let (feed, body) = feed();
        let (sent, copy) = (pattern(1, size), trailers.clone());
        let bytes = sent.clone();
        let feeding = tokio::spawn(async move {
            feed.bytes(bytes).await;
            feed.trailers(copy).await;
        });
        let response = pair.call(post("/echo", body)).await.expect("a response");
        assert_eq!(read(response.into_body()).await.expect("a body"), (sent, Some(trailers.clone())), "{size} bytes");
        feeding.await.expect("no panic");
    }
    pair.quiet().await;
}

pub async fn many_exchanges_interleave_without_mixing(ends: Ends) {
    let sizes: Vec<_> = (0..64).map(|number| ends.most(number * 3_001)).collect();
    let pair = Pair::start(ends, PairSettings::default()).await;
    let mut running = JoinSet::new();
    for (number, size) in sizes.into_iter().enumerate() {
        let sent = pattern(number * 31, size);
        let (feed, body) = feed();
        let exchange = pair.call(post("/echo", body));
        let pieces = sent.clone();
        running.spawn(async move {
            for piece in pieces.chunks(1 + number * 97) {
                feed.bytes(pieces.slice_ref(piece)).await;
            }
        });
        running.spawn(async move {
            let response = exchange.await.expect("a response");
            assert!(read(response.into_body()).await.expect("a body").0 == sent, "exchange {number}");
        });
    }
    while let Some(done) = running.join_next().await {
        done.expect("no panic");
    }
    pair.quiet().await;
}

pub async fn a_reader_that_stops_does_not_stop_others(ends: Ends) {
    const LARGE: usize = 4 * 1024 * 1024;
    let service = handler(|request: Request<Body>| async move {
        let large = request.uri().path() == "/large";
        Response::new(if large { pattern(0, LARGE).into() } else { "small".into() })
    });
    let pair = Pair::start(ends, PairSettings { service, ..PairSettings::default() }).await;
    let stalled = pair.call(post("/large", ())).await.expect("a response");
    for _ in 0..50 {
        let response = pair.call(post("/small", ())).await.expect("a response");
        assert_eq!(read(response.into_body()).await.expect("a body").0, "small");
    }
    assert!(read(stalled.into_body()).await.expect("a body").0 == pattern(0, LARGE));
    pair.quiet().await;
}

pub async fn a_wrong_length_is_never_a_complete_body(ends: Ends) {
    let service = handler(|request: Request<Body>| async move {
        let length = request.uri().path().trim_start_matches('/').to_owned();
        Response::builder().header("content-length", length).body("12345".into()).expect("a response")
    });
    let pair = Pair::start(ends, PairSettings { service, ..PairSettings::default() }).await;
    let response = pair.call(post("/5", ())).await.expect("a response");
    assert_eq!(read(response.into_body()).await.expect("a body").0, "12345");
    for wrong in ["/4", "/6"] {
        let outcome = pair.call(post(wrong, ())).await;
        assert!(matches!(outcome, Err(CallError::Response)), "{wrong}: {outcome:?}");
    }
    let request = Request::post("/5").header("content-length", "9").body("12345".into()).expect("a request");
    match pair.call(request).await {
        Err(CallError::Cancelled { reason, .. }) => assert_eq!(reason, Reason::ProtocolError),
        other => panic!("{other:?}"),
    }
    pair.quiet().await;
}

pub async fn hop_by_hop_fields_are_refused_before_anything_is_sent(ends: Ends) {
    let pair = Pair::start(ends, PairSettings::default()).await;
    let request = Request::get("/").header("connection", "close").body(Body::empty()).expect("a request");
    let refused = pair.call(request).await;
    assert!(matches!(refused, Err(CallError::Head(HeadError::HopByHop(_)))), "{refused:?}");
    pair.quiet().await;
}

pub async fn a_head_that_fits_no_frame_is_refused(ends: Ends) {
    let service = handler(|_| async {
        let name = HeaderName::from_static("x-large");
        Response::builder().header(name, "x".repeat(40_000)).body(Body::empty()).expect("a response")
    });
    let pair = Pair::start(ends, PairSettings { service, ..PairSettings::default() }).await;
    let request = Request::get("/").header("x-large", "x".repeat(40_000)).body(Body::empty()).expect("a request");
    let refused = pair.call(request).await;
    assert!(matches!(refused, Err(CallError::Head(HeadError::TooLarge { .. }))), "{refused:?}");
    match pair.call(post("/", ())).await {
        Err(CallError::Cancelled { reason, .. }) => assert_eq!(reason, Reason::HandlerFailed),
        other => panic!("{other:?}"),
    }
    pair.quiet().await;
}
