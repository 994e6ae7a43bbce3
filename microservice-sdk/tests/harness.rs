//! Services behind the real gateway, in memory: the harness as a service's author uses it.

use std::time::Duration;

use microservice_sdk::testing::TestGateway;
use microservice_sdk::{
    Body, EndpointError, Json, Microservice, Path, Problem, RequestInfo, State, endpoint, endpoints, http,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u64,
}

#[derive(Debug, thiserror::Error, EndpointError)]
enum OrderError {
    #[error("order {0} not found")]
    #[problem(404, code = "order_not_found")]
    NotFound(u64),
}

#[endpoint(GET, "/orders/{id}", timeout = "1m", idempotent)]
async fn get_order(Path(id): Path<u64>) -> Result<Json<Order>, OrderError> {
    if id == 0 { Err(OrderError::NotFound(id)) } else { Ok(Json(Order { id })) }
}

#[endpoint(POST, "/orders")]
async fn create_order(Json(order): Json<Order>) -> (http::StatusCode, Json<Order>) {
    (http::StatusCode::CREATED, Json(order))
}

#[endpoint(POST, "/echo", streaming)]
async fn echo(body: Body) -> Body {
    body
}

#[endpoint(GET, "/version")]
async fn version(State(version): State<&'static str>) -> &'static str {
    version
}

#[endpoint(GET, "/slow", timeout = "50ms")]
async fn slow() {
    std::future::pending().await
}

#[endpoint(GET, "/panic")]
async fn panics() -> Result<(), Problem> {
    panic!("on purpose")
}

#[endpoint(GET, "/info/{*rest}")]
async fn info(info: RequestInfo, Path(rest): Path<String>) -> String {
    format!("{} {rest}", info.endpoint().path)
}

/// Says more than may leave with it, as a proxy that forgets to clean up would.
#[endpoint(GET, "/connection")]
async fn connection() -> ([(&'static str, &'static str); 7], &'static str) {
    let fields = [
        ("connection", "close, X-Hop, content-type"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("upgrade", "h2c"),
        ("transfer-encoding", "chunked"),
        ("x-end", "2"),
    ];
    (fields, "the body")
}

fn service(version: &'static str) -> Microservice<&'static str> {
    Microservice::new("orders", version).state(version).endpoints(endpoints![
        get_order,
        create_order,
        echo,
        self::version,
        slow,
        panics,
        info,
        connection
    ])
}

#[tokio::test]
async fn a_request_goes_the_whole_road() {
    let gateway = TestGateway::start(service("1.0.0")).await;
    let response = gateway.get("/orders/7").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.json::<Order>().await, Order { id: 7 });

    let response = gateway.post_json("/orders", &Order { id: 8 }).await;
    assert_eq!(response.status(), 201);
    assert_eq!(response.json::<Order>().await, Order { id: 8 });
    assert_eq!(gateway.get("/info/a/b%20c").await.text().await, "/info/{*rest} a/b c");
    gateway.shutdown().await;
}

#[tokio::test]
async fn problems_of_the_service_and_of_the_gateway_look_alike() {
    let gateway = TestGateway::start(service("1.0.0")).await;
    for (path, status, code) in [
        ("/orders/0", 404, "order_not_found"),
        ("/orders/x", 400, "invalid_path_parameter"),
        ("/nowhere", 404, "route_not_found"),
        ("/slow", 504, "deadline_exceeded"),
        ("/panic", 500, "internal_error"),
    ] {
        let response = gateway.get(path).await;
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.header("content-type"), Some("application/problem+json"), "{path}");
        let request_id = response.header("x-request-id").unwrap().to_owned();
        let document = response.json::<Value>().await;
        assert_eq!(document["code"], code, "{path}");
        assert_eq!(document["type"], format!("urn:stella:problem:{code}"), "{path}");
        assert_eq!(document["status"], status, "{path}");
        assert_eq!(document["request_id"], *request_id, "{path}");
        assert!(document["title"].is_string(), "{path}");
    }
}

#[tokio::test]
async fn what_belongs_to_one_connection_stays_behind_and_the_rest_arrives() {
    let gateway = TestGateway::start(service("1.0.0")).await;
    let response = gateway.get("/connection").await;
    assert_eq!(response.status(), 200);
    for name in ["connection", "x-hop", "keep-alive", "te", "upgrade", "transfer-encoding"] {
        assert_eq!(response.header(name), None, "{name}");
    }
    assert_eq!(response.header("x-end"), Some("2"));
    assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(response.text().await, "the body");
}

#[tokio::test]
async fn large_bodies_come_back_byte_for_byte() {
    let gateway = TestGateway::start(service("1.0.0")).await;
    let body: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    let response = gateway.request(http::Request::post("/echo").body(body.clone()).unwrap()).await;
    assert!(response.bytes().await == body);
}

#[tokio::test]
async fn versions_live_side_by_side_and_leave() {
    let gateway = TestGateway::start(service("1.0.0")).await;
    let newer = gateway.join(service("1.1.0-rc.1")).await;
    let ask = async |version: &str| {
        let request = http::Request::get("/version").header("x-service-version", version).body(());
        gateway.request(request.unwrap()).await
    };
    assert_eq!(ask("1.0.0").await.text().await, "1.0.0");
    assert_eq!(ask("1.1.0-rc.1").await.text().await, "1.1.0-rc.1");
    assert_eq!(gateway.get("/version").await.text().await, "1.0.0");
    newer.shutdown().await.unwrap();
    // The service has gone; the gateway knows when it has read so.
    let gone = async { while ask("1.1.0-rc.1").await.status() != 404 {} };
    tokio::time::timeout(Duration::from_secs(60), gone).await.unwrap();
    assert_eq!(ask("1.0.0").await.text().await, "1.0.0");
}

#[cfg(feature = "websocket")]
#[tokio::test]
async fn a_websocket_is_opened_without_a_port() {
    use futures_util::{SinkExt as _, StreamExt as _};
    use microservice_sdk::websocket::{Message, WebSocketError};
    use microservice_sdk::{Response, WebSocketUpgrade};

    #[endpoint(GET, "/rooms/{room}", streaming)]
    async fn room(Path(room): Path<String>, upgrade: WebSocketUpgrade) -> Response {
        upgrade.on_upgrade(move |mut socket| async move {
            while let Some(Ok(message)) = socket.recv().await {
                let Message::Text(text) = message else { continue };
                if text.as_str() == "leave" {
                    let _ = socket.close(None).await;
                } else {
                    let _ = socket.send(format!("{room}: {text}")).await;
                }
            }
        })
    }

    let gateway = TestGateway::start(Microservice::new("rooms", "1.0.0").endpoints(endpoints![room])).await;
    let mut socket = gateway.websocket("/rooms/red").await;
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("red: hello"));
    socket.send(Message::text("leave")).await.unwrap();
    assert!(socket.next().await.unwrap().unwrap().is_close());
    assert!(socket.next().await.is_none());

    let refused = gateway.try_websocket("ws://gateway.test/nowhere").await.map(drop);
    assert!(matches!(refused, Err(WebSocketError::Http(answer)) if answer.status() == 404));
    gateway.shutdown().await;
}

