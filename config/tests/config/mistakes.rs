//! Every kind of mistake, with what its author is told.

mod layers;
mod microservice;
mod syntax;
mod values;

use router_config::ConfigError;

fn check<T: std::fmt::Debug>(loaded: Result<T, ConfigError>, expected: &str) {
    let found = match loaded {
        Ok(config) => format!("{config:?}"),
        Err(error) => error.to_string(),
    };
    // Trailing spaces mean nothing, and editors remove them from the expectations.
    let tidy = |text: &str| text.trim().lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    assert!(tidy(&found) == tidy(expected), "\n--- found:\n{found}\n--- expected:\n{expected}");
}
