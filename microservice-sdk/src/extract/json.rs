//! `Json<T>`: a body that is JSON, both ways.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::FromRequest;
use super::body::{collect, limit};
use crate::error::Problem;
use crate::message::{Request, Response};
use crate::response::IntoResponse;

/// As the last argument: the request body, read as JSON. As a result: a response with a JSON body.
///
/// | what is wrong with the request | answer |
/// |---|---|
/// | `Content-Type` is not `application/json` or `application/*+json` | 415 `unsupported_media_type` |
/// | the body is not JSON | 400 `invalid_json`, with line and column |
/// | the JSON does not fit the type | 422 `invalid_body`, with the path to what does not fit |
/// | larger than the endpoint's `max_request_bytes` | 413 `payload_too_large` |
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<S, T> FromRequest<S> for Json<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type")
                .detail("send the body with `Content-Type: application/json`"));
        }
        let limit = limit(&request);
        let bytes = collect(request.into_body(), limit).await?;
        parse(&bytes).map(Self)
    }
}

/// `None` where the request has neither a body nor a `Content-Type`.
impl<S, T> FromRequest<S> for Option<Json<T>>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !request.headers().contains_key(header::CONTENT_TYPE) && http_body::Body::is_end_stream(request.body()) {
            return Ok(None);
        }
        Json::from_request(request, state).await.map(Some)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(bytes) => {
                let mut response = Response::new(bytes.into());
                response
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, const { HeaderValue::from_static("application/json") });
                response
            }
            Err(error) => {
                tracing::error!(%error, "a response could not be written as JSON");
                Problem::internal().into_response()
            }
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn parse<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Problem> {
    let error = match serde_json::from_slice(bytes) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    match error.classify() {
        Category::Data => {
            // Only what fails pays for knowing where.
            let mut deserializer = serde_json::Deserializer::from_slice(bytes);
            let detail = match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
                Err(located) if located.path().iter().next().is_some() => {
                    format!("`{}`: {}", located.path(), located.inner())
                }
                _ => error.to_string(),
            };
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body").detail(detail))
        }
        Category::Syntax | Category::Eof | Category::Io => {
            Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_json").detail(error.to_string()))
        }
    }
}
