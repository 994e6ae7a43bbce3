//! Why a request ended, and who is told: each cause with its reason, over HTTP/1.1 and HTTP/2 (SPEC 4, 6).

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use microservice_sdk::{Body, Cancellation, Chunks, IntoResponse, Microservice, Path, Reason, Route};
use tokio::sync::{Semaphore, mpsc};

use crate::carrier::Transport;
use crate::client::Client;
use crate::scenario::list;
use crate::stage::Stage;
use crate::{eventually, within};

/// What a handler saw of its own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Begun,
    /// It, or its answer's body, was dropped; and what it could ask then.
    Dropped(Option<Reason>),
    /// It ran on, though nobody waited any more.
    RanOn(Option<Reason>),
}

/// Tells what a handler sees.
struct Eye {
    tell: mpsc::Sender<Seen>,
    cancellation: Cancellation,
}

impl Eye {
    fn open(tell: &mpsc::Sender<Seen>, cancellation: Cancellation) -> Self {
        tell.try_send(Seen::Begun).unwrap();
        Self { tell: tell.clone(), cancellation }
    }
}

impl Drop for Eye {
    fn drop(&mut self) {
        let _ = self.tell.try_send(Seen::Dropped(self.cancellation.reason()));
    }
}

/// The service, and what its handlers have seen.
struct Watched {
    seen: mpsc::Receiver<Seen>,
    go: Arc<Semaphore>,
}

impl Watched {
    async fn next(&mut self) -> Seen {
        within("a handler tells", self.seen.recv()).await.expect("the service lives")
    }

    async fn begun(&mut self) {
        assert_eq!(self.next().await, Seen::Begun);
    }

    /// `POST /wait` and `/wait-detached`, which read nothing; `GET /silent`, whose body begins and does not go on; and
    /// `GET /cut/{how}`, whose body fails when it is let go.
    fn service() -> (Microservice, Self) {
        let (tell, seen) = mpsc::channel(1024);
        let go = Arc::new(Semaphore::new(0));
        let (waits, runs_on, silent, goes) = (tell.clone(), tell.clone(), tell, Arc::clone(&go));
        let large = |path| Route::new(Method::POST, path).streaming_request().max_request_bytes(1 << 20);
        let wait = move |cancellation: Cancellation, body: Body| async move {
            let _eye = Eye::open(&waits, cancellation);
            let _unread = body;
            pending::<()>().await;
        };
        let service = Microservice::new("watched", "1.0.0")
            .route(Route::new(Method::POST, "/wait").streaming_request(), wait.clone())
            .route(large("/wait-for-much"), wait)
            .route(
                Route::new(Method::POST, "/wait-detached").streaming_request().detached(),
                move |cancellation: Cancellation| async move {
                    runs_on.try_send(Seen::Begun).unwrap();
                    cancellation.cancelled().await;
                    runs_on.try_send(Seen::RanOn(cancellation.reason())).unwrap();
                },
            )
            .route(
                Route::new(Method::GET, "/silent").streaming_response(),
                move |cancellation: Cancellation| async move {
                    let eye = Eye::open(&silent, cancellation);
                    let silence = stream::once(async move {
                        let _eye = eye;
                        pending::<Result<Bytes, std::io::Error>>().await
                    });
                    Chunks(stream::once(async { Ok(Bytes::from_static(b"12345")) }).chain(silence))
                },
            )
            .route(
                Route::new(Method::GET, "/cut/{how}").streaming_response(),
                move |Path(how): Path<String>| async move {
                    let failing = stream::once(async move {
                        goes.acquire().await.unwrap().forget();
                        Err(std::io::Error::other("on purpose"))
                    });
                    let body = Chunks(stream::once(async { Ok(Bytes::from_static(b"12345")) }).chain(failing));
                    match how.as_str() {
                        "length" => ([(header::CONTENT_LENGTH, "10")], body).into_response(),
                        _ => body.into_response(),
                    }
                },
            );
        (service, Self { seen, go })
    }
}

/// A request whose body brings what is sent to it, without a length.
fn upload(client: &Client, path: &str) -> (mpsc::Sender<Bytes>, Request<Body>) {
    let (sender, receiver) = mpsc::channel::<Bytes>(16);
    let body = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|bytes| (Ok::<_, std::io::Error>(Frame::data(bytes)), receiver))
    });
    (sender, client.request(Method::POST, path).map(|_| Body::stream(StreamBody::new(Box::pin(body)))))
}

