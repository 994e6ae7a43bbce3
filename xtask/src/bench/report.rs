//! What every comparison reports beside its figures: progress, how far others disturbed it, and a file of JSON.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

use super::accounting;
use super::machine;

/// Says on the standard error what is going on, and how far it has come.
pub(super) struct Progress {
    started: Instant,
    steps: usize,
    done: usize,
}

impl Progress {
    pub(super) fn of(steps: usize) -> Self {
        Self { started: Instant::now(), steps, done: 0 }
    }

    pub(super) fn step(&mut self, what: &str) {
        self.done += 1;
        eprintln!("==> {:>5.0}s  {}/{}  {what}", self.started.elapsed().as_secs_f64(), self.done, self.steps);
    }
}

/// Watches how much of the machine was used by processes that are no part of a measurement.
pub(super) struct Disturbance {
    busy: f64,
    started: Instant,
}

/// Above this many processors, others have most likely moved the figures.
const NOTICEABLE: f64 = 0.15;

impl Disturbance {
    pub(super) fn watch() -> Result<Self> {
        Ok(Self { busy: accounting::busy_seconds()?, started: Instant::now() })
    }

    /// Processors that others kept busy, given the processor time that the measurement itself has used.
    pub(super) fn by_others(&self, own_seconds: f64) -> Result<f64> {
        let busy = accounting::busy_seconds()? - self.busy;
        Ok(((busy - own_seconds) / self.started.elapsed().as_secs_f64()).max(0.0))
    }
}

/// What to say of that, if anything.
pub(super) fn disturbed(by_others: Option<f64>) -> Option<String> {
    let processors = by_others.filter(|processors| *processors > NOTICEABLE)?;
    Some(format!(
        "NOTE: other processes kept {processors:.1} of {} cores busy during the measurement: the figures are rough",
        machine::cores()
    ))
}

/// Writes all there is to a file.
pub(super) fn write_json(path: &Path, report: &impl Serialize) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, serde_json::to_string_pretty(report)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("==> all samples: {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_noticeable_is_told() {
        assert_eq!(disturbed(None), None);
        assert_eq!(disturbed(Some(0.1)), None);
        assert!(disturbed(Some(1.26)).is_some_and(|note| note.contains("kept 1.3 of ")));
    }
}
