//! A RabbitMQ broker that fails under load: it is restarted, or a node of its cluster is killed, or one of the gateways at
//! it. Service has to be back soon after the broker is, every request has to have one answer, right or with a code,
//! and nothing may be left over, at the gateway or at the broker.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use test_broker::{BrokerError, Node, URL_VARIABLE};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::ask::{Ask, CUT, Came, Crowd, Pace};
use crate::books::{Books, Open};
use crate::say;
use crate::stand::{Process, Programs, ServiceOptions, Stand, eventually};
use crate::tally::Tally;
use crate::ways::Ways;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Two nodes of one cluster: the one in use is killed under load and started again, then the other one, and so on.
    #[arg(long)]
    cluster: bool,
    /// How often the broker is restarted, every second time in good order; in a cluster, how often a node is killed. A
    /// broker that AMQP_URL names is not touched.
    #[arg(long, value_name = "N", default_value = "4")]
    restarts: usize,
    /// How often one of two gateways at the broker is killed.
    #[arg(long, value_name = "N", default_value = "3")]
    kills: usize,
    /// Services, each a process of its own.
    #[arg(long, value_name = "N", default_value = "2")]
    instances: usize,
    /// Clients that ask as fast as they are answered.
    #[arg(long, value_name = "N", default_value = "64")]
    clients: u64,
}

/// Load before and after each fault.
const AROUND: Duration = Duration::from_secs(3);
/// Service has to be back so soon after the broker is.
const BACK: Duration = Duration::from_secs(5);
/// Longest wait for what should not take that long.
const PATIENCE: Duration = Duration::from_secs(30);
/// A client that was refused asks again after this.
const PACE: Pace = Pace { between: Duration::ZERO, after_failure: Duration::from_millis(100) };
/// What a request may come to that meets a failing broker: sent and unanswered, nowhere to go, or waited too long.
const CODES: [&str; 4] = ["connection_lost", "no_instance", "no_capacity", "deadline_exceeded"];

pub(crate) async fn run(programs: &Programs, options: &Options) -> Result<()> {
    let brokers = Brokers::start(options.cluster).await?;
    let ways = Ways::amqp(&brokers.urls);
    let stand = Stand::new(programs, &ways, "node: { id: gw-1 }\n")?;
    let other = Stand::new(programs, &ways, "node: { id: gw-2 }\n")?;
    let outcome = trial(&stand, &other, &brokers, options).await;
    if outcome.is_err() {
        say(format_args!("logs are in {} and {}", stand.keep().display(), other.keep().display()));
    }
    outcome
}

async fn trial(stand: &Stand, other: &Stand, brokers: &Brokers, options: &Options) -> Result<()> {
    let gateway = stand.gateway().await?;
    let mut services = Vec::new();
    for _ in 0..options.instances {
        services.push(stand.service(ServiceOptions::default()).await?);
    }
    all_there(&stand.books(), options.instances).await?;

    if brokers.nodes.is_empty() {
        println!("the broker that {URL_VARIABLE} names is not restarted");
    } else {
        faults(stand, brokers, options).await?;
    }
    if !options.cluster {
        kills(stand, other, options).await?;
    }

    if brokers.nodes.is_empty() {
        ended(services, gateway).await
    } else {
        let sides = 1 + options.instances;
        ensure!(brokers.queues().await? == sides, "there should be {sides} queues, one a side");
        ended(services, gateway).await?;
        let none = eventually(PATIENCE, async || brokers.queues().await.is_ok_and(|queues| queues == 0)).await;
        ensure!(none.is_some(), "queues were left at the broker");
        println!("the broker            had {sides} queues, one a side, and none when all had ended");
        Ok(())
    }
}

async fn ended(services: Vec<Process>, gateway: Process) -> Result<()> {
    for service in services {
        service.stop().await?;
    }
    gateway.stop().await
}

async fn all_there(books: &Books, instances: usize) -> Result<Duration> {
    let there = eventually(PATIENCE, async || books.instances().await.is_ok_and(|number| number == instances)).await;
    there.with_context(|| format!("there are not {instances} instances"))
}

/// How long after the mark the first request was answered rightly that began after it.
async fn first_right(crowd: &Crowd) -> Result<Duration> {
    let answered = eventually(PATIENCE, async || crowd.since().back().is_some()).await;
    answered.and_then(|_| crowd.since().back()).with_context(|| format!("no right answer within {PATIENCE:?}"))
}

