//! Two sessions under seeded random schedules. `STELLA_SEED=n` runs one seed; `STELLA_SEEDS=n` so many.

use std::panic::AssertUnwindSafe;

use router_common::testing::hostile::Hostile;
use router_common::testing::world::{Summary, World};

const SEEDS: u64 = 800;
const STEPS: usize = 600;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn seeds() -> std::ops::Range<u64> {
    match number("STELLA_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("STELLA_SEEDS").unwrap_or(SEEDS),
    }
}

#[test]
fn mangled_frames_break_nothing_but_the_link() {
    let seeds = seeds();
    let mut stood = 0;
    for seed in seeds.clone() {
        let run = std::panic::catch_unwind(AssertUnwindSafe(|| Hostile::new(seed).run(STEPS)));
        let Ok(steps) = run else { panic!("seed {seed} failed; see it again with STELLA_SEED={seed}") };
        stood += steps;
    }
    println!("{} seeds: {stood} steps", seeds.end - seeds.start);
    // A link that falls at the first blow tries nothing.
    assert!(stood as u64 > 20 * (seeds.end - seeds.start));
}

#[test]
fn random_schedules_keep_every_promise() {
    let seeds = seeds();
    let mut total = Summary::default();
    for seed in seeds.clone() {
        let run = std::panic::catch_unwind(AssertUnwindSafe(|| World::new(seed).run(STEPS)));
        let Ok(summary) = run else { panic!("seed {seed} failed; see it again with STELLA_SEED={seed}") };
        total.requests += summary.requests;
        total.complete += summary.complete;
        total.unseen += summary.unseen;
        total.cancelled += summary.cancelled;
        total.lost += summary.lost;
        total.abandoned += summary.abandoned;
    }
    println!("{} seeds: {total:?}", seeds.end - seeds.start);
    if seeds.end - seeds.start > 100 {
        // A simulation in which some outcome never happens has not tried it.
        let seen = [total.complete, total.unseen, total.cancelled, total.lost, total.abandoned];
        assert!(seen.iter().all(|count| *count > 0), "an outcome never happened: {total:?}");
    }
}
