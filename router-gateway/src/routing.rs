//! From a request to the instance that serves it: an immutable snapshot, and one pure function over it (SPEC 5).
//!
//! `table` is the snapshot (method x path x version), `decision` the function, `strategy` its last steps, `instance`
//! what is known of a live instance, `tombstones` what is remembered of lost ones, `trie` how paths are found. Nothing
//! here knows HTTP messages, frames or who builds the snapshots; that last is the registry's work.

pub mod decision;
#[cfg(test)]
pub(crate) mod fixture;
pub mod instance;
pub mod strategy;
pub mod table;
pub mod tombstones;
pub mod trie;

pub use self::decision::{Decision, Rejection, RequestFacts, decide};
pub use self::instance::{InstanceKey, InstanceState, LinkState};
pub use self::strategy::Strategy;
pub use self::table::{RouteEndpoint, RouteTable};
