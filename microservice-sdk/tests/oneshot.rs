//! Endpoints asked without a gateway: extractors, responses, errors, as a service's author meets them.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use microservice_sdk::bytes::Bytes;
use microservice_sdk::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use microservice_sdk::{
    Body, Chunks, EndpointError, Endpoints, FromRef, Health, HealthStatus, Internal, IntoResponse, Json, Microservice,
    Path, Problem, Query, Request, RequestInfo, Response, Route, StartError, State, endpoint, endpoints, version,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower::ServiceExt as _;

#[derive(Debug, Clone)]
struct App {
    db: Arc<Vec<&'static str>>,
    greeting: Greeting,
}

#[derive(Debug, Clone)]
struct Greeting(&'static str);

impl FromRef<App> for Greeting {
    fn from_ref(app: &App) -> Self {
        app.greeting.clone()
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    id: u64,
    items: Vec<Item>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Item {
    name: String,
    price: u32,
}

#[derive(Debug, thiserror::Error, EndpointError)]
enum OrderError {
    #[error("order {0} not found")]
    #[problem(404, code = "order_not_found", title = "No such order")]
    NotFound(u64),
    #[error("secret host db-7 is down")]
    #[problem(503, retry_after = "1500ms")]
    StoreDown,
    #[error(transparent)]
    #[problem(transparent)]
    Item(#[from] ItemError),
}

#[derive(Debug, thiserror::Error, EndpointError)]
#[error("item {name} is out of stock")]
#[problem(409, code = "out_of_stock")]
struct ItemError {
    name: String,
}

/// Fetch one order.
///
/// With all its items.
#[endpoint(GET, "/orders/{id}", timeout = "2s", idempotent, claims(scope = "orders:read", role = ["a", "b"], tenant))]
async fn get_order(Path(id): Path<u64>, State(app): State<App>) -> Result<Json<Order>, OrderError> {
    match id {
        404 => Err(OrderError::NotFound(id)),
        503 => Err(OrderError::StoreDown),
        409 => Err(ItemError { name: "tea".into() }.into()),
        _ => Ok(Json(Order { id, items: vec![Item { name: app.db[0].to_owned(), price: 5 }] })),
    }
}

#[endpoint(POST, "/orders", max_request_bytes = "64B")]
async fn create_order(State(Greeting(greeting)): State<Greeting>, Json(order): Json<Order>) -> impl IntoResponse {
    (StatusCode::CREATED, [("location", format!("/orders/{}", order.id))], greeting)
}

mod files {
    use super::*;

    #[derive(Deserialize)]
    pub(super) struct Where {
        user: String,
        path: String,
    }

    #[endpoint(GET, "/users/{user}/files/{*path}")]
    pub(super) async fn fetch(Path(Where { user, path }): Path<Where>) -> String {
        format!("{user}: {path}")
    }

    #[endpoint(GET, "/users/{user}/files/readme")]
    pub(super) async fn readme() -> &'static str {
        "read me"
    }
}

#[derive(Deserialize)]
struct Page {
    page: Option<u32>,
    #[serde(default)]
    tag: Vec<String>,
}

#[endpoint(GET, "/search")]
async fn search(Query(page): Query<Page>, headers: HeaderMap, method: Method) -> String {
    format!("{method} {:?} {:?} {}", page.page, page.tag, headers.len())
}

#[endpoint(POST, "/echo", streaming)]
async fn echo(body: Body) -> Body {
    body
}

#[endpoint(POST, "/text")]
async fn text(text: String) -> String {
    text.to_uppercase()
}

#[endpoint(POST, "/length", max_request_bytes = 8)]
async fn length(bytes: Bytes) -> String {
    bytes.len().to_string()
}

#[endpoint(GET, "/chunks", streaming(response))]
async fn chunks() -> Chunks<impl futures_util::Stream<Item = Result<Bytes, std::io::Error>>> {
    Chunks(futures_util::stream::iter(["a", "b"].map(|text| Ok(Bytes::from_static(text.as_bytes())))))
}

#[endpoint(DELETE, "/orders/{id}")]
async fn delete_order(Path(_): Path<String>) {}

#[endpoint(GET, "/panic")]
async fn panics() -> &'static str {
    if true {
        panic!("on purpose");
    }
    "never"
}

#[endpoint(GET, "/internal")]
async fn internal() -> Result<&'static str, Internal> {
    Err(std::io::Error::other("the disk is full"))?;
    Ok("never")
}

#[endpoint(GET, "/info/{x}", summary = "Said", tags = ["a", "b"], deprecated)]
async fn info(info: RequestInfo) -> String {
    format!("{} {:?} {:?}", info.endpoint().path, info.endpoint().summary, info.endpoint().tags)
}

#[endpoint(PUT, "/optional")]
async fn optional(body: Option<Json<Value>>) -> String {
    format!("{:?}", body.map(|Json(value)| value))
}

fn service() -> Microservice<App> {
    let app = App { db: Arc::new(vec!["tea"]), greeting: Greeting("made") };
    Microservice::new("orders", version!()).state(app).endpoints(endpoints![
        get_order,
        create_order,
        files::fetch,
        files::readme,
        search,
        echo,
        text,
        length,
        chunks,
        delete_order,
        panics,
        internal,
        info,
        optional,
    ])
}

fn request(method: &str, uri: &str, body: impl Into<Body>) -> Request {
    microservice_sdk::http::Request::builder().method(method).uri(uri).body(body.into()).unwrap()
}

fn json(method: &str, uri: &str, body: &'static str) -> Request {
    let mut request = request(method, uri, body);
    request.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
    request
}

async fn ask(request: Request) -> (StatusCode, HeaderMap, String) {
    let response = service().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (parts.status, parts.headers, String::from_utf8(bytes.to_vec()).unwrap())
}

async fn get(uri: &str) -> (u16, String) {
    let (status, _, body) = ask(request("GET", uri, ())).await;
    (status.as_u16(), body)
}

/// Status and code of a problem, and its detail.
async fn problem(request: Request) -> (u16, String, Option<String>) {
    let (status, headers, body) = ask(request).await;
    assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json", "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["status"], status.as_u16());
    let text = |name: &str| body[name].as_str().map(str::to_owned);
    (status.as_u16(), text("code").unwrap(), text("detail"))
}

#[tokio::test]
async fn the_function_is_still_a_function() {
    let app = App { db: Arc::new(vec!["tea"]), greeting: Greeting("made") };
    let Json(order) = get_order(Path(7), State(app)).await.unwrap();
    assert_eq!(order.id, 7);
}

#[tokio::test]
async fn json_goes_in_and_out() {
    let (status, headers, body) = ask(request("GET", "/orders/7", ())).await;
    assert_eq!(status, 200);
    assert_eq!(headers[header::CONTENT_TYPE], "application/json");
    assert_eq!(body, r#"{"id":7,"items":[{"name":"tea","price":5}]}"#);

    let (status, headers, body) = ask(json("POST", "/orders", r#"{"id":9,"items":[]}"#)).await;
    assert_eq!((status.as_u16(), body.as_str()), (201, "made"));
    assert_eq!(headers["location"], "/orders/9");
    assert_eq!(headers[header::CONTENT_TYPE], "text/plain; charset=utf-8");
}

#[tokio::test]
async fn errors_become_problems_and_keep_our_secrets() {
    let asked = |uri: &'static str| problem(request("GET", uri, ()));
    assert_eq!(asked("/orders/404").await, (404, "order_not_found".into(), Some("order 404 not found".into())));
    assert_eq!(asked("/orders/503").await, (503, "store_down".into(), None));
    assert_eq!(asked("/orders/409").await, (409, "out_of_stock".into(), Some("item tea is out of stock".into())));
    assert_eq!(asked("/internal").await, (500, "internal_error".into(), None));
    assert_eq!(asked("/panic").await, (500, "internal_error".into(), None));
    let (_, headers, _) = ask(request("GET", "/orders/503", ())).await;
    assert_eq!(headers[header::RETRY_AFTER], "2");
}

#[tokio::test]
async fn what_does_not_fit_is_told_precisely() {
    let (status, code, detail) = problem(request("GET", "/orders/x7", ())).await;
    assert_eq!((status, code.as_str()), (400, "invalid_path_parameter"));
    assert_eq!(detail.unwrap(), "`id`: `x7` is not a whole number from 0 on, of 64 bits");

    assert_eq!(problem(request("POST", "/orders", "{}")).await.1, "unsupported_media_type");
    let (status, code, detail) = problem(json("POST", "/orders", r#"{"id":9,"items":"#)).await;
    assert_eq!((status, code.as_str()), (400, "invalid_json"));
    assert!(detail.unwrap().contains("line 1 column"));
    let (status, code, detail) =
        problem(json("POST", "/orders", r#"{"id":9,"items":[{"name":"a","price":"b"}]}"#)).await;
    assert_eq!((status, code.as_str()), (422, "invalid_body"));
    assert!(detail.as_ref().unwrap().starts_with("`items[0].price`: invalid type: string"), "{detail:?}");

    assert_eq!(problem(request("POST", "/length", "123456789")).await.0, 413);
    let streamed = http_body_util::StreamBody::new(futures_util::stream::iter(
        ["12345", "6789"]
            .map(|text| Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from_static(text.as_bytes())))),
    ));
    assert_eq!(problem(request("POST", "/length", Body::stream(streamed))).await.1, "payload_too_large");
    assert_eq!(problem(request("POST", "/text", vec![0xff])).await.1, "invalid_text");
    assert_eq!(problem(request("GET", "/search?page=x", ())).await.1, "invalid_query");
}

#[tokio::test]
async fn literals_beat_parameters_and_parameters_are_decoded_once() {
    assert_eq!(get("/users/ann/files/a/b%20c").await, (200, "ann: a/b c".into()));
    assert_eq!(get("/users/a%252Fb/files/x").await, (200, "a%2Fb: x".into()));
    assert_eq!(get("/users/ann/files/readme").await, (200, "read me".into()));
    assert_eq!(get("/search?page=2&tag=a&tag=b").await, (200, r#"GET Some(2) ["a", "b"] 0"#.into()));
    assert_eq!(get("/info/1").await, (200, r#"/info/{x} Some("Said") ["a", "b"]"#.into()));
}

#[tokio::test]
async fn bodies_stream_and_collect() {
    assert_eq!(ask(request("POST", "/echo", "abc")).await.2, "abc");
    assert_eq!(ask(request("POST", "/text", "abc")).await.2, "ABC");
    assert_eq!(ask(request("POST", "/length", "abc")).await.2, "3");
    assert_eq!(get("/chunks").await, (200, "ab".into()));
    assert_eq!(ask(request("DELETE", "/orders/1", ())).await.0, 204);
    assert_eq!(ask(request("PUT", "/optional", ())).await.2, "None");
    assert_eq!(ask(json("PUT", "/optional", "[1]")).await.2, "Some(Array [Number(1)])");
}

#[tokio::test]
async fn unmatched_requests_are_answered_as_a_gateway_would() {
    assert_eq!(problem(request("GET", "/nowhere", ())).await.1, "route_not_found");
    assert_eq!(problem(request("GET", "/orders/", ())).await.1, "route_not_found");
    assert_eq!(problem(request("GET", "/orders//", ())).await.1, "invalid_path");
    assert_eq!(problem(request("PATCH", "/orders/1", ())).await.1, "method_not_allowed");
    let (_, headers, _) = ask(request("PATCH", "/orders/1", ())).await;
    assert_eq!(headers[header::ALLOW], "GET, DELETE");
    let (status, _, body) = ask(request("HEAD", "/orders/1", ())).await;
    assert_eq!((status.as_u16(), body.as_str()), (200, ""));
}

#[tokio::test]
async fn closures_and_raw_handlers_serve_too() {
    let mut service = Microservice::new("raw", "1.0.0")
        .raw(Method::GET, "/raw/{x}", |request: Request| async move {
            Response::new(Body::from(request.uri().path().to_owned()))
        })
        .route(
            Route::new(Method::GET, "/sum/{a}/{b}").timeout(Duration::from_secs(1)),
            |Path((a, b)): Path<(u32, u32)>| async move { (a + b).to_string() },
        )
        .endpoints(Endpoints::new().and(endpoints![text]));
    for (uri, wanted) in [("/raw/1", "/raw/1"), ("/sum/1/2", "3")] {
        let response = (&mut service).oneshot(request("GET", uri, ())).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), wanted);
    }
}

#[endpoint(POST, "/repeat/{times}", blocking)]
async fn repeat(Path(times): Path<usize>, text: String) -> String {
    // The runtime is within reach.
    tokio::task::yield_now().await;
    let thread = std::thread::current();
    assert_ne!(thread.name(), Some("blocking_handlers_have_a_thread_of_their_own"));
    text.repeat(times)
}

#[endpoint(POST, "/health/{well}")]
async fn report(Path(well): Path<bool>, health: Health) -> String {
    health.set(if well { HealthStatus::Healthy } else { HealthStatus::Unhealthy });
    format!("{health:?}")
}

#[tokio::test]
async fn blocking_handlers_have_a_thread_of_their_own() {
    let mut service = Microservice::new("repeats", "1.0.0").endpoints(endpoints![repeat, report]);
    for (uri, status, wanted) in
        [("/repeat/2", 200, "a!a!"), ("/repeat/x", 400, ""), ("/health/false", 200, "Health(Unhealthy)")]
    {
        let response = (&mut service).oneshot(request("POST", uri, "a!")).await.unwrap();
        assert_eq!(response.status(), status, "{uri}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(wanted.is_empty() || body == wanted, "{uri}: {body:?}");
    }
}

#[tokio::test]
async fn all_mistakes_of_a_definition_are_told_at_once() {
    let error = Microservice::new("Orders", "1.0")
        .links(3)
        .raw(Method::GET, "orders", || async {})
        .raw(Method::GET, "/a/{x}", || async {})
        .raw(Method::GET, "/a/{y}", || async {})
        .oneshot(request("GET", "/", ()))
        .await
        .unwrap_err();
    let StartError::Definition(mistakes) = &error else { panic!("{error}") };
    assert_eq!(mistakes.len(), 5, "{error}");
    let text = error.to_string();
    for told in [
        "`Orders` is not a service name",
        "`1.0` is not a semantic version",
        "`links(..)`",
        "begins with `/`",
        "GET /a/{y} is the same endpoint as GET /a/{x}",
    ] {
        assert!(text.contains(told), "{told} is missing from:\n{text}");
    }
}

#[tokio::test]
async fn lists_that_no_gateway_would_read_are_told_before_one_is_asked() {
    let route = |path: &str| Route::new(Method::GET, path);
    let tagged = |path, tags: usize| (0..tags).fold(route(path), |route, tag| route.tag(tag.to_string()));
    let claiming = |path, claims: usize| {
        (0..claims).fold(route(path), |route, claim| route.requiring_claim(claim.to_string(), [""; 0]))
    };
    let valued = |path, values: usize| route(path).requiring_claim("scope", (0..values).map(|value| value.to_string()));
    let answer = || async {};
    let within = Microservice::new("lists", "1.0.0")
        .route(tagged("/tags", 64), answer)
        .route(claiming("/claims", 64), answer)
        .route(valued("/values", 256), answer);
    assert_eq!(within.oneshot(request("GET", "/tags", ())).await.unwrap().status(), 204);
    let error = Microservice::new("lists", "1.0.0")
        .route(tagged("/tags", 65), answer)
        .route(claiming("/claims", 65), answer)
        .route(valued("/values", 257), answer)
        .gateway("tcp://127.0.0.1:5100")
        .start()
        .unwrap_err();
    let text = error.to_string();
    for told in [
        "GET /tags has 65 tags, where 64 are allowed",
        "GET /claims has 65 required claims, where 64 are allowed",
        "GET /values has 257 values of the required claim `scope`, where 256 are allowed",
    ] {
        assert!(text.contains(told), "{told} is missing from:\n{text}");
    }
}

#[test]
fn a_problem_has_members_of_its_own() {
    let problem = Problem::new(StatusCode::CONFLICT, "late").with("by", 3).with("status", 200);
    let body = futures_util::FutureExt::now_or_never(problem.into_response().into_body().collect()).unwrap().unwrap();
    let body: Value = serde_json::from_slice(&body.to_bytes()).unwrap();
    assert_eq!(
        body,
        json!({ "type": "urn:stella:problem:late", "title": "Conflict", "status": 409, "code": "late", "by": 3 })
    );
}

#[tokio::test]
async fn every_problem_says_which_request_it_answers() {
    for (uri, code) in [
        ("/orders/404", "order_not_found"),
        ("/orders/x7", "invalid_path_parameter"),
        ("/internal", "internal_error"),
        ("/panic", "internal_error"),
        ("/nowhere", "route_not_found"),
    ] {
        let mut asked = request("GET", uri, ());
        asked.headers_mut().insert("x-request-id", HeaderValue::from_bytes(b"id-\xe9").unwrap());
        assert_eq!(serde_json::from_str::<Value>(&ask(asked).await.2).unwrap().get("request_id"), None, "{uri}");
        let mut asked = request("GET", uri, ());
        asked.headers_mut().insert("x-request-id", "id-1".parse().unwrap());
        let document: Value = serde_json::from_str(&ask(asked).await.2).unwrap();
        assert_eq!(document["request_id"], "id-1", "{uri}");
        assert_eq!(document["type"], format!("urn:stella:problem:{code}"), "{uri}");
    }
}

#[tokio::test]
async fn a_problem_that_the_service_has_made_its_own_stays_its_own() {
    let status = || async { (StatusCode::GONE, Problem::new(StatusCode::NOT_FOUND, "gone")) };
    let body = || async {
        let mut response = Problem::new(StatusCode::NOT_FOUND, "gone").into_response();
        *response.body_mut() = "no".into();
        response
    };
    let mut service =
        Microservice::new("own", "1.0.0").raw(Method::GET, "/status", status).raw(Method::GET, "/body", body);
    let mut asked = async |uri| {
        let mut request = request("GET", uri, ());
        request.headers_mut().insert("x-request-id", "id-1".parse().unwrap());
        let response = (&mut service).oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap().to_bytes()
    };
    assert_eq!(asked("/body").await, "no");
    let document: Value = serde_json::from_slice(&asked("/status").await).unwrap();
    assert_eq!((&document["status"], &document["request_id"]), (&json!(410), &json!("id-1")));
}

struct Counter {
    step: u64,
    count: std::sync::atomic::AtomicU64,
}

#[microservice_sdk::service]
impl Counter {
    /// One step further.
    #[endpoint(POST, "/count/{times}", idempotent)]
    async fn count(&self, Path(times): Path<u64>) -> String {
        self.advance(times).to_string()
    }

    #[endpoint(GET, "/count")]
    async fn now(&self) -> Json<u64> {
        Json(self.advance(0))
    }

    fn advance(&self, times: u64) -> u64 {
        self.count.fetch_add(self.step * times, std::sync::atomic::Ordering::Relaxed) + self.step * times
    }
}

#[tokio::test]
async fn methods_of_a_service_share_their_value() {
    let counter = Counter { step: 5, count: 0.into() };
    assert_eq!(counter.now().await.0, 0);
    let mut service = Microservice::new("counter", "1.0.0").state("unused").service(counter);
    for (method, uri, wanted) in [("POST", "/count/2", "10"), ("POST", "/count/1", "15"), ("GET", "/count", "15")] {
        let response = (&mut service).oneshot(request(method, uri, ())).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), wanted);
    }
}

#[tokio::test]
async fn a_tower_service_is_mounted_whole() {
    let existing = tower::service_fn(|request: Request| async move {
        let text = format!("{} {}", request.method(), request.uri());
        if request.uri().path().ends_with("/fail") { Err("it failed") } else { Ok(Response::new(Body::from(text))) }
    });
    let mut service =
        Microservice::new("old", "1.0.0").mount("/old", existing).raw(Method::GET, "/old/new", || async { "new" });
    for (method, uri, status, wanted) in [
        ("GET", "/old", 200, "GET /old"),
        ("PATCH", "/old/", 200, "PATCH /old/"),
        ("POST", "/old/a/b?c=d", 200, "POST /old/a/b?c=d"),
        ("GET", "/old/new", 200, "new"),
    ] {
        let response = (&mut service).oneshot(request(method, uri, ())).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), wanted);
    }
    for (uri, status) in [("/old/fail", 500), ("/older", 404)] {
        assert_eq!((&mut service).oneshot(request("GET", uri, ())).await.unwrap().status(), status);
    }
}