async fn all_is_quiet(stage: &Stage) {
    eventually("all is quiet", async || {
        let instances = stage.admin().get("/instances").await.json();
        let at_work = instances.as_array().unwrap().iter().map(|instance| instance["in_flight"].as_u64().unwrap());
        at_work.sum::<u64>() == 0 && stage.gateway.inflight_bytes() == 0 && stage.gateway.in_flight() == 0
    })
    .await;
}

async fn a_client_that_leaves_is_told_as_such(transport: Transport) {
    let stage = Stage::new(transport).await;
    let (service, mut watched) = Watched::service();
    let _service = stage.join(service).await;
    for client in [stage.client(), stage.http2()] {
        for (path, seen) in [
            ("/wait", Seen::Dropped(Some(Reason::ClientDisconnected))),
            ("/wait-detached", Seen::RanOn(Some(Reason::ClientDisconnected))),
        ] {
            // In the middle of its upload, and with nothing left to say.
            for uploads in [true, false] {
                let (sender, request) = upload(&client, path);
                let asking = tokio::spawn({
                    let client = client.clone();
                    async move { client.head(request).await.map(drop) }
                });
                sender.send(vec![0; 20_000].into()).await.unwrap();
                let _kept = uploads.then_some(sender);
                watched.begun().await;
                asking.abort();
                assert_eq!(watched.next().await, seen, "{path}, {uploads}");
            }
        }
    }
    all_is_quiet(&stage).await;
}

async fn a_deadline_is_told_as_such(transport: Transport) {
    let stage = Stage::new(transport).await;
    let (service, mut watched) = Watched::service();
    let _service = stage.join(service).await;
    for client in [stage.client(), stage.http2()] {
        for (path, seen) in [
            ("/wait", Seen::Dropped(Some(Reason::DeadlineExceeded))),
            ("/wait-detached", Seen::RanOn(Some(Reason::DeadlineExceeded))),
        ] {
            let mut request = client.request(Method::POST, path).map(|_| Body::from("some"));
            request.headers_mut().insert("x-request-timeout-ms", "100".parse().unwrap());
            let answer = client.ask(request).await;
            assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded"));
            watched.begun().await;
            assert_eq!(watched.next().await, seen, "{path}");
        }
    }
    all_is_quiet(&stage).await;
}

