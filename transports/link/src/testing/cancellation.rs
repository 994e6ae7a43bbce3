//! Scenarios of exchanges that end early.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use router_common::frame::Reason;
use tokio::sync::{Semaphore, mpsc};

use super::body::{Feed, feed, pattern, read};
use super::harness::{Ends, Handler, Pair, PairSettings, handler};
use crate::body::Body;
use crate::body_error::BodyError;
use crate::call::Call;
use crate::context::RequestContext;
use crate::exchange::CallError;

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("a request")
}

/// A handler that never answers, and tells when it runs and why it was cancelled.
fn waiting() -> (PairSettings, Arc<Semaphore>, mpsc::Receiver<Option<Reason>>) {
    let started = Arc::new(Semaphore::new(0));
    let (tell, cancelled) = mpsc::channel(64);
    let runs = Arc::clone(&started);
    let service: Handler = Arc::new(move |request, responder| {
        let (runs, tell) = (Arc::clone(&runs), tell.clone());
        tokio::spawn(async move {
            let cancellation =
                request.extensions().get::<RequestContext>().expect("every request has one").cancellation().clone();
            assert!(!cancellation.is_cancelled());
            runs.add_permits(1);
            responder.cancelled().await;
            assert!(cancellation.is_cancelled());
            tell.send(cancellation.reason()).await.expect("somebody listens");
        });
    });
    (PairSettings { service, ..PairSettings::default() }, started, cancelled)
}

/// A handler that streams what is fed.
fn streaming() -> (PairSettings, Feed) {
    let (feed, body) = feed();
    let body = std::sync::Mutex::new(Some(body));
    let service = handler(move |_| {
        let body = body.lock().expect("no panic").take().expect("one request");
        async { Response::new(body) }
    });
    (PairSettings { service, ..PairSettings::default() }, feed)
}

async fn once(semaphore: &Semaphore) {
    semaphore.acquire().await.expect("open").forget();
}

async fn poll_once<F: Future + Unpin>(future: &mut F) {
    poll_fn(|cx| {
        let _ = Pin::new(&mut *future).poll(cx);
        Poll::Ready(())
    })
    .await;
}

pub async fn a_dropped_exchange_cancels_the_handler(ends: Ends) {
    let (settings, started, mut cancelled) = waiting();
    let pair = Pair::start(ends, settings).await;
    let mut exchange = pair.call(get("/"));
    poll_once(&mut exchange).await;
    once(&started).await;
    drop(exchange);
    assert_eq!(cancelled.recv().await, Some(Some(Reason::ClientDisconnected)));
    pair.quiet().await;
}

pub async fn a_dropped_response_body_cancels_the_handler(ends: Ends) {
    let (settings, feed) = streaming();
    let pair = Pair::start(ends, settings).await;
    let (response, _) = tokio::join!(pair.call(get("/")), feed.bytes("first"));
    let mut body = response.expect("a response").into_body();
    body.frame().await.expect("a first piece").expect("no error");
    drop(body);
    feed.abandoned().await;
    pair.quiet().await;
}

pub async fn a_dropped_response_body_ends_the_upload_too(ends: Ends) {
    let pair = Pair::start(ends, PairSettings::default()).await;
    let (feed, body) = feed();
    let request = Request::post("/echo").body(body).expect("a request");
    let (response, _) = tokio::join!(pair.call(request), feed.bytes("first"));
    drop(response.expect("a response"));
    feed.abandoned().await;
    pair.quiet().await;
}

pub async fn an_upload_that_fails_after_the_head_cancels_with_its_reason(ends: Ends) {
    let pair = Pair::start(ends, PairSettings::default()).await;
    let (feed, body) = feed();
    let request = Request::post("/echo").body(body).expect("a request");
    let (response, _) = tokio::join!(pair.call(request), feed.bytes("first"));
    let mut body = response.expect("a response").into_body();
    body.frame().await.expect("a first piece").expect("no error");
    feed.fail(BodyError::payload_limit()).await;
    let end = read(body).await;
    assert!(matches!(end, Err(BodyError::Closed)), "{end:?}");
    pair.quiet().await;
}

