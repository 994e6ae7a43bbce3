//! Tally: what became of requests, each counted exactly once, and how long those took that were answered.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

/// What became of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Answered with what was asked for.
    Right,
    /// Refused, by a problem's code.
    Problem(String),
    /// There was no whole answer, and that could be seen.
    Lost(String),
    /// An answer that looks whole and is not what was asked for: the worst that can happen.
    Wrong(String),
}

/// Counts of outcomes.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    right: u64,
    others: BTreeMap<String, u64>,
    wrong: u64,
    times: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        let times = Histogram::new(3).unwrap_or_else(|error| unreachable!("three digits are allowed: {error}"));
        Self { right: 0, others: BTreeMap::new(), wrong: 0, times }
    }
}

impl Tally {
    pub(crate) fn count(&mut self, outcome: &Outcome, took: Duration) {
        let name = match outcome {
            Outcome::Right => {
                self.right += 1;
                // In microseconds; it grows by itself.
                let _ = self.times.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
                return;
            }
            Outcome::Problem(code) => code.clone(),
            Outcome::Lost(how) => format!("lost: {how}"),
            Outcome::Wrong(what) => {
                self.wrong += 1;
                format!("WRONG: {what}")
            }
        };
        *self.others.entry(name).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.right += other.right;
        self.wrong += other.wrong;
        for (name, count) in &other.others {
            *self.others.entry(name.clone()).or_default() += count;
        }
        let _ = self.times.add(&other.times);
    }

    pub(crate) const fn right(&self) -> u64 {
        self.right
    }

    pub(crate) const fn wrong(&self) -> u64 {
        self.wrong
    }

    /// Requests that were not answered rightly.
    pub(crate) fn failed(&self) -> u64 {
        self.others.values().sum()
    }

    /// Those of one name.
    pub(crate) fn named(&self, name: &str) -> u64 {
        self.others.get(name).copied().unwrap_or(0)
    }

    /// Milliseconds within which so many of a hundred were answered.
    pub(crate) fn percentile(&self, of_hundred: f64) -> f64 {
        self.times.value_at_percentile(of_hundred) as f64 / 1000.0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answered rightly", self.right)?;
        if self.right > 0 {
            let [p50, p99, most] = [50.0, 99.0, 100.0].map(|of| self.percentile(of));
            write!(f, " (p50 {p50:.2} ms, p99 {p99:.2} ms, longest {most:.0} ms)")?;
        }
        for (name, count) in &self.others {
            write!(f, ", {count} {name}")?;
        }
        if self.others.is_empty() {
            f.write_str(", none failed")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_is_counted_once_and_told() {
        let mut tally = Tally::default();
        tally.count(&Outcome::Right, Duration::from_millis(2));
        tally.count(&Outcome::Problem("connection_lost".into()), Duration::ZERO);
        let mut sum = tally.clone();
        tally.count(&Outcome::Wrong("another's body".into()), Duration::ZERO);
        sum.add(&tally);
        assert_eq!((sum.right(), sum.failed(), sum.wrong(), sum.named("connection_lost")), (2, 3, 1, 2));
        let text = sum.to_string();
        assert!(text.starts_with("2 answered rightly (p50 2.0") && text.contains("1 WRONG: another's body"), "{text}");
    }
}
