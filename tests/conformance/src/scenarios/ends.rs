//! How requests end before their answer: the client leaves, the time is over, somebody stops.

use http::{Method, StatusCode};
use microservice_sdk::StartError;
use tokio::sync::watch;

use crate::carrier::Transport;
use crate::scenario::list;
use crate::services::{Witness, one, orders};
use crate::stage::Stage;
use crate::{eventually, within};

async fn a_client_that_leaves_ends_the_handler(transport: Transport) {
    let stage = Stage::new(transport).await;
    let witness = Witness::default();
    let _watched = stage.join(witness.service(&watch::Sender::default())).await;
    for (number, client) in [stage.client(), stage.http2()].into_iter().enumerate() {
        let request = client.request(Method::GET, "/for-ever");
        let asking = tokio::spawn(async move { client.head(request).await.map(drop) });
        witness.begun(number + 1).await;
        asking.abort();
        witness.ended(number + 1).await;
    }
    eventually("nothing is in flight", async || in_flight(&stage).await == 0).await;
}

/// Requests in flight on the first instance.
async fn in_flight(stage: &Stage) -> u64 {
    let instances = stage.admin().get("/instances").await.json();
    instances[0]["in_flight"].as_u64().unwrap_or_else(|| panic!("{instances}"))
}

async fn a_deadline_is_a_504_and_ends_the_handler(transport: Transport) {
    let stage = Stage::with(transport, "limits: { default_timeout: 100ms }").await;
    let witness = Witness::default();
    let _watched = stage.join(witness.service(&watch::Sender::default())).await;
    for (number, client) in [stage.client(), stage.http2()].into_iter().enumerate() {
        let answer = client.get("/for-ever").await;
        assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded"));
        witness.ended(number + 1).await;
    }
}

async fn a_client_may_ask_for_less_time(transport: Transport) {
    let stage = Stage::new(transport).await;
    let witness = Witness::default();
    let _watched = stage.join(witness.service(&watch::Sender::default())).await;
    let answer = stage.client().get_with("/for-ever", "x-request-timeout-ms", "50").await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded"));
    witness.ended(1).await;
}

async fn a_service_that_stops_answers_what_it_has_begun(transport: Transport) {
    let stage = Stage::new(transport).await;
    let (witness, go) = (Witness::default(), watch::Sender::new(false));
    let watched = stage.join(witness.service(&go)).await;
    let client = stage.client();
    let asking = tokio::spawn(async move { client.get("/until-let-go").await });
    witness.begun(1).await;
    let stopping = tokio::spawn(watched.shutdown());
    // It is asked for nothing new from the moment the gateway knows.
    let other = stage.client();
    eventually("the gateway routes nothing to it", async || {
        other.get_with("/until-let-go", "x-request-timeout-ms", "50").await.status != StatusCode::GATEWAY_TIMEOUT
    })
    .await;
    go.send_replace(true);
    assert_eq!(asking.await.unwrap().body, "let go");
    within("the service ends", stopping).await.unwrap().unwrap();
}

