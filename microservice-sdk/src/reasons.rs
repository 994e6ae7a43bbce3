//! Reasons to dial a gateway at once. What they are is not known here.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Tells all who wait, in the order in which they began to wait: a watch channel would wake them in an order of its own, and
/// no two runs of a simulation would be the same.
#[derive(Debug, Default)]
pub(crate) struct Reasons {
    given: AtomicU64,
    told: Notify,
}

impl Reasons {
    /// There is one more.
    pub(crate) fn give(&self) {
        self.given.fetch_add(1, Ordering::Release);
        self.told.notify_waiters();
    }

    /// How many there have been.
    pub(crate) fn given(&self) -> u64 {
        self.given.load(Ordering::Acquire)
    }

    /// Waits for one beyond those that were `seen`.
    pub(crate) async fn beyond(&self, seen: &mut u64) {
        loop {
            let told = self.told.notified();
            tokio::pin!(told);
            // Before the count is looked at: one that comes in between is not missed.
            told.as_mut().enable();
            let given = self.given();
            if std::mem::replace(seen, given) != given {
                return;
            }
            told.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn all_are_told_in_the_order_of_waiting() {
        let (reasons, woken) = (Arc::new(Reasons::default()), Arc::new(Mutex::new(Vec::new())));
        let waiting: Vec<_> = (0..20)
            .map(|number| {
                let (reasons, woken) = (Arc::clone(&reasons), Arc::clone(&woken));
                tokio::spawn(async move {
                    reasons.beyond(&mut 0).await;
                    woken.lock().unwrap().push(number);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        reasons.give();
        for waiting in waiting {
            waiting.await.unwrap();
        }
        assert_eq!(*woken.lock().unwrap(), (0..20).collect::<Vec<_>>());
        let mut seen = 0;
        reasons.beyond(&mut seen).await;
        assert_eq!(seen, 1, "one that was given before is not missed");
    }
}
