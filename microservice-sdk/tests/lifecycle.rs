//! A service behind a gateway that does as a test says: registration, cancellation, deadlines, drain, reconnecting.

mod fake_gateway;
mod outage;
mod several;

use std::sync::Arc;
use std::time::Duration;

use fake_gateway::{FakeGateway, text};
use microservice_sdk::http::StatusCode;
use microservice_sdk::{
    Body, Cancellation, Chunks, Client, Deadline, HealthStatus, Internal, Microservice, OnRefused, Path, Response,
    Running, StartError, State, endpoint, endpoints,
};
use router_common::frame::{CloseCode, Hello, Reason};
use router_common::limits;
use router_link::CallError;
use tokio::sync::{Semaphore, mpsc};

/// What handlers tell the test, and wait for.
#[derive(Clone)]
struct Stage {
    told: mpsc::Sender<&'static str>,
    go: Arc<Semaphore>,
}

/// Tells when it is dropped.
struct Dropped(Stage, &'static str);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.told.try_send(self.1);
    }
}

impl Stage {
    fn new() -> (Self, mpsc::Receiver<&'static str>) {
        let (told, heard) = mpsc::channel(64);
        (Self { told, go: Arc::new(Semaphore::new(0)) }, heard)
    }

    async fn play(&self) -> &'static str {
        let _dropped = Dropped(self.clone(), "dropped");
        let _ = self.told.send("started").await;
        self.go.acquire().await.unwrap().forget();
        let _ = self.told.send("ended").await;
        "played"
    }
}

#[endpoint(GET, "/hello/{name}")]
async fn hello(Path(name): Path<String>) -> String {
    format!("Hello, {name}!")
}

#[endpoint(GET, "/wait")]
async fn wait(State(stage): State<Stage>) -> &'static str {
    stage.play().await
}

#[endpoint(GET, "/detached", detached)]
async fn detached(State(stage): State<Stage>, cancellation: Cancellation) -> &'static str {
    let played = stage.play().await;
    let _ = stage.told.send(if cancellation.is_cancelled() { "alone" } else { "awaited" }).await;
    played
}

#[endpoint(POST, "/later", one_way)]
async fn later(State(stage): State<Stage>) -> &'static str {
    stage.play().await
}

#[endpoint(GET, "/panic")]
async fn panics() -> &'static str {
    tokio::task::yield_now().await;
    if true {
        panic!("on purpose");
    }
    "never"
}

#[endpoint(GET, "/torn", streaming(response))]
async fn torn(
    State(stage): State<Stage>,
) -> Chunks<impl futures_util::Stream<Item = Result<bytes::Bytes, std::io::Error>>> {
    let first = futures_util::stream::iter([Ok(bytes::Bytes::from_static(b"first"))]);
    let then = futures_util::stream::once(async move {
        stage.go.acquire().await.unwrap().forget();
        panic!("in the body")
    });
    Chunks(futures_util::StreamExt::chain(first, then))
}

#[endpoint(POST, "/echo", streaming)]
async fn echo(body: Body) -> Body {
    body
}

#[endpoint(GET, "/left")]
async fn left(deadline: Deadline) -> String {
    format!("{:?}", deadline.remaining().map(|left| left.as_secs()))
}

#[endpoint(GET, "/relay")]
async fn relay(client: Client) -> Result<Response, Internal> {
    let request = microservice_sdk::http::Request::get("/further").body(Body::empty())?;
    Ok(client.call(request).await?)
}

fn service(stage: Stage) -> Microservice<Stage> {
    Microservice::new("stage", "1.0.0")
        .state(stage)
        .endpoints(endpoints![hello, wait, detached, later, panics, torn, echo, left, relay])
}

struct Theatre {
    gateway: FakeGateway,
    running: Running,
    stage: Stage,
    heard: mpsc::Receiver<&'static str>,
}

async fn theatre() -> Theatre {
    let gateway = FakeGateway::start();
    let (stage, heard) = Stage::new();
    let mut running = service(stage.clone()).connector(gateway.connector()).start().unwrap();
    running.ready().await.unwrap();
    Theatre { gateway, running, stage, heard }
}

