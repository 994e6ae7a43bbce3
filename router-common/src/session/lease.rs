//! Request credit of an instance (SPEC 4, lease).
//!
//! One lease is shared by all links of an instance, whatever threads they run on, so it is lock-free where requests
//! pass. A slot is an owned [`Permit`]: whoever drops it last gives it back, so that no path can forget to.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// How many requests may be in flight on an instance, and how many are.
pub struct Lease {
    limit: AtomicU32,
    in_flight: AtomicU32,
    /// The generation that set `limit`. Locked only when a LEASE arrives, so that two links cannot apply two
    /// generations in the wrong order.
    generation: Mutex<u64>,
    freed: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Lease {
    /// A lease of generation 0.
    #[must_use]
    pub fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicU32::new(limit),
            in_flight: AtomicU32::new(0),
            generation: Mutex::new(0),
            freed: OnceLock::new(),
        })
    }

    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether a slot is free now; another thread may take it before the caller does.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.in_flight() < self.limit()
    }

    /// Runs `hook` whenever a slot is given back or the limit grows, so that somebody who waits for one can look again.
    /// Only the first hook is kept.
    pub fn on_freed(&self, hook: impl Fn() + Send + Sync + 'static) {
        // A second hook would be a second owner of the same waiting line: there is one.
        let _ = self.freed.set(Box::new(hook));
    }

    /// Applies a limit unless a later generation has been applied. A reduction binds later requests only. Returns
    /// whether it was applied.
    pub fn update(&self, generation: u64, limit: u32) -> bool {
        let mut current = self.generation.lock().unwrap_or_else(PoisonError::into_inner);
        if generation < *current {
            return false;
        }
        *current = generation;
        self.limit.store(limit, Ordering::SeqCst);
        drop(current);
        self.notify();
        true
    }

    /// The generation of the limit in force.
    #[must_use]
    pub fn generation(&self) -> u64 {
        *self.generation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a slot, if one is free.
    #[must_use]
    pub fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        self.in_flight
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |taken| (taken < self.limit()).then_some(taken + 1))
            .ok()
            .map(|_| Permit { lease: Arc::clone(self) })
    }

    fn notify(&self) {
        if let Some(freed) = self.freed.get() {
            freed();
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({} of {})", self.in_flight(), self.limit())
    }
}

/// One slot of a [`Lease`]; dropping it gives the slot back.
pub struct Permit {
    lease: Arc<Lease>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        // Sequentially consistent, so that the hook sees whoever began to wait because this slot was not yet free.
        self.lease.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.lease.notify();
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Permit of {:?}", self.lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_counted_and_come_back() {
        let lease = Lease::new(2);
        let (a, b) = (lease.try_acquire(), lease.try_acquire());
        assert!(a.is_some() && b.is_some() && lease.try_acquire().is_none());
        drop(a);
        assert_eq!(lease.in_flight(), 1);
        assert!(lease.try_acquire().is_some());
    }

    #[test]
    fn a_reduction_binds_later_requests_only() {
        let lease = Lease::new(2);
        let held = [lease.try_acquire(), lease.try_acquire()];
        assert!(lease.update(1, 1));
        drop(held);
        let _one = lease.try_acquire().unwrap();
        assert!(lease.try_acquire().is_none());
    }

    #[test]
    fn an_older_generation_changes_nothing() {
        let lease = Lease::new(2);
        assert!(lease.update(5, 7));
        assert!(!lease.update(4, 1));
        assert_eq!((lease.limit(), lease.generation()), (7, 5));
    }
}