async fn a_gateway_that_stops_answers_what_it_has_begun(transport: Transport) {
    let stage = Stage::new(transport).await;
    let (witness, go) = (Witness::default(), watch::Sender::new(false));
    let _watched = stage.join(witness.service(&go)).await;
    let (client, admin) = (stage.client(), stage.admin());
    let asking = tokio::spawn(async move { client.get("/until-let-go").await });
    witness.begun(1).await;
    assert_eq!(admin.get("/readyz").await.status, StatusCode::OK);
    let stopping = tokio::spawn(stage.gateway.shutdown());
    eventually("it is not ready any more", async || {
        admin.get("/readyz").await.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    go.send_replace(true);
    assert_eq!(asking.await.unwrap().body, "let go");
    within("the gateway ends", stopping).await.unwrap();
}

/// Instances come and go under load, and no client notices.
async fn a_rolling_restart_loses_no_request(transport: Transport) {
    let stage = Stage::new(transport).await;
    let mut running = stage.join(one("rolling", "1.0.0", "/rolling", "still here")).await;
    let clients = Clients::start(&stage);
    for _ in 0..5 {
        let next = stage.join(one("rolling", "1.0.0", "/rolling", "still here")).await;
        running.shutdown().await.unwrap();
        running = next;
    }
    clients.stop().await;
}

/// Who ask for `/rolling` without a pause, and forgive nothing.
struct Clients {
    stop: watch::Sender<bool>,
    tasks: tokio::task::JoinSet<u32>,
}

impl Clients {
    fn start(stage: &Stage) -> Self {
        let (stop, mut tasks) = (watch::Sender::new(false), tokio::task::JoinSet::new());
        for _ in 0..8 {
            let (client, stop) = (stage.client(), stop.subscribe());
            tasks.spawn(async move {
                let mut asked = 0_u32;
                while !*stop.borrow() {
                    let answer = client.get("/rolling").await;
                    let (status, body) = (answer.status, answer.body.as_ref());
                    assert_eq!((status, body), (StatusCode::OK, &b"still here"[..]), "{answer:?}");
                    asked += 1;
                }
                asked
            });
        }
        Self { stop, tasks }
    }

    async fn stop(mut self) {
        self.stop.send_replace(true);
        while let Some(asked) = self.tasks.join_next().await {
            assert!(asked.unwrap() > 0);
        }
    }
}

/// A second process of the same name takes over beside another instance: nobody notices, and the first one is told.
async fn a_superseded_process_answers_what_it_has_begun_and_ends(transport: Transport) {
    let stage = Stage::new(transport).await;
    let _other = stage.join(one("rolling", "1.0.0", "/rolling", "still here")).await;
    let (witness, go) = (Witness::default(), watch::Sender::new(false));
    let named = || one("rolling", "1.0.0", "/rolling", "still here").instance_id("the-one");
    let mut first = stage.join(named()).await;
    let mut watched = stage.join(witness.service(&go).instance_id("watched")).await;
    let clients = Clients::start(&stage);
    let client = stage.client();
    let asking = tokio::spawn(async move { client.get("/until-let-go").await });
    witness.begun(1).await;
    for _ in 0..3 {
        let second = stage.join(named()).await;
        let ended = within("the first one ends", first.ended()).await;
        assert!(matches!(ended, Err(StartError::Superseded { .. })), "{ended:?}");
        first = second;
    }
    let _second = stage.join(Witness::default().service(&go).instance_id("watched")).await;
    go.send_replace(true);
    assert_eq!(asking.await.unwrap().body, "let go");
    let ended = within("the watched one ends", watched.ended()).await;
    assert!(matches!(ended, Err(StartError::Superseded { .. })), "{ended:?}");
    clients.stop().await;
}

/// A service with two gateways: one of them restarts, and who asks the other one does not notice.
async fn a_gateway_that_leaves_and_comes_back_concerns_nobody_at_the_other(transport: Transport) {
    let (staying, leaving) = (Stage::new(transport).await, Stage::new(transport).await);
    let service = leaving.connect(staying.connect(one("rolling", "1.0.0", "/rolling", "still here")));
    let mut running = service.start().unwrap();
    within("both take it", running.ready()).await.unwrap();
    let clients = Clients::start(&staying);
    let place = leaving.place();
    within("it ends", leaving.gateway.shutdown()).await;
    let back = Stage::again(transport, place).await;
    eventually("the service has come back", async || back.client().get("/rolling").await.status == StatusCode::OK)
        .await;
    clients.stop().await;
    within("the service ends", running.shutdown()).await.unwrap();
}

async fn a_service_comes_back_to_a_gateway_that_was_restarted(transport: Transport) {
    let stage = Stage::new(transport).await;
    let _orders = stage.join(orders("1.0.0")).await;
    assert_eq!(stage.client().get("/orders/7").await.status, StatusCode::OK);
    let place = stage.place();
    within("the gateway ends", stage.gateway.shutdown()).await;
    let again = Stage::again(transport, place).await;
    let client = again.client();
    eventually("the service is back", async || client.get("/orders/7").await.status == StatusCode::OK).await;
}

list! {
    a_client_that_leaves_ends_the_handler => Nothing,
    a_deadline_is_a_504_and_ends_the_handler => Nothing,
    a_client_may_ask_for_less_time => Nothing,
    a_service_that_stops_answers_what_it_has_begun => Nothing,
    a_gateway_that_stops_answers_what_it_has_begun => Nothing,
    a_rolling_restart_loses_no_request => Nothing,
    a_superseded_process_answers_what_it_has_begun_and_ends => Nothing,
    a_gateway_that_leaves_and_comes_back_concerns_nobody_at_the_other => Nothing,
    a_service_comes_back_to_a_gateway_that_was_restarted => Nothing,
}
