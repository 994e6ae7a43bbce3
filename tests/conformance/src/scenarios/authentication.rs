//! Who may join and who may not, and that one who may not disturbs nobody (SPEC 4, handshake).

use http::StatusCode;
use microservice_sdk::{Microservice, StartError};
use router_common::session::Secret;

use crate::carrier::Transport;
use crate::scenario::list;
use crate::services::{one, orders};
use crate::stage::{SECRET, Stage};
use crate::within;

const WRONG: &str = "another secret, which is just as long as the right one";

/// A service that dials this gateway with a secret of its own.
fn stranger(stage: &Stage, secret: Option<&str>) -> Microservice {
    let proved = secret.map(|secret| Secret::new(secret.as_bytes()).unwrap());
    let connector = stage.place().connector(proved.as_ref()).unwrap();
    let stranger = one("stranger", "1.0.0", "/strange", "hello").connector(connector);
    match secret {
        Some(secret) => stranger.shared_secret(secret),
        None => stranger,
    }
}

async fn a_service_that_knows_the_secret_is_let_in(transport: Transport) {
    let stage = Stage::guarded(transport).await;
    let _orders = stage.join(orders("1.0.0")).await;
    assert_eq!(stage.client().get("/orders/7").await.status, StatusCode::OK);
    let instances = stage.admin().get("/instances").await.json();
    assert_eq!(instances[0]["identity"], "key:default", "{instances}");
}

async fn a_stranger_with_the_wrong_secret_is_told_so_and_disturbs_nobody(transport: Transport) {
    let stage = Stage::guarded(transport).await;
    let _orders = stage.join(orders("1.0.0")).await;
    let mut running = stranger(&stage, Some(WRONG)).start().unwrap();
    let refused = within("the refusal", running.ready()).await.unwrap_err();
    let text = refused.to_string();
    assert!(matches!(refused, StartError::NotLetIn { .. }) && text.contains("unauthenticated"), "{text}");
    assert_eq!(stage.client().get("/strange").await.status, StatusCode::NOT_FOUND);
    assert_eq!(stage.client().get("/orders/7").await.status, StatusCode::OK);
}

async fn a_stranger_without_a_secret_is_told_so_and_disturbs_nobody(transport: Transport) {
    if transport.needs_secret() {
        // It has no way to dial, and says so before it starts.
        let stage = Stage::guarded(transport).await;
        assert!(stage.place().connector(None).is_err());
        return;
    }
    let stage = Stage::guarded(transport).await;
    let _orders = stage.join(orders("1.0.0")).await;
    let mut running = stranger(&stage, None).start().unwrap();
    let refused = within("the refusal", running.ready()).await.unwrap_err();
    let text = refused.to_string();
    assert!(matches!(refused, StartError::NotLetIn { .. }) && text.contains("unauthenticated"), "{text}");
    assert_eq!(stage.client().get("/orders/7").await.status, StatusCode::OK);
}

async fn a_gateway_that_does_not_know_the_secret_is_not_believed(transport: Transport) {
    let stage = Stage::new(transport).await;
    let secret = if transport.needs_secret() { WRONG } else { SECRET };
    let mut running = stranger(&stage, Some(secret)).start().unwrap();
    let refused = within("the refusal", running.ready()).await.unwrap_err();
    assert!(matches!(refused, StartError::NotLetIn { .. }), "{refused}");
}

list! {
    a_service_that_knows_the_secret_is_let_in => Nothing,
    a_stranger_with_the_wrong_secret_is_told_so_and_disturbs_nobody => Nothing,
    a_stranger_without_a_secret_is_told_so_and_disturbs_nobody => Nothing,
    a_gateway_that_does_not_know_the_secret_is_not_believed => Nothing,
}
