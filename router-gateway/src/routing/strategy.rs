//! How one of several equally near instances is chosen: steps 7 and 8 of SPEC 5, which are pluggable.
//!
//! A strategy sees figures that were read once, and chooses by them alone: randomness is an argument. It knows neither
//! paths nor versions, and nothing that could not be said of any instance.

use super::changes::TOLERANCE_NANOS;
use super::survivors::{Range, Seen, Survivors};
use super::trace::{Step, Trace, Why};

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

/// What a strategy chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Place among the candidates.
    pub place: usize,
    /// Where the turn stands afterwards; `None`: it was no matter of turn.
    pub next_turn: Option<u32>,
}

impl Choice {
    /// The one whose turn it was; the next one is who stands behind it.
    pub(super) fn by_turn(place: u32) -> Self {
        Self { place: place as usize, next_turn: Some(place.saturating_add(1)) }
    }
}

/// The longest round trip that is equal to the best one, in nanoseconds.
pub(super) fn bound(best: u64) -> u64 {
    best.saturating_add(TOLERANCE_NANOS.max(best / TOLERANCE_DIVISOR))
}

impl Strategy {
    /// Its name, as the configuration has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LowestPing => "lowest_ping",
            Self::LeastLoaded => "least_loaded",
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
        }
    }

    /// Chooses among the survivors of the earlier steps, which are in canonical order; `None` only of none.
    pub(super) fn choose<T: Trace>(
        self,
        mut survivors: Survivors<'_>,
        turn: u32,
        random: u64,
        trace: &mut T,
    ) -> Option<Choice> {
        match self {
            Self::LowestPing => {
                // (7) the lowest round trip, within the tolerance
                let bound = bound(survivors.spread().round_trip.least);
                let needed = survivors.spread().round_trip.most > bound;
                survivors.keep(needed, trace, Step::RoundTrip, Why::Slower, |seen| seen.round_trip <= bound);
                // (8) the fewest in flight, then the fewest heartbeats missed, then by turn
                let Range { least, most } = survivors.spread().load;
                survivors.keep(least < most, trace, Step::InFlight, Why::Busier, |seen| seen.load >> 32 == least >> 32);
                let Range { least, most } = survivors.spread().load;
                survivors.keep(least < most, trace, Step::HeartbeatsMissed, Why::MissedMore, |seen| seen.load == least);
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
                let cost = |seen: Seen| (u128::from(seen.round_trip) * (u128::from(seen.load >> 32) + 1), seen.place);
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
fn by_turn<T: Trace>(survivors: &mut Survivors<'_>, turn: u32, trace: &mut T) -> Option<Choice> {
    let first = *survivors.seen().first()?;
    let chosen = survivors.seen().iter().copied().find(|seen| seen.place >= turn).unwrap_or(first);
    survivors.only(trace, Step::Turn, Why::NotItsTurn, chosen)?;
    Some(Choice::by_turn(chosen.place))
}

#[cfg(test)]
mod tests {
    use super::super::instance::load_figure;
    use super::super::trace::Untraced;
    use super::*;

    fn seen(figures: &[(u64, u32, u32)]) -> Vec<Seen> {
        let seen = |(place, &(milliseconds, in_flight, missed)): (u32, &(u64, u32, u32))| Seen {
            place,
            round_trip: milliseconds * 1_000_000,
            load: load_figure(in_flight, missed),
            ..Seen::default()
        };
        (0..).zip(figures).map(seen).collect()
    }

    fn chosen(strategy: Strategy, figures: &[(u64, u32, u32)], turn: u32, random: u64) -> usize {
        let all = seen(figures);
        let mut buffer = all.clone();
        let mut survivors = Survivors::new(&mut buffer);
        all.into_iter().for_each(|seen| survivors.push(seen));
        strategy.choose(survivors, turn, random, &mut Untraced).unwrap().place
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
        let unknown = u64::MAX / 1_000_000;
        assert_eq!(chosen(Strategy::LowestPing, &[(unknown, 0, 0), (900, 0, 0)], 0, 0), 1);
        assert_eq!(chosen(Strategy::LowestPing, &[(unknown, 1, 0), (unknown, 0, 0)], 0, 0), 1);
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
