//! Repeated measurements, and what is said of them: the median, and how far they lie apart.

use serde::Serialize;

/// What the rounds of one measurement gave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Summary {
    /// `None` of nothing.
    pub(super) fn of(samples: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = samples.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let lower = if sorted.len().is_multiple_of(2) { *sorted.get(middle.checked_sub(1)?)? } else { upper };
        Some(Self { median: f64::midpoint(lower, upper), min: *sorted.first()?, max: *sorted.last()? })
    }

    /// The ratio of each sample to the other's of the same round, so that what disturbs a round disturbs both. Where
    /// the other one is nothing, or less by mere noise, there is no ratio.
    pub(super) fn of_ratios(samples: &[f64], others: &[f64]) -> Option<Self> {
        let pairs = samples.iter().zip(others).filter(|(_, other)| **other > 0.0);
        Self::of(pairs.map(|(sample, other)| sample / other))
    }

    /// `median (min..max)`
    pub(super) fn spread(&self, show: impl Fn(f64) -> String) -> String {
        format!("{} ({}..{})", show(self.median), show(self.min), show(self.max))
    }

    pub(super) fn alone(&self, show: impl Fn(f64) -> String) -> String {
        show(self.median)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_spread() {
        assert_eq!(Summary::of([]), None);
        assert_eq!(Summary::of([3.0, 1.0, 2.0]), Some(Summary { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Summary::of([4.0, 1.0]), Some(Summary { median: 2.5, min: 1.0, max: 4.0 }));
        let shown = Summary { median: 2.0, min: 1.0, max: 3.0 }.spread(|n| format!("{n:.1}"));
        assert_eq!(shown, "2.0 (1.0..3.0)");
    }

    #[test]
    fn ratios_are_made_round_by_round() {
        let ratios = Summary::of_ratios(&[1.0, 20.0, 3.0], &[2.0, 40.0, 3.0]);
        assert_eq!(ratios, Some(Summary { median: 0.5, min: 0.5, max: 1.0 }));
        assert_eq!(Summary::of_ratios(&[1.0, 1.0], &[0.0, -1.0]), None);
    }
}
