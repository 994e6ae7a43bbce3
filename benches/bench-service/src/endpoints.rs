//! What the service answers: small and large, up and down, fast and slow, and a mirror.
//!
//! Bodies stream; none is built in memory beyond 64 KiB.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use http_body_util::BodyExt as _;
use microservice_sdk::{
    Body, BodyError, Chunks, Internal, IntoResponse, Json, Microservice, Path, Request, Response, Route, State,
    endpoint, endpoints,
};
use serde::Serialize;

/// What the endpoints know of their service.
#[derive(Debug, Clone)]
pub(crate) struct Info {
    pub(crate) version: String,
}

/// Everything but the numbered ones.
pub(crate) fn add(service: Microservice<Info>) -> Microservice<Info> {
    let mirrored = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS].into_iter();
    let service = service.endpoints(endpoints![hello, octets, echo, sink, sleep, again, version]);
    mirrored.fold(service, |service, method| service.raw(method, "/headers", headers))
}

/// `GET /e/{place}`, which answers its number.
pub(crate) fn add_numbered(service: Microservice<Info>, place: usize) -> Microservice<Info> {
    service.route(Route::new(Method::GET, format!("/e/{place}")), move || async move { place.to_string() })
}

/// The smallest useful answer.
#[endpoint(GET, "/hello")]
async fn hello() -> ([(HeaderName, HeaderValue); 1], &'static str) {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"))], "Hello, World!")
}

/// Octet `i` of any answer is `i % 251`, so that a reader can tell a wrong one from a right one.
const PATTERN: usize = 251;
/// About 64 KiB, and whole patterns.
const CHUNK: usize = PATTERN * 261;

static OCTETS: [u8; CHUNK] = {
    let mut octets = [0; CHUNK];
    let mut at = 0;
    while at < CHUNK {
        octets[at] = (at % PATTERN) as u8;
        at += 1;
    }
    octets
};

/// As many octets as one asks for.
#[endpoint(GET, "/bytes/{n}", streaming(response))]
async fn octets(Path(n): Path<u64>) -> Response {
    let next = |left: u64| {
        let piece = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        (Bytes::from_static(&OCTETS[..piece]), left - piece as u64)
    };
    if n <= CHUNK as u64 {
        return next(n).0.into_response();
    }
    let pieces = stream::unfold(n, move |left| async move {
        let (piece, left) = next(left);
        (!piece.is_empty()).then_some((Ok::<_, Infallible>(piece), left))
    });
    ([(header::CONTENT_LENGTH, n)], Chunks(pieces)).into_response()
}

/// What came in goes out, while it comes in; trailers too.
#[endpoint(POST, "/echo", streaming)]
async fn echo(mut headers: HeaderMap, body: Body) -> Response {
    // Over HTTP/1.1 trailers reach a client only if they were announced.
    let kept = [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::TRAILER];
    let kept = kept.into_iter().filter_map(|name| headers.remove(&name).map(|value| (name, value)));
    let kept: HeaderMap = kept.collect();
    (kept, body).into_response()
}

/// Reads everything and answers its length.
#[endpoint(POST, "/sink", streaming(request))]
async fn sink(body: Body) -> Result<String, Internal> {
    Ok(read(body).await?.0.to_string())
}

/// Answers after so many milliseconds.
#[endpoint(GET, "/sleep/{ms}")]
async fn sleep(Path(ms): Path<u64>) -> &'static str {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    "slept"
}

/// The same, and it may run more than once for one request.
#[endpoint(GET, "/again/{ms}", idempotent)]
async fn again(path: Path<u64>) -> &'static str {
    sleep(path).await
}

/// Which version answers.
#[endpoint(GET, "/version")]
async fn version(State(info): State<Info>) -> String {
    info.version
}

/// A request as the handler got it.
#[derive(Debug, Serialize)]
struct Seen {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    trailers: Vec<(String, String)>,
    /// Octets of the body.
    body: u64,
}

async fn headers(request: Request) -> Result<Json<Seen>, Internal> {
    let (head, body) = request.into_parts();
    let (length, trailers) = read(body).await?;
    Ok(Json(Seen {
        method: head.method.to_string(),
        target: head.uri.to_string(),
        headers: fields(&head.headers),
        trailers: fields(&trailers),
        body: length,
    }))
}

fn fields(map: &HeaderMap) -> Vec<(String, String)> {
    map.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// A value as UTF-8 where it is, else octet by octet.
fn text(value: &HeaderValue) -> String {
    let octets = value.as_bytes();
    String::from_utf8(octets.to_vec()).unwrap_or_else(|_| octets.iter().map(|octet| char::from(*octet)).collect())
}

/// The length of a body, and its trailers.
async fn read(mut body: Body) -> Result<(u64, HeaderMap), BodyError> {
    let (mut length, mut trailers) = (0, HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => length += data.len() as u64,
            Err(other) => trailers = other.into_trailers().unwrap_or_default(),
        }
    }
    Ok((length, trailers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower::ServiceExt as _;

    async fn ask(method: Method, target: &str, body: Body) -> (HeaderMap, Bytes) {
        let service = Microservice::new("bench", "1.0.0").state(Info { version: "1.0.0".to_owned() });
        let service = add_numbered(add(service), 0);
        let request = http::Request::builder().method(method).uri(target).header("content-type", "text/x");
        let response = service.oneshot(request.body(body).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200, "{target}");
        let (head, body) = response.into_parts();
        (head.headers, body.collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn small_answers() {
        let (headers, body) = ask(Method::GET, "/hello", Body::empty()).await;
        assert_eq!(
            (&headers["content-type"], &body[..]),
            (&HeaderValue::from_static("text/plain"), &b"Hello, World!"[..])
        );
        assert_eq!(ask(Method::GET, "/version", Body::empty()).await.1, "1.0.0");
        assert_eq!(ask(Method::GET, "/e/0", Body::empty()).await.1, "0");
        assert_eq!(ask(Method::GET, "/sleep/1", Body::empty()).await.1, "slept");
        assert_eq!(ask(Method::GET, "/again/1", Body::empty()).await.1, "slept");
    }

    #[tokio::test]
    async fn as_many_octets_as_asked_for_in_one_pattern() {
        for n in [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK - 7] {
            let (_, body) = ask(Method::GET, &format!("/bytes/{n}"), Body::empty()).await;
            assert_eq!(body.len(), n);
            assert!(body.iter().enumerate().all(|(at, octet)| usize::from(*octet) == at % PATTERN), "{n}");
        }
    }

    #[tokio::test]
    async fn bodies_come_back_or_are_counted() {
        let (headers, body) = ask(Method::POST, "/echo", "some text".into()).await;
        assert_eq!((&headers["content-type"], &body[..]), (&HeaderValue::from_static("text/x"), &b"some text"[..]));
        assert_eq!(ask(Method::POST, "/sink", vec![0; 100_000].into()).await.1, "100000");
    }

    #[tokio::test]
    async fn trailers_are_announced_as_they_came() {
        let headers = HeaderMap::from_iter([(header::TRAILER, HeaderValue::from_static("x-sum"))]);
        assert_eq!(echo(headers, Body::empty()).await.headers()["trailer"], "x-sum");
    }

    #[tokio::test]
    async fn a_request_is_shown_as_it_came() {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let (_, body) = ask(method.parse().unwrap(), "/headers?q=%20", "12345".into()).await;
            let seen: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let expected = serde_json::json!({
                "method": method, "target": "/headers?q=%20", "headers": [["content-type", "text/x"]],
                "trailers": [], "body": 5
            });
            assert_eq!(seen, expected);
        }
    }
}
