//! Scenarios over the whole road, on every transport: a stage to put services on, and a client to ask with.

pub mod client;
pub mod reference;
pub mod services;
pub mod stage;
pub mod tunnels;

use std::future::Future;
use std::time::Duration;

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

/// Makes tests of scenarios, `async fn(Transport)`: one for each transport.
#[macro_export]
macro_rules! on_every_transport {
    ($($scenario:ident,)+) => {
        $crate::on_every_transport! { @ in_memory InMemory $($scenario)+ }
        $crate::on_every_transport! { @ tcp Tcp $($scenario)+ }
    };
    (@ $module:ident $transport:ident $($scenario:ident)+) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $scenario() {
                    let scenario = super::$scenario($crate::stage::Transport::$transport);
                    $crate::within(stringify!($scenario), scenario).await;
                }
            )+
        }
    };
}

/// The snippets of the documents, compiled as doctests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