/// The broker restarted, or one of its nodes killed, again and again.
async fn faults(stand: &Stand, brokers: &Brokers, options: &Options) -> Result<()> {
    let books = stand.books();
    let crowd = Crowd::paced(stand.http, options.clients, PACE, Ask::mixed);
    let mut backs = Vec::new();
    sleep(AROUND).await;
    for number in 0..options.restarts {
        crowd.mark();
        sleep(AROUND).await;
        ensure!(crowd.since().trouble().is_none(), "requests failed before there was a fault");
        let fault = if options.cluster { Fault::NodeKilled } else { Fault::ORDERED[number % 2] };
        say(format_args!("{} of {}: {}", number + 1, options.restarts, fault.told()));
        let node = brokers.node(if options.cluster { number % brokers.nodes.len() } else { 0 })?;
        match fault {
            Fault::Killed => {
                node.ask(|node| {
                    node.kill();
                    node.start_again()
                })
                .await?;
            }
            Fault::Restarted => {
                node.ask(|node| node.control(&["stop_app"]).and(node.control(&["start_app"])).map(drop)).await?;
            }
            Fault::NodeKilled => {
                ensure!(node.queues(&["--local"]).await? > 0, "nobody uses this node");
                node.ask(|node| {
                    node.kill();
                    Ok(())
                })
                .await?;
            }
        }
        // The broker answers, or is gone, as of now.
        let moment = crowd.mark();
        let served = first_right(&crowd).await?;
        all_there(&books, options.instances).await?;
        let whole = moment.elapsed();
        if fault == Fault::NodeKilled {
            node.ask(Node::start_again).await?;
        }
        sleep(AROUND).await;
        let back = Back { fault, served, whole, trouble: crowd.since().trouble() };
        say(&back);
        backs.push(back);
    }
    let came = crowd.stop().await?;
    let quiet = eventually(PATIENCE, async || books.open().await.is_ok_and(|open| open == Open::default())).await;

    let what = if options.cluster { "nodes killed         " } else { "broker restarted     " };
    println!("{what} {} times: {}", options.restarts, told(&came));
    for back in &backs {
        println!("  {back}");
    }
    println!(
        "all given back        {}",
        quiet.map_or("NO".to_owned(), |took| format!("within {} ms", took.as_millis()))
    );
    check(&came.tally)?;
    ensure!(quiet.is_some(), "something was not given back: {}", books.open().await?);
    ensure!(backs.iter().all(Back::is_in_time), "service was not back within {BACK:?}");
    Ok(())
}

/// Every request has an answer: right, or with one of the codes, or one that was cut after its head, which can be seen.
fn check(tally: &Tally) -> Result<()> {
    let excused = CODES.iter().map(|code| tally.named(code)).sum::<u64>() + tally.named(&format!("lost: {CUT}"));
    ensure!(tally.wrong() == 0, "{} answers were wrong", tally.wrong());
    ensure!(tally.failed() == excused, "requests came to what no broker's fault explains: {tally}");
    Ok(())
}

/// One of two gateways killed: the clients of the other one notice nothing.
async fn kills(stand: &Stand, other: &Stand, options: &Options) -> Result<()> {
    let (books, mut doomed) = (other.books(), other.gateway().await?);
    all_there(&books, options.instances).await?;
    let half = (options.clients / 2).max(1);
    let spared = Crowd::paced(stand.http, half, PACE, Ask::mixed);
    let hit = Crowd::paced(other.http, half, PACE, Ask::mixed);
    let mut backs = Vec::new();
    for number in 1..=options.kills {
        sleep(AROUND).await;
        say(format_args!("{number} of {}: a gateway is killed", options.kills));
        doomed.signal("KILL").await?;
        doomed.ended().await?;
        sleep(AROUND).await;
        doomed = other.gateway().await?;
        hit.mark();
        backs.push(first_right(&hit).await?);
        all_there(&books, options.instances).await?;
    }
    sleep(AROUND).await;
    let (spared, hit) = (spared.stop().await?, hit.stop().await?);
    let quiet = eventually(PATIENCE, async || {
        let (one, two) = (stand.books().open().await, books.open().await);
        one.is_ok_and(|open| open == Open::default()) && two.is_ok_and(|open| open == Open::default())
    })
    .await;

    println!("kill -9 of a gateway  {} times", options.kills);
    println!("  clients of another  {}", told(&spared));
    println!("  its own clients     {}", told(&hit));
    let backs_told: Vec<_> = backs.iter().map(|back| format!("{:.2} s", back.as_secs_f64())).collect();
    println!("  started again       its first right answer {} after it was ready", backs_told.join(", "));
    ensure!(spared.tally.failed() == 0, "clients of another gateway noticed: {}", spared.tally);
    ensure!(hit.tally.wrong() == 0, "{} answers were wrong", hit.tally.wrong());
    ensure!(backs.iter().all(|back| *back <= BACK), "service was not back within {BACK:?}");
    ensure!(quiet.is_some(), "something was not given back");
    doomed.stop().await
}

