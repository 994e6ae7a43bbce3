//! How one of several equally near instances is chosen: steps 7 and 8 of SPEC 5, which are pluggable.
//!
//! A strategy sees figures that were read once, and chooses by them alone: randomness is an argument. It knows neither
//! paths nor versions, and nothing that could not be said of any instance.

use std::time::Duration;

use super::decision::{Step, Trace, Why};

/// Round trips this close to the best one are equal, whatever they are.
pub const TOLERANCE: Duration = Duration::from_millis(5);
/// Round trips within a fifth of the best one are equal too.
pub const TOLERANCE_DIVISOR: u64 = 5;

/// How one of several equally good instances is chosen (SPEC 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// The lowest round-trip average within a tolerance, then the fewest in flight, then the fewest heartbeats missed,
    /// then by turn.
    #[default]
    LowestPing,
    /// Two at random; of them the one with less latency x in-flight.
    LeastLoaded,
    /// By turn.
    RoundRobin,
    /// At random.
    Random,
}

/// One instance that is still in the running, with its figures as they were read at the start of the decision.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Its place among the candidates, which are in canonical order.
    pub(super) place: u32,
    pub(super) tier: u32,
    pub(super) health: u8,
    pub(super) in_flight: u32,
    pub(super) missed: u32,
    /// Nanoseconds; `u64::MAX` while unknown.
    pub(super) round_trip: u64,
}

/// What a strategy chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Place among the candidates.
    pub place: usize,
    /// Where the turn stands afterwards; `None`: it was no matter of turn.
    pub next_turn: Option<u32>,
}

impl Strategy {
    /// Chooses among the survivors of the earlier steps, which are in canonical order; `None` only of none.
    pub(super) fn choose(
        self,
        mut survivors: Survivors<'_>,
        turn: u32,
        random: u64,
        trace: &mut impl Trace,
    ) -> Option<Choice> {
        match self {
            Self::LowestPing => {
                // (7) the lowest round trip, within the tolerance
                let best = survivors.seen().iter().map(|seen| seen.round_trip).min()?;
                let tolerance = u64::try_from(TOLERANCE.as_nanos()).unwrap_or(u64::MAX).max(best / TOLERANCE_DIVISOR);
                let bound = best.saturating_add(tolerance);
                survivors.keep(trace, Step::RoundTrip, Why::Slower, |seen| seen.round_trip <= bound);
                // (8) the fewest in flight, then the fewest heartbeats missed, then by turn
                let fewest = survivors.seen().iter().map(|seen| seen.in_flight).min()?;
                survivors.keep(trace, Step::InFlight, Why::Busier, |seen| seen.in_flight == fewest);
                let fewest = survivors.seen().iter().map(|seen| seen.missed).min()?;
                survivors.keep(trace, Step::HeartbeatsMissed, Why::MissedMore, |seen| seen.missed == fewest);
                by_turn(&mut survivors, turn, trace)
            }
            Self::LeastLoaded => {
                let count = u64::try_from(survivors.seen().len()).ok()?;
                let first = random.checked_rem(count)?;
                // A second one that is not the first, drawn from other bits.
                let second = match count {
                    1 => first,
                    _ => (first + 1 + (random >> 32) % (count - 1)) % count,
                };
                let pick = |place: u64| survivors.seen().get(usize::try_from(place).ok()?).copied();
                let (first, second) = (pick(first)?, pick(second)?);
                let cost = |seen: Seen| (u128::from(seen.round_trip) * (u128::from(seen.in_flight) + 1), seen.place);
                let chosen = if cost(second) < cost(first) { second } else { first };
                let place = survivors.only(trace, Step::Load, Why::NotDrawn, chosen)?;
                Some(Choice { place, next_turn: None })
            }
            Self::RoundRobin => by_turn(&mut survivors, turn, trace),
            Self::Random => {
                let count = u64::try_from(survivors.seen().len()).ok()?;
                let drawn = usize::try_from(random.checked_rem(count)?).ok()?;
                let chosen = *survivors.seen().get(drawn)?;
                let place = survivors.only(trace, Step::Chance, Why::NotDrawn, chosen)?;
                Some(Choice { place, next_turn: None })
            }
        }
    }
}

/// The first one at or after the turn, around the corner if need be: strict alternation among those that stay equal.
fn by_turn(survivors: &mut Survivors<'_>, turn: u32, trace: &mut impl Trace) -> Option<Choice> {
    let first = *survivors.seen().first()?;
    if survivors.seen().len() == 1 {
        // Nothing is written where there is nothing to alternate: the turn is shared by all threads.
        return Some(Choice { place: usize::try_from(first.place).ok()?, next_turn: None });
    }
    let chosen = survivors.seen().iter().copied().find(|seen| seen.place >= turn).unwrap_or(first);
    let place = survivors.only(trace, Step::Turn, Why::NotItsTurn, chosen)?;
    Some(Choice { place, next_turn: Some(chosen.place + 1) })
}

