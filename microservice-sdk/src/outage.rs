//! What is worth saying of a gateway that is away: that it is, now and then that it still is, and that it is back.
//!
//! It reads no clock and writes no log.

use std::time::{Duration, Instant};

/// Between two reminders of one outage. A service dials for ever, and its log is not to be full of it.
const REMINDER: Duration = Duration::from_secs(60);

/// Whether a gateway is away, seen over all links to it.
///
/// ```text
/// reachable ──failed: First──> away ──failed: Quietly, and after a minute Again──> away
///     ^                          └──connected: Over──┐
///     └──────────────────────────────────────────────┘
/// ```
#[derive(Debug, Default)]
pub(crate) struct Outage(Option<Away>);

#[derive(Debug)]
struct Away {
    since: Instant,
    told: Instant,
    failures: u32,
}

/// How a failure is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Telling {
    /// It begins an outage.
    First,
    /// The outage goes on, and nothing was said of it for a minute.
    Again(SoFar),
    /// The outage goes on, as was said lately.
    Quietly(SoFar),
}

/// An outage in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SoFar {
    /// Dials that brought nothing, and links that ended, since it began.
    pub(crate) failures: u32,
    pub(crate) lasting: Duration,
}

impl Outage {
    /// A dial brought no link, or a link ended.
    pub(crate) fn failed(&mut self, now: Instant) -> Telling {
        let Some(away) = &mut self.0 else {
            self.0 = Some(Away { since: now, told: now, failures: 1 });
            return Telling::First;
        };
        away.failures = away.failures.saturating_add(1);
        let so_far = away.so_far(now);
        if now.saturating_duration_since(away.told) < REMINDER {
            return Telling::Quietly(so_far);
        }
        away.told = now;
        Telling::Again(so_far)
    }

    /// A link works. `Some`: that is news.
    pub(crate) fn over(&mut self, now: Instant) -> Option<SoFar> {
        self.0.take().map(|away| away.so_far(now))
    }
}

impl Away {
    fn so_far(&self, now: Instant) -> SoFar {
        SoFar { failures: self.failures, lasting: now.saturating_duration_since(self.since) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_when_it_begins_once_a_minute_and_when_it_is_over() {
        let mut outage = Outage::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let so_far = |failures, seconds| SoFar { failures, lasting: Duration::from_secs(seconds) };
        assert_eq!(outage.over(at(0)), None);
        assert_eq!(outage.failed(at(0)), Telling::First);
        assert_eq!(outage.failed(at(59)), Telling::Quietly(so_far(2, 59)));
        assert_eq!(outage.failed(at(60)), Telling::Again(so_far(3, 60)));
        assert_eq!(outage.failed(at(61)), Telling::Quietly(so_far(4, 61)));
        assert_eq!(outage.failed(at(130)), Telling::Again(so_far(5, 130)));
        assert_eq!(outage.over(at(140)), Some(so_far(5, 140)));
        assert_eq!(outage.over(at(141)), None);
        assert_eq!(outage.failed(at(142)), Telling::First);
    }
}
