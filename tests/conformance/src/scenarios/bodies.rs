//! Bodies: byte-exact both ways at once, bounded, and never complete when they were cut.

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use microservice_sdk::{Body, Microservice, Route};
use router_common::limits;
use tokio::sync::watch;

use crate::carrier::Transport;
use crate::scenario::list;
use crate::services::{Witness, orders};
use crate::stage::Stage;
use crate::within;

/// A body of pieces, and trailers if there are any.
fn pieces(pieces: Vec<Bytes>, trailers: Option<HeaderMap>) -> Body {
    let frames = pieces.into_iter().map(Frame::data).chain(trailers.map(Frame::trailers));
    Body::stream(StreamBody::new(stream::iter(frames.map(Ok::<_, std::io::Error>))))
}

/// No two pieces of it are alike.
fn octets(length: usize) -> Bytes {
    (0..length).map(|at| (at ^ (at >> 8) ^ (at >> 16).wrapping_mul(31)) as u8).collect()
}

/// From nothing to more than all windows, as far as the transport goes.
async fn bodies_of_every_size_class_come_back_exact(transport: Transport) {
    let stage = Stage::with(transport, "limits: { max_request_bytes_per_call: 16MiB }").await;
    let mirror = |body: Bytes| async move { body };
    let mirror = Microservice::new("mirror", "1.0.0")
        .route(Route::new(Method::POST, "/mirror").max_request_bytes(16 << 20), mirror);
    let _mirror = stage.join(mirror).await;
    let able = transport.capabilities();
    let frame = able.max_frame.min(limits::FRAME_PAYLOAD_BYTES) as usize;
    let most = if able.streaming { usize::MAX } else { frame / 2 };
    let classes = [0, 1, 100, 500, frame / 2, 16_383, 16_384, 16_385, frame - 200, frame, frame + 1, 1 << 20, 10 << 20];
    for client in [stage.client(), stage.http2()] {
        for length in classes.into_iter().filter(|length| *length <= most) {
            let sent = octets(length);
            let answer = client.post("/mirror", sent.clone()).await;
            assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, length));
            assert!(answer.body == sent, "{length} octets came back otherwise");
        }
    }
}

async fn a_mebibyte_comes_back_byte_by_byte(transport: Transport) {
    let stage = Stage::new(transport).await;
    let _orders = stage.join(orders("1.0.0")).await;
    let sent = octets(1 << 20);
    for client in [stage.client(), stage.http2()] {
        let answer = client.post("/echo", sent.clone()).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.body == sent, "{} octets came back otherwise", answer.body.len());
        let chunks = sent.chunks(7_919).map(Bytes::copy_from_slice).collect();
        let answer = client.post("/echo", pieces(chunks, None)).await;
        assert!(answer.body == sent, "{} octets came back otherwise", answer.body.len());
    }
}

async fn many_bodies_at_once_do_not_mix(transport: Transport) {
    let stage = Stage::new(transport).await;
    let _orders = stage.join(orders("1.0.0")).await;
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..32_usize {
        let client = if number % 2 == 0 { stage.client() } else { stage.http2() };
        asking.spawn(async move {
            let sent = Bytes::from(vec![number as u8; 200_000 + number]);
            let answer = client.post("/echo", sent.clone()).await;
            assert!(answer.body == sent, "body {number}");
        });
    }
    while let Some(asked) = asking.join_next().await {
        asked.unwrap();
    }
}

async fn an_answer_begins_before_its_request_has_ended(transport: Transport) {
    let stage = Stage::new(transport).await;
    let _orders = stage.join(orders("1.0.0")).await;
    let client = stage.http2();
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    let body = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|bytes| (Ok::<_, std::io::Error>(Frame::data(bytes)), receiver))
    });
    sender.send("one".into()).await.unwrap();
    let request = client.request(Method::POST, "/echo").map(|_| Body::stream(StreamBody::new(Box::pin(body))));
    let mut answer = client.head(request).await.unwrap().into_body();
    for word in ["one", "two", "three"] {
        if word != "one" {
            sender.send(word.into()).await.unwrap();
        }
        let frame = within("a frame", answer.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), word);
    }
    drop(sender);
    assert!(within("the end", answer.frame()).await.is_none_or(|frame| frame.unwrap().into_data().unwrap().is_empty()));
}

