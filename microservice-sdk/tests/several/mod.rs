//! A service that reaches its gateways in several ways, and gateways that come and go.
//!
//! Where a test sleeps, time is paused: so much of it passes at once, and what must not happen meanwhile has not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use microservice_sdk::http::{Method, Request};
use microservice_sdk::{Body, Microservice, OnRefused, Running, StartError};
use router_common::frame::CloseCode;
use router_link::{BoxFuture, BoxLink, Connector, Discovered, Discovery, LinkError};
use tokio::sync::{Semaphore, mpsc};
use tracing::Level;

use crate::fake_gateway::{FakeGateway, text};
use crate::outage::{Log, Road};

/// Where gateways are found as the test says.
struct Search(Mutex<Option<mpsc::Receiver<Result<Discovered, LinkError>>>>);

/// What the test says.
struct Announce(mpsc::Sender<Result<Discovered, LinkError>>);

struct Searching(mpsc::Receiver<Result<Discovered, LinkError>>);

impl Search {
    fn start() -> (Arc<dyn Connector>, Announce) {
        let (announce, heard) = mpsc::channel(128);
        (Arc::new(Self(Mutex::new(Some(heard)))), Announce(announce))
    }
}

impl Connector for Search {
    fn connect(&self) -> BoxFuture<'_, Result<BoxLink, LinkError>> {
        panic!("nobody is dialled here");
    }

    fn target(&self) -> &str {
        "search:"
    }

    fn discover(&self) -> Option<Box<dyn Discovery>> {
        let heard = self.0.lock().unwrap().take()?;
        Some(Box::new(Searching(heard)))
    }
}

impl Discovery for Searching {
    fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Result<Discovered, LinkError>> {
        self.0.poll_recv(cx).map(|change| change.unwrap_or(Err(LinkError::Closed)))
    }
}

impl Announce {
    fn found(&self, node: &str, connector: Arc<dyn Connector>) {
        self.0.try_send(Ok(Discovered::Found { node: node.into(), connector })).unwrap();
    }

    fn gone(&self, node: &str) {
        self.0.try_send(Ok(Discovered::Gone { node: node.into() })).unwrap();
    }
}

fn service() -> Microservice {
    Microservice::new("wide", "1.0.0").raw(Method::GET, "/x", || async { "here" })
}

