//! A soak: mixed load with faults for as long as one likes, while the gateway's memory is watched.
//!
//! Callers of every kind, slow readers, requests that are given up; services that are restarted, killed, and stopped in
//! their tracks for a while. Every answer is looked at; afterwards everything must be given back, and memory must not
//! have grown with time.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::ask::{Ask, Crowd, Pace};
use crate::books::Open;
use crate::say;
use crate::slow_readers::read_slowly;
use crate::stand::{Process, Programs, ServiceOptions, Stand, eventually};
use crate::ways::Ways;
use crate::{ask, cancels};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// For how long.
    #[arg(long, value_name = "M", default_value = "20")]
    minutes: f64,
    /// Seconds between two faults.
    #[arg(long, value_name = "S", default_value = "15")]
    fault_every: u64,
    /// Clients that ask one request after the other.
    #[arg(long, value_name = "N", default_value = "32")]
    clients: u64,
    /// Milliseconds that each of them pauses between two requests.
    #[arg(long, value_name = "MS", default_value = "2")]
    pause: u64,
    /// Clients that read slowly.
    #[arg(long, value_name = "N", default_value = "50")]
    slow: usize,
    /// Clients that give their requests up.
    #[arg(long, value_name = "N", default_value = "8")]
    fickle: u64,
    /// MiB by which the gateway may grow in an hour; judged in runs of ten minutes and more.
    #[arg(long, value_name = "MIB", default_value = "30")]
    growth: f64,
    /// Says which faults come when.
    #[arg(long, default_value = "1")]
    seed: u64,
}

const SERVICES: usize = 3;
/// Between two looks at memory.
const LOOK: Duration = Duration::from_secs(5);
/// The first part of a run, in which caches and pools fill, says nothing of what comes later.
const WARM_UP: f64 = 0.25;
/// Shorter runs say nothing of an hour.
const LONG_ENOUGH: Duration = Duration::from_secs(600);
/// How long a service is stopped in its tracks.
const STANDSTILL: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn run(programs: &Programs, options: &Options) -> Result<()> {
    let stand = Stand::new(programs, &Ways::tcp()?, "")?;
    let outcome = trial(&stand, options).await;
    if outcome.is_err() {
        say(format_args!("logs are in {}", stand.keep().display()));
    }
    outcome
}

async fn trial(stand: &Stand, options: &Options) -> Result<()> {
    let gateway = stand.gateway().await?;
    let mut services = Vec::new();
    for _ in 0..SERVICES {
        services.push(stand.service(ServiceOptions::default()).await?);
    }
    let length = Duration::from_secs_f64(options.minutes * 60.0);
    let stop = CancellationToken::new();
    let pace = Pace { between: Duration::from_millis(options.pause), after_failure: Duration::ZERO };
    let crowd = Crowd::paced(stand.http, options.clients, pace, mixed);
    let mut others = JoinSet::new();
    for _ in 0..options.slow {
        let (to, stop) = (stand.http, stop.clone());
        others.spawn(async move {
            while !stop.is_cancelled() {
                // A kill of its service ends it, visibly; another one follows.
                let _ = read_slowly(to, 1 << 20, 20 << 10, stop.clone()).await;
            }
        });
    }
    for number in 0..options.fickle {
        let (to, stop, mut random) = (stand.http, stop.clone(), fastrand::Rng::with_seed(options.seed + number));
        others.spawn(async move {
            while !stop.is_cancelled() {
                let _ = cancels::give_up(to, &mut random).await;
            }
        });
    }

    let began = Instant::now();
    let mut samples = Vec::new();
    let (mut faults, mut random) = (Faults::default(), fastrand::Rng::with_seed(options.seed));
    let mut next_fault = began + Duration::from_secs(options.fault_every);
    let mut told = began;
    while began.elapsed() < length {
        sleep(LOOK.min(length)).await;
        samples.push((began.elapsed().as_secs_f64(), gateway.memory()? as f64 / f64::from(1 << 20)));
        if let Some((_, mebibytes)) = samples.last()
            && told.elapsed() >= Duration::from_secs(60)
        {
            told = Instant::now();
            let minutes = began.elapsed().as_secs_f64() / 60.0;
            say(format_args!("{minutes:.0} of {} min: gateway {mebibytes:.1} MiB; {faults}", options.minutes));
        }
        if Instant::now() >= next_fault {
            next_fault = Instant::now() + Duration::from_secs(options.fault_every);
            let place = random.usize(..services.len());
            faults.one(stand, &mut services, place, random.u8(..3)).await?;
        }
    }
    let came = crowd.stop().await?;
    stop.cancel();
    while others.join_next().await.is_some() {}
    let books = stand.books();
    let quiet = eventually(PATIENCE, async || books.open().await.is_ok_and(|open| open == Open::default())).await;

    let steady: Vec<_> = samples.iter().copied().filter(|(at, _)| *at >= length.as_secs_f64() * WARM_UP).collect();
    let slope = slope(&steady) * 3600.0;
    let of =
        |pick: fn(f64, f64) -> f64| steady.iter().map(|(_, mebibytes)| *mebibytes).reduce(pick).unwrap_or(f64::NAN);
    println!("load                  {:.0}/s for {:.1} min, {}", came.per_second(), options.minutes, came.tally);
    println!("faults                {faults}");
    println!("gateway's memory      {:.1} to {:.1} MiB after the first quarter", of(f64::min), of(f64::max));
    println!("slope                 {slope:+.2} MiB an hour, from {} looks", steady.len());
    println!(
        "all given back        {}",
        quiet.map_or("NO".to_owned(), |took| format!("within {} ms", took.as_millis()))
    );

    ensure!(came.tally.wrong() == 0, "{} answers were wrong", came.tally.wrong());
    ensure!(quiet.is_some(), "something was not given back: {}", books.open().await?);
    // What a kill meets: requests that were sent, and answers that had begun.
    let excused = came.tally.named("connection_lost") + came.tally.named(&format!("lost: {}", ask::CUT));
    ensure!(came.tally.failed() == excused, "requests failed by more than the kills: {}", came.tally);
    if length >= LONG_ENOUGH {
        ensure!(slope <= options.growth, "memory grows by {slope:.1} MiB an hour");
    }
    for service in services {
        service.stop().await?;
    }
    gateway.stop().await
}

