//! The instances that are still in the running while a decision is made, with the figures that are compared (SPEC 5).
//!
//! Figures are read once, at the start, so that no step contradicts another. Nothing here says which figure counts
//! when: that is the decision's and the strategies' business.

use super::instance::{Figures, load_figure};
use super::trace::{Step, Trace, Why};

/// One instance that is still in the running, with its figures as they were read at the start of the decision. Figures
/// that are compared one after the other share a word, the first in its high bits.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    /// Its place among the candidates, which are in canonical order.
    pub(super) place: u32,
    /// Whether it is ejected, then health, then tier of the region.
    pub(super) rank: u32,
    /// Nanoseconds; `u64::MAX` while unknown.
    pub(super) round_trip: u64,
    /// Requests in flight, then heartbeats missed.
    pub(super) load: u64,
}

impl Seen {
    #[inline]
    pub(super) fn new(place: u32, tier: u16, figures: &Figures) -> Self {
        let fitness = figures.fitness;
        let ejected = if fitness.is_ejected() { EJECTED } else { 0 };
        let rank = ejected | u32::from(fitness.health() as u8) << 16 | u32::from(tier);
        Self { place, rank, round_trip: figures.round_trip, load: load_figure(figures.in_flight, figures.missed) }
    }
}

/// In a rank: ejected.
const EJECTED: u32 = 1 << 24;

/// Those still in the running, in canonical order.
#[derive(Debug)]
pub(super) struct Survivors<'s> {
    buffer: &'s mut [Seen],
    len: usize,
    spread: Spread,
}

impl<'s> Survivors<'s> {
    /// None yet; at most as many as the buffer holds.
    pub(super) const fn new(buffer: &'s mut [Seen]) -> Self {
        Self { buffer, len: 0, spread: Spread::NONE }
    }

    #[inline]
    pub(super) fn push(&mut self, seen: Seen) {
        if let Some(place) = self.buffer.get_mut(self.len) {
            *place = seen;
            self.len += 1;
            self.spread.take_in(&seen);
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn spread(&self) -> &Spread {
        &self.spread
    }

    pub(super) fn seen(&self) -> &[Seen] {
        self.buffer.get(..self.len).unwrap_or_default()
    }

    /// Passes over whoever is ejected, where `somebody_else` is fit: even one who has no slot just now (SPEC 5).
    pub(super) fn keep_sound<T: Trace>(&mut self, somebody_else: bool, trace: &mut T) {
        let needed = somebody_else && self.len > 0 && self.spread.rank.most >= EJECTED;
        self.keep(needed, trace, Step::Circuit, Why::Ejected, |seen| seen.rank < EJECTED);
    }

    /// Steps 5 and 6 of SPEC 5: healthy before degraded, then the nearest region.
    pub(super) fn keep_nearest<T: Trace>(&mut self, trace: &mut T) {
        let Range { least, most } = self.spread.rank;
        self.keep(least < most, trace, Step::Health, Why::Degraded, |seen| seen.rank >> 16 == least >> 16);
        let Range { least, most } = self.spread.rank;
        self.keep(least < most, trace, Step::Region, Why::Farther, |seen| seen.rank == least);
    }

    /// Drops whoever does not meet the condition, where that is `needed` at all, and tells the trace.
    #[inline]
    pub(super) fn keep<T: Trace>(
        &mut self,
        needed: bool,
        trace: &mut T,
        step: Step,
        why: Why,
        keeps: impl Fn(&Seen) -> bool,
    ) {
        if needed {
            let Self { buffer, len, .. } = self;
            let (mut kept, mut spread) = (0, Spread::NONE);
            for at in 0..*len {
                let seen = buffer[at];
                if keeps(&seen) {
                    buffer[kept] = seen;
                    kept += 1;
                    spread.take_in(&seen);
                } else {
                    trace.fell(step, seen.place as usize, why);
                }
            }
            (self.len, self.spread) = (kept, spread);
        }
        trace.survived(step, self.len);
    }

    /// The one that was chosen: its place.
    pub(super) fn only<T: Trace>(&mut self, trace: &mut T, step: Step, why: Why, chosen: Seen) -> Option<usize> {
        if T::LISTENS {
            self.keep(true, trace, step, why, |seen| seen.place == chosen.place);
        }
        usize::try_from(chosen.place).ok()
    }
}

/// From the least to the most of a figure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range<N> {
    pub(super) least: N,
    pub(super) most: N,
}

impl<N: Ord + Copy> Range<N> {
    #[inline]
    fn take_in(&mut self, figure: N) {
        self.least = self.least.min(figure);
        self.most = self.most.max(figure);
    }
}

/// How far the survivors' figures lie apart: where they do not, a step has nothing to drop and is not walked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spread {
    rank: Range<u32>,
    pub(super) round_trip: Range<u64>,
    pub(super) load: Range<u64>,
}

impl Spread {
    const NONE: Self = Self {
        rank: Range { least: u32::MAX, most: 0 },
        round_trip: Range { least: u64::MAX, most: 0 },
        load: Range { least: u64::MAX, most: 0 },
    };

    #[inline]
    fn take_in(&mut self, seen: &Seen) {
        self.rank.take_in(seen.rank);
        self.round_trip.take_in(seen.round_trip);
        self.load.take_in(seen.load);
    }
}