/// Time is paused: it passes only while nobody has anything to do.
async fn eventually(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn call(running: &Running) {
    let request = Request::get("/other").body(Body::empty()).unwrap();
    running.client().call(request).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn two_ways_to_one_gateway_have_one_lease_there_and_one_elsewhere() {
    let [one, other] = [FakeGateway::start(), FakeGateway::start()];
    let service = service().connector(one.connector()).connector(other.connector()).connector(one.connector());
    let mut running = service.lease(11).start().unwrap();
    running.ready().await.unwrap();
    one.lease(7).await;
    other.lease(4).await;
    let mut hellos: Vec<_> = one.hellos().iter().map(|hello| (hello.preference, hello.link, hello.lease)).collect();
    hellos.sort_unstable();
    assert_eq!(hellos, [(0, 0, 4), (2, 0, 3)]);
    assert_eq!(other.hellos()[0].preference, 1);

    // A way that is lost leaves its share where it was, and says so when it comes again.
    one.link_on(0).await.close(CloseCode::Shutdown, "gone for a moment");
    one.links(3).await;
    one.lease(7).await;
    let mut leases: Vec<_> = one.hellos().iter().map(|hello| hello.lease).collect();
    leases.sort_unstable();
    assert_eq!(leases, [3, 4, 7]);
    running.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_share_of_a_gateway_that_cannot_be_reached_is_the_others_until_it_is_back() {
    let [one, other] = [FakeGateway::start(), FakeGateway::start()];
    let road = Road::closed(other.connector());
    let service = service().connector(one.connector()).connector(Arc::clone(&road) as Arc<dyn Connector>);
    let mut running = service.lease(9).start().unwrap();
    one.lease(9).await;
    road.open.send_replace(true);
    running.ready().await.unwrap();
    other.lease(4).await;
    one.lease(5).await;
    assert_eq!(other.hellos()[0].lease, 0, "nothing is promised that others still have");

    // A link that is lost may be made again at once. It is the failure to that counts.
    other.link().await.close(CloseCode::Shutdown, "gone for a moment");
    other.links(2).await;
    one.lease(5).await;
    road.open.send_replace(false);
    other.link().await.close(CloseCode::Shutdown, "gone");
    one.lease(9).await;
    road.open.send_replace(true);
    other.lease(4).await;
    one.lease(5).await;
    running.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_lent_and_is_in_flight_comes_back_when_it_ends() {
    const LEASE: usize = 6;
    let [one, other] = [FakeGateway::start(), FakeGateway::start()];
    let road = Road::closed(other.connector());
    let (go, at_work, most) =
        (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (gate, working, peak) = (Arc::clone(&go), Arc::clone(&at_work), Arc::clone(&most));
    let service = Microservice::new("wide", "1.0.0").raw(Method::GET, "/held", move || {
        let (gate, working, peak) = (Arc::clone(&gate), Arc::clone(&working), Arc::clone(&peak));
        async move {
            peak.fetch_max(working.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            gate.acquire().await.unwrap().forget();
            working.fetch_sub(1, Ordering::Relaxed);
        }
    });
    let service = service.connector(one.connector()).connector(Arc::clone(&road) as Arc<dyn Connector>);
    let running = service.lease(LEASE as u32).start().unwrap();
    one.lease(6).await;
    let ask = |gateway: &FakeGateway| {
        let gateway = gateway.clone();
        tokio::spawn(async move { gateway.get("/held").await.map(|_| ()) })
    };
    let mut asked: Vec<_> = (0..LEASE).map(|_| ask(&one)).collect();
    eventually(|| at_work.load(Ordering::Relaxed) == LEASE).await;
    road.open.send_replace(true);
    one.lease(3).await;
    // One slot at least.
    other.lease(1).await;
    for limit in [1, 2, 3] {
        go.add_permits(1);
        eventually(|| at_work.load(Ordering::Relaxed) == LEASE - limit).await;
        other.lease(limit as u32).await;
    }
    asked.extend((0..3).map(|_| ask(&other)));
    eventually(|| at_work.load(Ordering::Relaxed) == LEASE).await;
    go.add_permits(LEASE);
    for asked in asked {
        asked.await.unwrap().unwrap();
    }
    assert_eq!(most.load(Ordering::Relaxed), LEASE);
    running.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_told_anew_to_a_gateway_that_has_forgotten_the_instance() {
    let gateway = FakeGateway::start();
    let service = service().connector(gateway.connector()).connector(gateway.connector());
    let mut running = service.lease(8).start().unwrap();
    running.ready().await.unwrap();
    gateway.lease(8).await;
    for preference in [0, 1] {
        gateway.link_on(preference).await.close(CloseCode::Shutdown, "the gateway restarts");
    }
    gateway.links(4).await;
    gateway.lease(8).await;
    running.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn calls_go_over_the_preferred_way_while_it_is_there() {
    let gateway = FakeGateway::start();
    let preferred = Road::closed(gateway.connector());
    let service = service().connector(Arc::clone(&preferred) as Arc<dyn Connector>).connector(gateway.connector());
    let mut running = service.start().unwrap();
    gateway.links(1).await;
    assert_eq!(text(gateway.get("/x").await.unwrap()).await.unwrap(), "here", "nobody waits for the other way");
    call(&running).await;
    assert_eq!(gateway.called_by(), [1]);

    preferred.open.send_replace(true);
    running.ready().await.unwrap();
    call(&running).await;
    call(&running).await;
    assert_eq!(gateway.called_by(), [0, 0]);

    let link = gateway.link_on(0).await;
    link.drain();
    gateway.links(3).await;
    call(&running).await;
    assert_eq!(gateway.called_by(), [0], "another link has its place");

    preferred.open.send_replace(false);
    gateway.link().await.close(CloseCode::Shutdown, "lost");
    link.close(CloseCode::Shutdown, "lost");
    gateway.link_on(1).await;
    running.ready().await.unwrap();
    preferred.open.send_replace(true);
    gateway.links(4).await;
    call(&running).await;
    assert_eq!(gateway.called_by(), [0]);
    running.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn calls_go_to_any_gateway_that_is_there() {
    let [one, other] = [FakeGateway::start(), FakeGateway::start()];
    let mut running = service().connector(one.connector()).connector(other.connector()).start().unwrap();
    running.ready().await.unwrap();
    one.link().await.drain();
    call(&running).await;
    assert_eq!((one.called_by(), other.called_by()), (vec![], vec![1]));
    running.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn gateways_come_and_go_and_divide_the_lease() {
    let [one, other] = [FakeGateway::start(), FakeGateway::start()];
    let (search, announce) = Search::start();
    let mut running = service().connector(search).lease(10).start().unwrap();
    announce.found("one", one.connector());
    running.ready().await.unwrap();
    one.lease(10).await;

    announce.found("other", other.connector());
    one.lease(5).await;
    other.lease(5).await;
    assert_eq!(text(other.get("/x").await.unwrap()).await.unwrap(), "here");

    announce.gone("one");
    one.deserted().await;
    other.lease(10).await;

    announce.found("one", one.connector());
    one.lease(5).await;
    other.lease(5).await;
    // What says nothing of anybody who is known changes nothing.
    announce.gone("nobody");
    call(&running).await;
    running.shutdown().await.unwrap();
    assert_eq!((one.hellos().len(), other.hellos().len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_is_found_and_dialled_has_the_shares_of_both() {
    let [both, other] = [FakeGateway::start(), FakeGateway::start()];
    let (search, announce) = Search::start();
    let mut running = service().connector(both.connector()).connector(search).lease(12).start().unwrap();
    announce.found("both", both.connector());
    running.ready().await.unwrap();
    both.lease(12).await;
    announce.found("other", other.connector());
    both.lease(9).await;
    other.lease(3).await;
    // A name that is told by a broker is not believed: WELCOME says who it is.
    announce.gone("both");
    both.lease(6).await;
    other.lease(6).await;
    assert_eq!(text(both.get("/x").await.unwrap()).await.unwrap(), "here");
    running.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_is_found_again_is_dialled_anew_and_at_once() {
    let gateway = FakeGateway::start();
    let (search, announce) = Search::start();
    let mut running = service().connector(search).start().unwrap();
    announce.found("one", Road::closed(gateway.connector()));
    tokio::time::sleep(Duration::from_secs(120)).await;
    let before = tokio::time::Instant::now();
    announce.found("one", gateway.connector());
    running.ready().await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    assert_eq!(gateway.hellos().len(), 1);
    running.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_service_that_has_found_nobody_waits_and_stops_when_it_is_told_to() {
    let log = Log::default();
    let _heard = tracing::subscriber::set_default(log.clone());
    let (search, announce) = Search::start();
    let running = service().connector(search).start().unwrap();
    let failed = || LinkError::io("reaching the broker", std::io::ErrorKind::ConnectionRefused.into());
    for _ in 0..3 {
        announce.0.send(Err(failed())).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    let told = log.of(Level::WARN);
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].text.contains("search:") && told[0].text.contains("reaching the broker"), "{told:#?}");
    running.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_more_gateways_are_dialled_than_may_be_whoever_announces_them() {
    let gateway = FakeGateway::start();
    let (search, announce) = Search::start();
    let running = service().connector(search).start().unwrap();
    for node in 0..70 {
        announce.found(&format!("node-{node}"), gateway.connector());
    }
    gateway.links(64).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(gateway.hellos().len(), 64);
    announce.gone("node-7");
    announce.found("node-69", gateway.connector());
    gateway.links(65).await;
    running.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stranger_who_is_found_ends_nothing() {
    let gateway = FakeGateway::start();
    let (search, announce) = Search::start();
    // It is asked for no secret, and has one: not its gateway.
    let mut running =
        service().connector(gateway.connector()).connector(search).shared_secret([7; 32]).start().unwrap();
    announce.found("stranger", gateway.connector());
    gateway.links(1).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(text(gateway.get("/x").await.unwrap()).await.unwrap(), "here");
    tokio::select! {
        ended = running.ended() => panic!("{ended:?}"),
        () = tokio::time::sleep(Duration::from_secs(1)) => {}
    }
    running.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_reached_keeps_nobody_else_from_serving_and_is_named() {
    let log = Log::default();
    let _heard = tracing::subscriber::set_default(log.clone());
    let gateway = FakeGateway::start();
    let road = Road::closed(gateway.connector()) as Arc<dyn Connector>;
    let running = service().connector(road).connector(gateway.connector()).start().unwrap();
    assert_eq!(text(gateway.get("/x").await.unwrap()).await.unwrap(), "here");
    let told = log.of(Level::WARN);
    assert!(told.len() == 1 && told[0].text.contains("gateway=road"), "{told:#?}");
    running.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_gateway_may_be_allowed_to_refuse_or_not() {
    let [lenient, strict] = [FakeGateway::start(), FakeGateway::start()];
    let service = || {
        let service = service().connector(lenient.connector()).gateway_on_refused(OnRefused::Warn);
        service.connector(strict.connector())
    };
    lenient.refuse("/x", "it cannot be carried");
    let mut running = service().start().unwrap();
    running.ready().await.unwrap();
    running.shutdown().await.unwrap();
    strict.refuse("/x", "it cannot be carried");
    let error = service().start().unwrap().ready().await.unwrap_err();
    assert!(matches!(error, StartError::Refused { .. }), "{error}");
}