/// Those still in the running, in canonical order.
#[derive(Debug)]
pub(super) struct Survivors<'s> {
    buffer: &'s mut [Seen],
    len: usize,
}

impl<'s> Survivors<'s> {
    /// The first `len` of a buffer.
    pub(super) fn new(buffer: &'s mut [Seen], len: usize) -> Self {
        Self { len: len.min(buffer.len()), buffer }
    }

    pub(super) fn seen(&self) -> &[Seen] {
        self.buffer.get(..self.len).unwrap_or_default()
    }

    /// Drops whoever does not meet the condition, and tells the trace.
    pub(super) fn keep(&mut self, trace: &mut impl Trace, step: Step, why: Why, keeps: impl Fn(&Seen) -> bool) {
        let mut kept = 0;
        for at in 0..self.len {
            let seen = self.buffer[at];
            if keeps(&seen) {
                self.buffer[kept] = seen;
                kept += 1;
            } else {
                trace.fell(step, seen.place as usize, why);
            }
        }
        self.len = kept;
        trace.survived(step, kept);
    }

    fn only(&mut self, trace: &mut impl Trace, step: Step, why: Why, chosen: Seen) -> Option<usize> {
        self.keep(trace, step, why, |seen| seen.place == chosen.place);
        usize::try_from(chosen.place).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::decision::Untraced;
    use super::*;

    fn seen(figures: &[(u64, u32, u32)]) -> Vec<Seen> {
        let seen = |(place, &(milliseconds, in_flight, missed)): (usize, &(u64, u32, u32))| Seen {
            place: u32::try_from(place).unwrap(),
            in_flight,
            missed,
            round_trip: milliseconds * 1_000_000,
            ..Seen::default()
        };
        figures.iter().enumerate().map(seen).collect()
    }

    fn chosen(strategy: Strategy, figures: &[(u64, u32, u32)], turn: u32, random: u64) -> usize {
        let mut buffer = seen(figures);
        let len = buffer.len();
        strategy.choose(Survivors::new(&mut buffer, len), turn, random, &mut Untraced).unwrap().place
    }

    #[test]
    fn lowest_ping_takes_the_larger_of_5_ms_and_a_fifth_as_equal() {
        let lowest = |figures: &[(u64, u32, u32)]| chosen(Strategy::LowestPing, figures, 0, 0);
        assert_eq!(lowest(&[(7, 0, 0), (1, 9, 0)]), 1, "6 ms apart");
        assert_eq!(lowest(&[(6, 0, 0), (1, 9, 0)]), 0, "5 ms apart: equal, and less is in flight");
        assert_eq!(lowest(&[(120, 0, 0), (100, 9, 0)]), 0, "a fifth apart: equal");
        assert_eq!(lowest(&[(121, 0, 0), (100, 9, 0)]), 1);
    }

    #[test]
    fn among_equals_in_flight_then_missed_heartbeats_then_turn_decide() {
        let lowest = |figures: &[(u64, u32, u32)], turn| chosen(Strategy::LowestPing, figures, turn, 0);
        assert_eq!(lowest(&[(1, 2, 0), (2, 1, 5), (3, 1, 4)], 0), 2);
        let equal = [(1, 0, 0), (9, 0, 0), (1, 0, 0), (1, 0, 0)];
        assert_eq!([0, 1, 3, 4].map(|turn| lowest(&equal, turn)), [0, 2, 3, 0]);
    }

    #[test]
    fn an_unknown_round_trip_is_the_worst_one() {
        let mut buffer = seen(&[(0, 0, 0), (900, 0, 0)]);
        buffer[0].round_trip = u64::MAX;
        let choice = Strategy::LowestPing.choose(Survivors::new(&mut buffer, 2), 0, 0, &mut Untraced);
        assert_eq!(choice.map(|choice| choice.place), Some(1));
    }

    #[test]
    fn least_loaded_takes_the_better_of_two_different_ones() {
        let figures = [(10, 3, 0), (10, 0, 0), (10, 9, 0)];
        for random in (0..200_u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15)) {
            assert_ne!(chosen(Strategy::LeastLoaded, &figures, 0, random), 2, "the worst of three never wins");
        }
        assert_eq!(chosen(Strategy::LeastLoaded, &figures[..1], 0, u64::MAX), 0);
        let slow_but_idle = [(100, 0, 0), (10, 20, 0)];
        assert_eq!(chosen(Strategy::LeastLoaded, &slow_but_idle, 0, 1), 0);
    }

    #[test]
    fn round_robin_takes_turns_and_random_draws_each() {
        let three = [(1, 5, 0), (50, 0, 0), (9, 1, 1)];
        assert_eq!([0, 1, 2, 3].map(|turn| chosen(Strategy::RoundRobin, &three, turn, 0)), [0, 1, 2, 0]);
        assert_eq!([0, 1, 2, 3].map(|random| chosen(Strategy::Random, &three, 0, random)), [0, 1, 2, 0]);
    }
}
