//! Hundreds of seeds over every carrier. A failing one says how to run it again.

use simulation::{Carrier, run};

/// Seeds of one test: as many tests as there are cores run at once.
const PART: u64 = 25;
/// Seeds that are run twice.
const REPEATED: u64 = 8;

fn part(carrier: Carrier, number: u64) {
    let mut failures = (number * PART..(number + 1) * PART)
        .map(|seed| run(carrier, seed))
        .filter(|report| !report.violations.is_empty());
    if let Some(first) = failures.next() {
        let others: Vec<_> = failures.map(|report| report.command()).collect();
        panic!("seed {} fails:\n  {}\nothers: {others:?}", first.seed, first.failure());
    }
}

macro_rules! parts {
    ($($carrier:ident $name:ident $number:literal)*) => {$(
        #[test]
        fn $name() {
            part(Carrier::$carrier, $number);
        }
    )*};
}

parts! {
    Network every_promise_is_kept_on_the_network_by_the_first_seeds 0
    Network every_promise_is_kept_on_the_network_by_the_second_seeds 1
    Network every_promise_is_kept_on_the_network_by_the_third_seeds 2
    Network every_promise_is_kept_on_the_network_by_the_fourth_seeds 3
    Network every_promise_is_kept_on_the_network_by_the_fifth_seeds 4
    Network every_promise_is_kept_on_the_network_by_the_sixth_seeds 5
    Memory every_promise_is_kept_in_memory_by_the_first_seeds 0
    Memory every_promise_is_kept_in_memory_by_the_second_seeds 1
    Memory every_promise_is_kept_in_memory_by_the_third_seeds 2
    Memory every_promise_is_kept_in_memory_by_the_fourth_seeds 3
    Memory every_promise_is_kept_in_memory_by_the_fifth_seeds 4
    Memory every_promise_is_kept_in_memory_by_the_sixth_seeds 5
}

/// In one process, one after another: neither what was before nor what is beside a run changes it.
#[test]
fn a_seed_is_the_same_run_whenever_it_is_run() {
    for carrier in Carrier::ALL {
        for seed in 1_000..1_000 + REPEATED {
            let mut report = run(carrier, seed);
            report.compare(&run(carrier, seed));
            assert!(report.violations.is_empty(), "{}", report.failure());
        }
    }
}
