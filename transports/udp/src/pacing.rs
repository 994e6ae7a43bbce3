//! How many packets may be in flight, and how long to wait for an acknowledgement (SPEC 7).

use std::time::Duration;

/// Packets that may be in flight: an acknowledgement tells so many apart.
pub const FLIGHT: usize = 64;
/// What losses leave of it, so that a lossy path still carries something.
pub const FLIGHT_MIN: usize = 4;
/// Waiting for the first acknowledgement, before any round trip was measured.
const RETRANSMIT_FIRST: Duration = Duration::from_millis(150);
/// Shortest wait for an acknowledgement: longer than a receiver delays its own.
const RETRANSMIT_MIN: Duration = Duration::from_millis(30);
/// Longest wait that round trips can lead to.
const RETRANSMIT_MAX: Duration = Duration::from_secs(2);
/// What doubling does not go beyond: calls want an answer, and only few packets are in flight on a path that loses.
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// The round-trip time, smoothed as RFC 6298 does it.
#[derive(Debug, Clone, Copy, Default)]
pub struct RoundTrip {
    smoothed: Option<Duration>,
    variation: Duration,
}

impl RoundTrip {
    /// A packet that was sent once was acknowledged after this time.
    pub fn measured(&mut self, sample: Duration) {
        match self.smoothed {
            None => {
                self.smoothed = Some(sample);
                self.variation = sample / 2;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(sample)) / 4;
                self.smoothed = Some((smoothed * 7 + sample) / 8);
            }
        }
    }

    /// How long to wait for the acknowledgement of a packet that was sent `times` times.
    #[must_use]
    pub fn patience(&self, times: u32) -> Duration {
        let first = match self.smoothed {
            None => RETRANSMIT_FIRST,
            Some(smoothed) => (smoothed + self.variation * 4).clamp(RETRANSMIT_MIN, RETRANSMIT_MAX),
        };
        let doubled = first * (1 << times.saturating_sub(1).min(6));
        doubled.min(first.max(BACKOFF_MAX))
    }
}

/// How many packets may be in flight now.
#[derive(Debug, Clone, Copy)]
pub struct Congestion {
    window: usize,
    /// Up to here it grows with each acknowledgement, beyond it with each window of them.
    threshold: usize,
    acknowledged: usize,
    /// A loss among what was sent before this one is the same loss.
    recovers_at: u64,
}

impl Default for Congestion {
    fn default() -> Self {
        Self { window: FLIGHT, threshold: FLIGHT, acknowledged: 0, recovers_at: 0 }
    }
}

impl Congestion {
    /// How many packets may be in flight.
    #[must_use]
    pub const fn window(&self) -> usize {
        self.window
    }

    /// One packet was acknowledged.
    pub fn acknowledged(&mut self) {
        if self.window >= FLIGHT {
            return;
        }
        self.acknowledged += 1;
        if self.window < self.threshold || self.acknowledged >= self.window {
            self.window += 1;
            self.acknowledged = 0;
        }
    }

    /// The transmission `sent` was lost; `next` is the one to come.
    pub fn lost(&mut self, sent: u64, next: u64) {
        if sent < self.recovers_at {
            return;
        }
        self.recovers_at = next;
        self.window = (self.window / 2).max(FLIGHT_MIN);
        self.threshold = self.window;
        self.acknowledged = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_halved_once_for_what_was_lost_together_and_grows_back() {
        let mut congestion = Congestion::default();
        congestion.lost(3, 10);
        congestion.lost(4, 11);
        assert_eq!(congestion.window(), FLIGHT / 2);
        congestion.lost(10, 20);
        assert_eq!(congestion.window(), FLIGHT / 4);
        for _ in 0..FLIGHT / 4 {
            congestion.acknowledged();
        }
        assert_eq!(congestion.window(), FLIGHT / 4 + 1);
        (0..10_000).for_each(|_| congestion.acknowledged());
        assert_eq!(congestion.window(), FLIGHT);
        (0..20).for_each(|loss| congestion.lost(100 * loss, 100 * loss + 1));
        assert_eq!(congestion.window(), FLIGHT_MIN);
    }

    #[test]
    fn patience_follows_the_round_trip_within_bounds() {
        let mut trip = RoundTrip::default();
        assert_eq!(trip.patience(1), RETRANSMIT_FIRST);
        (0..100).for_each(|_| trip.measured(Duration::from_micros(200)));
        assert_eq!(trip.patience(1), RETRANSMIT_MIN);
        assert_eq!(trip.patience(2), RETRANSMIT_MIN * 2);
        assert_eq!(trip.patience(40), BACKOFF_MAX);
        (0..100).for_each(|_| trip.measured(Duration::from_secs(1)));
        assert!(trip.patience(1) >= Duration::from_secs(1) && trip.patience(9) <= RETRANSMIT_MAX);
        (0..100).for_each(|_| trip.measured(Duration::from_secs(100)));
        assert_eq!(trip.patience(1), RETRANSMIT_MAX);
    }
}
