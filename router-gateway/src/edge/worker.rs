//! Edge: what the connections of one worker share. It does nothing by itself.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::stop::Stop;
use super::{EdgeContext, Floor, Gate};

/// One worker's HTTP edge.
#[derive(Debug)]
pub struct Edge {
    pub context: Arc<EdgeContext>,
    /// Connections the node may still take (SPEC 12); further ones wait in the kernel's queue.
    pub places: Arc<Semaphore>,
    /// Where connections are counted while they last, and under which worker.
    pub floor: Arc<Floor>,
    pub worker: usize,
    /// Lets clients in.
    pub gate: Gate,
    /// Each connection ends with its next answer, and those that ask for nothing may stay until `linger_over`.
    pub stop: Stop,
    /// Who has asked for nothing since `stop` goes; what is in flight is finished. Requested after `stop`, never alone.
    pub linger_over: Stop,
    /// Owns every task of every connection.
    pub tasks: TaskTracker,
    /// Cuts connections in the middle: the grace is over. Requested after `linger_over`, never alone.
    pub cut: Stop,
}