#[cfg(feature = "websocket")]
#[tokio::test]
async fn a_websocket_says_goodbye_when_its_service_drains() {
    use futures_util::StreamExt as _;
    use microservice_sdk::websocket::Message;
    use microservice_sdk::{Draining, Response, WebSocketUpgrade};

    #[endpoint(GET, "/room", streaming)]
    async fn room(draining: Draining, upgrade: WebSocketUpgrade) -> Response {
        upgrade.on_upgrade(move |mut socket| async move {
            assert!(!draining.has_begun());
            let _ = socket.send("welcome").await;
            draining.begun().await;
            let _ = socket.send("goodbye").await;
            let _ = socket.close(None).await;
        })
    }

    let gateway = TestGateway::empty(&router_config::RouterConfig::<()>::default()).await;
    let running = gateway.join(Microservice::new("rooms", "1.0.0").endpoints(endpoints![room])).await;
    let mut socket = gateway.websocket("/room").await;
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("welcome"));
    let stopped = tokio::spawn(running.shutdown());
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("goodbye"));
    assert!(socket.next().await.unwrap().unwrap().is_close());
    stopped.await.unwrap().unwrap();
    gateway.shutdown().await;
}

#[tokio::test]
async fn a_tunnel_that_is_asked_for_without_a_gateway_is_none() {
    use microservice_sdk::{Response, Tunnel};
    use tower::ServiceExt as _;

    #[endpoint(GET, "/raw", streaming)]
    async fn raw(tunnel: Tunnel) -> Response {
        tunnel.accept(|_| async { Ok(()) })
    }

    let service = Microservice::new("raw", "1.0.0").endpoints(endpoints![raw]);
    let response = service.oneshot(http::Request::get("/raw").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 400);
}
