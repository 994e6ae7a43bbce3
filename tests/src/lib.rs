//! What the integration tests share: the transports of this workspace, and what the conformance suite has for scenarios.

pub mod carriers;
pub mod forwarder;
pub mod reference;

pub use router_conformance::{client, eventually, matrix, services, sockets, stage, within};

/// Makes tests of scenarios, `async fn(Transport)`, for a carrier of each kind: values, and bytes. What concerns the
/// transports themselves is in the conformance suite.
#[macro_export]
macro_rules! on_every_transport {
    ($($scenario:ident,)+) => {
        $crate::on_every_transport! { @ in_memory IN_MEMORY $($scenario)+ }
        $crate::on_every_transport! { @ tcp TCP $($scenario)+ }
    };
    (@ $module:ident $transport:ident $($scenario:ident)+) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $scenario() {
                    let scenario = super::$scenario($crate::carriers::$transport);
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
