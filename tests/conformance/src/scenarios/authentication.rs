//! Who may join and who may not, and that one who may not disturbs nobody (SPEC 4, handshake).

use std::sync::Arc;

use futures_util::FutureExt as _;
use http::StatusCode;
use microservice_sdk::{Microservice, StartError};
use router_common::frame::Frame;
use router_common::session::Secret;
use router_link::Connector;
use tokio::sync::watch;

use crate::carrier::Transport;
use crate::meddle::meddling;
use crate::scenario::list;
use crate::services::{one, orders};
use crate::stage::{SECRET, Stage};
use crate::within;

const WRONG: &str = "another secret, which is just as long as the right one";

/// A service that dials this gateway with a secret of its own is turned away, or turns away.
async fn stranger(transport: Transport, stage: &Stage, secret: Option<&str>) -> Option<StartError> {
    let proved = secret.map(|secret| Secret::new(secret.as_bytes()).unwrap());
    let connector = stage.place().connector(proved.as_ref()).unwrap();
    turned_away(transport, connector, |connector| {
        let stranger = one("stranger", "1.0.0", "/strange", "hello").connector(connector);
        match secret {
            Some(secret) => stranger.shared_secret(secret),
            None => stranger,
        }
    })
    .await
}

/// Starts a service with this connector that no gateway lets in, or that lets none in. Where there is one gateway its word is
/// final: why, as the service says when it ends. Where it looks for gateways one is as good as another, and it goes on
/// looking.
pub(super) async fn turned_away<S: Send + Sync + 'static>(
    transport: Transport,
    connector: Arc<dyn Connector>,
    service: impl FnOnce(Arc<dyn Connector>) -> Microservice<S>,
) -> Option<StartError> {
    let (said, mut hellos) = watch::channel(0);
    let connector = meddling(connector, move |batch| {
        if batch.iter().any(|frame| matches!(frame, Frame::Hello(_))) {
            said.send_modify(|hellos| *hellos += 1);
        }
    });
    let mut running = service(connector).start().unwrap();
    if !transport.discovers() {
        return Some(within("the refusal", running.ready()).await.unwrap_err());
    }
    within("it is turned away, twice", hellos.wait_for(|hellos| *hellos > 2)).await.unwrap();
    assert!(running.ready().now_or_never().is_none(), "it is neither let in nor ended");
    within("it ends when it is told to", running.shutdown()).await.unwrap();
    None
}

fn assert_unauthenticated(refused: Option<StartError>) {
    let Some(refused) = refused else { return };
    let text = refused.to_string();
    assert!(matches!(refused, StartError::NotLetIn { .. }) && text.contains("unauthenticated"), "{text}");
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
    assert_unauthenticated(stranger(transport, &stage, Some(WRONG)).await);
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
    assert_unauthenticated(stranger(transport, &stage, None).await);
    assert_eq!(stage.client().get("/orders/7").await.status, StatusCode::OK);
}

async fn a_gateway_that_does_not_know_the_secret_is_not_believed(transport: Transport) {
    let stage = Stage::new(transport).await;
    let secret = if transport.needs_secret() { WRONG } else { SECRET };
    let refused = stranger(transport, &stage, Some(secret)).await;
    assert!(refused.is_none_or(|refused| matches!(refused, StartError::NotLetIn { .. })));
    assert_eq!(stage.client().get("/strange").await.status, StatusCode::NOT_FOUND);
}

list! {
    a_service_that_knows_the_secret_is_let_in => Nothing,
    a_stranger_with_the_wrong_secret_is_told_so_and_disturbs_nobody => Nothing,
    a_stranger_without_a_secret_is_told_so_and_disturbs_nobody => Nothing,
    a_gateway_that_does_not_know_the_secret_is_not_believed => Nothing,
}
