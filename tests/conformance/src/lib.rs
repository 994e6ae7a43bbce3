//! The conformance suite: what every transport must do, shown with a real gateway and a real service on either end of it.
//!
//! It knows no transport. One is tested by implementing [`Carrier`] and [`Place`], and by a test target without the usual
//! harness:
//!
//! ```text
//! // Cargo.toml
//! [[test]]
//! name = "conformance"
//! harness = false
//!
//! // tests/conformance.rs
//! fn main() -> std::process::ExitCode {
//!     router_conformance::main(&[Transport::new(&MyTransport)])
//! }
//! ```
//!
//! Each scenario is a test of its own, `transport::area::scenario`, and can be chosen by its name. A transport says what it
//! can do ([`Capabilities`](router_link::Capabilities)); scenarios that need more are not run on it, and others are run in
//! their place that show how it refuses. [`matrix`] tells which is which.
//!
//! `router_link::contract!` is the other half: the same of a link alone, without gateway and service.

mod bare;
mod carrier;
pub mod client;
mod matrix;
mod meddle;
mod scenario;
mod scenarios;
pub mod services;
pub mod sockets;
pub mod stage;
mod suite;

use std::future::Future;
use std::time::Duration;

pub use carrier::{Carrier, Place, Transport};
pub use matrix::matrix;
pub use suite::main;

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something that is certain to come.
///
/// # Panics
/// When it does not come.
pub async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// Asks again and again until the answer is yes.
///
/// # Panics
/// When it never is.
pub async fn eventually(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let mut turns = tokio::time::interval(Duration::from_millis(10));
    within(what, async {
        while !ask().await {
            turns.tick().await;
        }
    })
    .await;
}
