//! One gateway as a service knows it: its name, and which of its queues to dial.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::types::ShortString;
use tokio::time::Instant;

/// Queues of one gateway that are remembered, the newest first: of processes that replace one another, above all.
const QUEUES: usize = 4;
/// A gateway that has not announced itself for so long, and with which there is no link, is gone: three announcements and
/// a half.
const GONE_AFTER: Duration = Duration::from_secs(35);

/// One gateway, as it announced itself.
pub(crate) struct Node {
    pub(crate) name: Arc<str>,
    state: Mutex<NodeState>,
    /// Links to it.
    pub(crate) links: AtomicUsize,
}

struct NodeState {
    /// The next one to dial first.
    queues: VecDeque<ShortString>,
    heard: Instant,
}

impl Node {
    pub(crate) fn new(name: &str) -> Self {
        let state = NodeState { queues: VecDeque::new(), heard: Instant::now() };
        Self { name: name.into(), state: Mutex::new(state), links: AtomicUsize::new(0) }
    }

    /// The queue to dial.
    pub(crate) fn queue(&self) -> Option<ShortString> {
        self.lock().queues.front().cloned()
    }

    /// It announced this queue: the others that were known, if that is news.
    pub(crate) fn hear(&self, queue: &str) -> Option<Vec<ShortString>> {
        let mut state = self.lock();
        state.heard = Instant::now();
        if state.queues.iter().any(|known| known.as_str() == queue) {
            return None;
        }
        let others = state.queues.iter().cloned().collect();
        state.queues.push_front(queue.into());
        state.queues.truncate(QUEUES);
        Some(others)
    }

    /// This queue is gone, or about to be.
    pub(crate) fn forget(&self, queue: &str) {
        self.lock().queues.retain(|known| known.as_str() != queue);
    }

    /// Nobody let us in there: another one comes first next time.
    pub(crate) fn put_last(&self, queue: &str) {
        let mut state = self.lock();
        if state.queues.front().is_some_and(|first| first.as_str() == queue) {
            state.queues.rotate_left(1);
        }
    }

    pub(crate) fn forget_all(&self) {
        self.lock().queues.clear();
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.links.load(Ordering::Acquire) == 0 && self.lock().heard.elapsed() >= GONE_AFTER
    }

    fn lock(&self) -> MutexGuard<'_, NodeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.name)
    }
}
