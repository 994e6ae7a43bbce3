//! Scenarios of links on which a message is one frame, in any order: what fits is whole, and all else is refused by name.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use router_common::endpoint::{EndpointDescriptor, EndpointId};
use router_common::frame::{CloseCode, Reason, RefusedEndpoint};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::body::{feed, pattern, pieces, read};
use super::harness::{Ends, Handler, Pair, PairSettings, handler};
use crate::application::ConnectionEvent;
use crate::body::Body;
use crate::body_error::BodyError;
use crate::call::Call;
use crate::exchange::CallError;

fn post(body: impl Into<Body>) -> Request<Body> {
    Request::post("/").body(body.into()).expect("a request")
}

/// A service that answers with what this makes, and counts how often it is asked.
fn answering(make: impl Fn() -> Response<Body> + Send + Sync + 'static) -> (PairSettings, Arc<Semaphore>) {
    let runs = Arc::new(Semaphore::new(0));
    let counted = Arc::clone(&runs);
    let service = handler(move |_| {
        counted.add_permits(1);
        let response = make();
        async { response }
    });
    (PairSettings { service, ..PairSettings::default() }, runs)
}

/// Feeds a body in pieces, from a task of its own.
fn fed(bytes: Bytes, piece: usize) -> Body {
    let (feed, body) = feed();
    tokio::spawn(async move {
        for piece in bytes.chunks(piece) {
            feed.bytes(bytes.slice_ref(piece)).await;
        }
    });
    body
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("end"))])
}

/// Bytes whole or in pieces, there and back, up to what fits.
pub async fn bodies_that_fit_are_whole_however_they_come(ends: Ends) {
    let most = ends.most(1024 * 1024);
    let pair = Pair::start(ends, PairSettings::default()).await;
    for size in [0, 1, 300, most / 2, most] {
        let sent = pattern(size, size);
        for body in [Body::from(sent.clone()), fed(sent.clone(), 100), fed(sent.clone(), 1)] {
            let response = pair.call(post(body)).await.expect("a response");
            assert_eq!(response.body().whole().as_ref(), Some(&sent), "{size} bytes");
        }
    }
    pair.quiet().await;
}

/// Neither body nor head, whole or in pieces; and what was refused is as it was.
pub async fn a_request_that_does_not_fit_is_refused_before_it_is_sent(ends: Ends) {
    let large = ends.gateway.capabilities().max_frame as usize;
    let (settings, runs) = answering(|| Response::new(Body::empty()));
    let pair = Pair::start(ends, settings).await;
    let sent = pattern(3, large + 500);
    for body in [Body::from(sent.clone()), fed(sent.clone(), 100), fed(sent.clone(), sent.len())] {
        let mut request = post(body);
        let refused = pair.lend(&mut request).await.expect_err("it does not fit");
        assert!(matches!(refused, CallError::TooLarge) && refused.leaves_whole(), "{refused:?}");
        assert!(read(request.into_body()).await.expect("all of it").0 == sent);
    }
    let head = Request::get("/").header("x-large", "x".repeat(large.min(30_000))).body(Body::empty());
    let refused = pair.call(head.expect("a request")).await;
    assert!(matches!(refused, Err(CallError::TooLarge)) || large > 30_000, "{refused:?}");
    pair.quiet().await;
    assert!(runs.available_permits() == 0 || large > 30_000);
}

/// Whoever asked is told that it was the size, and the slot of the lease is free.
pub async fn an_answer_that_does_not_fit_is_told_as_such(ends: Ends) {
    let large = ends.gateway.capabilities().max_frame as usize;
    let makes: [fn(usize) -> Body; 3] =
        [|large| pattern(0, large).into(), |large| fed(pattern(0, large), 100), |_| pieces(10, trailers())];
    let next = std::sync::Mutex::new(makes.into_iter());
    let (settings, runs) = answering(move || {
        let make = next.lock().expect("no panic").next().expect("no more");
        Response::new(make(large))
    });
    let pair = Pair::start(ends, settings).await;
    for _ in makes {
        let answer = pair.call(post("")).await;
        assert!(matches!(answer, Err(CallError::ResponseTooLarge)), "{answer:?}");
    }
    assert_eq!(runs.available_permits(), makes.len());
    pair.quiet().await;
}