pub async fn a_request_body_that_outlives_the_answer_ends(ends: Ends) {
    let (give, mut readers) = mpsc::channel(1);
    let service = handler(move |request: Request<Body>| {
        let give = give.clone();
        async move {
            give.send(tokio::spawn(read(request.into_body()))).await.expect("somebody takes it");
            tokio::task::yield_now().await;
            Response::new("answered".into())
        }
    });
    let pair = Pair::start(ends, PairSettings { service, ..PairSettings::default() }).await;
    let (feed, body) = feed();
    let request = Request::post("/").body(body).expect("a request");
    let response = pair.call(request).await.expect("a response");
    assert_eq!(read(response.into_body()).await.expect("a body").0, "answered");
    let outcome = readers.recv().await.expect("one request").await.expect("no panic");
    assert!(outcome.is_err(), "it was never complete");
    drop(feed);
    pair.quiet().await;
}

pub async fn a_deadline_is_told_as_the_reason(ends: Ends) {
    let (settings, started, mut cancelled) = waiting();
    let pair = Pair::start(ends, settings).await;
    let mut exchange = pair.call(get("/"));
    poll_once(&mut exchange).await;
    once(&started).await;
    exchange.cancel(Reason::DeadlineExceeded);
    assert!(matches!(exchange.await, Err(CallError::Closed)));
    assert_eq!(cancelled.recv().await, Some(Some(Reason::DeadlineExceeded)));
    pair.quiet().await;
}

pub async fn a_handler_that_goes_without_an_answer_has_failed(ends: Ends) {
    let service: Handler = Arc::new(|_, responder| drop(responder));
    let pair = Pair::start(ends, PairSettings { service, ..PairSettings::default() }).await;
    match pair.call(get("/")).await {
        Err(CallError::Cancelled { reason, whole, .. }) => {
            assert_eq!(reason, Reason::HandlerFailed);
            assert!(whole, "an endpoint that is idempotent may be asked again");
        }
        other => panic!("{other:?}"),
    }
    pair.quiet().await;
}

pub async fn an_answer_that_is_dropped_midway_is_visibly_cut(ends: Ends) {
    let drop_it = Arc::new(Semaphore::new(0));
    let told = Arc::clone(&drop_it);
    let service: Handler = Arc::new(move |_, responder| {
        let told = Arc::clone(&told);
        tokio::spawn(async move {
            let (feed, body) = feed();
            let answer = responder.respond(Response::new(body));
            tokio::select! {
                _ = answer => {}
                () = async {
                    feed.bytes("half").await;
                    once(&told).await;
                } => {}
            }
        });
    });
    let pair = Pair::start(ends, PairSettings { service, ..PairSettings::default() }).await;
    let mut body = pair.call(get("/")).await.expect("a head").into_body();
    let half = body.frame().await.expect("a piece").expect("no error");
    assert_eq!(half.into_data().expect("bytes"), "half");
    drop_it.add_permits(1);
    match body.frame().await.expect("an error comes before the end") {
        Err(BodyError::Cancelled { reason, .. }) => assert_eq!(reason, Reason::HandlerFailed),
        other => panic!("{other:?}"),
    }
    pair.quiet().await;
}

pub async fn a_refused_request_comes_back_whole(ends: Ends) {
    let service: Handler = Arc::new(|_, responder| responder.reject(Reason::Refused));
    let sent = pattern(3, ends.most(10_000));
    let pair = Pair::start(ends, PairSettings { service, ..PairSettings::default() }).await;
    let (feed, body) = feed();
    let mut request = Request::post("/").body(body).expect("a request");
    let (bytes, exchange) = (sent.clone(), pair.lend(&mut request));
    let feeding = async move {
        feed.bytes(bytes).await;
    };
    let (outcome, ()) = tokio::join!(exchange, feeding);
    // A small body was gathered before it was sent, so it is whole even though it was a stream.
    match outcome {
        Err(CallError::Unseen { whole: true }) => assert_eq!(request.body().whole().expect("whole"), sent),
        Err(CallError::Unseen { whole: false }) => {}
        other => panic!("{other:?}"),
    }
    pair.quiet().await;
}

