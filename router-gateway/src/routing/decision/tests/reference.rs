//! The decision beside SPEC 5 written down step by step, over random instances to which things happen in between.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use router_common::path::RequestPath;
use router_common::session::lease::Permit;

use super::super::super::fixture::{Settings, Spec, spec, table};
use super::super::super::instance::{Candidate, Health, InstanceKey};
use super::super::super::strategy::Strategy as Choosing;
use super::super::super::table::RouteTable;
use super::super::*;
use super::{Listener, any_strategy, facts};

/// Steps 4 to 8, each a line or two, nothing precomputed: the place of the instance, or `None`.
fn reference(
    candidates: &[Candidate<()>],
    has_endpoint: impl Fn(&Candidate<()>) -> bool,
    excluded: &[InstanceKey],
    strategy: Choosing,
    turn: u32,
    random: u64,
) -> Option<usize> {
    let state = |place: &usize| &*candidates[*place].instance;
    let mut left: Vec<usize> = (0..candidates.len()).collect();
    // (4)
    left.retain(|place| has_endpoint(&candidates[*place]));
    left.retain(|place| state(place).is_routable() && !state(place).is_draining());
    // (5)
    left.retain(|place| matches!(state(place).health(), Health::Healthy | Health::Degraded));
    // whoever is ejected, as long as anybody else is fit, busy or not
    if left.iter().any(|place| !state(place).fitness().is_ejected()) {
        left.retain(|place| !state(place).fitness().is_ejected());
    }
    // (4) again
    left.retain(|place| !excluded.contains(&state(place).key()));
    left.retain(|place| state(place).lease().in_flight() < state(place).lease().limit());
    // (5) again
    let health = left.iter().map(|place| state(place).health()).min()?;
    left.retain(|place| state(place).health() == health);
    // (6)
    let tier = left.iter().map(|place| candidates[*place].tier).min()?;
    left.retain(|place| candidates[*place].tier == tier);
    if strategy == Choosing::LowestPing {
        // (7)
        let round_trip = |place: &usize| state(place).round_trip().unwrap_or(Duration::MAX);
        let best = left.iter().map(round_trip).min()?;
        let bound = best.saturating_add(Duration::from_millis(5).max(best / 5));
        left.retain(|place| round_trip(place) <= bound);
        // (8)
        let in_flight = left.iter().map(|place| state(place).lease().in_flight()).min()?;
        left.retain(|place| state(place).lease().in_flight() == in_flight);
        let missed = left.iter().map(|place| state(place).heartbeats_missed()).min()?;
        left.retain(|place| state(place).heartbeats_missed() == missed);
    }
    let drawn = |draw: u64| left[usize::try_from(draw % left.len() as u64).unwrap()];
    match strategy {
        Choosing::Random => return Some(drawn(random)),
        Choosing::LeastLoaded if left.len() > 1 => {
            let other = (random >> 32) % (left.len() as u64 - 1);
            let two = [drawn(random), drawn(random % left.len() as u64 + 1 + other)];
            let cost = |place: &usize| {
                let round_trip = state(place).round_trip().map_or(u64::MAX.into(), |trip| trip.as_nanos());
                (round_trip * (u128::from(state(place).lease().in_flight()) + 1), *place)
            };
            return two.into_iter().min_by_key(cost);
        }
        _ => {}
    }
    let first = left.first().copied();
    left.into_iter().find(|place| *place >= turn as usize).or(first)
}

/// What happens between, or as, requests. Instances are named by any number.
#[derive(Debug, Clone)]
enum Act {
    /// A request, that has tried one of them already or not: of the endpoint that all have, or of the one that some have.
    Ask(&'static str, Option<usize>, u64),
    Begin(usize),
    End(usize),
    Lease(usize, u32),
    RoundTrip(usize, Duration),
    Miss(usize),
    Status(usize, Health),
    Silent(usize, bool),
    Drain(usize, bool),
    Eject(usize, bool),
    Routable(usize),
}

fn any_round_trip() -> impl Strategy<Value = Duration> {
    prop_oneof![
        3 => (0..6_000_u64).prop_map(Duration::from_micros),
        1 => (0..12_u64).prop_map(|count| Duration::from_micros(count * 2_500)),
        1 => (90..130_u64).prop_map(Duration::from_millis),
    ]
}

fn any_health() -> impl Strategy<Value = Health> {
    prop_oneof![
        6 => Just(Health::Healthy), 2 => Just(Health::Degraded), 1 => Just(Health::Unhealthy), 1 => Just(Health::Unknown)
    ]
}

fn any_act() -> impl Strategy<Value = Act> {
    let who = || any::<usize>();
    prop_oneof![
        12 => (prop_oneof![3 => Just("/x"), 1 => Just("/y")], prop::option::weighted(0.1, who()), any::<u64>())
            .prop_map(|(path, tried, random)| Act::Ask(path, tried, random)),
        6 => who().prop_map(Act::Begin),
        4 => who().prop_map(Act::End),
        1 => (who(), 0..4_u32).prop_map(|(who, limit)| Act::Lease(who, limit)),
        2 => (who(), any_round_trip()).prop_map(|(who, round_trip)| Act::RoundTrip(who, round_trip)),
        1 => who().prop_map(Act::Miss),
        1 => (who(), any_health()).prop_map(|(who, health)| Act::Status(who, health)),
        1 => (who(), any::<bool>()).prop_map(|(who, silent)| Act::Silent(who, silent)),
        1 => (who(), any::<bool>()).prop_map(|(who, draining)| Act::Drain(who, draining)),
        2 => (who(), any::<bool>()).prop_map(|(who, ejected)| Act::Eject(who, ejected)),
        1 => who().prop_map(Act::Routable),
    ]
}

fn any_spec() -> impl Strategy<Value = Spec> {
    let endpoints = prop_oneof![3 => Just(&["GET /x"][..]), 1 => Just(&["GET /x", "GET /y"][..])];
    (0..3_u16, any_health(), any_round_trip(), 0..5_u32, prop::bool::weighted(0.9), endpoints).prop_map(
        |(tier, health, round_trip, lease, routable, endpoints)| {
            let ordinary = spec("s", "1.0.0", "", endpoints);
            Spec { tier, health, round_trip, lease, routable, ..ordinary }
        },
    )
}

/// A table to which things happen, and what is in flight.
struct World {
    table: RouteTable<()>,
    strategy: Choosing,
    permits: BTreeMap<usize, Vec<Permit>>,
    /// Of the last LEASE.
    generation: u64,
    /// By path, where the turn stands.
    turns: BTreeMap<&'static str, u32>,
}

impl World {
    fn candidates(&self) -> &[Candidate<()>] {
        &self.table.services()[0].versions[0].candidates
    }

