//! How long to wait before connecting again. It knows no clock and no randomness: both are the caller's.

use std::time::Duration;

/// Exponential backoff with full jitter, for ever (SPEC 7): each wait is uniform between nothing and a ceiling that
/// doubles from `first` to `max`, so that a thousand services do not come back to a restarted gateway at once.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// First ceiling.
    pub const FIRST: Duration = Duration::from_millis(100);
    /// Last ceiling.
    pub const MAX: Duration = Duration::from_secs(30);

    /// Ceilings from `first` to `max`.
    #[must_use]
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, ceiling: first }
    }

    /// The next wait. `random` is uniform over all of `u64`.
    pub fn next_wait(&mut self, random: u64) -> Duration {
        let ceiling = self.ceiling.min(self.max);
        self.ceiling = ceiling.saturating_mul(2).min(self.max);
        let nanos = ceiling.as_nanos().saturating_mul(u128::from(random)) >> 64;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// To be called when a link was welcomed: the next wait is short again.
    pub const fn reset(&mut self) {
        self.ceiling = self.first;
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(Self::FIRST, Self::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_double_to_the_maximum_and_stay_there() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..12).map(|_| backoff.next_wait(u64::MAX).as_millis() + 1).collect();
        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[9..], [30_000; 3]);
    }

    #[test]
    fn jitter_is_full_and_a_reset_starts_anew() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next_wait(0), Duration::ZERO);
        assert_eq!(backoff.next_wait(1 << 63), Duration::from_millis(100));
        backoff.reset();
        assert_eq!(backoff.next_wait(1 << 63), Duration::from_millis(50));
    }
}
