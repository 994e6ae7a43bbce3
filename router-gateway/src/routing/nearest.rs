//! The instances that stand first, remembered until something changes: what makes a decision among a thousand cost what
//! it does among ten (SPEC 5).
//!
//! Who is ejected, steps 5 and 6, and the best round trip of step 7, depend on what changes with heartbeats, drains and losses, not with
//! requests. So they are found out once for all candidates (`Nearest::of`), and kept beside them with the count of
//! [`Changes`] that they were found under. A request then begins where its turn is and ends at the first instance that is
//! idle: nobody can have fewer in flight. What it cannot tell so is left to the walk over all candidates, whose answers
//! these are, only sooner; nothing here is a rule of its own.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::changes::{Changes, TOLERANCE_NANOS};
use super::instance::{Candidate, Health, InstanceState};
use super::strategy::{self, Choice, Strategy};

/// How far apart the round trips of the nearest instances are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spread {
    /// All are so short that they are equal, whoever is the best.
    Small,
    /// All are within the tolerance of the best, and of any other that might be the best of some of them.
    Equal,
    /// Some are slower than the tolerance allows.
    Wide,
}

/// Of all instances that are fit to serve, those that are not ejected, then those of the best health and then of the nearest
/// region; they stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Nearest {
    /// All who are fit are ejected: then it is as if nobody were.
    ejected: bool,
    health: Health,
    /// The one with the best round trip.
    best: u32,
    spread: Spread,
}

/// What was found out of a version's candidates, in one word: readers and writers need no lock.
#[derive(Debug, Default)]
pub(super) struct Remembered(AtomicU64);

impl Nearest {
    /// What is true of the candidates now: from memory if nothing has changed, and else found out and remembered.
    /// `None`: nobody is fit.
    #[inline]
    pub(super) fn of<H>(candidates: &[Candidate<H>], changes: &Changes, remembered: &Remembered) -> Option<Self> {
        remembered.recall(changes).or_else(|| Self::find_out(candidates, changes, remembered))
    }

    #[cold]
    fn find_out<H>(candidates: &[Candidate<H>], changes: &Changes, remembered: &Remembered) -> Option<Self> {
        // Before the figures are read: what changes meanwhile makes the memory void.
        let (all, notable) = (changes.count(false), changes.count(true));
        let (mut nearest, mut least, mut most) = (None, u64::MAX, 0);
        for (place, candidate) in (0_u32..).zip(candidates) {
            // They stand by tier: behind a healthy one of a nearer tier, none is nearer.
            if matches!(nearest, Some(((false, Health::Healthy, tier), _)) if tier < candidate.tier) {
                break;
            }
            let fitness = candidate.instance.fitness();
            if !fitness.is_fit() {
                continue;
            }
            let rank = (fitness.is_ejected(), fitness.health(), candidate.tier);
            let round_trip = candidate.instance.round_trip_or_worst();
            match nearest {
                Some((best, _)) if rank > best => continue,
                Some((best, _)) if rank == best && least <= round_trip => {}
                Some((best, _)) if rank == best => {
                    nearest = Some((rank, place));
                    least = round_trip;
                }
                _ => {
                    nearest = Some((rank, place));
                    (least, most) = (round_trip, round_trip);
                }
            }
            most = most.max(round_trip);
        }
        let ((ejected, health, _), best) = nearest?;
        let spread = match most {
            _ if most <= TOLERANCE_NANOS => Spread::Small,
            _ if most <= strategy::bound(least) => Spread::Equal,
            _ => Spread::Wide,
        };
        let nearest = Self { ejected, health, best, spread };
        remembered.remember(nearest, if spread == Spread::Small { notable } else { all });
        Some(nearest)
    }