fn mixed(number: u64, turn: u64) -> ask::Ask {
    match (number + turn) % 16 {
        0 => Ask::Bytes(1_000_000),
        1 => Ask::Once(20),
        2 => Ask::Again(20),
        3 => Ask::Echo(100_000),
        4..8 => Ask::Echo(900),
        _ => Ask::Hello,
    }
}

/// What was done to the services.
#[derive(Debug, Default)]
struct Faults {
    restarts: u64,
    kills: u64,
    standstills: u64,
}

impl Faults {
    async fn one(&mut self, stand: &Stand, services: &mut Vec<Process>, place: usize, kind: u8) -> Result<()> {
        if kind == 2 {
            if let Some(service) = services.get(place) {
                service.signal("STOP").await?;
                sleep(STANDSTILL).await;
                service.signal("CONT").await?;
            }
            self.standstills += 1;
            return Ok(());
        }
        let mut old = services.remove(place);
        if kind == 0 {
            old.stop().await?;
            self.restarts += 1;
        } else {
            old.signal("KILL").await?;
            old.ended().await?;
            self.kills += 1;
        }
        services.push(stand.service(ServiceOptions::default()).await?);
        Ok(())
    }
}

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { restarts, kills, standstills } = self;
        write!(f, "{restarts} restarts, {kills} kills, {standstills} standstills of services")
    }
}

/// The slope of the line that fits the samples best, by least squares.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let count = samples.len() as f64;
    let mean = |pick: fn(&(f64, f64)) -> f64| samples.iter().map(pick).sum::<f64>() / count;
    let (x, y) = (mean(|sample| sample.0), mean(|sample| sample.1));
    let both: f64 = samples.iter().map(|sample| (sample.0 - x) * (sample.1 - y)).sum();
    let spread: f64 = samples.iter().map(|sample| (sample.0 - x).powi(2)).sum();
    if spread == 0.0 { 0.0 } else { both / spread }
}

#[cfg(test)]
mod tests {
    use super::slope;

    #[test]
    fn the_slope_is_that_of_the_best_line() {
        assert!((slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]) - 2.0).abs() < 1e-9);
        assert!(slope(&[(0.0, 4.0), (1.0, 4.0)]).abs() < 1e-9);
        assert!(slope(&[(1.0, 4.0)]).abs() < 1e-9);
    }
}
