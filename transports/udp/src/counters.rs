//! How many datagrams were thrown away, and why.

use std::sync::atomic::{AtomicU64, Ordering};

use router_link::Discarded;

use crate::packet::Dropped;

/// Datagrams that were thrown away, by reason. They only grow.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; Dropped::ALL.len()]);

impl Counters {
    /// One more.
    pub(crate) fn count(&self, reason: Dropped) {
        if let Some(counter) = self.0.get(reason as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many, for this reason.
    #[must_use]
    pub fn dropped(&self, reason: Dropped) -> u64 {
        self.0.get(reason as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}

impl Discarded for Counters {
    fn counts(&self) -> Vec<(&'static str, u64)> {
        Dropped::ALL.into_iter().map(|reason| (reason.as_str(), self.dropped(reason))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_number() {
        let counters = Counters::default();
        for (times, reason) in (1..).zip(Dropped::ALL) {
            (0..times).for_each(|_| counters.count(reason));
        }
        let all: Vec<_> = counters.counts().into_iter().map(|(_, number)| number).collect();
        assert_eq!(all, [1, 2, 3, 4, 5, 6]);
    }
}