pub async fn trailers_and_tunnels_are_refused(ends: Ends) {
    let (settings, runs) = answering(|| Response::new(Body::empty()));
    let pair = Pair::start(ends, settings).await;
    let mut request = post(pieces(10, trailers()));
    let refused = pair.lend(&mut request).await;
    assert!(matches!(refused, Err(CallError::Streams)), "{refused:?}");
    assert_eq!(read(request.into_body()).await.expect("all of it"), (pattern(0, 10), Some(trailers())));
    let call = Call { permit: Some(pair.permit()), tunnel: Some("any/1".into()), ..Call::default() };
    let refused = pair.gateway.handle.call(post(""), call).await;
    assert!(matches!(refused, Err(CallError::Streams)), "{refused:?}");
    assert_eq!(runs.available_permits(), 0);
    // Nothing is no trailers.
    assert!(pair.call(post(pieces(10, HeaderMap::new()))).await.is_ok());
    pair.quiet().await;
}

/// One-way: admitted at once, and the slot of the lease is taken until the handler has ended.
pub async fn the_head_of_a_one_way_answer_does_not_wait_for_its_end(ends: Ends) {
    let (feed, body) = feed();
    let body = std::sync::Mutex::new(Some(body));
    let service: Handler = Arc::new(move |_, responder| {
        let mut response = Response::new(body.lock().expect("no panic").take().expect("one request"));
        *response.status_mut() = StatusCode::ACCEPTED;
        tokio::spawn(responder.respond(response).head_first());
    });
    let pair = Pair::start(ends, PairSettings { service, lease: 1, ..PairSettings::default() }).await;
    let response = pair.call(post("")).await.expect("a response");
    assert_eq!((response.status(), pair.lease.in_flight()), (StatusCode::ACCEPTED, 1));
    drop(feed);
    assert_eq!(read(response.into_body()).await.expect("an end").0, "");
    pair.quiet().await;
}

/// A body that does not end is not waited for longer than for the answer.
pub async fn what_is_gathered_is_gathered_until_the_deadline(ends: Ends) {
    let (give, mut given) = tokio::sync::mpsc::channel(1);
    let service = handler(move |_| {
        let (feed, body) = feed();
        give.try_send(feed).expect("one request");
        async { Response::new(body) }
    });
    let pair = Pair::start(ends, PairSettings { service, ..PairSettings::default() }).await;
    let late = || {
        let deadline = pair.gateway.handle.environment().now() + Duration::from_millis(40);
        Call { permit: Some(pair.permit()), deadline: Some(deadline), ..Call::default() }
    };
    let (endless, body) = feed();
    let outcome = pair.gateway.handle.call(post(body), late()).await;
    assert!(matches!(outcome, Err(CallError::Expired)), "{outcome:?}");
    endless.abandoned().await;
    assert!(given.try_recv().is_err(), "it was sent");
    let outcome = pair.gateway.handle.call(post(""), late()).await;
    assert!(matches!(outcome, Err(CallError::Expired)), "{outcome:?}");
    given.recv().await.expect("it was sent").abandoned().await;
    pair.quiet().await;
}

pub async fn a_body_that_fails_is_never_sent(ends: Ends) {
    let service = handler(|_| async {
        let (feed, body) = feed();
        tokio::spawn(async move {
            feed.bytes("half").await;
            feed.fail(BodyError::Source("the disk is gone".into())).await;
        });
        Response::new(body)
    });
    let pair = Pair::start(ends, PairSettings { service, ..PairSettings::default() }).await;
    let (feed, body) = feed();
    let (outcome, ()) = tokio::join!(pair.call(post(body)), async {
        feed.bytes("half").await;
        feed.fail(BodyError::payload_limit()).await;
    });
    assert!(matches!(outcome, Err(CallError::Body(_))), "{outcome:?}");
    match pair.call(post("")).await {
        Err(CallError::Cancelled { reason, .. }) => assert_eq!(reason, Reason::HandlerFailed),
        other => panic!("{other:?}"),
    }
    pair.quiet().await;
}

