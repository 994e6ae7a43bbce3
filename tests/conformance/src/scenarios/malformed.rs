//! Strangers that speak something else, or the right language wrongly: nothing happens to anybody else (SPEC 4, abuse).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::StatusCode;
use router_common::frame::{Challenge, Frame};
use router_common::wire::Wire;

use crate::carrier::Transport;
use crate::meddle::meddling;
use crate::scenario::list;
use crate::services::{one, orders};
use crate::stage::Stage;
use crate::{eventually, within};

async fn garbage_concerns_nobody_but_its_sender(transport: Transport) {
    let stage = Stage::new(transport).await;
    let _orders = stage.join(orders("1.0.0")).await;
    let frame = |header: [u8; 12]| [&b"STELLA/1"[..], &header].concat();
    let oversized = frame([0x01, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    let unknown = frame([0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let too_early = frame([0x10, 0x01, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
    let strangers: [&[u8]; 6] =
        [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &[0xff; 4096], &[0; 1200], &oversized, &unknown, &too_early];
    for garbage in strangers {
        if let Some(intruding) = stage.place().intrude(garbage) {
            // It is closed, or reset, or not listened to; nothing else happens.
            let _ = within("the stranger is done with", intruding).await;
        }
        assert_eq!(stage.client().get("/orders/7").await.status, StatusCode::OK);
    }
    let instances = stage.admin().get("/instances").await.json();
    assert_eq!(instances.as_array().map(Vec::len), Some(1), "{instances}");
}

/// It says what only a gateway may say.
async fn a_service_that_breaks_the_protocol_loses_its_link_and_no_other(transport: Transport) {
    let stage = Stage::new(transport).await;
    let _orders = stage.join(orders("1.0.0")).await;
    let (breaks, broken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let breaking = meddling(stage.connector(), {
        let (breaks, broken) = (Arc::clone(&breaks), Arc::clone(&broken));
        move |frames| {
            if breaks.swap(false, Ordering::SeqCst) {
                broken.fetch_add(1, Ordering::SeqCst);
                let challenge = Challenge { algorithm: "none".to_owned(), nonce: [0; 32] };
                frames.push_back(Frame::Challenge(Box::new(Wire::new(challenge))));
            }
        }
    });
    let service = one("breaks", "1.0.0", "/breaks", "whole");
    let mut running = stage.connect_by(service, breaking).start().unwrap();
    within("it is ready", running.ready()).await.unwrap();
    let lost = async || stage.gateway.registry().counts().lost;
    let before = lost().await;
    breaks.store(true, Ordering::SeqCst);
    // It says so with whatever it says next.
    let client = stage.client();
    eventually("its link is ended", async || {
        let answer = client.get("/breaks").await;
        assert!(answer.status == StatusCode::OK || answer.status.is_server_error(), "{answer:?}");
        lost().await > before
    })
    .await;
    assert_eq!((broken.load(Ordering::SeqCst), client.get("/orders/7").await.status), (1, StatusCode::OK));
    eventually("it comes back", async || client.get("/breaks").await.body == "whole").await;
}

list! {
    garbage_concerns_nobody_but_its_sender => Nothing,
    a_service_that_breaks_the_protocol_loses_its_link_and_no_other => Nothing,
}
