//! From a request to the instance that serves it: an immutable snapshot, and one pure function over it (SPEC 5).
//!
//! `table` is the snapshot (method x path x version), `decision` the function, `strategy` its last steps, `survivors`
//! who is left between them, `nearest` the short way to the same choice, `trace` how they are listened to, `explain` who
//! listens; `instance` is what is known of a live instance, `outlier` when one is passed over for a while, `key` what an
//! endpoint is known by, `tombstones` what is remembered of lost ones, `trie` how paths are found. Nothing here knows HTTP
//! messages, frames or who builds the snapshots; that last is the registry's work.

pub mod changes;
pub mod decision;
pub mod explain;
#[cfg(test)]
pub(crate) mod fixture;
pub mod instance;
pub mod key;
pub mod nearest;
pub mod outlier;
pub mod strategy;
mod survivors;
pub mod table;
pub mod tombstones;
pub mod trace;
pub mod trie;

pub use self::decision::{Decision, Rejection, RequestFacts, Servers, decide};
pub use self::instance::{InstanceKey, InstanceState, LinkState};
pub use self::strategy::Strategy;
pub use self::table::{RouteEndpoint, RouteTable};