pub async fn a_request_body_that_fails_cancels_with_its_reason(ends: Ends) {
    let (settings, started, mut cancelled) = waiting();
    let pair = Pair::start(ends, settings).await;
    let (feed, body) = feed();
    let call = Call { open_first: true, permit: Some(pair.permit()), ..Call::default() };
    let exchange = pair.gateway.handle.call(Request::post("/").body(body).expect("a request"), call);
    let exchange = tokio::spawn(exchange);
    once(&started).await;
    feed.fail(BodyError::payload_limit()).await;
    assert!(matches!(exchange.await.expect("no panic"), Err(CallError::Body(_))));
    assert_eq!(cancelled.recv().await, Some(Some(Reason::PayloadLimit)));
    pair.quiet().await;
}

pub async fn a_response_body_that_fails_is_visibly_cut(ends: Ends) {
    let (settings, feed) = streaming();
    let pair = Pair::start(ends, settings).await;
    let (response, _) = tokio::join!(pair.call(get("/")), feed.bytes("half"));
    feed.fail(BodyError::Source("the disk is gone".into())).await;
    match read(response.expect("a head").into_body()).await {
        Err(BodyError::Cancelled { reason, .. }) => assert_eq!(reason, Reason::HandlerFailed),
        other => panic!("{other:?}"),
    }
    pair.quiet().await;
}

pub async fn a_request_whose_deadline_has_passed_is_not_sent(ends: Ends) {
    let (settings, started, _cancelled) = waiting();
    let pair = Pair::start(ends, settings).await;
    let past = pair.gateway.handle.environment().now() - Duration::from_millis(1);
    let call = Call { deadline: Some(past), permit: Some(pair.permit()), ..Call::default() };
    let outcome = pair.gateway.handle.call(get("/"), call).await;
    assert!(matches!(outcome, Err(CallError::Expired)), "{outcome:?}");
    assert_eq!(started.available_permits(), 0);
    pair.quiet().await;
}

pub async fn an_exchange_ends_at_its_deadline_and_the_handler_is_told(ends: Ends) {
    let (settings, _started, mut cancelled) = waiting();
    let pair = Pair::start(ends, settings).await;
    let now = pair.gateway.handle.environment().now();
    let calls: Vec<_> = [30, 60_000, 10]
        .map(|left| {
            let deadline = Some(now + Duration::from_millis(left));
            let call = Call { deadline, permit: Some(pair.permit()), ..Call::default() };
            (deadline, tokio::spawn(pair.gateway.handle.call(get("/"), call)))
        })
        .into_iter()
        .collect();
    for (index, (deadline, call)) in calls.into_iter().enumerate() {
        if index == 1 {
            // Its time is long, and it waits on; dropping it is another reason.
            call.abort();
            continue;
        }
        let outcome = call.await.expect("no panic");
        assert!(matches!(outcome, Err(CallError::Expired)), "{outcome:?}");
        assert!(deadline <= Some(pair.gateway.handle.environment().now()), "it ended before its time");
    }
    let mut reasons = Vec::new();
    for _ in 0..3 {
        reasons.push(cancelled.recv().await.flatten());
    }
    assert_eq!(reasons.iter().filter(|reason| **reason == Some(Reason::DeadlineExceeded)).count(), 2, "{reasons:?}");
    pair.quiet().await;
}

pub async fn many_cancelled_exchanges_leave_nothing_behind(ends: Ends) {
    let pair = Pair::start(ends, PairSettings { lease: 8, ..PairSettings::default() }).await;
    for round in 0..200_usize {
        // A slot may still be owed by a handler that was cancelled.
        let permit = loop {
            match pair.lease.try_acquire() {
                Some(permit) => break permit,
                None => tokio::task::yield_now().await,
            }
        };
        let (feed, body) = feed();
        let request = Request::post("/echo").body(body).expect("a request");
        let call = Call { permit: Some(permit), ..Call::default() };
        let mut exchange = Box::pin(pair.gateway.handle.call(request, call));
        for step in 0..round % 7 {
            tokio::select! {
                biased;
                response = &mut exchange => {
                    let mut body = response.expect("a response").into_body();
                    let _ = tokio::join!(body.frame(), feed.bytes("more"));
                    break;
                }
                _ = feed.bytes(pattern(round, step * 9_000)) => {}
                () = tokio::task::yield_now() => {}
            }
        }
    }
    pair.quiet().await;
    let response = pair.call(get("/after")).await.expect("a response");
    assert!(read(response.into_body()).await.is_ok());
    pair.quiet().await;
}