/// CANCEL overtakes REQUEST, and answers overtake both.
pub async fn exchanges_that_are_dropped_at_any_time_leave_nothing_behind(ends: Ends) {
    let pair = Pair::start(ends, PairSettings { lease: 8, ..PairSettings::default() }).await;
    for round in 0..300_usize {
        let permit = loop {
            match pair.lease.try_acquire() {
                Some(permit) => break permit,
                None => tokio::task::yield_now().await,
            }
        };
        let call = Call { permit: Some(permit), ..Call::default() };
        let mut exchange = Box::pin(pair.gateway.handle.call(post(pattern(round, round)), call));
        for _ in 0..round % 9 {
            tokio::select! {
                biased;
                response = &mut exchange => {
                    assert_eq!(response.expect("a response").body().whole(), Some(pattern(round, round)));
                    break;
                }
                () = tokio::task::yield_now() => {}
            }
        }
    }
    pair.quiet().await;
    assert!(pair.call(post("after")).await.is_ok());
    pair.quiet().await;
}

/// In hundreds of parts, without its schemas; and so is its answer.
pub async fn a_large_endpoint_set_and_its_answer_arrive_whole(ends: Ends) {
    let mut pair = Pair::start(ends, PairSettings::default()).await;
    let endpoint = |id| {
        let path = format!("/a/path/of/some/length/{id}/{{parameter}}").parse().expect("a template");
        EndpointDescriptor::new(EndpointId::new(id).expect("not 0"), http::Method::GET, path)
    };
    let plain: Vec<_> = (1..=2000).map(endpoint).collect();
    let mut offered = plain.clone();
    for endpoint in &mut offered {
        endpoint.request_schema = Some("{}".repeat(40_000));
    }
    pair.service.handle.register(7, offered).expect("a legal set");
    let arrived = pair
        .gateway
        .events
        .until(|event| match event {
            ConnectionEvent::Endpoints { revision, endpoints } => Some((revision, endpoints)),
            _ => None,
        })
        .await;
    assert!(arrived == (7, plain.clone()), "{} endpoints", arrived.1.len());
    let refuse = |endpoint: &EndpointDescriptor| RefusedEndpoint { id: endpoint.id, reason: "taken ".repeat(10) };
    let refused: Vec<_> = plain.iter().map(refuse).collect();
    pair.gateway.handle.endpoints_result(7, refused.clone());
    let told = pair
        .service
        .events
        .until(|event| match event {
            ConnectionEvent::EndpointsResult { refused, .. } => Some(refused),
            _ => None,
        })
        .await;
    assert!(told == refused, "{} refusals", told.len());
}

/// CLOSE may overtake the last answers, and the last requests may come after the drain's answer.
pub async fn a_side_that_leaves_in_good_order_loses_nothing(ends: Ends) {
    let mut pair = Pair::start(ends, PairSettings::default()).await;
    let mut calls = JoinSet::new();
    for number in 0..200_usize {
        let exchange = pair.call(post(pattern(number, number)));
        calls.spawn(async move { (number, exchange.await) });
    }
    tokio::task::yield_now().await;
    pair.service.handle.drain();
    pair.service.events.until(|event| matches!(event, ConnectionEvent::Drained).then_some(())).await;
    pair.service.handle.close(CloseCode::Normal, "that is all");
    let mut answered = 0;
    while let Some(done) = calls.join_next().await {
        match done.expect("no panic") {
            (number, Ok(response)) => {
                assert_eq!(response.body().whole(), Some(pattern(number, number)));
                answered += 1;
            }
            (_, Err(CallError::Unseen { whole: true })) => {}
            (number, Err(error)) => panic!("{number}: {error:?}"),
        }
    }
    assert!(answered > 0);
    pair.gateway.events.closed().await;
    pair.quiet().await;
}