    /// What the strategy chooses, if that can be told without looking at everybody: `None` does not say that nobody is
    /// there. `serves` says whether an instance may take this request, its lease included.
    #[inline]
    pub(super) fn choose<H>(
        self,
        strategy: Strategy,
        candidates: &[Candidate<H>],
        tiers: &[Range<u32>],
        turn: u32,
        serves: impl Fn(&Candidate<H>) -> bool,
    ) -> Option<Choice> {
        let by_ping = match strategy {
            Strategy::LowestPing => true,
            Strategy::RoundRobin => false,
            // They draw from who is left, and so must count them.
            Strategy::LeastLoaded | Strategy::Random => return None,
        };
        let Range { start, end } = tiers.iter().find(|tier| tier.contains(&self.best))?.clone();
        let bound = if by_ping && self.spread == Spread::Wide {
            let best = candidates.get(self.best as usize)?;
            // Without the best one the next best is the measure, and who that is takes a walk.
            self.is_among(best).filter(|_| serves(best)).map(|best| strategy::bound(best.round_trip_or_worst()))?
        } else {
            u64::MAX
        };
        let turn = if (start..end).contains(&turn) { turn } else { start };
        let (mut least, mut chosen) = (u64::MAX, None);
        for place in (turn..end).chain(start..turn) {
            let candidate = candidates.get(place as usize)?;
            let Some(state) = self.is_among(candidate).filter(|_| serves(candidate)) else { continue };
            if state.round_trip_or_worst() > bound {
                continue;
            }
            let load = if by_ping { state.load_figure() } else { 0 };
            if chosen.is_none() || load < least {
                (least, chosen) = (load, Some(place));
            }
            if load == 0 {
                break;
            }
        }
        chosen.map(Choice::by_turn)
    }

    fn is_among<H>(self, candidate: &Candidate<H>) -> Option<&InstanceState> {
        let fitness = candidate.instance.fitness();
        let is_among = fitness.is_fit() && fitness.health() == self.health && fitness.is_ejected() == self.ejected;
        is_among.then_some(&candidate.instance)
    }
}

impl Remembered {
    const KNOWN: u64 = 1 << 31;
    const DEGRADED: u64 = 1 << 30;
    const SMALL: u64 = 1 << 29;
    const EQUAL: u64 = 1 << 28;
    const EJECTED: u64 = 1 << 27;
    /// In the lower half; the upper one is the count of changes.
    const PLACE: u64 = Self::EJECTED - 1;

    #[inline]
    fn recall(&self, changes: &Changes) -> Option<Nearest> {
        let word = self.0.load(Ordering::Relaxed);
        let has = |bit: u64| word & bit != 0;
        let spread = match (has(Self::SMALL), has(Self::EQUAL)) {
            (true, _) => Spread::Small,
            (false, true) => Spread::Equal,
            (false, false) => Spread::Wide,
        };
        let health = if has(Self::DEGRADED) { Health::Degraded } else { Health::Healthy };
        let is_known = has(Self::KNOWN) && word >> 32 == u64::from(changes.count(spread == Spread::Small));
        is_known.then_some(Nearest { ejected: has(Self::EJECTED), health, best: (word & Self::PLACE) as u32, spread })
    }

    fn remember(&self, nearest: Nearest, count: u32) {
        if u64::from(nearest.best) > Self::PLACE {
            return;
        }
        let health = if nearest.health == Health::Degraded { Self::DEGRADED } else { 0 };
        let ejected = if nearest.ejected { Self::EJECTED } else { 0 };
        let spread = match nearest.spread {
            Spread::Small => Self::SMALL,
            Spread::Equal => Self::EQUAL,
            Spread::Wide => 0,
        };
        let word = u64::from(count) << 32 | Self::KNOWN | ejected | health | spread | u64::from(nearest.best);
        self.0.store(word, Ordering::Relaxed);
    }
}

/// The tiers of candidates, which stand by tier: where each begins and ends.
pub(super) fn tiers<H>(candidates: &[Candidate<H>]) -> Box<[Range<u32>]> {
    let mut from = 0;
    let tiers = candidates.chunk_by(|one, other| one.tier == other.tier).map(|tier| {
        let range = from..from + u32::try_from(tier.len()).unwrap_or(u32::MAX);
        from = range.end;
        range
    });
    tiers.collect()
}

/// What all candidates of a version count their changes with; `None` of candidates that do not belong together, of whom
/// nothing can be remembered.
pub(super) fn changes<H>(candidates: &[Candidate<H>]) -> Option<Arc<Changes>> {
    let changes = candidates.first()?.instance.changes();
    candidates.iter().all(|candidate| Arc::ptr_eq(candidate.instance.changes(), changes)).then(|| changes.clone())
}
