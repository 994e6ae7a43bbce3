//! Who is alive and who is not: silence, peers that read nothing, and what a service says of itself (SPEC 4, 5).

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use microservice_sdk::{Health, HealthStatus, Microservice};
use router_common::frame::Frame;
use serde_json::Value;

use crate::carrier::Transport;
use crate::meddle::meddling;
use crate::scenario::list;
use crate::stage::Stage;
use crate::{eventually, within};

const HEALTH: &str = "health: { heartbeat: 200ms, degraded_after: 500ms, dead_after: 1500ms }";

async fn instances(stage: &Stage) -> Value {
    stage.admin().get("/instances").await.json()
}

/// A service whose only thread stands still answers nothing, heartbeats least of all.
async fn a_frozen_service_is_degraded_then_dead_and_welcome_again(transport: Transport) {
    let stage = Stage::with(transport, HEALTH).await;
    let (thaw, frozen) = mpsc::sync_channel::<()>(1);
    let frozen = Arc::new(Mutex::new(frozen));
    let service = stage.connect(
        Microservice::new("frozen", "1.0.0")
            .raw(Method::GET, "/wait", || async { std::future::pending::<&'static str>().await })
            .raw(Method::GET, "/quick", || async { "quick" })
            .raw(Method::POST, "/freeze", move || {
                let frozen = Arc::clone(&frozen);
                async move {
                    let _ = frozen.lock().unwrap().recv();
                }
            }),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let started = runtime.spawn(async move {
        let mut running = service.start().unwrap();
        running.ready().await.map(|()| running)
    });
    let running = within("the service is ready", started).await.unwrap().unwrap();

    let mut asked = Vec::new();
    for client in [stage.client(), stage.http2()] {
        asked.push(tokio::spawn(async move { client.get("/wait").await }));
    }
    eventually("they are in flight", async || instances(&stage).await[0]["in_flight"] == 2).await;
    let client = stage.client();
    let since = Instant::now();
    asked.push(tokio::spawn(async move { client.post("/freeze", "").await }));
    eventually("it is degraded", async || {
        let instance = &instances(&stage).await[0];
        instance["health"] == "degraded" && instance["silent"] == true && instance["heartbeats_missed"] != 0
    })
    .await;
    for asked in asked {
        let answer = within("the outcome", asked).await.unwrap();
        assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::BAD_GATEWAY, "connection_lost"));
    }
    assert!(since.elapsed() >= Duration::from_millis(1000), "{:?}: too early to be sure", since.elapsed());
    // From that moment on nothing is routed to it, and nobody mistakes the outage for an absence.
    assert_eq!(instances(&stage).await, Value::Array(Vec::new()));
    let answer = stage.client().get("/quick").await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "no_instance"));

    thaw.send(()).unwrap();
    eventually("it is back", async || stage.client().get("/quick").await.status == StatusCode::OK).await;
    assert_eq!(instances(&stage).await[0]["health"], "healthy");
    drop(running);
    runtime.shutdown_background();
}

async fn a_peer_that_answers_no_heartbeat_is_dead_whatever_else_it_says(transport: Transport) {
    let stage = Stage::with(transport, HEALTH).await;
    let service = Microservice::new("deaf", "1.0.0").raw(Method::GET, "/quick", || async { "quick" });
    let deaf = meddling(stage.connector(), |frames| frames.retain(|frame| !matches!(frame, Frame::HeartbeatAck(_))));
    let service = stage.connect_by(service, deaf);
    let mut running = service.start().unwrap();
    within("the service is ready", running.ready()).await.unwrap();
    let (client, since) = (stage.client(), Instant::now());
    let mut answered = 0;
    // It answers all the while, and is never silent.
    while client.get("/quick").await.status == StatusCode::OK {
        let seen = instances(&stage).await;
        assert!(seen.as_array().unwrap().iter().all(|instance| instance["silent"] == false), "{seen}");
        answered += 1;
    }
    assert!(answered > 3 && since.elapsed() >= Duration::from_secs(1), "{answered} in {:?}", since.elapsed());
}

async fn what_a_service_says_of_its_health_counts_at_once(transport: Transport) {
    let stage = Stage::new(transport).await;
    let service = |id: &str, answer: &'static str| {
        Microservice::new("frank", "1.0.0").instance_id(id).raw(Method::GET, "/who", move || async move { answer }).raw(
            Method::POST,
            "/feel/unwell",
            |health: Health| async move { health.set(HealthStatus::Unhealthy) },
        )
    };
    let one = stage.join(service("one", "one")).await;
    let client = stage.client();
    let is_routed = async |status| {
        eventually("the word has come", async || client.get("/who").await.status == status).await;
    };
    // A handler says it; whoever has the service takes it back.
    assert!(client.post("/feel/unwell", "").await.status.is_success());
    is_routed(StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(client.get("/who").await.problem(), "no_instance");
    assert_eq!(instances(&stage).await[0]["health"], "unhealthy");
    assert_eq!(one.health().status(), HealthStatus::Unhealthy);
    one.set_health(HealthStatus::Healthy);
    is_routed(StatusCode::OK).await;

    // A degraded instance serves only while there is no better one.
    one.health().set(HealthStatus::Degraded);
    eventually("it is degraded", async || instances(&stage).await[0]["health"] == "degraded").await;
    assert_eq!(client.get("/who").await.body, "one");
    let two = stage.join(service("two", "two")).await;
    for _ in 0..10 {
        assert_eq!(client.get("/who").await.body, "two");
    }
    two.set_health(HealthStatus::Unhealthy);
    eventually("the degraded one serves again", async || client.get("/who").await.body == "one").await;
}

list! {
    a_frozen_service_is_degraded_then_dead_and_welcome_again => Nothing,
    a_peer_that_answers_no_heartbeat_is_dead_whatever_else_it_says => Nothing,
    what_a_service_says_of_its_health_counts_at_once => Nothing,
}
