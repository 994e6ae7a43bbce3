//! Leases: what an instance bears at a time, and what becomes of what is too much (SPEC 4, 5).

use std::time::Duration;

use http::{Method, StatusCode};
use microservice_sdk::{Microservice, Route};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::carrier::Transport;
use crate::eventually;
use crate::scenario::list;
use crate::services::{Witness, one};
use crate::stage::Stage;

/// `GET /work`, which is watched and answers when it is let go.
fn worker(witness: &Witness, go: &watch::Sender<bool>) -> Microservice {
    let (witness, go) = (witness.clone(), go.subscribe());
    Microservice::new("worker", "1.0.0").lease(2).route(
        Route::new(Method::GET, "/work").timeout(Duration::from_secs(20)),
        move || async move {
            let _presence = witness.enter();
            let mut go = go;
            let _ = go.wait_for(|go| *go).await;
            "done"
        },
    )
}

async fn what_a_lease_has_no_room_for_waits_its_turn(transport: Transport) {
    let stage = Stage::new(transport).await;
    let (witness, go) = (Witness::default(), watch::Sender::new(false));
    let _worker = stage.join(worker(&witness, &go)).await;
    let mut asked = JoinSet::new();
    for _ in 0..6 {
        let client = stage.client();
        asked.spawn(async move { client.get("/work").await });
    }
    witness.begun(2).await;
    eventually("the others wait", async || stage.gateway.waiting() == 4).await;
    let instances = stage.admin().get("/instances").await.json();
    assert_eq!(instances[0]["in_flight"], 2, "{instances}");
    go.send_replace(true);
    while let Some(answer) = asked.join_next().await {
        assert_eq!(answer.unwrap().body, "done");
    }
    witness.ended(6).await;
    eventually("the lease is whole again", async || {
        stage.admin().get("/instances").await.json()[0]["in_flight"] == 0 && stage.gateway.in_flight() == 0
    })
    .await;
}

async fn what_waits_too_long_is_told_so(transport: Transport) {
    let stage = Stage::with(transport, "limits: { default_timeout: 200ms }").await;
    let (witness, go) = (Witness::default(), watch::Sender::new(false));
    let _worker = stage.join(worker(&witness, &go)).await;
    // They have a deadline of their own, so they hold their slots.
    let held: Vec<_> = (0..2)
        .map(|_| {
            let client = stage.client();
            tokio::spawn(async move { client.get("/work").await })
        })
        .collect();
    witness.begun(2).await;
    let waiting = stage.client().get_with("/work", "x-request-timeout-ms", "50").await;
    assert_eq!((waiting.status, waiting.problem().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "no_capacity"));
    go.send_replace(true);
    for held in held {
        assert_eq!(held.await.unwrap().body, "done");
    }
}

/// Enough at once that frames share messages, windows fill and acknowledgements matter.
async fn a_burst_of_requests_is_answered_each_with_its_own(transport: Transport) {
    const EACH: usize = 40;
    let stage = Stage::new(transport).await;
    let echo = Microservice::new("burst", "1.0.0").raw(
        Method::GET,
        "/burst/{number}",
        |microservice_sdk::Path(number): microservice_sdk::Path<u64>| async move { number.to_string() },
    );
    let _services = (stage.join(echo).await, stage.join(one("other", "1.0.0", "/other", "other")).await);
    let since = std::time::Instant::now();
    let mut asking = JoinSet::new();
    for client in 0..64 {
        let http = if client % 2 == 0 { stage.client() } else { stage.http2() };
        asking.spawn(async move {
            for round in 0..EACH {
                let number = (client * EACH + round).to_string();
                let answer = http.get(&format!("/burst/{number}")).await;
                assert_eq!((answer.status, answer.body.as_ref()), (StatusCode::OK, number.as_bytes()));
            }
        });
    }
    asking.join_all().await;
    println!("{transport:?}: {:.0} requests/s", 64.0 * EACH as f64 / since.elapsed().as_secs_f64());
}

list! {
    what_a_lease_has_no_room_for_waits_its_turn => Nothing,
    what_waits_too_long_is_told_so => Nothing,
    a_burst_of_requests_is_answered_each_with_its_own => Nothing,
}
