//! The demo service: it greets people. It knows nothing of gateways, transports or ports.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use microservice_sdk::{
    Chunks, EndpointError, IntoResponse, Json, Microservice, Path, Query, State, endpoint, endpoints, version,
};
use serde::{Deserialize, Serialize};

/// The service, to be connected to a gateway.
pub fn service() -> Microservice<GuestBook> {
    Microservice::new("greetings", version!("1.0.0")).state(GuestBook::default()).endpoints(endpoints![
        greet,
        count_down,
        sign_guest_book
    ])
}

/// How many guests there were. Every handler that asks for it gets the same one.
#[derive(Debug, Clone, Default)]
pub struct GuestBook(Arc<AtomicU64>);

#[derive(Debug, thiserror::Error, EndpointError)]
enum GreetingError {
    #[error("nobody here speaks `{0}`; try de, en or fr")]
    #[problem(404, code = "unknown_language")]
    UnknownLanguage(String),
}

#[derive(Debug, Deserialize)]
struct Wish {
    language: Option<String>,
}

#[derive(Debug, Serialize)]
struct Greeting {
    greeting: String,
    version: &'static str,
}

/// Greet somebody, in a language of their choice.
#[endpoint(GET, "/greetings/{name}", timeout = "2s", idempotent)]
async fn greet(Path(name): Path<String>, Query(wish): Query<Wish>) -> Result<Json<Greeting>, GreetingError> {
    let hello = match wish.language.as_deref().unwrap_or("en") {
        "de" => "Hallo",
        "en" => "Hello",
        "fr" => "Bonjour",
        other => return Err(GreetingError::UnknownLanguage(other.to_owned())),
    };
    Ok(Json(Greeting { greeting: format!("{hello}, {name}!"), version: "1.0.0" }))
}

/// Count down to a greeting: each line leaves when it is due.
#[endpoint(GET, "/greetings/{name}/countdown", streaming(response))]
async fn count_down(Path(name): Path<String>) -> impl IntoResponse {
    let lines = ["3 ..".to_owned(), "2 ..".to_owned(), "1 ..".to_owned(), format!("Hello, {name}!")];
    let due = stream::unfold(lines.into_iter(), |mut lines| async {
        let line = lines.next()?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        Some((Ok::<_, Infallible>(Bytes::from(line + "\n")), lines))
    });
    ([("content-type", "text/plain; charset=utf-8")], Chunks(due))
}

#[derive(Debug, Serialize, Deserialize)]
struct Guest {
    name: String,
}

#[derive(Debug, Serialize)]
struct Signed {
    name: String,
    guest: u64,
}

/// Sign the guest book.
#[endpoint(POST, "/guests", max_request_bytes = "4KiB")]
async fn sign_guest_book(State(book): State<GuestBook>, Json(guest): Json<Guest>) -> (StatusCode, Json<Signed>) {
    let number = book.0.fetch_add(1, Ordering::Relaxed) + 1;
    (StatusCode::CREATED, Json(Signed { name: guest.name, guest: number }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use microservice_sdk::Body;
    use tower::ServiceExt as _;

    /// A handler is a function: call it.
    #[tokio::test]
    async fn people_are_greeted_in_their_language() {
        let wish = |language: &str| Query(Wish { language: Some(language.to_owned()) });
        let Json(greeting) = greet(Path("Ada".to_owned()), wish("fr")).await.unwrap();
        assert_eq!(greeting.greeting, "Bonjour, Ada!");
        assert!(greet(Path("Ada".to_owned()), wish("tlh")).await.is_err());
    }

    /// A service is a tower service: ask it.
    #[tokio::test]
    async fn guests_are_counted() {
        let request = |name: &str| {
            let body = format!(r#"{{"name": "{name}"}}"#);
            let request =
                http::Request::builder().method("POST").uri("/guests").header("content-type", "application/json");
            request.body(Body::from(body)).unwrap()
        };
        let mut service = service();
        service.ready().await.unwrap();
        for (name, number) in [("Ada", 1), ("Grace", 2)] {
            let response = tower::Service::call(&mut service, request(name)).await.unwrap();
            assert_eq!(response.status(), StatusCode::CREATED);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let signed: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(signed, serde_json::json!({ "name": name, "guest": number }));
        }
    }
}
