//! The waiting line: requests for which every instance is leased out (SPEC 5).
//!
//! A slot that comes free wakes the first in line. Whom it does not help passes the word on to the next, and keeps its
//! place. The line knows neither requests nor leases: only who came first.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// How many may wait, by default.
pub(super) const WAITING: usize = 1024;

/// The line of a node.
#[derive(Debug)]
pub(crate) struct WaitingLine {
    limit: usize,
    /// How many wait; read without the lock by everybody who gives a slot back.
    waiting: AtomicUsize,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    next: u64,
    places: BTreeMap<u64, Arc<Notify>>,
}

impl Default for WaitingLine {
    fn default() -> Self {
        Self::new(WAITING)
    }
}

impl WaitingLine {
    #[must_use]
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, waiting: AtomicUsize::new(0), line: Mutex::default() }
    }

    /// How many wait now.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Something has come free: the first in line may look. Cheap where nobody waits.
    pub(crate) fn freed(&self) {
        // Whoever joins looks once more after joining, so that nothing freed before is missed.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.wake_from(0);
        }
    }

    /// A place at the end of the line; `None` if the line is full.
    #[must_use]
    pub(crate) fn join(self: &Arc<Self>) -> Option<Place> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if line.places.len() >= self.limit {
            return None;
        }
        let number = line.next;
        line.next += 1;
        let woken = Arc::new(Notify::new());
        line.places.insert(number, Arc::clone(&woken));
        self.waiting.store(line.places.len(), Ordering::SeqCst);
        Some(Place { line: Arc::clone(self), number, woken })
    }

    fn wake_from(&self, number: u64) {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, woken)) = line.places.range(number..).next() {
            woken.notify_one();
        }
    }
}

/// One place in the line; left by dropping it.
#[derive(Debug)]
pub(crate) struct Place {
    line: Arc<WaitingLine>,
    number: u64,
    woken: Arc<Notify>,
}

impl Place {
    /// Waits for the word.
    pub(crate) async fn woken(&self) {
        self.woken.notified().await;
    }

    /// It was of no use here: the next may look.
    pub(crate) fn pass_on(&self) {
        self.line.wake_from(self.number.saturating_add(1));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut line = self.line.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.places.remove(&self.number);
        self.line.waiting.store(line.places.len(), Ordering::SeqCst);
        // A word that came in the last moment is not lost; one too many only makes somebody look in vain.
        if let Some((_, woken)) = line.places.range(self.number..).next() {
            woken.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_woken(place: &Place) -> bool {
        let mut woken = std::pin::pin!(place.woken());
        let waker = std::task::Waker::noop();
        woken.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_ready()
    }

    #[test]
    fn the_first_in_line_is_woken_and_passes_on_what_does_not_help() {
        let line = Arc::new(WaitingLine::new(8));
        let (first, second) = (line.join().unwrap(), line.join().unwrap());
        line.freed();
        assert!(!is_woken(&second));
        assert!(is_woken(&first));
        first.pass_on();
        assert!(is_woken(&second));
        assert!(!is_woken(&first));
    }

    #[test]
    fn whoever_leaves_gives_the_word_to_the_next() {
        let line = Arc::new(WaitingLine::new(8));
        let (first, second) = (line.join().unwrap(), line.join().unwrap());
        line.freed();
        drop(first);
        assert!(is_woken(&second));
        assert_eq!(line.len(), 1);
    }

    #[test]
    fn the_line_has_an_end() {
        let line = Arc::new(WaitingLine::new(1));
        let place = line.join().unwrap();
        assert!(line.join().is_none());
        drop(place);
        assert_eq!(line.len(), 0);
    }
}
