//! Server-sent events: each reaches the client while the stream goes on.

use std::convert::Infallible;

use futures_util::stream;
use http::{HeaderMap, Method};
use http_body_util::BodyExt as _;
use microservice_sdk::{Event, Microservice, Route, Sse};
use tokio::sync::watch;

use crate::carrier::Transport;
use crate::scenario::list;
use crate::services::Witness;
use crate::stage::Stage;
use crate::within;

/// `GET /events`: one event for each number that is said, from the one behind `Last-Event-ID`.
fn service(numbers: &watch::Sender<u32>, witness: &Witness) -> Microservice {
    let (numbers, witness) = (numbers.subscribe(), witness.clone());
    Microservice::new("events", "1.0.0").route(
        Route::new(Method::GET, "/events").streaming_response(),
        move |headers: HeaderMap| async move {
            let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok()).unwrap_or(0);
            let state = (numbers, last, witness.enter());
            let events = stream::unfold(state, |(mut numbers, last, presence): (_, u32, _)| async move {
                let _ = watch::Receiver::wait_for(&mut numbers, |number| *number > last).await;
                let event =
                    Event::new().event("number").id((last + 1).to_string()).data(format!("{}\nof many", last + 1));
                Some((Ok::<_, Infallible>(event), (numbers, last + 1, presence)))
            });
            Sse::new(events)
        },
    )
}

async fn an_event_arrives_while_the_stream_goes_on(transport: Transport) {
    let stage = Stage::new(transport).await;
    let (numbers, witness) = (watch::Sender::new(0), Witness::default());
    let _service = stage.join(service(&numbers, &witness)).await;
    for (round, client) in [stage.client(), stage.http2()].into_iter().enumerate() {
        numbers.send_replace(0);
        // The head comes before there is any event.
        let response = client.head(client.request(Method::GET, "/events")).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let mut body = response.into_body();
        for number in 1..=3 {
            numbers.send_replace(number);
            let frame = within("the event", body.frame()).await.unwrap().unwrap();
            let text = format!("event: number\nid: {number}\ndata: {number}\ndata: of many\n\n");
            assert_eq!(frame.into_data().unwrap(), text);
        }
        drop(body);
        witness.ended(2 * round + 1).await;
        // A client that comes again says where it left off.
        let mut request = client.request(Method::GET, "/events");
        request.headers_mut().insert("last-event-id", "2".parse().unwrap());
        let mut body = client.head(request).await.unwrap().into_body();
        let frame = within("the event", body.frame()).await.unwrap().unwrap();
        assert!(frame.into_data().unwrap().starts_with(b"event: number\nid: 3\n"));
        drop(body);
        witness.ended(2 * round + 2).await;
    }
}

list! {
    an_event_arrives_while_the_stream_goes_on => Streaming,
}
