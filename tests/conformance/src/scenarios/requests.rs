//! A request's way to a handler and back: bodies, versions, methods, problems.

use http::{Method, StatusCode};

use crate::carrier::Transport;
use crate::scenario::list;
use crate::services::{Order, orders};
use crate::stage::Stage;

async fn a_handler_answers_over_http_1_and_2(transport: Transport) {
    let stage = Stage::new(transport).await;
    let _orders = stage.join(orders("1.0.0")).await;
    for client in [stage.client(), stage.http2()] {
        let answer = client.get("/orders/7").await;
        assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "application/json"));
        assert_eq!(serde_json::from_slice::<Order>(&answer.body).unwrap(), Order { id: 7, version: "1.0.0".into() });
        assert_eq!(answer.header("content-length"), answer.body.len().to_string());
        assert!(!answer.header("date").is_empty() && !answer.header("x-request-id").is_empty(), "{answer:?}");

        let mut request = client.request(Method::POST, "/orders").map(|_| r#"{"id":9,"version":"x"}"#.into());
        request.headers_mut().insert("content-type", "application/json".parse().unwrap());
        let answer = client.ask(request).await;
        assert_eq!((answer.status, &answer.json()["id"]), (StatusCode::CREATED, &9.into()));
    }
}

async fn a_version_is_selected_by_its_header_and_by_nothing_else(transport: Transport) {
    let stage = Stage::with(transport, "services: { orders: { default_version: 1.0.0 } }").await;
    let _one = stage.join(orders("1.0.0")).await;
    let _two = stage.join(orders("2.0.0")).await;
    let client = stage.client();
    for version in ["1.0.0", "2.0.0", "2.0.0+build.7"] {
        let answer = client.get_with("/orders/7", "x-service-version", version).await;
        assert_eq!(answer.json()["version"], version.split('+').next().unwrap());
    }
    assert_eq!(client.get("/orders/7").await.json()["version"], "1.0.0", "the configured default");

    let answer = client.get_with("/orders/7", "x-service-version", "3.0.0").await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::NOT_FOUND, "version_not_found"));
    assert_eq!(answer.json()["versions"], serde_json::json!(["1.0.0", "2.0.0"]));
    for bad in ["1", "latest", "01.0.0", ""] {
        let answer = client.get_with("/orders/7", "x-service-version", bad).await;
        assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::BAD_REQUEST, "invalid_version"), "`{bad}`");
    }
    // Two lines: which one is meant is not guessed.
    let mut twice = client.request(Method::GET, "/orders/7");
    for version in ["1.0.0", "2.0.0"] {
        twice.headers_mut().append("x-service-version", version.parse().unwrap());
    }
    assert_eq!(client.ask(twice).await.problem(), "invalid_version");
}

async fn what_is_not_there_is_told_from_what_is_asked_wrongly(transport: Transport) {
    let stage = Stage::new(transport).await;
    let _orders = stage.join(orders("1.0.0")).await;
    let client = stage.client();
    let nothing = client.get("/nothing").await;
    assert_eq!((nothing.status, nothing.problem().as_str()), (StatusCode::NOT_FOUND, "route_not_found"));
    let slash = client.get("/orders/7/").await;
    assert_eq!(slash.status, StatusCode::NOT_FOUND, "a trailing slash is significant");

    let wrong = client.ask(client.request(Method::DELETE, "/orders/7")).await;
    assert_eq!((wrong.status, wrong.problem().as_str()), (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"));
    assert_eq!(wrong.header("allow"), "GET, HEAD, OPTIONS");
    let options = client.ask(client.request(Method::OPTIONS, "/orders/7")).await;
    assert_eq!((options.status, options.header("allow")), (StatusCode::NO_CONTENT, "GET, HEAD, OPTIONS"));

    let get = client.get("/orders/7").await;
    let head = client.ask(client.request(Method::HEAD, "/orders/7")).await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    assert_eq!(head.header("content-type"), get.header("content-type"));
    assert_eq!(head.header("content-length"), get.header("content-length"));

    for bad in ["/orders/%zz", "/orders/%00", "/orders//7", "/orders/%2e%2e/7", "/orders/7%5c"] {
        let answer = client.get(bad).await;
        assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::BAD_REQUEST, "invalid_path"), "{bad}");
    }
}

async fn problems_have_one_shape_whoever_tells_them(transport: Transport) {
    let stage = Stage::new(transport).await;
    let _orders = stage.join(orders("1.0.0")).await;
    let client = stage.client();
    let answer = client.get_with("/nothing", "x-request-id", "my-own-id-1").await;
    assert_eq!((answer.problem().as_str(), answer.header("x-request-id")), ("route_not_found", "my-own-id-1"));
    assert_eq!(answer.json()["request_id"], "my-own-id-1");

    let answer = client.get("/orders/0").await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::NOT_FOUND, "order_not_found"));
    assert_eq!(answer.json()["detail"], "there is no order 0");
    assert!(!answer.header("x-request-id").is_empty());

    let answer = client.get("/orders/seven").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let _ = answer.problem();

    let answer = client.get("/panic").await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::INTERNAL_SERVER_ERROR, "internal_error"));
    assert!(!answer.body.windows(10).any(|part| part == b"on purpose"), "internals stay inside: {answer:?}");
    assert_eq!(client.get("/orders/7").await.status, StatusCode::OK, "a panic costs one request");
}

async fn a_handler_sees_the_client_and_no_hop_by_hop_fields(transport: Transport) {
    let stage = Stage::new(transport).await;
    let _orders = stage.join(orders("1.0.0")).await;
    let client = stage.client();
    let mut request = client.request(Method::GET, "/fields");
    for (name, value) in
        [("connection", "x-private"), ("x-private", "1"), ("x-stella-claims", "admin"), ("x-mine", "2")]
    {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let seen: Vec<(String, String)> = serde_json::from_slice(&client.ask(request).await.body).unwrap();
    let value = |name: &str| seen.iter().find(|(seen, _)| seen == name).map(|(_, value)| value.as_str());
    assert_eq!((value("x-mine"), value("via")), (Some("2"), Some("1.1 gateway")));
    assert_eq!((value("connection"), value("x-private"), value("x-stella-claims")), (None, None, None));
    assert_eq!((value("x-forwarded-for"), value("x-forwarded-proto")), (Some("127.0.0.1"), Some("http")));
    assert_eq!(value("host"), Some(stage.http().to_string().as_str()));
}

list! {
    a_handler_answers_over_http_1_and_2 => Nothing,
    a_version_is_selected_by_its_header_and_by_nothing_else => Nothing,
    what_is_not_there_is_told_from_what_is_asked_wrongly => Nothing,
    problems_have_one_shape_whoever_tells_them => Nothing,
    a_handler_sees_the_client_and_no_hop_by_hop_fields => Nothing,
}