async fn trailers_pass_in_both_directions(transport: Transport) {
    let stage = Stage::new(transport).await;
    let _orders = stage.join(orders("1.0.0")).await;
    let trailers = HeaderMap::from_iter([("x-checksum".parse().unwrap(), HeaderValue::from_static("abc"))]);
    for client in [stage.client(), stage.http2()] {
        let body = pieces(vec!["some".into(), "thing".into()], Some(trailers.clone()));
        let mut request = client.request(Method::POST, "/echo").map(|_| body);
        request.headers_mut().insert("trailer", HeaderValue::from_static("x-checksum"));
        request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
        let answer = client.ask(request).await;
        assert_eq!(
            (answer.body.as_ref(), answer.trailers.get("x-checksum")),
            (&b"something"[..], trailers.get("x-checksum"))
        );
    }
}

async fn a_body_over_the_limit_is_refused_announced_or_not(transport: Transport) {
    let stage = Stage::with(transport, "limits: { max_request_bytes_per_call: 64KiB }").await;
    let _orders = stage.join(orders("1.0.0")).await;
    for client in [stage.client(), stage.http2()] {
        let answer = client.post("/echo", octets((64 << 10) + 1)).await;
        assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large"));
        let answer = client.post("/no-more-than-ten", octets(11)).await;
        assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large"));
        // Without a length it is found on the way. The answer has begun by then or has not: in no case does it end well.
        let chunks = octets(1 << 20).chunks(10_000).map(Bytes::copy_from_slice).collect();
        let request = client.request(Method::POST, "/echo").map(|_| pieces(chunks, None));
        if let Ok(answer) = client.try_ask(request).await {
            assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        }
        assert_eq!(client.post("/echo", octets(64 << 10)).await.body.len(), 64 << 10, "what fits passes");
        assert_eq!(client.post("/no-more-than-ten", octets(10)).await.body, "10");
    }
}

async fn a_body_that_was_cut_never_looks_complete(transport: Transport) {
    let stage = Stage::new(transport).await;
    let (witness, go) = (Witness::default(), watch::Sender::new(false));
    let _services = (stage.join(orders("1.0.0")).await, stage.join(witness.service(&go)).await);
    for client in [stage.client(), stage.http2()] {
        // It failed before anything left: there is still time for a status.
        if let Ok(answer) = client.try_ask(client.request(Method::GET, "/cut")).await {
            assert_eq!(answer.problem(), "service_failed");
        }
        // The head has left: the message itself must break off.
        go.send_replace(false);
        let answer = client.head(client.request(Method::GET, "/cut-when-let-go")).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let mut body = answer.into_body();
        assert_eq!(within("a frame", body.frame()).await.unwrap().unwrap().into_data().unwrap(), "12345");
        go.send_replace(true);
        let end = within("the end", body.frame()).await;
        assert!(matches!(end, Some(Err(_))), "{end:?}");
        assert_eq!(client.get("/orders/7").await.status, StatusCode::OK);
    }
}

list! {
    bodies_of_every_size_class_come_back_exact => Nothing,
    a_mebibyte_comes_back_byte_by_byte => Streaming,
    many_bodies_at_once_do_not_mix => Streaming,
    an_answer_begins_before_its_request_has_ended => Streaming,
    trailers_pass_in_both_directions => Streaming,
    a_body_over_the_limit_is_refused_announced_or_not => Streaming,
    a_body_that_was_cut_never_looks_complete => Streaming,
}
