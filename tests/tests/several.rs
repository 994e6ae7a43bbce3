//! One instance that reaches its gateways in several ways at a time: it is one, it prefers a way, and the loss of one costs
//! what was in flight on it and nothing else.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream;
use http::{Method, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use integration_tests::carriers::{TCP, UDP};
use integration_tests::client::Client;
use integration_tests::forwarder::Forwarder;
use integration_tests::services::{Witness, one, orders};
use integration_tests::stage::Stage;
use integration_tests::{eventually, within};
use microservice_sdk::{Body, ClientError, Microservice, Path, Response, Route, Running};
use router_common::frame::Reason;
use router_link::{BodyError, BoxFuture, BoxLink, Connector, Discovered, Discovery, LinkError};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

async fn start<S: Send + Sync + 'static>(service: Microservice<S>) -> Running {
    let mut running = service.start().unwrap();
    within("the service is ready", running.ready()).await.unwrap();
    running
}

async fn instances(stage: &Stage) -> Vec<Value> {
    stage.admin().get("/instances").await.json().as_array().unwrap().clone()
}

/// By preference: how many links there are.
async fn ways(stage: &Stage) -> Vec<(u64, u64)> {
    let instances = instances(stage).await;
    let ways = instances.iter().flat_map(|instance| instance["ways"].as_array().unwrap());
    ways.map(|way| (way["preference"].as_u64().unwrap(), way["links"].as_u64().unwrap())).collect()
}

/// The preferences of the links that have requests in flight.
fn busy(stage: &Stage) -> Vec<u8> {
    let table = stage.gateway.registry().snapshot();
    let versions = table.services().iter().flat_map(|service| &service.versions);
    let links = versions.flat_map(|version| &*version.candidates).flat_map(|candidate| &*candidate.links);
    links.filter(|link| link.handle().streams().0 > 0).map(|link| link.preference()).collect()
}

