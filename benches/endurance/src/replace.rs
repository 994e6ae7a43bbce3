//! Replacement under load: services restarted one after the other, the gateway replaced by another process on the same
//! sockets, an instance killed; over each transport. Whatever ends in good order may cost no request; a kill costs what was
//! in flight there.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::ask::{Ask, Caller, Came, Crowd};
use crate::say;
use crate::stand::{Process, Programs, ServiceOptions, Stand};
use crate::tally::{Outcome, Tally};
use crate::ways::{CERTIFICATES, Over};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Services, each a process of its own.
    #[arg(long, value_name = "N", default_value = "3")]
    instances: usize,
    /// How often all of them are restarted, one after the other.
    #[arg(long, value_name = "N", default_value = "5")]
    rounds: usize,
    /// How often the gateway is replaced.
    #[arg(long, value_name = "N", default_value = "2")]
    upgrades: usize,
    /// How often an instance is killed.
    #[arg(long, value_name = "N", default_value = "3")]
    kills: usize,
    /// Clients that ask as fast as they are answered.
    #[arg(long, value_name = "N", default_value = "64")]
    clients: u64,
    /// What services and gateway reach one another over. Over UDP nobody is killed: that is known by silence alone, after
    /// `health.dead_after`.
    #[arg(long, value_name = "TRANSPORT", default_value = "tcp")]
    over: Over,
}

const UPGRADE: &str = "upgrade: { socket: \"{folder}/upgrade.sock\" }\n";
/// Load before and after each kind of replacement.
const AROUND: Duration = Duration::from_secs(2);
/// Nothing may be sent to a killed instance any more after this.
const GONE: Duration = Duration::from_secs(1);
/// Who waits for an instance that was killed is told so, or answered by another one, within this.
const MISSED: Duration = Duration::from_secs(5);
/// How long the requests take that a kill meets, in milliseconds.
const WORK: u64 = 50;

pub(crate) async fn run(programs: &Programs, options: &Options) -> Result<()> {
    let stand = Stand::new(programs, &options.over.ways().await?, UPGRADE)?;
    let outcome = trial(&stand, options).await;
    if outcome.is_err() {
        say(format_args!("logs are in {}", stand.keep().display()));
    }
    outcome
}

async fn trial(stand: &Stand, options: &Options) -> Result<()> {
    if options.over == Over::Tls {
        stand.make_certificates(CERTIFICATES).await?;
    }
    let ask = options.over.ask();
    let mut gateway = stand.gateway().await?;
    let mut services = Vec::new();
    for _ in 0..options.instances {
        services.push(stand.service(ServiceOptions::default()).await?);
    }

    let crowd = Crowd::start(stand.http, options.clients, ask);
    sleep(AROUND).await;
    for round in 1..=options.rounds {
        for number in 0..services.len() {
            say(format_args!("round {round} of {}: service {} of {}", options.rounds, number + 1, services.len()));
            services.remove(0).stop().await?;
            services.push(stand.service(ServiceOptions::default()).await?);
        }
    }
    sleep(AROUND).await;
    let rolling = crowd.stop().await?;
    println!("rolling restarts      {} x {} services: {}", options.rounds, options.instances, told(&rolling));
    ensure!(rolling.tally.failed() == 0, "{} requests failed: {}", rolling.tally.failed(), rolling.tally);

    let crowd = Crowd::start(stand.http, options.clients, ask);
    let mut took = Vec::new();
    for upgrade in 1..=options.upgrades {
        sleep(AROUND).await;
        say(format_args!("upgrade {upgrade} of {}", options.upgrades));
        let began = Instant::now();
        gateway = stand.replace(gateway).await?;
        took.push(format!("{:.1} s", began.elapsed().as_secs_f64()));
    }
    sleep(AROUND).await;
    let upgraded = crowd.stop().await?;
    println!("gateway replaced      {} times ({}): {}", options.upgrades, took.join(", "), told(&upgraded));
    ensure!(upgraded.tally.failed() == 0, "{} requests failed: {}", upgraded.tally.failed(), upgraded.tally);
    if options.over == Over::Udp {
        return ended(services, gateway).await;
    }

    let mut killed = Killed::default();
    for kill in 1..=options.kills {
        say(format_args!("kill {kill} of {}", options.kills));
        let victim = services.remove(0);
        killed.add(&kill_one(stand, victim, options.clients).await?);
        services.push(stand.service(ServiceOptions::default()).await?);
    }
    println!("kill -9 of a service  {} times: {}", options.kills, killed.tally);
    println!("  that may run once   {}", killed.once);
    println!("  that may run again  {}", killed.again);
    println!("  begun {GONE:?} after   {} failed", killed.late);
    println!("  the longest wait    {:.2} s, failed or not", killed.longest.as_secs_f64());

    ensure!(killed.tally.failed() == killed.tally.named("connection_lost"), "a kill shows as something else");
    ensure!(killed.again.failed() == 0, "requests that may run again were not sent again");
    ensure!(killed.late == 0, "requests were sent to an instance that is gone");
    ensure!(killed.longest <= MISSED, "an instance was not missed within {MISSED:?}");
    ended(services, gateway).await
}

async fn ended(services: Vec<Process>, gateway: Process) -> Result<()> {
    for service in services {
        service.stop().await?;
    }
    gateway.stop().await
}

fn told(came: &Came) -> String {
    format!("{:.0}/s, {}", came.per_second(), came.tally)
}

/// What kills have cost.
#[derive(Debug, Default)]
struct Killed {
    tally: Tally,
    once: Tally,
    again: Tally,
    /// Failed, though it began well after the kill.
    late: u64,
    /// The longest time to any outcome.
    longest: Duration,
}

impl Killed {
    fn add(&mut self, other: &Self) {
        self.tally.add(&other.tally);
        self.once.add(&other.once);
        self.again.add(&other.again);
        self.late += other.late;
        self.longest = self.longest.max(other.longest);
    }
}

/// Kills a service while requests are at work in it, and watches for a while.
async fn kill_one(stand: &Stand, mut victim: Process, clients: u64) -> Result<Killed> {
    let began = Instant::now();
    let (kill_at, until) = (began + AROUND, began + AROUND + GONE + AROUND);
    let mut callers = JoinSet::new();
    for number in 0..clients {
        let to = stand.http;
        callers.spawn(async move {
            let (mut caller, mut killed) = (Caller::new(to, number), Killed::default());
            while Instant::now() < until {
                let (asked, may_run_again) = (Instant::now(), number % 2 == 0);
                let ask = if may_run_again { Ask::Again(WORK) } else { Ask::Once(WORK) };
                let outcome = caller.ask(ask, &mut killed.tally).await;
                let kind = if may_run_again { &mut killed.again } else { &mut killed.once };
                kind.count(&outcome, asked.elapsed());
                killed.longest = killed.longest.max(asked.elapsed());
                killed.late += u64::from(outcome != Outcome::Right && asked > kill_at + GONE);
            }
            killed
        });
    }
    tokio::time::sleep_until(kill_at).await;
    victim.signal("KILL").await?;
    victim.ended().await?;
    let mut sum = Killed::default();
    while let Some(one) = callers.join_next().await {
        sum.add(&one?);
    }
    Ok(sum)
}
