//! One gateway as a service knows it: who it is, and which of its queues to dial.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::types::ShortString;
use tokio::time::Instant;

/// Queues of one gateway that are remembered, the newest first: of one that has lost its broker, above all, and of processes
/// that replace one another, where they do not say which they are.
const QUEUES: usize = 4;
/// A gateway that has not announced itself for so long, and with which there is no link, is gone: three announcements and
/// a half.
const GONE_AFTER: Duration = Duration::from_secs(35);

/// One gateway, as it announced itself.
pub(crate) struct Node {
    /// What it is told from all others by: its name, and which process of that name it is.
    pub(crate) key: Arc<str>,
    /// Its name, which others may have, too.
    name: String,
    state: Mutex<NodeState>,
    /// Links to it.
    pub(crate) links: AtomicUsize,
}

struct NodeState {
    /// The next one to dial first.
    queues: VecDeque<ShortString>,
    heard: Instant,
    ending: Ending,
}

/// What is known of a gateway's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Nothing: it is there, or nobody knows.
    Unknown,
    /// The broker says that its last queue is gone: it was killed, or has lost the broker, and comes back.
    Lost,
    /// It says itself that it leaves.
    Left,
}

impl Node {
    pub(crate) fn new(key: &str, name: &str) -> Self {
        let state = NodeState { queues: VecDeque::new(), heard: Instant::now(), ending: Ending::Unknown };
        Self { key: key.into(), name: name.to_owned(), state: Mutex::new(state), links: AtomicUsize::new(0) }
    }

    /// Whether that is its name.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.name == name
    }

    pub(crate) fn shares_name(&self, other: &Self) -> bool {
        self.name == other.name
    }

    /// The queue to dial.
    pub(crate) fn queue(&self) -> Option<ShortString> {
        self.lock().queues.front().cloned()
    }

    /// Its queues, the next one to dial first.
    pub(crate) fn queues(&self) -> Vec<ShortString> {
        self.lock().queues.iter().cloned().collect()
    }

    /// It announced this queue: whether that is news.
    pub(crate) fn hear(&self, queue: &str) -> bool {
        let mut state = self.lock();
        state.heard = Instant::now();
        state.ending = Ending::Unknown;
        if state.queues.iter().any(|known| known.as_str() == queue) {
            return false;
        }
        state.queues.push_front(queue.into());
        state.queues.truncate(QUEUES);
        true
    }

    /// This queue is gone, as the broker says.
    pub(crate) fn lose(&self, queue: &str) {
        self.end(queue, Ending::Lost);
    }

    /// This queue is about to be gone, as the gateway says.
    pub(crate) fn leave(&self, queue: &str) {
        self.end(queue, Ending::Left);
    }

    fn end(&self, queue: &str, ending: Ending) {
        let mut state = self.lock();
        let before = state.queues.len();
        state.queues.retain(|known| known.as_str() != queue);
        if state.queues.is_empty() && before > 0 {
            state.ending = ending;
        }
    }

    /// Nobody took it when it was news: it is to be news again.
    pub(crate) fn unhear(&self, queue: &str) {
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

    /// Whether nothing is left of it. `is_replaced`: whether another process of its name is there, so that one which was lost
    /// is not waited for.
    pub(crate) fn is_gone(&self, is_replaced: impl FnOnce() -> bool) -> bool {
        if self.links.load(Ordering::Acquire) > 0 {
            return false;
        }
        let (ending, silent) = {
            let state = self.lock();
            (state.ending, state.heard.elapsed())
        };
        match ending {
            Ending::Left => true,
            Ending::Lost => silent >= GONE_AFTER || is_replaced(),
            Ending::Unknown => silent >= GONE_AFTER,
        }
    }

    fn lock(&self) -> MutexGuard<'_, NodeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_leaves_is_gone_with_its_last_link() {
        let node = Node::new("gateway#1", "gateway");
        assert!(node.hear("q") && !node.hear("q"), "it is news once");
        node.links.store(1, Ordering::Release);
        node.leave("q");
        assert!(!node.is_gone(|| true));
        node.links.store(0, Ordering::Release);
        assert!(node.is_gone(|| false));
        assert!(node.hear("q"), "it is back");
        assert!(!node.is_gone(|| true));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_lost_is_waited_for_unless_another_of_its_name_is_there() {
        let node = Node::new("gateway#1", "gateway");
        node.hear("q");
        node.lose("another");
        assert!(!node.is_gone(|| true), "it has a queue");
        node.lose("q");
        assert!(node.is_gone(|| true) && !node.is_gone(|| false));
        tokio::time::advance(GONE_AFTER).await;
        assert!(node.is_gone(|| false));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_loses_the_broker_knows_nothing_of_anybodys_end() {
        let node = Node::new("gateway#1", "gateway");
        node.hear("q");
        node.forget_all();
        node.lose("q");
        assert!(!node.is_gone(|| true));
        assert!(node.hear("another") && node.queue().is_some());
    }
}
