//! Handlers that keep their threads: the service stays alive to its gateway, and `blocking` ones are in nobody's way.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use integration_tests::carriers::Transport;
use integration_tests::stage::Stage;
use integration_tests::{eventually, on_every_transport, within};
use microservice_sdk::{Microservice, Route, Running};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Short enough that a few handlers in a row would cost the instance its life, and long enough for a machine that has other
/// things to do.
const HEALTH: &str = "health: { heartbeat: 1s, degraded_after: 1500ms, dead_after: 3s }";

/// Keeps its thread, and never lets go of it.
fn spin(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// A service that has a runtime for itself.
struct Apart {
    running: Option<Running>,
    runtime: Option<Runtime>,
}

impl Apart {
    async fn start(stage: &Stage, service: Microservice, threads: usize, blocking_threads: usize) -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(threads).max_blocking_threads(blocking_threads).enable_all().build();
        let (runtime, service) = (runtime.unwrap(), stage.connect(service));
        let started = runtime.spawn(async move {
            let mut running = service.start().unwrap();
            running.ready().await.map(|()| running)
        });
        let running = within("the service is ready", started).await.unwrap().unwrap();
        Self { running: Some(running), runtime: Some(runtime) }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        drop(self.running.take());
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// Sixty-four at a time, 100 ms each without an await, twice over, on two threads: 6.4 seconds of nothing else.
async fn busy_handlers_never_cost_a_heartbeat(transport: Transport) {
    let stage = Stage::with(transport, HEALTH).await;
    let busy = Microservice::new("busy", "1.0.0")
        .raw(Method::GET, "/spin", || async {
            spin(Duration::from_millis(100));
            "spun"
        })
        .raw(Method::GET, "/quick", || async { "quick" });
    let _busy = Apart::start(&stage, busy, 2, 1).await;
    let mut asking = JoinSet::new();
    for _ in 0..64 {
        let client = stage.client();
        asking.spawn(async move {
            for _ in 0..2 {
                assert_eq!(client.get("/spin").await.status, StatusCode::OK);
            }
        });
    }
    let (admin, client) = (stage.admin(), stage.client());
    let (mut seen, mut slowest) = (0, Duration::ZERO);
    while !asking.is_empty() {
        let instances = admin.get("/instances").await.json();
        let instance = &instances[0];
        assert_eq!(
            (&instance["health"], &instance["heartbeats_missed"]),
            (&"healthy".into(), &0.into()),
            "{instances}"
        );
        let asked = Instant::now();
        assert_eq!(client.get("/quick").await.status, StatusCode::OK);
        slowest = slowest.max(asked.elapsed());
        seen += 1;
        while let Some(asked) = asking.try_join_next() {
            asked.unwrap();
        }
    }
    assert!(seen > 5, "looked only {seen} times");
    // It stands behind a busy poll or two, and not behind sixty.
    println!("{transport:?}: {slowest:?} at most for a quick answer");
    assert!(slowest < Duration::from_millis(1500), "{slowest:?} for a quick answer beside busy ones");
}

/// Handlers that wait on a thread until they are let go.
#[derive(Clone, Default)]
struct Blocked {
    begun: Arc<AtomicUsize>,
    gone: Arc<(Mutex<usize>, Condvar)>,
}

impl Blocked {
    fn wait(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let (left, changed) = &*self.gone;
        let mut left = changed.wait_while(left.lock().unwrap(), |left| *left == 0).unwrap();
        *left -= 1;
    }

    fn let_go(&self, count: usize) {
        *self.gone.0.lock().unwrap() += count;
        self.gone.1.notify_all();
    }

    async fn have_begun(&self, count: usize) {
        eventually("handlers have begun", async || self.begun.load(Ordering::SeqCst) == count).await;
    }

    fn service(&self) -> Microservice {
        let this = self.clone();
        Microservice::new("blocked", "1.0.0")
            .route(Route::new(Method::GET, "/blocked").blocking(), move || {
                let this = this.clone();
                async move {
                    this.wait();
                    "let go"
                }
            })
            .route(Route::new(Method::GET, "/panics").blocking(), || async {
                if true {
                    panic!("on purpose");
                }
            })
            .raw(Method::GET, "/quick", || async { "quick" })
    }
}

async fn in_flight(stage: &Stage) -> u64 {
    let instances = stage.admin().get("/instances").await.json();
    instances[0]["in_flight"].as_u64().unwrap_or_else(|| panic!("{instances}"))
}

async fn blocking_handlers_are_in_nobodys_way(transport: Transport) {
    let stage = Stage::with(transport, HEALTH).await;
    let blocked = Blocked::default();
    let _service = Apart::start(&stage, blocked.service(), 1, 16).await;
    let mut asking = JoinSet::new();
    for _ in 0..16 {
        let client = stage.client();
        asking.spawn(async move { client.get("/blocked").await });
    }
    blocked.have_begun(16).await;
    let client = stage.client();
    assert_eq!(client.get("/quick").await.body, "quick", "with one thread, and sixteen handlers that block");
    blocked.let_go(16);
    while let Some(answer) = asking.join_next().await {
        assert_eq!(answer.unwrap().body, "let go");
    }
    let answer = client.get("/panics").await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::INTERNAL_SERVER_ERROR, "internal_error"));
    eventually("nothing is in flight", async || in_flight(&stage).await == 0).await;
}

async fn a_blocking_handler_keeps_its_slot_until_it_has_ended(transport: Transport) {
    let stage = Stage::new(transport).await;
    let blocked = Blocked::default();
    let _service = Apart::start(&stage, blocked.service().lease(2), 1, 1).await;
    let ask = || {
        let client = stage.client();
        tokio::spawn(async move { client.get("/blocked").await })
    };
    let begun = ask();
    blocked.have_begun(1).await;
    let waits = ask();
    eventually("both are in flight", async || in_flight(&stage).await == 2).await;
    // One is at work and cannot be stopped; the other one waits for a thread, and is not begun any more.
    begun.abort();
    waits.abort();
    let client = stage.client();
    let answer = client.get_with("/quick", "x-request-timeout-ms", "100").await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "no_capacity"));
    assert_eq!(in_flight(&stage).await, 2);
    blocked.let_go(1);
    eventually("nothing is in flight", async || in_flight(&stage).await == 0).await;
    assert_eq!(blocked.begun.load(Ordering::SeqCst), 1);
    assert_eq!(client.get("/quick").await.body, "quick");
}

on_every_transport! {
    busy_handlers_never_cost_a_heartbeat,
    blocking_handlers_are_in_nobodys_way,
    a_blocking_handler_keeps_its_slot_until_it_has_ended,
}
