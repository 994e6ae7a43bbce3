//! One measurement of `bench-rpc`, the program that has both ends of what carries its round trips: how many there were, and
//! what they cost. It knows neither what carries them nor what they are compared with.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::accounting::processor_seconds;
use super::launch::{Process, RunFolder};
use super::report::Disturbance;
use super::stand::Placement;

/// Name of the program.
pub(super) const PROGRAM: &str = "bench-rpc";

/// What the program says at its end.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Answered {
    requests: u64,
    seconds: f64,
}

/// One measurement.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Measured {
    answered: Answered,
    pub(super) per_second: f64,
    /// Microseconds of processor time a round trip: both ends.
    pub(super) ends: f64,
    /// The same of a broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) broker: Option<f64>,
    /// What others have used of the machine meanwhile.
    pub(super) others: f64,
}

impl Measured {
    /// Processor time of all that is counted.
    pub(super) fn sum(&self) -> f64 {
        self.ends + self.broker.unwrap_or(0.0)
    }
}

/// Runs the program as `call` says, beside a broker of ours where it is to be counted.
pub(super) fn measure(
    folder: &RunFolder,
    program: &Path,
    placement: Placement,
    call: &[String],
    broker: Option<&Process>,
) -> Result<Measured> {
    let mut ends = folder.client(PROGRAM, placement.servers(), program, call)?;
    ends.says("begin")?;
    let broker_seconds = || broker.map(|broker| processor_seconds(broker.id())).transpose();
    let disturbance = Disturbance::watch()?;
    let before = (processor_seconds(ends.id())?, broker_seconds()?);
    let waited = ends.says("end");
    let after = (processor_seconds(ends.id()), broker_seconds()?);
    let said = waited?;
    let answered: Answered = serde_json::from_str(&said).with_context(|| format!("the program said {said}"))?;
    let used = after.0? - before.0;
    let used_by_broker = after.1.zip(before.1).map(|(after, before)| after - before);
    let each = |seconds: f64| seconds * 1e6 / answered.requests as f64;
    Ok(Measured {
        answered,
        per_second: answered.requests as f64 / answered.seconds,
        ends: each(used),
        broker: used_by_broker.map(each),
        others: disturbance.by_others(used + used_by_broker.unwrap_or(0.0))?,
    })
}

/// For tests of what is made of measurements.
#[cfg(test)]
pub(super) const fn measured(per_second: f64, ends: f64, broker: Option<f64>) -> Measured {
    Measured { answered: Answered { requests: 1000, seconds: 1.0 }, per_second, ends, broker, others: 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_speaks_json() {
        let said = r#"{"requests":12,"seconds":1.5}"#;
        assert_eq!(serde_json::from_str::<Answered>(said).expect("its format").requests, 12);
    }
}