    fn act(&mut self, act: &Act) -> Result<(), TestCaseError> {
        let count = self.candidates().len();
        self.generation += 1;
        let state = |who: usize| self.candidates()[who % count].instance.clone();
        match *act {
            Act::Ask(path, tried, random) => return self.ask(path, tried.map(|who| state(who).key()), random),
            Act::Begin(who) => {
                let permit = state(who).lease().try_acquire();
                self.permits.entry(who % count).or_default().extend(permit);
            }
            Act::End(who) => drop(self.permits.get_mut(&(who % count)).and_then(Vec::pop)),
            Act::Lease(who, limit) => {
                state(who).lease().update(self.generation, limit);
            }
            Act::RoundTrip(who, average) => state(who).set_round_trip(average),
            Act::Miss(who) => state(who).miss_heartbeat(),
            Act::Status(who, health) => state(who).set_status(health, 0),
            Act::Silent(who, silent) => state(who).set_silent(silent),
            Act::Drain(who, draining) => state(who).set_draining(draining),
            Act::Eject(who, ejected) => state(who).set_ejected(ejected),
            Act::Routable(who) => state(who).set_routable(),
        }
        Ok(())
    }

    /// One request, decided in all ways there are.
    fn ask(&mut self, path: &'static str, tried: Option<InstanceKey>, random: u64) -> Result<(), TestCaseError> {
        let read = RequestPath::parse(path).unwrap();
        let excluded: Vec<InstanceKey> = tried.into_iter().collect();
        let facts = RequestFacts { excluded: &excluded, ..facts(&read, random) };
        let has_endpoint = |candidate: &Candidate<()>| {
            let sets = |matched: Selected<'_, ()>| matched.route.endpoints.get(candidate.set)?.clone();
            let mut matched = self.table.matched(facts.method, &read).ok()?;
            self.table.select(&mut matched, 0, facts.method, &read).and_then(sets)
        };
        let turn = self.turns.get(path).copied().unwrap_or_default();
        let candidates = self.candidates();
        let serves = |candidate: &Candidate<()>| has_endpoint(candidate).is_some();
        let expected = reference(candidates, serves, &excluded, self.strategy, turn, random);
        let expected_key = expected.map(|place| candidates[place].instance.key());
        let traced = decide_traced(&self.table, &facts, &mut Listener::default());
        prop_assert_eq!(traced.ok().map(|outcome| outcome.candidate.instance.key()), expected_key, "traced");
        let decided = decide(&self.table, &facts).ok().map(|decision| decision.instance.key());
        prop_assert_eq!(decided, expected_key, "decided");
        let takes_turns = matches!(self.strategy, Choosing::LowestPing | Choosing::RoundRobin);
        if let Some(place) = expected.filter(|_| takes_turns) {
            self.turns.insert(path, u32::try_from(place).unwrap() + 1);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn a_decision_is_what_the_steps_say_whatever_has_happened_since_the_last_one(
        mut specs in prop::collection::vec(any_spec(), 1..24),
        acts in prop::collection::vec(any_act(), 1..120),
        strategy in any_strategy(),
    ) {
        for (number, spec) in specs.iter_mut().enumerate() {
            spec.id = format!("i{number:02}");
        }
        let table = table(&specs, &Settings { strategy, ..Settings::default() });
        let (permits, turns) = (BTreeMap::new(), BTreeMap::new());
        let mut world = World { table, strategy, permits, generation: 0, turns };
        for act in &acts {
            world.act(act)?;
        }
    }
}