fn told(came: &Came) -> String {
    format!("{:.0}/s, {}", came.per_second(), came.tally)
}

/// What is done to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Killed,
    Restarted,
    NodeKilled,
}

impl Fault {
    /// Those of a single node, in turn.
    const ORDERED: [Self; 2] = [Self::Killed, Self::Restarted];

    const fn told(self) -> &'static str {
        match self {
            Self::Killed => "kill -9 and a new start",
            Self::Restarted => "stopped and started in good order",
            Self::NodeKilled => "kill -9 of the node in use",
        }
    }
}

/// How soon service was back; from when the broker answered, or from when the node was gone.
#[derive(Debug)]
struct Back {
    fault: Fault,
    /// The first request that began then was answered rightly.
    served: Duration,
    /// All instances could be sent requests.
    whole: Duration,
    /// The last request began that failed.
    trouble: Option<Duration>,
}

impl Back {
    fn is_in_time(&self) -> bool {
        self.served.max(self.whole).max(self.trouble.unwrap_or_default()) <= BACK
    }
}

impl std::fmt::Display for Back {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [served, whole] = [self.served, self.whole].map(|took| took.as_secs_f64());
        let moment = if self.fault == Fault::NodeKilled { "it" } else { "the broker answered" };
        write!(
            f,
            "{}: first right answer {served:.2} s after {moment}, all instances {whole:.2} s",
            self.fault.told()
        )?;
        match self.trouble {
            Some(trouble) => write!(f, ", none failed that began after {:.2} s", trouble.as_secs_f64()),
            None => f.write_str(", none failed that began after that"),
        }
    }
}

/// The brokers of a trial: a node, two of one cluster, or one that is somebody else's.
struct Brokers {
    nodes: Vec<OneNode>,
    urls: Vec<String>,
}

/// A node that is asked where that may take its time.
#[derive(Clone)]
struct OneNode(Arc<Mutex<Node>>);

impl Brokers {
    async fn start(is_cluster: bool) -> Result<Self> {
        if let Ok(url) = std::env::var(URL_VARIABLE) {
            ensure!(!is_cluster, "the nodes of a cluster are the trial's own: unset {URL_VARIABLE}");
            return Ok(Self { nodes: Vec::new(), urls: vec![url] });
        }
        say(if is_cluster { "starting two RabbitMQ nodes" } else { "starting a RabbitMQ node" });
        let started = spawn_blocking(move || {
            let first = Node::start(test_broker::Options::default())?;
            let second = is_cluster.then(|| first.join(test_broker::Options::default())).transpose()?;
            Ok::<_, BrokerError>([Some(first), second])
        });
        let nodes: Vec<Node> = started.await??.into_iter().flatten().collect();
        let urls = nodes.iter().map(Node::url).collect();
        let nodes: Vec<_> = nodes.into_iter().map(|node| OneNode(Arc::new(Mutex::new(node)))).collect();
        if is_cluster {
            let running = nodes.first().context("no node")?;
            let running = running.ask(|node| node.control(&["eval", "length(rabbit_nodes:all_running())."])).await?;
            ensure!(running.trim() == "2", "the nodes are no cluster: {running}");
        }
        Ok(Self { nodes, urls })
    }

    fn node(&self, number: usize) -> Result<OneNode> {
        self.nodes.get(number).cloned().context("there is no such node")
    }

    /// Queues of gateways and services, on all nodes.
    async fn queues(&self) -> Result<usize> {
        self.node(0)?.queues(&[]).await
    }
}

impl OneNode {
    async fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut Node) -> Result<T, BrokerError> + Send + 'static,
    ) -> Result<T> {
        let node = Arc::clone(&self.0);
        Ok(spawn_blocking(move || what(&mut node.lock().unwrap_or_else(PoisonError::into_inner))).await??)
    }

    /// Queues of gateways and services.
    async fn queues(&self, which: &'static [&'static str]) -> Result<usize> {
        let arguments: Vec<_> = ["list_queues"].iter().chain(which).chain(&["name"]).copied().collect();
        let listed = self.ask(move |node| node.control(&arguments)).await?;
        Ok(listed.lines().filter(|line| line.starts_with("stella.")).count())
    }
}
