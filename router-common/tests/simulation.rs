//! Two sessions under seeded random schedules. `STELLA_SEED=n` runs one seed; `STELLA_SEEDS=n` so many.

use std::panic::AssertUnwindSafe;

use router_common::limits;
use router_common::session::Carrier;
use router_common::testing::hostile::Hostile;
use router_common::testing::scattered::{Scattered, Weather};
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
fn mangled_frames_break_nothing_but_the_link_where_messages_are_whole() {
    let seeds = seeds();
    // As large as those that are made up.
    let carrier = Carrier::Datagrams { max_frame: limits::FRAME_PAYLOAD_BYTES };
    let mut stood = 0;
    for seed in seeds.clone() {
        let run = std::panic::catch_unwind(AssertUnwindSafe(|| Hostile::on(carrier, seed).run(STEPS)));
        let Ok(steps) = run else { panic!("seed {seed} failed; see it again with STELLA_SEED={seed}") };
        stood += steps;
    }
    println!("whole messages, {} seeds: {stood} steps", seeds.end - seeds.start);
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

/// Runs a world for every seed, and adds up what they saw.
fn add_up(what: &str, run: impl Fn(u64) -> Summary) -> Summary {
    let seeds = seeds();
    let mut total = Summary::default();
    for seed in seeds.clone() {
        let run = std::panic::catch_unwind(AssertUnwindSafe(|| run(seed)));
        let Ok(summary) = run else { panic!("{what}: seed {seed} failed; see it again with STELLA_SEED={seed}") };
        total.requests += summary.requests;
        total.complete += summary.complete;
        total.unseen += summary.unseen;
        total.cancelled += summary.cancelled;
        total.lost += summary.lost;
        total.abandoned += summary.abandoned;
    }
    println!("{what}, {} seeds: {total:?}", seeds.end - seeds.start);
    total
}

#[test]
fn frames_in_any_order_keep_every_promise() {
    let calm = Weather { loses: 0, disturbs: false };
    let total = add_up("any order", |seed| Scattered::new(seed, calm).run(STEPS));
    assert!(total.lost == 0 && total.complete > 0, "{total:?}");
    let rough = Weather { loses: 0, disturbs: true };
    let total = add_up("any order, and ends", |seed| Scattered::new(seed, rough).run(STEPS));
    let seen = [total.complete, total.unseen, total.cancelled, total.lost, total.abandoned];
    assert!(seeds().end - seeds().start <= 100 || seen.iter().all(|count| *count > 0), "{total:?}");
}

#[test]
fn lost_frames_cost_no_more_than_their_outcomes() {
    for (loses, disturbs) in [(5, false), (30, false), (15, true)] {
        let weather = Weather { loses, disturbs };
        let total = add_up("lossy", |seed| Scattered::new(seed, weather).run(STEPS));
        assert!(total.complete > 0, "{total:?}");
    }
}

#[test]
fn a_service_that_leaves_in_good_order_loses_nothing_though_its_close_overtakes_its_answers() {
    let calm = Weather { loses: 0, disturbs: false };
    let total = add_up("leaving", |seed| Scattered::new(seed, calm).leave(STEPS));
    assert!(total.complete > 0, "{total:?}");
}