/// A request in the background.
fn ask(client: &Client, path: &'static str) -> tokio::task::JoinHandle<(StatusCode, String)> {
    let client = client.clone();
    tokio::spawn(async move {
        let answer = client.get(path).await;
        let code = if answer.status == StatusCode::OK { String::new() } else { answer.problem() };
        (answer.status, code)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_over_two_transports_is_one_with_one_lease() {
    let stage = Stage::new(TCP).await;
    let (witness, go) = (Witness::default(), watch::Sender::new(false));
    let service = witness.service(&go).connector(Arc::new(stage.gateway.in_memory())).gateway(stage.url()).links(1);
    let running = start(service.lease(8)).await;
    eventually("its gateway knows of the whole lease", async || instances(&stage).await[0]["lease"] == 8).await;
    let instances = instances(&stage).await;
    assert_eq!((instances.len(), &instances[0]["links"]), (1, &json!(2)));
    let expected = json!([
        { "transport": "in-memory", "preference": 0, "links": 1, "draining": 0 },
        { "transport": "tcp", "preference": 1, "links": 1, "draining": 0 },
    ]);
    assert_eq!(instances[0]["ways"], expected);
    let connections = stage.admin().get("/connections").await.json();
    let links: Vec<_> =
        connections.as_array().unwrap().iter().map(|link| (&link["transport"], &link["link"])).collect();
    assert_eq!(links, [(&json!("in-memory"), &json!(0)), (&json!("tcp"), &json!(0))]);

    let client = stage.client();
    let asked: Vec<_> = (0..20).map(|_| ask(&client, "/until-let-go")).collect();
    witness.begun(8).await;
    eventually("the others wait", async || {
        let metrics = String::from_utf8(stage.admin().get("/metrics").await.body.to_vec()).unwrap();
        metrics.lines().any(|line| line == "stella_requests_waiting 12")
    })
    .await;
    assert_eq!(busy(&stage), [0], "all go the preferred way, and are bound by one lease");
    go.send_replace(true);
    for asked in asked {
        assert_eq!(asked.await.unwrap(), (StatusCode::OK, String::new()));
    }
    witness.ended(20).await;
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preferred_way_that_is_cut_costs_what_was_in_flight_on_it_and_is_used_again_when_it_is_back() {
    const CLIENTS: usize = 8;
    let stage = Stage::new(TCP).await;
    let road = Forwarder::new(stage.url()).await;
    let (witness, go) = (Witness::default(), watch::Sender::new(false));
    let service = witness.service(&go).raw(Method::GET, "/quick", || async { "quick" });
    let running = start(service.gateway(road.url()).links(2).gateway(stage.url()).links(2)).await;
    eventually("all links are there", async || ways(&stage).await == [(0, 2), (1, 2)]).await;
    let client = stage.client();
    let held = ask(&client, "/for-ever");
    witness.begun(1).await;
    assert_eq!(busy(&stage), [0]);

    // Under load, for as long as it takes to fail over and to come back, twice.
    let (failed, served, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::default());
    let load: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (client, failed, served) = (client.clone(), Arc::clone(&failed), Arc::clone(&served));
            let over: Arc<AtomicBool> = Arc::clone(&over);
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let answer = client.get("/quick").await;
                    match answer.status {
                        StatusCode::OK => served.fetch_add(1, Ordering::Relaxed),
                        StatusCode::BAD_GATEWAY if answer.problem() == "connection_lost" => {
                            failed.fetch_add(1, Ordering::Relaxed)
                        }
                        _ => panic!("{answer:?}"),
                    };
                }
            })
        })
        .collect();
    let more = async |count: usize| {
        let until = served.load(Ordering::Relaxed) + count;
        eventually("requests are served", async || served.load(Ordering::Relaxed) >= until).await;
    };
    for _ in 0..2 {
        more(200).await;
        road.cut();
        eventually("the preferred links are gone", async || ways(&stage).await == [(1, 2)]).await;
        more(200).await;
        road.mend();
        eventually("they are back", async || ways(&stage).await == [(0, 2), (1, 2)]).await;
    }
    more(200).await;
    over.store(true, Ordering::Relaxed);
    for client in load {
        client.await.unwrap();
    }
    let failed = failed.load(Ordering::Relaxed);
    assert!(failed <= 2 * CLIENTS, "{failed} failed, of {CLIENTS} that could be in flight at each of two cuts");
    assert_eq!(held.await.unwrap(), (StatusCode::BAD_GATEWAY, "connection_lost".to_owned()));

    let again = ask(&client, "/until-let-go");
    witness.begun(2).await;
    assert_eq!(busy(&stage), [0], "the preferred way is used again");
    go.send_replace(true);
    assert_eq!(again.await.unwrap().0, StatusCode::OK);
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_done_twice_goes_over_the_other_way_when_its_own_is_cut() {
    let stage = Stage::new(TCP).await;
    let road = Forwarder::new(stage.url()).await;
    let (witness, go) = (Witness::default(), watch::Sender::new(false));
    let (seen, until) = (witness.clone(), go.subscribe());
    let service =
        Microservice::new("twice", "1.0.0").route(Route::new(Method::GET, "/twice").idempotent(), move || {
            let (seen, mut until) = (seen.clone(), until.clone());
            async move {
                let _presence = seen.enter();
                let _ = until.wait_for(|go| *go).await;
                "done"
            }
        });
    let running = start(service.gateway(road.url()).links(1).gateway(stage.url()).links(1)).await;
    let asked = ask(&stage.client(), "/twice");
    witness.begun(1).await;
    assert_eq!(busy(&stage), [0]);
    road.cut();
    witness.begun(2).await;
    assert_eq!(busy(&stage), [1]);
    go.send_replace(true);
    assert_eq!(asked.await.unwrap().0, StatusCode::OK);
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_by_two_transports_each_have_one_lease_and_they_add_up() {
    let [one, other] = [Stage::new(TCP).await, Stage::new(TCP).await];
    let service = orders("1.0.0")
        .connector(Arc::new(one.gateway.in_memory()))
        .gateway(other.url())
        .connector(Arc::new(other.gateway.in_memory()))
        .gateway(one.url());
    let running = start(service.lease(10)).await;
    for (stage, lease) in [(&one, 5), (&other, 5)] {
        // Shares of 3, 3, 2 and 2.
        eventually("its lease is whole", async || instances(stage).await[0]["lease"] == lease).await;
        assert_eq!(instances(stage).await.len(), 1);
        assert_eq!(stage.client().get("/orders/7").await.status, StatusCode::OK);
    }
    assert_eq!(ways(&one).await.iter().map(|way| way.0).collect::<Vec<_>>(), [0, 3]);
    assert_eq!(ways(&other).await.iter().map(|way| way.0).collect::<Vec<_>>(), [1, 2]);
    running.shutdown().await.unwrap();
    assert!(instances(&one).await.is_empty() && instances(&other).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_calls_others_over_the_way_that_is_left() {
    let stage = Stage::new(TCP).await;
    let road = Forwarder::new(stage.url()).await;
    let _orders = stage.join(orders("1.0.0")).await;
    let caller = one("caller", "1.0.0", "/calls", "calls").gateway(road.url()).links(1).gateway(stage.url()).links(1);
    let running = start(caller).await;
    let call = async || {
        let request = http::Request::get("/orders/7").body(Body::empty()).unwrap();
        running.client().call(request).await.map(|response| response.status())
    };
    assert_eq!(call().await, Ok(StatusCode::OK));
    road.cut();
    eventually("the service knows that its link is lost", async || call().await == Ok(StatusCode::OK)).await;
    for _ in 0..10 {
        assert_eq!(call().await, Ok(StatusCode::OK));
    }
    running.shutdown().await.unwrap();
}

/// One that is called: it makes bytes, and counts how often.
fn maker(made: &Arc<AtomicUsize>) -> Microservice<()> {
    let made = Arc::clone(made);
    Microservice::new("maker", "1.0.0")
        .raw(Method::GET, "/bytes/{count}", move |Path(count): Path<usize>| {
            made.fetch_add(1, Ordering::Relaxed);
            async move { vec![b'x'; count] }
        })
        .raw(Method::POST, "/length", |body: Bytes| async move { body.len().to_string() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fits_no_datagram_is_called_over_a_way_that_streams() {
    let (stage, made) = (Stage::new(UDP).await, Arc::default());
    let callee = start(maker(&made).connector(Arc::new(stage.gateway.in_memory()))).await;
    let caller =
        stage.connect(one("caller", "1.0.0", "/calls", "calls")).connector(Arc::new(stage.gateway.in_memory()));
    let running = start(caller).await;
    let (client, made) = (running.client(), || made.load(Ordering::Relaxed));
    let post = |body: Body| http::Request::post("/length").body(body).unwrap();
    let get = |count: usize| http::Request::get(format!("/bytes/{count}")).body(Body::empty()).unwrap();

    assert_eq!(read(client.call(post(vec![b'x'; 100].into())).await).await, Ok("100".into()));
    assert_eq!(read(client.call(post(vec![b'x'; 5000].into())).await).await, Ok("5000".into()));
    // A body of unknown length is found to be too large only on its way, and one with trailers at its end.
    let pieces = || (0..50).map(|_| Ok::<_, BodyError>(Frame::data(Bytes::from_static(&[b'x'; 100]))));
    let unknown = Body::stream(StreamBody::new(stream::iter(pieces())));
    assert_eq!(read(client.call(post(unknown)).await).await, Ok("5000".into()));
    let trailers = http::HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), "1".parse().unwrap())]);
    let ending = Body::stream(StreamBody::new(stream::iter(pieces().take(2).chain([Ok(Frame::trailers(trailers))]))));
    assert_eq!(read(client.call(post(ending)).await).await, Ok("200".into()));

    // The handler has run when its answer does not fit: it runs again only for who says that it may.
    assert_eq!(read(client.call(get(100)).await).await.map(|bytes| bytes.len()), Ok(100));
    let too_large = read(client.call(get(5000)).await).await.unwrap_err();
    assert!(matches!(too_large, ClientError::Cancelled { reason: Reason::PayloadLimit, .. }), "{too_large}");
    assert_eq!(made(), 2);
    assert_eq!(read(client.clone().idempotent().call(get(5000)).await).await.map(|bytes| bytes.len()), Ok(5000));
    assert_eq!(made(), 4);
    running.shutdown().await.unwrap();
    callee.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fits_no_datagram_fails_where_there_is_no_other_way() {
    let (stage, made) = (Stage::new(UDP).await, Arc::default());
    let callee = start(maker(&made).connector(Arc::new(stage.gateway.in_memory()))).await;
    let running = start(stage.connect(one("caller", "1.0.0", "/calls", "calls"))).await;
    let client = running.client().idempotent();
    let large = http::Request::post("/length").body(vec![b'x'; 5000].into()).unwrap();
    let error = read(client.call(large).await).await.unwrap_err();
    assert!(matches!(&error, ClientError::Request(text) if text.contains("does not fit")), "{error}");
    let large = http::Request::get("/bytes/5000").body(Body::empty()).unwrap();
    let error = read(client.call(large).await).await.unwrap_err();
    assert!(matches!(error, ClientError::Cancelled { reason: Reason::PayloadLimit, .. }), "{error}");
    assert_eq!(made.load(Ordering::Relaxed), 1);
    running.shutdown().await.unwrap();
    callee.shutdown().await.unwrap();
}

/// All of the answer's body.
async fn read(answer: Result<Response, ClientError>) -> Result<Bytes, ClientError> {
    Ok(answer?.into_body().collect().await.unwrap().to_bytes())
}

/// Where gateways are found as the test says.
struct Search(Mutex<Option<mpsc::Receiver<Discovered>>>);

struct Searching(mpsc::Receiver<Discovered>);

impl Connector for Search {
    fn connect(&self) -> BoxFuture<'_, Result<BoxLink, LinkError>> {
        panic!("nobody is dialled here");
    }

    fn target(&self) -> &str {
        "search:"
    }

    fn discover(&self) -> Option<Box<dyn Discovery>> {
        let found = self.0.lock().unwrap().take()?;
        Some(Box::new(Searching(found)))
    }
}

impl Discovery for Searching {
    fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Result<Discovered, LinkError>> {
        self.0.poll_recv(cx).map(|found| found.ok_or(LinkError::Closed))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_that_are_found_serve_until_they_are_gone_and_when_they_are_found_again() {
    let [one, other] = [Stage::new(TCP).await, Stage::new(TCP).await];
    let (announce, found) = mpsc::channel(8);
    let announced = async |change| announce.send(change).await.unwrap();
    let is_there = |stage: &Stage, node: &str| Discovered::Found {
        node: node.into(),
        connector: Arc::new(stage.gateway.in_memory()),
    };
    let mut running = orders("1.0.0").connector(Arc::new(Search(Mutex::new(Some(found))))).lease(9).start().unwrap();
    announced(is_there(&one, "one")).await;
    within("the service is ready", running.ready()).await.unwrap();
    let leases = async |expected: [Option<u64>; 2]| {
        eventually("the leases are divided", async || {
            let lease = async |stage| instances(stage).await.first().and_then(|instance| instance["lease"].as_u64());
            [lease(&one).await, lease(&other).await] == expected
        })
        .await;
    };
    leases([Some(9), None]).await;
    announced(is_there(&other, "other")).await;
    leases([Some(5), Some(4)]).await;
    assert_eq!(other.client().get("/orders/7").await.status, StatusCode::OK);
    announced(Discovered::Gone { node: "one".into() }).await;
    leases([None, Some(9)]).await;
    assert_eq!(one.client().get("/orders/7").await.status, StatusCode::NOT_FOUND, "withdrawn, not lost");
    announced(is_there(&one, "one")).await;
    leases([Some(4), Some(5)]).await;
    assert_eq!(one.client().get("/orders/7").await.status, StatusCode::OK);
    running.shutdown().await.unwrap();
}
