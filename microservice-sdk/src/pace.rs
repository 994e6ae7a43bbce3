//! Pace: handlers that keep a thread busy, and how the links stay alive beside them (SPEC 4, life).
//!
//! A handler is polled where its request arrives, in the driver of its link, because that is the quickest way for one
//! that need not wait. One that computes for long would keep the whole link waiting there, heartbeats and all. So the
//! time of every poll is taken, by one look at the clock: what one turn of the driver may spend is bounded, and an
//! endpoint that was slow twice in a row runs in tasks of its own until it is quick again. Such tasks take turns: as many
//! at a time as the runtime has threads, and each lets the runtime look at its sockets before it begins. However many
//! handlers are busy, a driver waits for one poll of theirs, or two, and not for all of them.
//!
//! It knows neither requests nor links. What never lets go of its thread is for `blocking` endpoints, `aside`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A poll that takes longer is slow. A task of its own costs a microsecond or two, so little is lost by one; and so
/// many polls below it would have to come at once that they are bounded by [`TURN`] before they cost a heartbeat.
pub(crate) const SLOW: Duration = Duration::from_micros(250);
/// What slow polls may take of one turn of a driver, together.
const SLOW_IN_TURN: Duration = Duration::from_millis(1);
/// What one turn of a driver may take.
const TURN: Duration = Duration::from_millis(10);
/// Quick polls in a row after which an endpoint is trusted again.
const TRUSTED_AFTER: u8 = 16;

/// What is known of an endpoint's polls.
///
/// ```text
/// 0: trusted ──slow──> 1: suspected ──slow──> 17: slow ──quick──> 16 ──quick──> .. ──quick──> 1 ──quick──> 0
///                         └──quick──> 0                └──slow──> 17
/// ```
/// Suspected, because a thread that the system takes away for a while looks just as slow.
#[derive(Debug, Default)]
pub(crate) struct Pace(AtomicU8);

impl Clone for Pace {
    /// What was learned of one service's endpoint is not taken over to another's.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Pace {
    /// Whether its handlers may be polled in a driver, and need not take turns when they have become tasks. A suspicion alone
    /// does not put a quick one behind slow ones.
    pub(crate) fn is_trusted(&self) -> bool {
        self.0.load(Ordering::Relaxed) <= 1
    }

    /// A poll has taken so long. Returns whether that was slow.
    pub(crate) fn note(&self, took: Duration) -> bool {
        let known = self.0.load(Ordering::Relaxed);
        let is_slow = took > SLOW;
        // Threads that write at the same time know about as much as each other: whichever is last, nothing is lost.
        if is_slow {
            self.0.store(if known == 0 { 1 } else { 1 + TRUSTED_AFTER }, Ordering::Relaxed);
        } else if known > 0 {
            self.0.store(known - 1, Ordering::Relaxed);
        }
        is_slow
    }
}

/// What one turn of a link's driver has spent on handlers.
#[derive(Debug)]
pub(crate) struct Spent {
    /// When the turn began: all requests of one turn say the same.
    turn: Option<Instant>,
    last: Instant,
    slow: Duration,
    is_over: bool,
}

impl Spent {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { turn: None, last: now, slow: Duration::ZERO, is_over: false }
    }

    /// Whether the turn that began at `turn` has time for one more.
    pub(crate) fn has_time(&mut self, turn: Instant) -> bool {
        if self.turn != Some(turn) {
            *self = Self { turn: Some(turn), ..Self::new(turn) };
        }
        !self.is_over
    }

    /// One was polled until `now`. Its time begins where the one before it ended, so that the clock is read once.
    pub(crate) fn polled(&mut self, pace: &Pace, now: Instant) {
        let took = now.saturating_duration_since(self.last);
        self.last = now;
        if pace.note(took) {
            self.slow += took;
        }
        let turn = self.turn.unwrap_or(now);
        self.is_over = self.slow >= SLOW_IN_TURN || now.saturating_duration_since(turn) >= TURN;
    }
}

/// Lets as many slow handlers work at a time as the runtime has threads.
#[derive(Debug, Default)]
pub(crate) struct Gate(OnceLock<Arc<Semaphore>>);

impl Gate {
    /// Within a runtime, whose threads count.
    pub(crate) fn turn(&self) -> Turn {
        let threads = || Arc::new(Semaphore::new(Handle::current().metrics().num_workers().max(1)));
        let gate = Arc::clone(self.0.get_or_init(threads));
        Turn(Box::pin(async move {
            let permit = gate.acquire_owned().await.ok();
            // Behind whatever else is ready to run, and behind a look at the sockets: with all threads busy, tokio would
            // take that only every 61 polls.
            tokio::task::yield_now().await;
            permit
        }))
    }
}

/// A slow handler's waiting for its turn, in the order of coming. Dropping it gives the place up.
pub(crate) struct Turn(Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>);

impl Future for Turn {
    type Output = Option<OwnedSemaphorePermit>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Turn")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_micros(20);
    const BUSY: Duration = Duration::from_millis(100);

    #[test]
    fn one_slow_poll_is_an_accident_and_two_are_a_habit() {
        let pace = Pace::default();
        assert!(pace.note(BUSY) && pace.is_trusted());
        assert!(!pace.note(QUICK), "forgiven");
        assert!(pace.note(BUSY) && pace.is_trusted());
        pace.note(BUSY);
        assert!(!pace.is_trusted());
    }

    #[test]
    fn an_endpoint_is_trusted_again_when_it_has_been_quick_for_a_while() {
        let pace = Pace::default();
        pace.note(BUSY);
        pace.note(BUSY);
        for _ in 0..TRUSTED_AFTER {
            assert!(!pace.is_trusted());
            pace.note(QUICK);
        }
        assert!(pace.is_trusted());
        pace.note(BUSY);
        assert!(!pace.is_trusted(), "at once: it is known for it");
    }

    #[test]
    fn a_turn_has_time_for_many_quick_handlers_and_few_slow_ones() {
        let start = Instant::now();
        let (mut spent, pace) = (Spent::new(start), Pace::default());
        let mut now = start;
        let mut served = 0;
        while spent.has_time(start) {
            now += QUICK;
            spent.polled(&pace, now);
            served += 1;
        }
        assert_eq!(served, TURN.as_micros() / QUICK.as_micros());
        let turn = now;
        assert!(spent.has_time(turn), "the next turn");
        spent.polled(&pace, now + BUSY);
        assert!(!spent.has_time(turn));
        assert!(spent.has_time(now + BUSY));
    }
}
