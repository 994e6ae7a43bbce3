//! Hundreds of seeds over the simulated network. A failing one says how to run it again.

use simulation::{Carrier, run};

/// Seeds of one test: as many tests as there are cores run at once.
const PART: u64 = 30;

fn part(number: u64) {
    let mut failures = (number * PART..(number + 1) * PART)
        .map(|seed| run(Carrier::Network, seed))
        .filter(|report| !report.violations.is_empty());
    if let Some(first) = failures.next() {
        let others: Vec<_> = failures.map(|report| report.command()).collect();
        panic!("seed {} fails:\n  {}\nothers: {others:?}", first.seed, first.failure());
    }
}

macro_rules! parts {
    ($($name:ident $number:literal)*) => {$(
        #[test]
        fn $name() {
            part($number);
        }
    )*};
}

parts! {
    the_first_seeds_keep_every_promise 0
    the_second_seeds_keep_every_promise 1
    the_third_seeds_keep_every_promise 2
    the_fourth_seeds_keep_every_promise 3
    the_fifth_seeds_keep_every_promise 4
    the_sixth_seeds_keep_every_promise 5
}
