//! Where time and randomness come from: given from outside, so that a test or a simulation can give its own.

use std::time::{Instant, SystemTime};

/// The clock and the random source of a process. Sessions take both as arguments; whoever drives them asks here.
pub trait Environment: Send + Sync + 'static {
    /// The time, on a clock that never goes back.
    fn now(&self) -> Instant;

    /// The wall clock, where it is not the system's: the date of responses, and of ids that begin with one, is then taken
    /// from here. Default: `None`, the system's. Whether there is one does not change while a program runs.
    fn wall_clock(&self) -> Option<SystemTime> {
        None
    }

    /// Fills `bytes` with random bytes that a peer cannot foresee: handshake nonces and incarnations come from here.
    fn random(&self, bytes: &mut [u8]);

    /// A random number, for what is not secret: jitter, ties.
    fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.random(&mut bytes);
        u64::from_ne_bytes(bytes)
    }
}

/// tokio's clock, which tests can pause, and the operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEnvironment;

impl Environment for SystemEnvironment {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn random(&self, bytes: &mut [u8]) {
        // Without the system's randomness no handshake could be trusted: there is nothing sensible left to do.
        getrandom::fill(bytes).expect("the operating system gives random bytes");
    }
}
