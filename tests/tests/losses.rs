//! Links that lose frames, and links that carry less than others: what clients see, and what is left behind (SPEC 4, 7).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, StatusCode};
use integration_tests::carriers::{LOSSY, SCATTERING};
use integration_tests::stage::Stage;
use integration_tests::{eventually, within};
use microservice_sdk::{Microservice, OnRefused, Path, Route};
use tokio::task::JoinSet;

const CALLS: usize = 400;
const AT_ONCE: usize = 16;

/// A tenth of the frames is lost for good, and there is no packet layer to bring them back: then a call either gets its
/// right answer or is late, no handler runs twice, and every slot of the lease comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_has_one_right_outcome_whatever_is_lost() {
    let stage = Stage::new(LOSSY).await;
    let runs: Arc<Mutex<HashMap<usize, usize>>> = Arc::default();
    let counted = Arc::clone(&runs);
    let service = Microservice::new("lossy", "1.0.0").lease(64).raw(
        Method::GET,
        "/numbers/{number}",
        move |Path(number): Path<usize>| {
            *counted.lock().unwrap().entry(number).or_default() += 1;
            async move { number.to_string() }
        },
    );
    let _running = stage.join(service).await;
    let client = stage.client();
    let (mut calls, mut outcomes) = (JoinSet::<(StatusCode, bool)>::new(), HashMap::new());
    for number in 0..CALLS {
        if calls.len() == AT_ONCE {
            let (status, right) = calls.join_next().await.unwrap().unwrap();
            assert!(right, "another call's answer");
            *outcomes.entry(status).or_insert(0) += 1;
        }
        let client = client.clone();
        calls.spawn(async move {
            let answer = client.get_with(&format!("/numbers/{number}"), "x-request-timeout-ms", "200").await;
            (answer.status, answer.status != StatusCode::OK || answer.body == number.to_string())
        });
    }
    while let Some(call) = calls.join_next().await {
        let (status, right) = call.unwrap();
        assert!(right, "another call's answer");
        *outcomes.entry(status).or_insert(0) += 1;
    }
    let told = [StatusCode::OK, StatusCode::GATEWAY_TIMEOUT].map(|status| outcomes.remove(&status).unwrap_or(0));
    assert!(outcomes.is_empty() && told.iter().all(|count| *count > 0), "{told:?}, and {outcomes:?}");
    assert!(runs.lock().unwrap().values().all(|runs| *runs == 1), "a handler ran twice");
    eventually("every slot is free again", async || {
        let instances = stage.admin().get("/instances").await.json();
        instances[0]["in_flight"] == 0
    })
    .await;
}

/// A service with an endpoint that streams, and another one.
fn feeds() -> Microservice {
    Microservice::new("feeds", "1.0.0")
        .raw(Method::POST, "/length", |body: Bytes| async move { body.len().to_string() })
        .raw(Method::GET, "/bytes/{count}", |Path(count): Path<usize>| async move { vec![b'x'; count] })
        .route(Route::new(Method::GET, "/again/{count}").idempotent(), |Path(count): Path<usize>| async move {
            vec![b'x'; count]
        })
        .route(Route::new(Method::GET, "/feed").streaming_response(), || async { "feed" })
}

/// The same process on two transports: what one does not carry goes over the other, and when that is gone it is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_where_they_are_carried() {
    let stage = Stage::new(SCATTERING).await;
    let service = feeds().connector(stage.connector()).connector(Arc::new(stage.gateway.in_memory()));
    let mut running = service.start().unwrap();
    within("the service is ready over both", running.ready()).await.unwrap();
    let client = stage.client();
    assert_eq!(client.get("/feed").await.body, "feed");
    for length in [7, 10_000, 100_000] {
        assert_eq!(client.post("/length", vec![b'y'; length]).await.body, length.to_string());
        // It has been asked once already, which an endpoint has to allow.
        assert_eq!(client.get(&format!("/again/{length}")).await.body.len(), length);
    }
    let answer = client.get("/bytes/10000").await;
    assert_eq!((answer.status, answer.problem()), (StatusCode::BAD_GATEWAY, "response_too_large".to_owned()));
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_fits_no_message_is_refused_by_name() {
    let stage = Stage::new(SCATTERING).await;
    let long = || {
        feeds()
            .on_refused(OnRefused::Warn)
            .route(Route::new(Method::GET, "/long").summary("x".repeat(5_000)), || async { "long" })
    };
    let running = stage.join(long()).await;
    let client = stage.client();
    assert_eq!(client.get("/long").await.status, StatusCode::NOT_FOUND);
    assert_eq!(client.get("/bytes/7").await.body.len(), 7);
    running.shutdown().await.unwrap();
    let strict = feeds()
        .route(Route::new(Method::GET, "/long").summary("x".repeat(5_000)), || async { "long" })
        .connector(stage.connector());
    let mut running = strict.start().unwrap();
    let refused = within("the refusal", running.ready()).await.unwrap_err().to_string();
    assert!(refused.contains("GET /long"), "{refused}");
}

/// Fire and forget: the answer does not wait for the handler, and the slot of the lease does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_way_calls_are_answered_at_once() {
    let stage = Stage::new(SCATTERING).await;
    let go = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = Arc::clone(&go);
    let service = Microservice::new("notes", "1.0.0").route(Route::new(Method::POST, "/notes").one_way(), move || {
        let gate = Arc::clone(&gate);
        async move { gate.acquire().await.unwrap().forget() }
    });
    let _running = stage.join(service).await;
    let in_flight = async || stage.admin().get("/instances").await.json()[0]["in_flight"].as_u64();
    assert_eq!(stage.client().post("/notes", "a note").await.status, StatusCode::ACCEPTED);
    assert_eq!(in_flight().await, Some(1));
    go.add_permits(1);
    eventually("the slot is free", async || in_flight().await == Some(0)).await;
}
