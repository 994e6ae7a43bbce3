//! Passive outlier ejection: from when on an instance that keeps failing is passed over, for how long, and how many may be
//! at once (SPEC 5).
//!
//! Bookkeeping alone: times, counts and instances are arguments. It does not know what a failure is, who counts them, or
//! what it means to a decision that somebody is ejected.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// The longest time that an instance is ejected for, unless the base itself is longer.
pub const LONGEST: Duration = Duration::from_secs(300);

/// When an instance is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutlierPolicy {
    /// So many failures, and no success between them. Default 5.
    pub consecutive_failures: NonZeroU32,
    /// How long the first time; as many times as long as it is the how manieth time in a row. Default 30 s.
    pub base: Duration,
    /// How many of a version's instances may be ejected at once, in per cent; one in any case. Default 10.
    pub max_percent: u32,
}

impl OutlierPolicy {
    /// Whether so many failures in a row are a reason to look whether the instance can be ejected: at the limit, at twice
    /// that, four times and so on, and then at every 64th multiple. Where all fail, few can be ejected, and it costs the
    /// others next to nothing to fail on.
    #[must_use]
    pub const fn is_due(&self, failures: u32) -> bool {
        let limit = self.consecutive_failures.get();
        let times = failures / limit;
        times != 0 && failures.is_multiple_of(limit) && (times.is_power_of_two() || times.is_multiple_of(64))
    }

    /// Whether one more may be ejected, of a version with so many instances and so many ejected ones among them;
    /// `others_fit` says that somebody else is left who can serve.
    #[must_use]
    pub fn allows(&self, instances: usize, ejected: usize, others_fit: bool) -> bool {
        let share = instances.saturating_mul(usize::try_from(self.max_percent).unwrap_or(usize::MAX)) / 100;
        others_fit && ejected < share.max(1)
    }

    /// How long an ejection is that is the how manieth in a row.
    fn time(&self, row: u32) -> Duration {
        self.base.saturating_mul(row).min(LONGEST.max(self.base))
    }
}

/// One instance's circuit: closed, requests reach it; open, it is ejected.
#[derive(Debug, Clone, Copy, Default)]
pub struct Circuit {
    /// Ejections in a row, at `since`.
    row: u32,
    /// When it was closed for the last time.
    since: Option<Instant>,
    /// Open until then.
    until: Option<Instant>,
}

impl Circuit {
    /// Ejects until the time that is returned.
    pub fn open(&mut self, policy: &OutlierPolicy, now: Instant) -> Instant {
        let row = self.row(policy, now);
        // A longer row would not make it longer, and would only take longer to be forgotten.
        self.row = if row > 0 && policy.time(row) == policy.time(row.saturating_add(1)) { row } else { row + 1 };
        let until = now + policy.time(self.row);
        self.until = Some(until);
        until
    }

    /// Ends an ejection whose time is over; says whether it did.
    pub fn close_if_due(&mut self, now: Instant) -> bool {
        let is_due = self.until.is_some_and(|until| until <= now);
        if is_due {
            self.since = self.until.take();
        }
        is_due
    }

    /// How long it is still open; `None` while it is closed.
    #[must_use]
    pub fn open_for(&self, now: Instant) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(now))
    }

    /// Ejections in a row: one less for each good time as long as the last of them was.
    #[must_use]
    pub fn row(&self, policy: &OutlierPolicy, now: Instant) -> u32 {
        let (None, Some(since)) = (self.until, self.since) else { return self.row };
        let (mut row, mut good) = (self.row, now.saturating_duration_since(since));
        while row > 0 {
            let Some(left) = good.checked_sub(policy.time(row)) else { break };
            good = left;
            row -= 1;
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_secs(30);

    fn policy() -> OutlierPolicy {
        OutlierPolicy { consecutive_failures: NonZeroU32::new(5).unwrap(), base: BASE, max_percent: 10 }
    }

    #[test]
    fn five_failures_are_a_reason_to_look_and_then_fewer_and_fewer() {
        let due: Vec<u32> = (0..1300).filter(|failures| policy().is_due(*failures)).collect();
        assert_eq!(due, [5, 10, 20, 40, 80, 160, 320, 640, 960, 1280]);
    }

    #[test]
    fn a_tenth_may_be_ejected_one_in_any_case_and_never_the_last() {
        let most = |instances: usize| (0..=instances).find(|ejected| !policy().allows(instances, *ejected, true));
        assert_eq!([1, 2, 10, 19, 20, 39, 100].map(most), [1, 1, 1, 1, 2, 3, 10].map(Some));
        assert!(!policy().allows(100, 0, false));
    }

    #[test]
    fn each_ejection_in_a_row_is_longer_up_to_five_minutes() {
        let (mut circuit, mut now, mut times) = (Circuit::default(), Instant::now(), Vec::new());
        for _ in 0..12 {
            let until = circuit.open(&policy(), now);
            times.push((until - now).as_secs());
            assert!(!circuit.close_if_due(until - Duration::from_millis(1)));
            assert_eq!(circuit.open_for(now), Some(until - now));
            assert!(circuit.close_if_due(until) && circuit.open_for(until).is_none());
            now = until;
        }
        assert_eq!(times, [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]);
        assert_eq!(circuit.row(&policy(), now), 10);
    }

    #[test]
    fn the_row_is_forgotten_step_by_step_in_good_time() {
        let (mut circuit, mut now) = (Circuit::default(), Instant::now());
        for _ in 0..3 {
            now = circuit.open(&policy(), now);
            circuit.close_if_due(now);
        }
        let row_after = |seconds| circuit.row(&policy(), now + Duration::from_secs(seconds));
        assert_eq!([0, 89, 90, 149, 150, 179, 180, 10_000].map(row_after), [3, 3, 2, 2, 1, 1, 0, 0]);
        let later = now + Duration::from_secs(150);
        assert_eq!(circuit.open(&policy(), later) - later, 2 * BASE, "the second in a row");
    }

    #[test]
    fn a_base_that_is_longer_than_the_longest_time_is_kept() {
        let policy = OutlierPolicy { base: Duration::from_secs(1000), ..policy() };
        let (mut circuit, now) = (Circuit::default(), Instant::now());
        for _ in 0..3 {
            assert_eq!(circuit.open(&policy, now) - now, policy.base);
        }
        assert_eq!(circuit.row(&policy, now), 1);
    }
}