impl Theatre {
    async fn heard(&mut self) -> &'static str {
        self.heard.recv().await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn requests_reach_their_handlers_by_id() {
    let theatre = theatre().await;
    let response = theatre.gateway.get("/hello/a%20b").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(text(response).await.unwrap(), "Hello, a b!");
    let body = "x".repeat(200_000);
    let response = theatre.gateway.request("POST", "/echo", body.clone().into(), None).await.unwrap();
    assert_eq!(text(response).await.unwrap(), body);
    theatre.running.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_drain_answers_what_is_in_flight_and_nothing_more_comes() {
    let mut theatre = theatre().await;
    let gateway = theatre.gateway.clone();
    let asked = tokio::spawn(async move { text(gateway.get("/wait").await.unwrap()).await });
    assert_eq!(theatre.heard().await, "started");
    let Theatre { gateway, running, stage, .. } = theatre;
    let link = gateway.link().await;
    let shutdown = tokio::spawn(running.shutdown());
    gateway.peer_draining().await;
    assert!(matches!(gateway.get("/hello/x").await, Err(CallError::Unseen { whole: true })));
    assert!(!shutdown.is_finished());
    stage.go.add_permits(1);
    assert_eq!(asked.await.unwrap().unwrap(), "played");
    shutdown.await.unwrap().unwrap();
    assert_eq!(link.closed().await.code, CloseCode::Normal);
}

#[tokio::test(start_paused = true)]
async fn the_grace_bounds_a_drain() {
    let gateway = FakeGateway::start();
    let (stage, mut heard) = Stage::new();
    let hooks = stage.clone();
    let mut running = service(stage)
        .connector(gateway.connector())
        .shutdown_grace(Duration::from_secs(3))
        .on_shutdown(move || async move {
            let _ = hooks.told.send("hook").await;
        })
        .start()
        .unwrap();
    running.ready().await.unwrap();
    let asker = gateway.clone();
    let asked = tokio::spawn(async move { asker.get("/wait").await });
    assert_eq!(heard.recv().await.unwrap(), "started");
    let since = tokio::time::Instant::now();
    running.shutdown().await.unwrap();
    assert!(since.elapsed() >= Duration::from_secs(3) && since.elapsed() < Duration::from_secs(5));
    assert!(matches!(asked.await.unwrap(), Err(CallError::Lost { .. })));
    assert_eq!(heard.recv().await.unwrap(), "dropped");
    assert_eq!(heard.recv().await.unwrap(), "hook");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_handler_is_dropped_and_a_detached_one_is_not() {
    let mut theatre = theatre().await;
    let gateway = theatre.gateway.clone();
    let asked = tokio::spawn(async move { gateway.get("/wait").await.map(drop) });
    assert_eq!(theatre.heard().await, "started");
    asked.abort();
    assert_eq!(theatre.heard().await, "dropped");

    let gateway = theatre.gateway.clone();
    let asked = tokio::spawn(async move { gateway.get("/detached").await.map(drop) });
    assert_eq!(theatre.heard().await, "started");
    asked.abort();
    let _ = asked.await;
    // The cancellation has reached the service before this call's answer can.
    text(theatre.gateway.get("/hello/x").await.unwrap()).await.unwrap();
    theatre.stage.go.add_permits(1);
    assert_eq!(theatre.heard().await, "ended");
    assert_eq!(theatre.heard().await, "dropped");
    assert_eq!(theatre.heard().await, "alone");
    theatre.gateway.idle().await;
}

#[tokio::test(start_paused = true)]
async fn the_service_keeps_the_deadline_too() {
    let mut theatre = theatre().await;
    let gateway = theatre.gateway.clone();
    let five = Some(Duration::from_secs(5));
    let response = gateway.request("GET", "/left", Body::empty(), five).await.unwrap();
    assert_eq!(text(response).await.unwrap(), "Some(5)");
    theatre.gateway.stop_clock();
    let asked = tokio::spawn(async move { gateway.request("GET", "/wait", Body::empty(), five).await.map(drop) });
    assert_eq!(theatre.heard().await, "started");
    assert_eq!(theatre.heard().await, "dropped");
    let error = asked.await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Cancelled { reason: Reason::DeadlineExceeded, .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_its_own_requests_alone() {
    let theatre = theatre().await;
    let response = theatre.gateway.get("/panic").await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(text(response).await.unwrap().contains("internal_error"));
    let response = theatre.gateway.get("/torn").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    theatre.stage.go.add_permits(1);
    assert!(text(response).await.is_err(), "a torn body must not look complete");
    assert_eq!(text(theatre.gateway.get("/hello/x").await.unwrap()).await.unwrap(), "Hello, x!");
    theatre.gateway.idle().await;
}

#[tokio::test(start_paused = true)]
async fn a_one_way_endpoint_answers_on_admission_and_ends_with_its_handler() {
    let mut theatre = theatre().await;
    let response = theatre.gateway.request("POST", "/later", Body::empty(), None).await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(theatre.heard().await, "started");
    let body = tokio::spawn(text(response));
    theatre.stage.go.add_permits(1);
    assert_eq!(theatre.heard().await, "ended");
    assert_eq!(body.await.unwrap().unwrap(), "");

    // A client that leaves cancels nothing.
    let response = theatre.gateway.request("POST", "/later", Body::empty(), None).await.unwrap();
    assert_eq!(theatre.heard().await, "dropped");
    assert_eq!(theatre.heard().await, "started");
    drop(response);
    text(theatre.gateway.get("/hello/x").await.unwrap()).await.unwrap();
    theatre.stage.go.add_permits(1);
    assert_eq!(theatre.heard().await, "ended");
}

#[tokio::test(start_paused = true)]
async fn an_id_that_was_never_given_is_refused_unseen() {
    let theatre = theatre().await;
    assert!(matches!(theatre.gateway.call_id(99, "/x").await, Err(CallError::Unseen { whole: true })));
}

#[tokio::test(start_paused = true)]
async fn a_refused_endpoint_fails_the_start_by_name() {
    let gateway = FakeGateway::start();
    gateway.refuse("/wait", "the service `other` owns it");
    let (stage, _heard) = Stage::new();
    let mut running = service(stage).connector(gateway.connector()).start().unwrap();
    let error = running.ready().await.unwrap_err();
    assert!(matches!(error, StartError::Refused { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("GET /wait (`wait`): the service `other` owns it"), "{text}");
    assert!(text.contains("on_refused: warn"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_endpoint_may_be_a_warning() {
    let gateway = FakeGateway::start();
    gateway.refuse("/wait", "the service `other` owns it");
    let (stage, _heard) = Stage::new();
    let mut running = service(stage).connector(gateway.connector()).on_refused(OnRefused::Warn).start().unwrap();
    running.ready().await.unwrap();
    assert_eq!(text(gateway.get("/hello/x").await.unwrap()).await.unwrap(), "Hello, x!");
}

#[tokio::test(start_paused = true)]
async fn a_lost_link_is_dialled_again_with_the_same_incarnation() {
    let mut theatre = theatre().await;
    let first = theatre.gateway.link().await;
    first.close(CloseCode::Shutdown, "the gateway restarts");
    first.closed().await;
    theatre.gateway.links(2).await;
    theatre.running.ready().await.unwrap();
    assert_eq!(text(theatre.gateway.get("/hello/x").await.unwrap()).await.unwrap(), "Hello, x!");
    let hellos = theatre.gateway.hellos();
    assert_eq!(hellos.len(), 2);
    assert_eq!(hellos[0].incarnation, hellos[1].incarnation);
    assert_eq!(hellos[0].instance, hellos[1].instance);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_the_gateway_drains_serves_to_its_end_while_another_takes_its_place() {
    let mut theatre = theatre().await;
    let old = theatre.gateway.link().await;
    let asker = theatre.gateway.clone();
    let asked = tokio::spawn(async move { text(asker.get("/wait").await.unwrap()).await });
    assert_eq!(theatre.heard().await, "started");
    old.drain();
    theatre.gateway.links(2).await;
    let hellos = theatre.gateway.hellos();
    assert_eq!((hellos[0].link, hellos[0].incarnation), (hellos[1].link, hellos[1].incarnation));
    assert_eq!(text(theatre.gateway.get("/hello/x").await.unwrap()).await.unwrap(), "Hello, x!");
    // A call does not go where nobody wants it.
    let request = microservice_sdk::http::Request::get("/other").body(Body::empty()).unwrap();
    theatre.running.client().call(request).await.unwrap();
    assert!(old.is_open(), "what is in flight there goes on");
    theatre.stage.go.add_permits(1);
    assert_eq!(asked.await.unwrap().unwrap(), "played");

    old.close(CloseCode::Shutdown, "the process ends");
    old.closed().await;
    assert_eq!(text(theatre.gateway.get("/hello/y").await.unwrap()).await.unwrap(), "Hello, y!");
    theatre.running.shutdown().await.unwrap();
    assert_eq!(theatre.gateway.hellos().len(), 2, "it was replaced already");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_drains_every_link_is_not_dialled_without_end() {
    let gateway = FakeGateway::start();
    let (stage, _heard) = Stage::new();
    let running = service(stage).connector(gateway.connector()).start().unwrap();
    for count in 1..=65 {
        gateway.links(count).await;
        gateway.link().await.drain();
    }
    let last = gateway.link().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(gateway.hellos().len(), 65, "so many old links are enough");
    last.close(CloseCode::Shutdown, "one of them ends");
    gateway.links(66).await;
    running.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_superseded_service_ends_and_does_not_come_back() {
    let mut theatre = theatre().await;
    theatre.gateway.link().await.close(CloseCode::Superseded, "another process");
    let error = theatre.running.ended().await.unwrap_err();
    assert!(matches!(error, StartError::Superseded { .. }), "{error}");
    assert_eq!(theatre.gateway.hellos().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_divided_over_gateways_and_shared_by_links() {
    let gateways = [FakeGateway::start(), FakeGateway::start()];
    let (stage, _heard) = Stage::new();
    let mut running = service(stage)
        .connector(gateways[0].connector())
        .links(2)
        .connector(gateways[1].connector())
        .lease(11)
        .start()
        .unwrap();
    running.ready().await.unwrap();
    gateways[0].links(2).await;
    let hellos = gateways[0].hellos();
    assert_eq!(
        hellos.iter().map(|hello| (hello.link, hello.links, hello.lease)).collect::<Vec<_>>(),
        [(0, 2, 6), (1, 2, 6)]
    );
    assert_eq!(gateways[1].hellos()[0].lease, 5);
    running.set_health(HealthStatus::Degraded);
    gateways[1].health(HealthStatus::Degraded).await;
    running.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_link_that_ends_as_soon_as_it_is_welcomed_is_dialled_again() {
    let gateway = FakeGateway::start();
    gateway.hang_up_once();
    let (stage, _heard) = Stage::new();
    let mut running = service(stage).connector(gateway.connector()).start().unwrap();
    running.ready().await.unwrap();
    assert_eq!(text(gateway.get("/hello/x").await.unwrap()).await.unwrap(), "Hello, x!");
    assert_eq!(gateway.hellos().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn as_many_links_are_opened_as_the_gateway_wants() {
    let gateway = FakeGateway::start();
    gateway.want_links(3);
    let (stage, _heard) = Stage::new();
    let mut running = service(stage).connector(gateway.connector()).start().unwrap();
    running.ready().await.unwrap();
    gateway.links(3).await;
    let numbers = |hellos: Vec<Hello>| hellos.iter().map(|hello| (hello.link, hello.links)).collect::<Vec<_>>();
    assert_eq!(numbers(gateway.hellos()), [(0, 1), (1, 3), (2, 3)]);

    // A link that comes again hears a new wish.
    gateway.want_links(u16::MAX);
    gateway.link().await.close(CloseCode::Shutdown, "the gateway has more workers now");
    gateway.links(1 + usize::from(limits::LINKS_WANTED)).await;
    let last = gateway.hellos().pop().unwrap();
    assert_eq!((last.link, last.links), (limits::LINKS_WANTED - 1, limits::LINKS_WANTED));
    running.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lost_link_that_is_wanted_no_more_is_not_dialled_again() {
    let gateway = FakeGateway::start();
    gateway.want_links(3);
    let (stage, _heard) = Stage::new();
    let mut running = service(stage).connector(gateway.connector()).start().unwrap();
    running.ready().await.unwrap();
    gateway.links(3).await;
    gateway.want_links(1);
    gateway.close_link(0);
    gateway.links(4).await;
    gateway.close_link(2);
    gateway.close_link(0);
    gateway.links(5).await;
    let numbers: Vec<u16> = gateway.hellos().iter().map(|hello| hello.link).collect();
    assert_eq!(numbers, [0, 0, 0, 1, 2]);
    running.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_number_of_links_that_is_set_is_kept_whatever_the_gateway_wants() {
    let gateway = FakeGateway::start();
    gateway.want_links(3);
    let (stage, _heard) = Stage::new();
    let mut running = service(stage).connector(gateway.connector()).links(2).start().unwrap();
    running.ready().await.unwrap();
    gateway.links(2).await;
    // All that is opened was there before the first answer.
    assert_eq!(text(gateway.get("/hello/x").await.unwrap()).await.unwrap(), "Hello, x!");
    assert_eq!(gateway.hellos().len(), 2);
    running.shutdown().await.unwrap();
    assert_eq!(gateway.hellos().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_service_calls_others_through_its_gateway() {
    let theatre = theatre().await;
    let client = theatre.running.client().timeout(Duration::from_secs(7));
    let request = microservice_sdk::http::Request::get("/other?x=1").body(Body::empty()).unwrap();
    let response = client.call(request).await.unwrap();
    assert_eq!(text(response).await.unwrap(), "GET /other?x=1 within Some(7), trace None");

    // Within a request, its time and its trace context are passed on.
    let response = theatre.gateway.request("GET", "/relay", Body::empty(), Some(Duration::from_secs(3))).await.unwrap();
    assert_eq!(text(response).await.unwrap(), "GET /further within Some(3), trace Some(\"00-trace\")");
}

#[tokio::test(start_paused = true)]
async fn without_a_gateway_there_is_nothing_to_run() {
    let error = Microservice::new("alone", "1.0.0").start().unwrap_err();
    assert!(matches!(error, StartError::NoGateway), "{error}");
    let error = Microservice::new("alone", "1.0.0").gateway("carrier-pigeon://roof").start().unwrap_err();
    assert!(error.to_string().contains("no transport for `carrier-pigeon://`"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn microservice_yaml_stands_above_the_code() {
    let yaml = r#"
service: { region: eu-west, instance_id: stage-7 }
lease: 5
endpoints:
  - { method: GET, path: "/hello/{who}", timeout: 3s, requiring_claims: [{ type: scope }], max_request_bytes: 1KiB }
  - { method: GET, path: "/helo/{who}", timeout: 3s }
"#;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("microservice.yaml");
    std::fs::write(&file, yaml).unwrap();
    let gateway = FakeGateway::start();
    let (stage, _heard) = Stage::new();
    let mut running =
        service(stage).connector(gateway.connector()).region("us-east").config_file(&file).start().unwrap();
    running.ready().await.unwrap();
    let hello = &gateway.hellos()[0];
    assert_eq!((hello.instance.region.as_str(), hello.instance.id.as_str(), hello.lease), ("eu-west", "stage-7", 5));
    let descriptor = gateway.endpoint("/hello/{name}");
    assert_eq!(descriptor.timeout, Some(Duration::from_secs(3)));
    assert_eq!(descriptor.max_request_bytes, Some(1024));
    assert_eq!(descriptor.requiring_claims.len(), 1);
}

/// The only test that listens to signals, so that it alone is ended by one.
#[cfg(unix)]
#[tokio::test]
async fn sigterm_drains_and_loses_nothing() {
    let gateway = FakeGateway::start();
    let (stage, mut heard) = Stage::new();
    let run = tokio::spawn(service(stage.clone()).connector(gateway.connector()).run());
    gateway.links(1).await;
    let asker = gateway.clone();
    let asked = tokio::spawn(async move { text(asker.get("/wait").await.unwrap()).await });
    assert_eq!(heard.recv().await.unwrap(), "started");

    let own = std::process::id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &own]).status().unwrap().success());
    gateway.peer_draining().await;
    stage.go.add_permits(1);
    assert_eq!(asked.await.unwrap().unwrap(), "played");
    run.await.unwrap().unwrap();
}