async fn a_body_over_a_limit_is_told_as_such(transport: Transport) {
    for (limit, status, code) in [
        ("max_request_bytes_per_call", StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large"),
        ("max_request_bytes_per_connection", StatusCode::TOO_MANY_REQUESTS, "connection_bytes_exceeded"),
        ("max_aggregate_inflight_bytes", StatusCode::SERVICE_UNAVAILABLE, "node_overloaded"),
    ] {
        let stage = Stage::with(transport, &format!("limits: {{ {limit}: 32KiB }}")).await;
        let (service, mut watched) = Watched::service();
        let _service = stage.join(service).await;
        let path = if code == "payload_too_large" { "/wait" } else { "/wait-for-much" };
        for client in [stage.client(), stage.http2()] {
            let (sender, request) = upload(&client, path);
            let asking = tokio::spawn(async move { client.try_ask(request).await });
            sender.send(vec![0; 1_000].into()).await.unwrap();
            watched.begun().await;
            for _ in 0..20 {
                if sender.send(vec![0; 10_000].into()).await.is_err() {
                    break;
                }
            }
            assert_eq!(watched.next().await, Seen::Dropped(Some(Reason::PayloadLimit)), "{limit}");
            drop(sender);
            // A client of HTTP/1.1 may find its connection closed before it reads the answer.
            if let Ok(answer) = asking.await.unwrap() {
                assert_eq!((answer.status, answer.problem().as_str()), (status, code));
            }
            all_is_quiet(&stage).await;
        }
    }
}

async fn a_response_that_falls_silent_is_cut_and_its_service_told(transport: Transport) {
    let stage = Stage::with(transport, "limits: { stream_idle_timeout: 200ms }").await;
    let (service, mut watched) = Watched::service();
    let _service = stage.join(service).await;
    for client in [stage.client(), stage.http2()] {
        let answer = client.head(client.request(Method::GET, "/silent")).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        watched.begun().await;
        assert!(within("the end", answer.into_body().collect()).await.is_err(), "it is not whole");
        assert_eq!(watched.next().await, Seen::Dropped(Some(Reason::DeadlineExceeded)));
    }
    all_is_quiet(&stage).await;
}

async fn a_reader_that_leaves_a_response_is_told_as_such(transport: Transport) {
    let stage = Stage::new(transport).await;
    let (service, mut watched) = Watched::service();
    let _service = stage.join(service).await;
    for client in [stage.client(), stage.http2()] {
        let mut body = client.head(client.request(Method::GET, "/silent")).await.unwrap().into_body();
        assert_eq!(within("a frame", body.frame()).await.unwrap().unwrap().into_data().unwrap(), "12345");
        watched.begun().await;
        drop(body);
        assert_eq!(watched.next().await, Seen::Dropped(Some(Reason::ClientDisconnected)));
    }
    all_is_quiet(&stage).await;
}

async fn a_failure_in_a_body_reaches_the_client_as_a_break(transport: Transport) {
    let stage = Stage::new(transport).await;
    let (service, watched) = Watched::service();
    let _service = stage.join(service).await;
    for client in [stage.client(), stage.http2()] {
        for how in ["chunked", "length"] {
            let answer = client.head(client.request(Method::GET, &format!("/cut/{how}"))).await.unwrap();
            assert_eq!(answer.headers().contains_key(header::CONTENT_LENGTH), how == "length");
            let mut body = answer.into_body();
            assert_eq!(within("a frame", body.frame()).await.unwrap().unwrap().into_data().unwrap(), "12345");
            watched.go.add_permits(1);
            let end = within("the end", body.frame()).await;
            assert!(matches!(end, Some(Err(_))), "{how}: {end:?}");
        }
    }
    all_is_quiet(&stage).await;
}

async fn a_gateway_whose_grace_is_over_says_shutdown(transport: Transport) {
    for http2 in [false, true] {
        let stage = Stage::with(transport, "shutdown: { grace: 200ms }").await;
        let (service, mut watched) = Watched::service();
        let _service = stage.join(service).await;
        let client = if http2 { stage.http2() } else { stage.client() };
        let ask = |path| {
            let client = client.clone();
            tokio::spawn(async move { client.try_ask(client.request(Method::POST, path)).await })
        };
        let asked = ask("/wait");
        watched.begun().await;
        let also = ask("/wait-detached");
        watched.begun().await;
        within("the gateway ends", stage.gateway.shutdown()).await;
        let mut seen = [watched.next().await, watched.next().await];
        seen.sort_by_key(|seen| matches!(seen, Seen::RanOn(_)));
        assert_eq!(seen, [Seen::Dropped(Some(Reason::Shutdown)), Seen::RanOn(Some(Reason::Shutdown))]);
        for asked in [asked, also] {
            if let Ok(answer) = asked.await.unwrap() {
                assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::BAD_GATEWAY, "connection_lost"));
            }
        }
    }
}

async fn a_service_whose_grace_is_over_loses_what_is_left(transport: Transport) {
    let stage = Stage::new(transport).await;
    for client in [stage.client(), stage.http2()] {
        let (service, mut watched) = Watched::service();
        let service = stage.join(service.shutdown_grace(Duration::from_millis(200))).await;
        // In the middle of an upload.
        let (sender, request) = upload(&client, "/wait-for-much");
        sender.send(vec![0; 200_000].into()).await.unwrap();
        let asked = tokio::spawn(async move { client.ask(request).await });
        watched.begun().await;
        eventually("bytes are held", async || stage.gateway.inflight_bytes() > 0).await;
        within("the service ends", service.shutdown()).await.unwrap();
        assert_eq!(watched.next().await, Seen::Dropped(Some(Reason::Shutdown)));
        let answer = asked.await.unwrap();
        assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::BAD_GATEWAY, "connection_lost"));
        all_is_quiet(&stage).await;
    }
}

list! {
    a_client_that_leaves_is_told_as_such => Streaming,
    a_deadline_is_told_as_such => Streaming,
    a_body_over_a_limit_is_told_as_such => Streaming,
    a_response_that_falls_silent_is_cut_and_its_service_told => Streaming,
    a_reader_that_leaves_a_response_is_told_as_such => Streaming,
    a_failure_in_a_body_reaches_the_client_as_a_break => Streaming,
    a_gateway_whose_grace_is_over_says_shutdown => Streaming,
    a_service_whose_grace_is_over_loses_what_is_left => Streaming,
}
