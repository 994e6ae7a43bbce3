//! Scenarios of a link's life: joining, leases, draining, ending.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{Request, Response};
use router_common::endpoint::{EndpointDescriptor, EndpointId};
use router_common::frame::{
    CloseCode, Data, DataPayload, Frame, HealthStatus, Heartbeat, Reason, RefusedEndpoint, StreamId,
};
use router_common::session::lease::Lease;
use router_common::session::{ClosedBy, Silence, Timers};
use tokio::sync::{Semaphore, oneshot};

use super::body::{feed, pattern, pieces, read};
use super::harness::{Admit, Ends, Pair, PairSettings, Player, Side, gateway_session, handler, service_session};
use crate::application::{ConnectionEvent, Refused};
use crate::body::Body;
use crate::call::Call;
use crate::driver::Driver;
use crate::environment::SystemEnvironment;
use crate::exchange::CallError;
use crate::link::{BoxLink, LinkError};

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("a request")
}

fn endpoint(id: u32, path: &str) -> EndpointDescriptor {
    let id = EndpointId::new(id).expect("not 0");
    EndpointDescriptor::new(id, http::Method::GET, path.parse().expect("a template"))
}

/// A handler that answers when it is told to, and the means to tell it.
fn gated() -> (PairSettings, Arc<Semaphore>, Arc<Semaphore>) {
    let (started, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let gates = (Arc::clone(&started), Arc::clone(&go));
    let service = handler(move |_| {
        let (started, go) = gates.clone();
        async move {
            started.add_permits(1);
            go.acquire().await.expect("open").forget();
            Response::new("done".into())
        }
    });
    (PairSettings { service, ..PairSettings::default() }, started, go)
}

async fn once(semaphore: &Semaphore) {
    semaphore.acquire().await.expect("open").forget();
}

pub async fn a_service_joins_registers_and_becomes_routable(ends: Ends) {
    let mut pair = Pair::start_unjoined(ends, PairSettings::default());
    pair.service.events.until(|event| matches!(event, ConnectionEvent::Welcomed(_)).then_some(())).await;
    let offered = vec![endpoint(1, "/a"), endpoint(2, "/b/{id}")];
    pair.service.handle.register(7, offered.clone()).expect("a legal set");
    let mut awaited = [false; 2];
    let mut arrived = None;
    while arrived.is_none() || awaited != [true; 2] {
        match pair.gateway.events.until(Some).await {
            ConnectionEvent::Endpoints { revision, endpoints } => arrived = Some((revision, endpoints)),
            ConnectionEvent::Routable => awaited[0] = true,
            ConnectionEvent::RoundTrip(_) => awaited[1] = true,
            _ => {}
        }
    }
    assert_eq!(arrived, Some((7, offered)));
    assert!(pair.gateway.handle.round_trip().is_some());
    assert!(pair.gateway.handle.is_open() && pair.service.handle.is_open());
}

pub async fn a_refused_service_is_told_why(ends: Ends) {
    let refuse = Some(Refused::new(CloseCode::Forbidden, "`contract` may not join"));
    let mut pair = Pair::start_unjoined(ends, PairSettings { refuse, ..PairSettings::default() });
    let closed = pair.service.events.closed().await;
    assert_eq!((closed.by, closed.code), (ClosedBy::Peer, CloseCode::Forbidden));
    assert_eq!(closed.text, "`contract` may not join");
    assert_eq!(pair.gateway.events.closed().await.by, ClosedBy::Local);
}

pub async fn a_refused_endpoint_is_named(ends: Ends) {
    let mut pair = Pair::start(ends, PairSettings::default()).await;
    pair.service.handle.register(1, vec![endpoint(1, "/a"), endpoint(2, "/b")]).expect("a legal set");
    pair.gateway.events.until(|event| matches!(event, ConnectionEvent::Endpoints { .. }).then_some(())).await;
    let refusal = RefusedEndpoint { id: EndpointId::new(2).expect("not 0"), reason: "owned by `other`".to_owned() };
    pair.gateway.handle.endpoints_result(1, vec![refusal.clone()]);
    let result = pair
        .service
        .events
        .until(|event| match event {
            ConnectionEvent::EndpointsResult { revision, refused } => Some((revision, refused)),
            _ => None,
        })
        .await;
    assert_eq!(result, (1, vec![refusal]));
}

pub async fn a_drained_link_takes_no_new_requests_and_finishes_the_old(ends: Ends) {
    let (settings, started, go) = gated();
    let (streams, most) = (ends.are_streaming(), ends.most(40_000));
    let mut pair = Pair::start(ends, settings).await;
    let old = tokio::spawn(pair.call(get("/old")));
    once(&started).await;
    pair.service.handle.drain();
    pair.gateway.events.until(|event| matches!(event, ConnectionEvent::PeerDraining).then_some(())).await;
    assert!(pair.gateway.handle.is_draining());
    let new = pair.call(get("/new")).await.expect_err("a drained link opens nothing");
    assert!(matches!(new, CallError::Unseen { whole: true }), "{new:?}");
    // What was taken of a body that streams is put back, so that all of it can go elsewhere.
    for (length, trailers) in [(most, streams), (100, false), (0, streams)] {
        let (fed, body) = feed();
        let feeding = tokio::spawn(async move {
            fed.bytes(pattern(0, length)).await;
            if trailers {
                fed.trailers(http::HeaderMap::from_iter([(http::header::ETAG, "end".parse().expect("a value"))])).await;
            } else {
                fed.bytes("and more").await;
            }
        });
        let mut request = Request::post("/upload").body(body).expect("a request");
        let call = Call { permit: Some(pair.permit()), ..Call::default() };
        let new = pair.gateway.handle.call(&mut request, call).await.expect_err("a drained link opens nothing");
        assert!(matches!(new, CallError::Unseen { whole: true }), "{new:?}");
        let (body, ending) = read(request.into_body()).await.expect("a body");
        assert!(body.starts_with(&pattern(0, length)), "{length}");
        assert_eq!((body.ends_with(b"and more"), ending.is_some()), (!trailers, trailers));
        feeding.await.expect("no panic");
    }
    go.add_permits(1);
    let (body, _) = read(old.await.expect("no panic").expect("a response").into_body()).await.expect("a body");
    assert_eq!(body, "done");
    pair.service.events.until(|event| matches!(event, ConnectionEvent::Drained).then_some(())).await;
    pair.quiet().await;
}

pub async fn a_closed_link_ends_for_both_sides(ends: Ends) {
    let mut pair = Pair::start(ends, PairSettings::default()).await;
    pair.gateway.handle.close(CloseCode::Normal, "that is all");
    let (here, there) = (pair.gateway.events.closed().await, pair.service.events.closed().await);
    assert_eq!((here.by, here.code), (ClosedBy::Local, CloseCode::Normal));
    assert_eq!((there.by, there.code, there.text.as_str()), (ClosedBy::Peer, CloseCode::Normal, "that is all"));
    assert_eq!(pair.service.handle.closed().await, there);
    assert!(!pair.gateway.handle.is_open() && !pair.service.handle.is_open());
}

pub async fn a_link_that_dies_leaves_sent_requests_with_an_unknown_outcome(ends: Ends) {
    let (settings, started, _go) = gated();
    let mut pair = Pair::start(ends, settings).await;
    let sent = tokio::spawn(pair.call(get("/sent")));
    once(&started).await;
    pair.service.kill().await;
    match sent.await.expect("no panic") {
        Err(CallError::Lost { whole }) => assert!(whole, "what is idempotent may be sent again"),
        other => panic!("{other:?}"),
    }
    assert_eq!(pair.gateway.events.closed().await.by, ClosedBy::Link);
    pair.quiet().await;
}

pub async fn a_request_on_a_dead_link_comes_back_whole(ends: Ends) {
    let mut pair = Pair::start(ends, PairSettings::default()).await;
    pair.service.kill().await;
    pair.gateway.handle.closed().await;
    let mut request = Request::post("/late").body(Body::from("all of it")).expect("a request");
    match pair.lend(&mut request).await {
        Err(CallError::Unseen { whole: true }) => assert_eq!(request.body().whole().expect("whole"), "all of it"),
        other => panic!("{other:?}"),
    }
    assert_eq!(pair.lease.in_flight(), 0);
}

pub async fn a_request_that_never_left_comes_back_whole(ends: Ends) {
    let lengths = [0, 10, 20_000, 100_000, 3_000_000].map(|length| ends.most(length));
    let trailers: &[_] = if ends.are_streaming() { &[(http::header::ETAG, "end")] } else { &[] };
    let value = |text: &str| http::HeaderValue::from_str(text).expect("a value");
    let trailers: http::HeaderMap = trailers.iter().map(|(name, text)| (name.clone(), value(text))).collect();
    let pair = Pair::start(ends, PairSettings::default()).await;
    let upload = |length| Request::post("/upload").body(pieces(length, trailers.clone())).expect("a request");
    let mut requests = lengths.map(upload);
    let mut exchanges: Vec<_> = requests.iter_mut().map(|request| pair.lend(request)).collect();
    // All in one turn: the driver has none, and so nothing leaves.
    let mut cx = Context::from_waker(Waker::noop());
    for exchange in &mut exchanges {
        while !exchange.is_open() {
            assert!(Pin::new(&mut *exchange).poll(&mut cx).is_pending());
        }
        assert!(Pin::new(exchange).poll(&mut cx).is_pending());
    }
    pair.gateway.handle.close(CloseCode::Normal, "at once");
    for exchange in exchanges {
        let error = exchange.await.expect_err("the link is closed");
        assert!(matches!(error, CallError::Unseen { whole: true }), "{error:?}");
    }
    for (length, request) in lengths.into_iter().zip(requests) {
        let (body, ending) = read(request.into_body()).await.expect("a body");
        assert!(body == pattern(0, length), "{length}: {} bytes", body.len());
        assert_eq!(ending.unwrap_or_default(), trailers, "{length}");
    }
    pair.quiet().await;
}

pub async fn a_lease_that_is_used_up_refuses_without_running_a_handler(ends: Ends) {
    let (settings, started, go) = gated();
    let pair = Pair::start(ends, PairSettings { lease: 2, ..settings }).await;
    let held = [tokio::spawn(pair.call(get("/1"))), tokio::spawn(pair.call(get("/2")))];
    once(&started).await;
    once(&started).await;
    assert!(pair.lease.try_acquire().is_none(), "both slots are taken");
    // A gateway that does not keep to the lease is refused, and knows that nothing ran.
    let permit = Lease::new(9).try_acquire();
    let over = pair.gateway.handle.call(get("/3"), Call { permit, ..Call::default() }).await;
    assert!(matches!(over, Err(CallError::Unseen { whole: true })), "{over:?}");
    assert_eq!(started.available_permits(), 0);
    go.add_permits(2);
    for held in held {
        held.await.expect("no panic").expect("a response");
    }
    pair.quiet().await;
}

pub async fn a_slot_of_the_lease_is_free_only_when_the_answer_is_complete(ends: Ends) {
    let (feed, body) = feed();
    let body = std::sync::Mutex::new(Some(body));
    let service = handler(move |_| {
        let body = body.lock().expect("no panic").take().expect("one request");
        async { Response::new(body) }
    });
    let pair = Pair::start(ends, PairSettings { service, lease: 1, ..PairSettings::default() }).await;
    let exchange = pair.call(get("/"));
    let (response, _) = tokio::join!(exchange, feed.bytes("first"));
    let body = response.expect("a response").into_body();
    assert_eq!(pair.lease.in_flight(), 1, "the answer goes on");
    drop(feed);
    assert_eq!(read(body).await.expect("a body").0, "first");
    pair.quiet().await;
}

pub async fn a_silent_peer_is_degraded_and_then_dead(ends: Ends) {
    let mut pair = Pair::start(ends, PairSettings { timers: Timers::default(), ..PairSettings::default() }).await;
    pair.service.freeze();
    tokio::time::pause();
    let call = tokio::spawn(pair.call(get("/")));
    let degraded = |event| matches!(event, ConnectionEvent::Silence(Silence::Degraded)).then_some(());
    pair.gateway.events.until(degraded).await;
    let closed = pair.gateway.events.closed().await;
    assert_eq!((closed.by, closed.code), (ClosedBy::Local, CloseCode::HeartbeatTimeout));
    assert!(matches!(call.await.expect("no panic"), Err(CallError::Lost { .. })));
}

/// Sends one frame as a stranger would, and reads what the gateway says until it ends.
async fn provoke(mut link: BoxLink, frame: Frame) -> Vec<Frame> {
    let mut batch = VecDeque::from([frame]);
    let mut said = Vec::new();
    poll_fn(|cx| {
        // The gateway may have heard enough before all is sent.
        let _ = link.poll_send(cx, &mut batch);
        loop {
            match ready!(link.poll_recv(cx, &mut said)) {
                Ok(()) => {}
                Err(LinkError::Closed) => return Poll::Ready(()),
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await;
    said
}

fn lone_gateway(link: BoxLink) -> Side {
    let admit = Admit { lease: Lease::new(1), refuse: None };
    let (player, events) = Player::new(PairSettings::default().gateway, Some(admit));
    let session = gateway_session(&link, Timers::default());
    Side::start(link, session, player, events)
}

fn close_code(said: &[Frame]) -> Option<CloseCode> {
    match said {
        [Frame::Close(close)] => Some(close.code),
        _ => None,
    }
}

pub async fn a_frame_over_the_limit_closes_the_link_with_its_code(ends: Ends) {
    let mut gateway = lone_gateway(ends.gateway);
    let payload = DataPayload::Bytes { bytes: Bytes::from(vec![0; 70_000]), end: false };
    let stream = StreamId::new(2).expect("in range");
    let said = provoke(ends.service, Frame::RequestData(Data { stream, payload })).await;
    assert_eq!(close_code(&said), Some(CloseCode::FrameTooLarge), "{said:?}");
    assert_eq!(gateway.events.closed().await.code, CloseCode::FrameTooLarge);
}

pub async fn a_stranger_that_speaks_out_of_turn_is_told_so(ends: Ends) {
    let mut gateway = lone_gateway(ends.gateway);
    let heartbeat = Heartbeat { sequence: 1, status: HealthStatus::Healthy, in_flight: 0, load: 0 };
    let said = provoke(ends.service, Frame::Heartbeat(heartbeat)).await;
    assert_eq!(close_code(&said), Some(CloseCode::ProtocolError), "{said:?}");
    assert_eq!(gateway.events.closed().await.code, CloseCode::ProtocolError);
}

pub async fn a_driver_that_is_dropped_tells_its_application_once(ends: Ends) {
    let mut pair = Pair::start(ends, PairSettings::default()).await;
    pair.gateway.kill().await;
    assert_eq!(pair.gateway.events.closed().await.by, ClosedBy::Link);
    assert_eq!(pair.service.events.closed().await.by, ClosedBy::Link);
}

pub async fn an_application_that_panics_fails_one_request_and_no_more(ends: Ends) {
    let echo = PairSettings::default().service;
    let service: super::Handler = Arc::new(move |request, responder| {
        assert_ne!(request.uri().path(), "/panic", "the panic that this scenario is about");
        echo(request, responder);
    });
    let pair = Pair::start(ends, PairSettings { service, ..PairSettings::default() }).await;
    let other = tokio::spawn(pair.call(get("/other")));
    match pair.call(get("/panic")).await {
        Err(CallError::Cancelled { reason, .. }) => assert_eq!(reason, Reason::HandlerFailed),
        other => panic!("{other:?}"),
    }
    assert!(other.await.expect("no panic").is_ok());
    assert!(pair.call(get("/later")).await.is_ok());
    pair.quiet().await;
}

pub async fn a_service_calls_through_its_gateway(ends: Ends) {
    let sent = pattern(0, ends.most(100_000));
    let pair = Pair::start(ends, PairSettings::default()).await;
    let request = Request::post("/x?y=1").body(Body::from(sent.clone())).expect("a request");
    let response = pair.service.handle.call(request, Call::default()).await.expect("a response");
    assert_eq!(read(response.into_body()).await.expect("a body").0, sent);
    pair.quiet().await;
}

pub async fn a_link_moves_between_runtimes(ends: Ends) {
    let detached = ends.gateway.detach();
    let (told, routable) = oneshot::channel();
    let elsewhere = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut gateway = lone_gateway(detached.attach().expect("attached"));
            gateway.events.until(|event| matches!(event, ConnectionEvent::Routable).then_some(())).await;
            let response = gateway.handle.call(get("/"), Call::default()).await.expect("a response");
            told.send(response.status()).expect("somebody waits");
            gateway.handle.close(CloseCode::Normal, "moved enough");
            gateway.handle.closed().await;
        });
    });
    let lease = Lease::new(1);
    let (player, events) = Player::new(PairSettings::default().service, None);
    let session = service_session(&ends.service, &lease);
    let mut service = Side::start(ends.service, session, player, events);
    assert_eq!(routable.await.expect("told"), http::StatusCode::OK);
    service.events.closed().await;
    elsewhere.join().expect("no panic");
}

pub async fn a_driver_moves_between_runtimes(ends: Ends) {
    let lease = Lease::new(1);
    let (player, events) = Player::new(PairSettings::default().service, None);
    let session = service_session(&ends.service, &lease);
    let _service = Side::start(ends.service, session, player, events);
    let admit = Admit { lease: Lease::new(1), refuse: None };
    let (player, _events) = Player::new(PairSettings::default().gateway, Some(admit));
    let session = gateway_session(&ends.gateway, Timers::default());
    let (mut driver, handle) = Driver::new(ends.gateway, session, player, Arc::new(SystemEnvironment));
    // As far as a gateway needs to know whose link it is.
    poll_fn(|cx| {
        assert!(Pin::new(&mut driver).poll(cx).is_pending());
        if handle.is_open() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let detached = driver.detach();
    let calls = tokio::spawn(handle.call(get("/"), Call::default()));
    let elsewhere = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { detached.attach().expect("attached").await })
    });
    assert!(calls.await.expect("no panic").is_ok());
    handle.close(CloseCode::Normal, "moved enough");
    let closed = tokio::task::spawn_blocking(|| elsewhere.join().expect("no panic")).await.expect("no panic");
    assert_eq!(closed.by, ClosedBy::Local);
}
