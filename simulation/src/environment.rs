//! The clock and the randomness of a simulated process: tokio's paused clock, and a generator with a seed.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use router_common::testing::Random;
use router_link::Environment;

/// Each process has one of its own; a process that comes back has another.
pub(crate) struct SimEnvironment {
    random: Mutex<Random>,
    /// When the process started, after all began: of two processes with one name the one that started later stays.
    started: Duration,
    first_asked: OnceLock<Instant>,
}

/// When all begins, in seconds since 1970. A date has as many bytes as its digits ask for when HTTP/2 has compressed
/// it, so that one from outside would change what a run does.
const BEGIN: u64 = 1_800_000_000;

impl SimEnvironment {
    pub(crate) fn new(seed: u64, started: Duration) -> Arc<Self> {
        Arc::new(Self { random: Mutex::new(Random::new(seed)), started, first_asked: OnceLock::new() })
    }
}

impl Environment for SimEnvironment {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn wall_clock(&self) -> Option<SystemTime> {
        let now = self.now();
        let since = now.saturating_duration_since(*self.first_asked.get_or_init(|| now));
        Some(UNIX_EPOCH + Duration::from_secs(BEGIN) + self.started + since)
    }

    fn random(&self, bytes: &mut [u8]) {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in bytes.chunks_mut(8) {
            let number = random.number().to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
    }
}
