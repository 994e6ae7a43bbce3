//! Floor: how many client connections each worker has, and how a worker that has too many passes a fresh one on.
//!
//! The kernel spreads connections over listeners by a hash, so that a few long-lived ones may all lie on one worker while
//! another has none. A connection moves once at most, before a byte of it is read; nothing here is on a request's way.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Accepted;

/// Connections on their way to one worker. When there are so many, they stay where they are.
const ON_THE_WAY: usize = 256;

/// Between two lines of the log that say that there is no room.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// The client connections of each worker.
#[derive(Debug)]
pub struct Floor {
    counts: Box<[Count]>,
    /// How often accepting has waited for a connection to end.
    full: AtomicU64,
    /// When that was told last.
    told: Mutex<Option<Instant>>,
}

/// On a cache line of its own: each worker writes its own count for every connection.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Count(AtomicUsize);

impl Floor {
    /// For so many workers; at least one.
    #[must_use]
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            counts: (0..workers.max(1)).map(|_| Count::default()).collect(),
            full: AtomicU64::new(0),
            told: Mutex::default(),
        })
    }

    /// Connections of each worker, those on their way to it included.
    #[must_use]
    pub fn connections(&self) -> Vec<usize> {
        self.counts.iter().map(|count| count.0.load(Ordering::Relaxed)).collect()
    }

    /// How often accepting has waited because as many connections were open as may be.
    #[must_use]
    pub fn waits(&self) -> u64 {
        self.full.load(Ordering::Relaxed)
    }

    pub(super) fn note_wait(&self) {
        self.full.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether to say so: once in a while.
    pub(super) fn is_time_to_tell(&self, now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_time = told.is_none_or(|told| now.saturating_duration_since(told) >= TELL_AGAIN);
        if is_time {
            *told = Some(now);
        }
        is_time
    }

    /// Counts one connection of a worker while what is returned lives.
    #[must_use]
    pub fn sit(self: &Arc<Self>, worker: usize) -> Seat {
        if let Some(count) = self.counts.get(worker) {
            count.0.fetch_add(1, Ordering::Relaxed);
        }
        Seat { floor: Arc::clone(self), worker }
    }

    /// Who should have a connection that `worker` has just accepted: the one with the fewest, if `worker` would have two
    /// more than it, and so the floor be less even than it can be.
    fn better_than(&self, worker: usize) -> Option<usize> {
        let load = |place: usize| self.counts.get(place).map_or(usize::MAX, |count| count.0.load(Ordering::Relaxed));
        // Each worker begins to look at its neighbour, so that not all choose the same one.
        let others = (1..self.counts.len()).map(|step| (worker + step) % self.counts.len());
        let (least, place) = others.map(|place| (load(place), place)).min_by_key(|(load, _)| *load)?;
        (load(worker) > least).then_some(place)
    }
}

/// One connection of one worker.
#[derive(Debug)]
pub struct Seat {
    floor: Arc<Floor>,
    worker: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(count) = self.floor.counts.get(self.worker) {
            count.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A connection between two workers. Its seat is taken already, so that not all pass theirs to the same worker.
struct Moving {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    _seat: Seat,
}

/// One worker's way to the others.
#[derive(Debug)]
pub(crate) struct Door {
    floor: Arc<Floor>,
    worker: usize,
    inbox: mpsc::Receiver<Moving>,
    /// By worker, this one included.
    outboxes: Vec<mpsc::Sender<Moving>>,
}

impl Door {
    /// One for each worker of the floor, in their order.
    pub(crate) fn all(floor: &Arc<Floor>) -> Vec<Self> {
        let (outboxes, inboxes): (Vec<_>, Vec<_>) = floor.counts.iter().map(|_| mpsc::channel(ON_THE_WAY)).unzip();
        let door = |(worker, inbox)| Self { floor: Arc::clone(floor), worker, inbox, outboxes: outboxes.clone() };
        inboxes.into_iter().enumerate().map(door).collect()
    }

    /// Waits for a connection that another worker passes on.
    ///
    /// # Errors
    /// This runtime cannot take the connection.
    pub(super) fn poll_inbox(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        match self.inbox.poll_recv(cx) {
            Poll::Ready(Some(Moving { stream, peer, .. })) => {
                Poll::Ready(TcpStream::from_std(stream).map(|stream| (stream, peer)))
            }
            // This door holds a sender of its own, so there is an end only after it was closed.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// The same at the end: nobody passes one on to here any more. `None` when all that were on their way have been taken.
    pub(super) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Accepted<TcpStream>>> {
        self.inbox.close();
        let moved = ready!(self.inbox.poll_recv(cx));
        Poll::Ready(moved.map(|Moving { stream, peer, .. }| Ok((TcpStream::from_std(stream)?, peer))))
    }

    /// Passes a fresh connection on if another worker should have it; else gives it back.
    ///
    /// # Errors
    /// The connection could not be taken from this runtime, and is lost.
    pub(super) fn pass_on(&self, stream: TcpStream, peer: SocketAddr) -> io::Result<Option<TcpStream>> {
        let Some(to) = self.floor.better_than(self.worker) else { return Ok(Some(stream)) };
        let Some(Ok(place)) = self.outboxes.get(to).map(mpsc::Sender::try_reserve) else { return Ok(Some(stream)) };
        let seat = self.floor.sit(to);
        place.send(Moving { stream: stream.into_std()?, peer, _seat: seat });
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_goes_where_there_are_fewest_if_that_makes_the_floor_more_even() {
        let floor = Floor::new(3);
        assert_eq!(floor.better_than(0), None, "all are alike");
        let first = floor.sit(0);
        assert_eq!(floor.better_than(0), Some(1));
        assert_eq!(floor.better_than(2), None);
        let _second = floor.sit(1);
        assert_eq!(floor.better_than(0), Some(2));
        let _third = floor.sit(2);
        assert_eq!(floor.better_than(0), None);
        drop(first);
        assert_eq!(floor.connections(), [0, 1, 1]);
        assert_eq!(floor.better_than(1), Some(0));
        assert_eq!(Floor::new(1).better_than(0), None, "there is nobody else");
    }
}
