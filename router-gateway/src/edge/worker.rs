//! Edge: what the connections of one worker share. It does nothing by itself.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::stop::Stop;
use super::{EdgeContext, Floor};

/// One worker's HTTP edge.
#[derive(Debug)]
pub struct Edge {
    pub context: Arc<EdgeContext>,
    /// Connections the node may still take (SPEC 12); further ones wait in the kernel's queue.
    pub places: Arc<Semaphore>,
    /// Where connections are counted while they last, and under which worker.
    pub floor: Arc<Floor>,
    pub worker: usize,
    pub stop: Stop,
    /// Owns every task of every connection.
    pub tasks: TaskTracker,
    /// Cuts connections in the middle: the grace is over. Requested after `stop`, never alone.
    pub cut: Stop,
}
