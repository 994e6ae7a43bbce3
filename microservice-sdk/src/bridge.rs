//! Any tower service of HTTP requests, mounted whole: the way of an existing web service behind the gateway (SPEC 11).
//!
//! It is served under a path with all methods, and sees its requests as they came. Nothing here knows what it routes.

use http::Method;
use router_link::Body;
use tower::ServiceExt as _;

use crate::bytes::Bytes;
use crate::endpoints::{Endpoints, Route};
use crate::error::Internal;
use crate::message::{Request, Response};
use crate::response::IntoResponse as _;
use crate::service::Microservice;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

impl<S: Send + Sync + 'static> Microservice<S> {
    /// Mounts a tower service under a path: it gets every request to that path and to what lies below it, with the path as
    /// it came. An axum `Router` is such a service; `mount("/", router)` puts all of it behind the gateway.
    ///
    /// Endpoints of this service that are more specific are served by their own handlers.
    #[must_use]
    pub fn mount<T, B>(self, path: &str, service: T) -> Self
    where
        T: tower::Service<Request, Response = http::Response<B>> + Clone + Send + Sync + 'static,
        T::Error: Into<BoxError> + Send,
        T::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let base = path.strip_suffix('/').unwrap_or(path);
        let mut below = vec![format!("{base}/"), format!("{base}/{{*rest}}")];
        if !base.is_empty() {
            below.push(base.to_owned());
        }
        let mut endpoints = Endpoints::new();
        for path in below {
            for method in METHODS {
                let service = service.clone();
                let route = Route::new(method, &*path).streaming_request().streaming_response();
                endpoints = endpoints.route(route, move |request: Request| answer(service, request));
            }
        }
        self.endpoints(endpoints)
    }
}

async fn answer<T, B>(service: T, request: Request) -> Response
where
    T: tower::Service<Request, Response = http::Response<B>>,
    T::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    match service.oneshot(request).await {
        Ok(response) => response.map(Body::stream),
        Err(error) => Internal::from(error).into_response(),
    }
}
