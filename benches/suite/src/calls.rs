//! A service of one small endpoint, and a request to it, without a gateway between.

use microservice_sdk::{Body, Microservice, Path, Request, endpoint, endpoints};
use tokio::runtime::Runtime;

#[endpoint(GET, "/hello/{number}")]
async fn hello(Path(number): Path<u64>) -> &'static str {
    let _ = number;
    "Hello, World!"
}

#[must_use]
pub fn service() -> Microservice {
    Microservice::new("bench", "1.0.0").endpoints(endpoints![hello])
}

/// # Panics
/// Never: the path is one.
#[must_use]
pub fn request() -> Request {
    http::Request::get("/hello/7").body(Body::empty()).expect("a request")
}

/// A runtime of one thread: nothing here waits for the outside.
///
/// # Panics
/// When the system has no descriptor left.
#[must_use]
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
