//! Who may join and who may not, and that one who may not disturbs nobody.

use http::StatusCode;
use integration_tests::client::octets;
use integration_tests::services::{one, orders};
use integration_tests::stage::{SECRET, Stage, Transport};
use integration_tests::{eventually, on_every_transport, within};
use microservice_sdk::{Microservice, OnRefused, StartError};

async fn a_path_belongs_to_the_service_that_had_it_first(transport: Transport) {
    let stage = Stage::new(transport).await;
    let first = stage.join(one("first", "1.0.0", "/paths/{a}", "first")).await;
    let client = stage.client();

    let refused = stage.try_join(one("second", "1.0.0", "/paths/{b}", "second")).await.unwrap_err();
    let StartError::Refused { refusals, .. } = &refused else { panic!("{refused}") };
    assert!(refusals.iter().any(|text| text.contains("/paths/{b}") && text.contains("first")), "{refused}");
    assert_eq!(client.get("/paths/7").await.body, "first", "the owner is undisturbed");

    // With `on_refused: warn` the rest works, and the path is taken when its owner leaves.
    let second = one("second", "1.0.0", "/paths/{b}", "second")
        .raw(http::Method::GET, "/own", || async { "own" })
        .on_refused(OnRefused::Warn);
    let _second = stage.join(second).await;
    assert_eq!((client.get("/own").await.body, client.get("/paths/7").await.body), ("own".into(), "first".into()));
    first.shutdown().await.unwrap();
    eventually("the path has changed hands", async || client.get("/paths/7").await.body == "second").await;
}

async fn both_versions_of_one_service_may_have_a_path(transport: Transport) {
    let stage = Stage::new(transport).await;
    let _one = stage.join(one("twice", "1.0.0", "/twice", "one")).await;
    let _two = stage.join(one("twice", "2.0.0", "/twice", "two")).await;
    let answer = stage.client().get_with("/twice", "x-service-version", "2.0.0").await;
    assert_eq!(answer.body, "two");
}

on_every_transport! {
    a_path_belongs_to_the_service_that_had_it_first,
    both_versions_of_one_service_may_have_a_path,
}

/// A gateway with a secret, and a service that knows it.
async fn guarded() -> (Stage, microservice_sdk::Running) {
    let yaml = format!("transports: {{ tcp: {{ shared_secret: \"{SECRET}\" }} }}");
    let stage = Stage::with(Transport::Tcp, &yaml).await;
    let orders = stage.connect(orders("1.0.0")).shared_secret(SECRET);
    let mut running = orders.start().unwrap();
    within("the service is ready", running.ready()).await.unwrap();
    (stage, running)
}

#[tokio::test]
async fn a_stranger_without_the_secret_is_told_so_and_disturbs_nobody() {
    let (stage, _orders) = guarded().await;
    let stranger = || one("stranger", "1.0.0", "/strange", "hello");
    let wrong = "another secret, which is just as long as the right one";
    let strangers: [(&str, Microservice); 2] =
        [("none", stage.connect(stranger())), ("a wrong one", stage.connect(stranger()).shared_secret(wrong))];
    for (secret, stranger) in strangers {
        let mut running = stranger.start().unwrap();
        let refused = within("the refusal", running.ready()).await.unwrap_err();
        let text = refused.to_string();
        assert!(matches!(refused, StartError::NotLetIn { .. }), "{secret}: {text}");
        assert!(text.contains("unauthenticated") && text.contains(stage.url()), "{secret}: {text}");
        assert_eq!(stage.client().get("/strange").await.status, StatusCode::NOT_FOUND);
        assert_eq!(stage.client().get("/orders/7").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_gateway_that_does_not_know_the_secret_is_not_believed() {
    let stage = Stage::new(Transport::Tcp).await;
    let mut running = stage.connect(orders("1.0.0")).shared_secret(SECRET).start().unwrap();
    let refused = within("the refusal", running.ready()).await.unwrap_err();
    assert!(matches!(refused, StartError::NotLetIn { .. }), "{refused}");
}

#[tokio::test]
async fn garbage_on_the_port_closes_that_link_alone() {
    let stage = Stage::new(Transport::Tcp).await;
    let _orders = stage.join(orders("1.0.0")).await;
    let mut oversized = b"STELLA/1".to_vec();
    oversized.extend([0x01, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    let mut unknown = b"STELLA/1".to_vec();
    unknown.extend([0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut too_early = b"STELLA/1".to_vec();
    too_early.extend([0x10, 0x01, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
    let garbage: [&[u8]; 5] = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &[0xff; 4096], &oversized, &unknown, &too_early];
    for garbage in garbage {
        // It is closed, whether by CLOSE or by a reset; nothing else happens.
        let _ = octets(stage.tcp(), garbage).await;
        assert_eq!(stage.client().get("/orders/7").await.status, StatusCode::OK);
    }
    let instances = stage.admin().get("/instances").await.json();
    assert_eq!(instances.as_array().map(Vec::len), Some(1), "{instances}");
}

#[tokio::test]
async fn a_service_comes_back_to_a_gateway_that_was_restarted() {
    let stage = Stage::new(Transport::Tcp).await;
    let _orders = stage.join(orders("1.0.0")).await;
    assert_eq!(stage.client().get("/orders/7").await.status, StatusCode::OK);
    let tcp = stage.tcp();
    within("the gateway ends", stage.gateway.shutdown()).await;
    let again = Stage::again(Transport::Tcp, tcp).await;
    let client = again.client();
    eventually("the service is back", async || client.get("/orders/7").await.status == StatusCode::OK).await;
}

#[tokio::test]
async fn an_instance_with_several_links_is_one_instance() {
    let stage = Stage::new(Transport::Tcp).await;
    let mut running = stage.connect(orders("1.0.0")).links(3).start().unwrap();
    within("the service is ready", running.ready()).await.unwrap();
    let admin = stage.admin();
    eventually("three links have joined", async || {
        let instances = admin.get("/instances").await.json();
        instances.as_array().map(Vec::len) == Some(1) && instances[0]["links"] == 3
    })
    .await;
    assert_eq!(stage.client().get("/orders/7").await.status, StatusCode::OK);
}
