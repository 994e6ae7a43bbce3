//! The services of the scenarios: orders to look at, a mirror, and handlers that wait, fail, and tell when they end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, StatusCode, header};
use microservice_sdk::{
    Body, Chunks, EndpointError, IntoResponse, Json, Microservice, Path, Request, Response, Route, State, endpoint,
    endpoints,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::within;

#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Order {
    pub id: u64,
    pub version: String,
}

#[derive(Debug, thiserror::Error, EndpointError)]
enum OrderError {
    #[error("there is no order {0}")]
    #[problem(404, code = "order_not_found")]
    NotFound(u64),
}

/// The version, as the state of the service.
#[derive(Debug, Clone)]
pub struct Served(pub String);

#[endpoint(GET, "/orders/{id}")]
async fn order(Path(id): Path<u64>, State(Served(version)): State<Served>) -> Result<Json<Order>, OrderError> {
    if id == 0 { Err(OrderError::NotFound(id)) } else { Ok(Json(Order { id, version })) }
}

#[endpoint(POST, "/orders")]
async fn create(Json(order): Json<Order>) -> (StatusCode, Json<Order>) {
    (StatusCode::CREATED, Json(order))
}

/// What came in goes out, trailers too: announced, because HTTP/1.1 needs that.
#[endpoint(POST, "/echo", streaming)]
async fn echo(request: Request) -> Response {
    let (mut head, body) = request.into_parts();
    let mut response = Response::new(body);
    if let Some(trailer) = head.headers.remove(header::TRAILER) {
        response.headers_mut().insert(header::TRAILER, trailer);
    }
    response
}

/// The request's fields as they arrived.
#[endpoint(GET, "/fields")]
async fn fields(headers: HeaderMap) -> Json<Vec<(String, String)>> {
    Json(
        headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
            .collect(),
    )
}

#[endpoint(GET, "/panic")]
async fn panics() -> StatusCode {
    panic!("on purpose")
}

/// Ten bytes are promised, and fewer come.
#[endpoint(GET, "/cut", streaming(response))]
async fn cut() -> impl IntoResponse {
    let pieces = [Ok(Bytes::from_static(b"12345")), Err(std::io::Error::other("on purpose"))];
    ([(header::CONTENT_LENGTH, "10")], Chunks(stream::iter(pieces)))
}

/// A body whose end is never there.
#[endpoint(POST, "/no-more-than-ten", max_request_bytes = "10")]
async fn limited(body: Bytes) -> String {
    body.len().to_string()
}

/// All of the above, as `orders` of some version.
#[must_use]
pub fn orders(version: &str) -> Microservice<Served> {
    Microservice::new("orders", version)
        .state(Served(version.to_owned()))
        .endpoints(endpoints![order, create, echo, fields, panics, cut, limited])
}

/// One endpoint, `GET` of a path, that answers a text.
#[must_use]
pub fn one(name: &str, version: &str, path: &str, answer: &'static str) -> Microservice {
    Microservice::new(name, version).raw(Method::GET, path, move || async move { answer })
}

/// Watches handlers: how many have begun, and how many have ended, in whatever way.
#[derive(Debug, Clone)]
pub struct Witness(Arc<watch::Sender<(usize, usize)>>);

impl Default for Witness {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new((0, 0))))
    }
}

/// A handler that is watched: it has ended when this is dropped.
#[derive(Debug)]
pub struct Presence(Witness);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.0.send_modify(|(_, ended)| *ended += 1);
    }
}

impl Witness {
    /// Waits until so many handlers have begun.
    pub async fn begun(&self, count: usize) {
        self.reaches("handlers have begun", |(begun, _)| *begun >= count).await;
    }

    /// Waits until so many have ended.
    pub async fn ended(&self, count: usize) {
        self.reaches("handlers have ended", |(_, ended)| *ended >= count).await;
    }

    async fn reaches(&self, what: &str, reached: impl FnMut(&(usize, usize)) -> bool) {
        let mut changes = self.0.subscribe();
        // The sender is `self`.
        let _ = within(what, changes.wait_for(reached)).await;
    }

    /// A handler begins.
    #[must_use]
    pub fn enter(&self) -> Presence {
        self.0.send_modify(|(begun, _)| *begun += 1);
        Presence(self.clone())
    }

    /// A service with handlers that are watched: `GET /for-ever`, `POST /read-all`, `GET /until-let-go`, which answers
    /// when `go` changes, and `GET /cut-when-let-go`, which answers at once and fails then.
    #[must_use]
    pub fn service(&self, go: &watch::Sender<bool>) -> Microservice {
        let (own, reading, waiting, go) = (self.clone(), self.clone(), self.clone(), go.subscribe());
        let fails = go.clone();
        Microservice::new("watched", "1.0.0")
            .raw(Method::GET, "/for-ever", move || async move {
                let _presence = own.enter();
                std::future::pending::<()>().await;
                "never"
            })
            .route(Route::new(Method::POST, "/read-all").streaming_request(), move |body: Body| async move {
                let _presence = reading.enter();
                match http_body_util::BodyExt::collect(body).await {
                    Ok(all) => all.to_bytes().len().to_string(),
                    Err(error) => error.to_string(),
                }
            })
            .route(Route::new(Method::GET, "/cut-when-let-go").streaming_response(), move || async move {
                let mut go = fails;
                let failing = stream::once(async move {
                    let _ = go.wait_for(|go| *go).await;
                    Err(std::io::Error::other("on purpose"))
                });
                let begun = stream::once(async { Ok(Bytes::from_static(b"12345")) });
                Chunks(futures_util::StreamExt::chain(begun, failing))
            })
            .route(Route::new(Method::GET, "/until-let-go").timeout(Duration::from_secs(20)), move || async move {
                let _presence = waiting.enter();
                let mut go = go;
                let _ = go.wait_for(|go| *go).await;
                "let go"
            })
    }
}
