//! What a transport for small messages does not carry, and how that is said (SPEC 7).

use http::{Method, StatusCode};
use microservice_sdk::{Microservice, Path, Route, StartError};

use crate::carrier::Transport;
use crate::scenario::list;
use crate::services::one;
use crate::stage::Stage;

async fn an_endpoint_that_streams_is_refused_by_name(transport: Transport) {
    let stage = Stage::new(transport).await;
    for route in [
        Route::new(Method::POST, "/stream").streaming_request(),
        Route::new(Method::POST, "/stream").streaming_response(),
    ] {
        let service = || one("streams", "1.0.0", "/whole", "whole").route(route.clone(), || async { "stream" });
        let refused = stage.try_join_strictly(service()).await.unwrap_err();
        let StartError::Refused { refusals, .. } = &refused else { panic!("{refused}") };
        assert!(refusals.iter().any(|text| text.contains("POST /stream") && text.contains("stream")), "{refused}");
        // Its other endpoints work where that is wanted.
        let running = stage.join(service()).await;
        assert_eq!(stage.client().get("/whole").await.body, "whole");
        assert_eq!(stage.client().post("/stream", "").await.status, StatusCode::NOT_FOUND);
        running.shutdown().await.unwrap();
    }
}

/// `POST /length` tells the length of a body, `GET /bytes/{count}` gives one of so many bytes.
fn lengths() -> Microservice {
    Microservice::new("lengths", "1.0.0")
        .raw(Method::POST, "/length", |body: bytes::Bytes| async move { body.len().to_string() })
        .raw(Method::GET, "/bytes/{count}", |Path(count): Path<usize>| async move { vec![b'x'; count] })
}

async fn a_request_that_fits_no_message_is_413(transport: Transport) {
    let stage = Stage::new(transport).await;
    let _lengths = stage.join(lengths()).await;
    let most = transport.capabilities().max_frame as usize;
    for client in [stage.client(), stage.http2()] {
        for length in [0, 1, most / 2] {
            assert_eq!(client.post("/length", vec![b'x'; length]).await.body, length.to_string());
        }
        for length in [most, most + 1, 10 * most] {
            let answer = client.post("/length", vec![b'x'; length]).await;
            let told = (answer.status, answer.problem());
            assert_eq!(told, (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large".to_owned()), "{length}");
        }
    }
}

async fn a_response_that_fits_no_message_is_502(transport: Transport) {
    let stage = Stage::new(transport).await;
    let _lengths = stage.join(lengths()).await;
    let most = transport.capabilities().max_frame as usize;
    for client in [stage.client(), stage.http2()] {
        for length in [0, 1, most / 2] {
            assert_eq!(client.get(&format!("/bytes/{length}")).await.body.len(), length);
        }
        for length in [most, 10 * most] {
            let answer = client.get(&format!("/bytes/{length}")).await;
            let told = (answer.status, answer.problem());
            assert_eq!(told, (StatusCode::BAD_GATEWAY, "response_too_large".to_owned()), "{length}");
        }
    }
}

list! {
    an_endpoint_that_streams_is_refused_by_name => SmallMessages,
    a_request_that_fits_no_message_is_413 => SmallMessages,
    a_response_that_fits_no_message_is_502 => SmallMessages,
}
