//! Two sessions under seeded random schedules. `STELLA_SEED=n` runs one seed; `STELLA_SEEDS=n` so many.

use std::panic::AssertUnwindSafe;

use router_common::testing::world::{Summary, World};

const SEEDS: u64 = 3_000;
const STEPS: usize = 600;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn random_schedules_keep_every_promise() {
    let seeds = match number("STELLA_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("STELLA_SEEDS").unwrap_or(SEEDS),
    };
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
