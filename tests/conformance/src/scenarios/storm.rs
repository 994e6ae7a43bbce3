//! A storm of cancellations: never more handlers at work than the lease, nothing left behind, and full strength after it
//! (SPEC 4, lease).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use microservice_sdk::{Body, Microservice, Route};
use router_common::testing::Random;
use tokio::task::{JoinSet, yield_now};

use crate::carrier::Transport;
use crate::client::Client;
use crate::eventually;
use crate::scenario::list;
use crate::stage::Stage;

/// So many that every point at which a request can be left is left at many times, and no more than an unoptimized build does in
/// seconds.
const REQUESTS: usize = 1_600;
/// Of them over HTTP/1.1, where each cancellation costs a connection and so a port.
const OVER_HTTP1: usize = 320;
const CLIENTS: usize = 32;
const LEASE: u32 = 16;

/// Handlers at work, now and at most.
#[derive(Clone, Default)]
struct Work(Arc<(AtomicUsize, AtomicUsize)>);

struct AtWork(Work);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Work {
    fn begin(&self) -> AtWork {
        let (now, most) = &*self.0;
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        AtWork(self.clone())
    }

    fn now(&self) -> usize {
        self.0.0.load(Ordering::SeqCst)
    }

    fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }

    /// Handlers that take a while: one is dropped when it is cancelled, one runs on, one reads what it is sent.
    fn service(&self) -> Microservice {
        let (one, two, three) = (self.clone(), self.clone(), self.clone());
        let takes_a_while = || async {
            for _ in 0..10 {
                yield_now().await;
            }
        };
        Microservice::new("storm", "1.0.0")
            .lease(LEASE)
            .raw(Method::GET, "/dropped", move || async move {
                let _at_work = one.begin();
                takes_a_while().await;
                "done"
            })
            .route(Route::new(Method::GET, "/detached").detached(), move || async move {
                let _at_work = two.begin();
                takes_a_while().await;
                "done"
            })
            .route(
                Route::new(Method::POST, "/echo").streaming_request().streaming_response(),
                move |body: Body| async move {
                    let _at_work = three.begin();
                    takes_a_while().await;
                    body
                },
            )
    }
}

fn request(client: &Client, random: &mut Random) -> Request<Body> {
    match random.below(3) {
        0 => client.request(Method::GET, "/dropped"),
        1 => client.request(Method::GET, "/detached"),
        _ => {
            let pieces =
                (0..random.below(6)).map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![3; 5_000]))));
            let body = StreamBody::new(stream::iter(pieces.collect::<Vec<_>>()));
            client.request(Method::POST, "/echo").map(|_| Body::stream(body))
        }
    }
}

/// Asks, and leaves at some point: before it is sent, while it waits or is served, or in the middle of the answer.
async fn ask_and_leave(client: &Client, random: &mut Random) {
    let (request, until) = (request(client, random), Duration::from_micros(random.below(3_000) as u64));
    let asking = async {
        // Clients whose connection the gateway has had enough of come back.
        if let Ok(answer) = client.head(request).await {
            let mut body = answer.into_body();
            while let Some(Ok(_)) = body.frame().await {}
        }
    };
    let _ = tokio::time::timeout(until, asking).await;
}

async fn a_storm_of_cancellations_leaves_nothing_behind(transport: Transport) {
    let stage = Stage::new(transport).await;
    let work = Work::default();
    let _service = stage.join(work.service()).await;
    let mut storm = JoinSet::new();
    for number in 0..CLIENTS {
        let (http1, http2) = (stage.client(), stage.http2());
        storm.spawn(async move {
            let mut random = Random::new(number as u64);
            for asked in 0..REQUESTS / CLIENTS {
                let client = if asked < OVER_HTTP1 / CLIENTS { &http1 } else { &http2 };
                ask_and_leave(client, &mut random).await;
            }
        });
    }
    storm.join_all().await;
    assert!(work.most() <= LEASE as usize, "{} handlers at work, and a lease of {LEASE}", work.most());
    assert!(work.most() > 1, "a storm that reached nobody");

    let gateway = &stage.gateway;
    eventually("nothing is left", async || {
        let instances = stage.admin().get("/instances").await.json();
        let streams = gateway.registry().handles().iter().all(|link| link.streams() == (0, 0));
        let counters = (gateway.in_flight(), gateway.waiting(), gateway.inflight_bytes(), gateway.buffered_bytes());
        streams && work.now() == 0 && instances[0]["in_flight"] == 0 && counters == (0, 0, 0, 0)
    })
    .await;

    let mut load = JoinSet::new();
    for number in 0..CLIENTS {
        let client = if number % 2 == 0 { stage.client() } else { stage.http2() };
        load.spawn(async move {
            for _ in 0..5 {
                for path in ["/dropped", "/detached"] {
                    assert_eq!(client.get(path).await.status, StatusCode::OK);
                }
                assert_eq!(client.post("/echo", vec![1; 10_000]).await.body.len(), 10_000);
            }
        });
    }
    load.join_all().await;
    assert!(work.most() <= LEASE as usize);
}

list! {
    a_storm_of_cancellations_leaves_nothing_behind => Streaming,
}
