//! Request ids: UUIDv7, made without a system call (SPEC 12).
//!
//! An id tells requests apart and sorts them by time; it is no secret, so its random part comes from a counter through
//! a mixer, seeded once from the environment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use router_link::Environment;

/// A source of request ids. Workers have one each.
#[derive(Debug)]
pub struct RequestIds {
    seed: u64,
    counter: AtomicU64,
    started: Instant,
    started_unix_ms: u64,
}

impl RequestIds {
    #[must_use]
    pub fn new(environment: &dyn Environment) -> Self {
        let unix =
            environment.wall_clock().unwrap_or_else(SystemTime::now).duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            seed: environment.random_u64(),
            counter: AtomicU64::new(0),
            started: environment.now(),
            started_unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// A number that nobody chose, for ties: no secret either.
    #[must_use]
    pub fn random(&self) -> u64 {
        mix(self.seed.wrapping_add(self.counter.fetch_add(1, Ordering::Relaxed).wrapping_mul(2)))
    }

    /// The next id, as a header value.
    #[must_use]
    pub fn next(&self, now: Instant) -> HeaderValue {
        let elapsed = u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX);
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        let high = mix(self.seed.wrapping_add(count.wrapping_mul(2)));
        let low = mix(self.seed.wrapping_add(count.wrapping_mul(2)).wrapping_add(1));
        let mut random = [0; 10];
        random[..8].copy_from_slice(&high.to_be_bytes());
        random[8..].copy_from_slice(&low.to_be_bytes()[..2]);
        let id = uuid::Builder::from_unix_timestamp_millis(self.started_unix_ms.saturating_add(elapsed), &random)
            .into_uuid();
        let mut text = uuid::Uuid::encode_buffer();
        // Hexadecimal digits and dashes are a header value.
        HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)).unwrap_or(HeaderValue::from_static("unknown"))
    }
}

/// The finalizer of SplitMix64: neighbours in, strangers out.
const fn mix(counter: u64) -> u64 {
    let mut z = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_version_7_uuids_and_all_different() {
        let environment = router_link::SystemEnvironment;
        let ids = RequestIds::new(&environment);
        let now = environment.now();
        let made: std::collections::HashSet<String> =
            (0..1000).map(|_| ids.next(now).to_str().unwrap().to_owned()).collect();
        assert_eq!(made.len(), 1000);
        for id in made {
            assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 7);
        }
    }
}
