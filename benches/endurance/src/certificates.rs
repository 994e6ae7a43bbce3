//! Certificates exchanged under load: those of the CA, of the gateway and of its services, again and again, as the
//! documentation says that it is done. No link and no client's connection may end by it and no request fail; who comes
//! afterwards is held to the new ones. A key that is not the certificate's has to be found before anything is exchanged.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::sleep;

use crate::ask::{Ask, Crowd};
use crate::books::{Books, Open};
use crate::say;
use crate::stand::{Process, Programs, Stand, eventually};
use crate::ways::{CERTIFICATES, SERVICE, Ways, dial_tls, free_address};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often all certificates are exchanged. Every second time the gateway is not told, and finds out by itself.
    #[arg(long, value_name = "N", default_value = "6")]
    rotations: usize,
    /// Services, each a process of its own.
    #[arg(long, value_name = "N", default_value = "3")]
    instances: usize,
    /// Links of each of them.
    #[arg(long, value_name = "N", default_value = "2")]
    links: usize,
    /// Clients that ask as fast as they are answered.
    #[arg(long, value_name = "N", default_value = "64")]
    clients: u64,
}

/// Load before the first exchange and after the last one.
const AROUND: Duration = Duration::from_secs(2);
/// Longest wait for the gateway to put new files to use, or to refuse them: it looks every 2 s, and twice.
const TAKEN_UP: Duration = Duration::from_secs(20);
/// Longest wait for somebody who is not believed to be turned away, and for services to be back at a new gateway.
const PATIENCE: Duration = Duration::from_secs(20);

const RENEWED: &str = "stella_tls_reloads_total{outcome=\"renewed\"}";
const REFUSED: &str = "stella_tls_reloads_total{outcome=\"refused\"}";
const FAILED: &str = "stella_tls_handshakes_total{outcome=\"failed\"}";
/// Changes of the gateway's files in one exchange: both CAs, its own certificate, the new CA alone.
const CHANGES: u64 = 3;

pub(crate) async fn run(programs: &Programs, options: &Options) -> Result<()> {
    let listen = free_address()?;
    let policy = format!("services: {{ {SERVICE}: {{ identities: [\"spiffe://dev/{SERVICE}\"] }} }}\n");
    let stand = Stand::new(programs, &Ways::tls(listen), &policy)?;
    let outcome = trial(&stand, listen, options).await;
    if outcome.is_err() {
        say(format_args!("logs are in {}", stand.keep().display()));
    }
    outcome
}

async fn trial(stand: &Stand, listen: SocketAddr, options: &Options) -> Result<()> {
    let books = stand.books();
    let live = Live { folder: stand.folder().join(CERTIFICATES), sets: stand.folder().into() };
    stand.make_certificates(&set(0)).await?;
    live.begin(&set(0))?;
    let mut gateway = stand.gateway().await?;
    let mut services = Vec::new();
    let mut dial = dial_tls(listen, CERTIFICATES, CERTIFICATES);
    dial.extend(["--links".to_owned(), options.links.to_string()]);
    for _ in 0..options.instances {
        services.push(stand.service_by(&dial).await?);
    }
    let wanted = options.instances * options.links;
    let all = eventually(PATIENCE, async || books.links().await.is_ok_and(|links| links.len() == wanted)).await;
    all.with_context(|| format!("there are not {wanted} links"))?;
    let links = books.links().await?;

    let crowd = Crowd::start(stand.http, options.clients, Ask::mixed);
    sleep(AROUND).await;
    let mut exchange = Exchange { stand, listen, live: &live, books, number: 0, came_in: 0, stayed_out: 0 };
    let mut dropped = BTreeSet::new();
    for number in 1..=options.rotations {
        let notice = if number % 2 == 1 { Notice::Signal } else { Notice::Itself };
        say(format_args!("exchange {number} of {}, {}", options.rotations, notice.told()));
        exchange.number = number;
        exchange.once(&gateway, notice).await.with_context(|| format!("exchange {number}, {}", notice.told()))?;
        dropped.extend(links.difference(&books.links().await?).cloned());
        ensure!(books.instances().await? == options.instances, "not every instance is there any more");
    }
    sleep(AROUND).await;
    let Exchange { came_in, stayed_out, .. } = exchange;
    let came = crowd.stop().await?;
    dropped.extend(links.difference(&books.links().await?).cloned());
    let quiet = eventually(PATIENCE, async || books.open().await.is_ok_and(|open| open == Open::default())).await;
    let (renewed, refused) = (books.count(RENEWED).await?, books.count(REFUSED).await?);

    let by_signal = options.rotations.div_ceil(2);
    println!(
        "certificates          {} times those of CA, gateway and services: {by_signal} after SIGHUP, {} found by the gateway",
        options.rotations,
        options.rotations - by_signal
    );
    println!("  changes of files    {renewed} put to use, {refused} refused (a key that is not the certificate's)");
    println!("requests              {:.0}/s, {}", came.per_second(), came.tally);
    println!("links                 {wanted} from the beginning, {} dropped", dropped.len());
    println!("clients' connections  {}, {} dropped", options.clients, came.connections - options.clients);
    println!("new services          {came_in} came in by what was valid then, {stayed_out} by what was not stayed out");
    println!(
        "all given back        {}",
        quiet.map_or("NO".to_owned(), |took| format!("within {} ms", took.as_millis()))
    );

    ensure!(came.tally.failed() == 0, "{} requests failed: {}", came.tally.failed(), came.tally);
    ensure!(dropped.is_empty(), "links were dropped: {dropped:?}");
    ensure!(came.connections == options.clients, "clients had to connect anew");
    ensure!(quiet.is_some(), "something was not given back: {}", books.open().await?);
    let rotations = options.rotations as u64;
    ensure!((renewed, refused) == (CHANGES * rotations, rotations), "changes were missed, or seen twice");

    // Those that have been there from the beginning dial with what stands in their files now.
    gateway.stop().await?;
    gateway = stand.gateway().await?;
    let all = eventually(PATIENCE, async || books.instances().await.is_ok_and(|n| n == options.instances)).await;
    let took = all.context("the services of the beginning did not come to the next gateway")?;
    println!(
        "another gateway       the {} services of the beginning were there {} ms after it was, by the last certificates",
        options.instances,
        took.as_millis()
    );
    for service in services {
        service.stop().await?;
    }
    gateway.stop().await
}

/// How the gateway comes to know of new files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notice {
    Signal,
    Itself,
}

impl Notice {
    const fn told(self) -> &'static str {
        match self {
            Self::Signal => "by SIGHUP",
            Self::Itself => "found by the gateway",
        }
    }
}

/// The folder of a CA with what it has signed.
fn set(number: usize) -> String {
    format!("set-{number}")
}

/// The files that gateway and services read.
struct Live {
    folder: PathBuf,
    sets: PathBuf,
}

impl Live {
    fn begin(&self, set: &str) -> Result<()> {
        fs::create_dir_all(&self.folder)?;
        for name in ["ca.pem", "gateway.pem", "gateway.key"] {
            self.put(set, name)?;
        }
        self.put_services(set)
    }

    /// Puts a file in place of the one that is there.
    fn put(&self, set: &str, name: &str) -> Result<()> {
        let unfinished = self.folder.join(format!("{name}.new"));
        fs::copy(self.sets.join(set).join(name), &unfinished)?;
        Ok(fs::rename(unfinished, self.folder.join(name))?)
    }

    fn put_services(&self, set: &str) -> Result<()> {
        self.put(set, &format!("{SERVICE}.pem"))?;
        self.put(set, &format!("{SERVICE}.key"))
    }

    /// Has both sides believe the CAs of these sets.
    fn believe(&self, sets: &[&str]) -> Result<()> {
        let all: std::io::Result<String> =
            sets.iter().map(|set| fs::read_to_string(self.sets.join(set).join("ca.pem"))).collect();
        let unfinished = self.folder.join("ca.pem.new");
        fs::write(&unfinished, all?)?;
        Ok(fs::rename(unfinished, self.folder.join("ca.pem"))?)
    }
}

/// One exchange after the other.
struct Exchange<'a> {
    stand: &'a Stand,
    listen: SocketAddr,
    live: &'a Live,
    books: Books,
    number: usize,
    came_in: usize,
    stayed_out: usize,
}

impl Exchange<'_> {
    /// All certificates, in the order in which nobody is ever shown one that it does not believe.
    async fn once(&mut self, gateway: &Process, notice: Notice) -> Result<()> {
        let (old, new) = (set(self.number - 1), set(self.number));
        self.stand.make_certificates(&new).await?;
        self.live.believe(&[&old, &new])?;
        self.noticed(gateway, notice, RENEWED).await?;
        self.live.put_services(&new)?;

        // The gateway's: at first with a key that is not its own, and nothing changes for anybody.
        self.live.put(&new, "gateway.pem")?;
        self.noticed(gateway, notice, REFUSED).await?;
        self.comes_in(&old, CERTIFICATES).await.context("while the gateway's key was not its certificate's")?;
        self.live.put(&new, "gateway.key")?;
        self.noticed(gateway, notice, RENEWED).await?;
        self.comes_in(&new, &old).await.context("while both CAs were believed")?;

        self.live.believe(&[&new])?;
        self.noticed(gateway, notice, RENEWED).await?;
        self.comes_in(&new, &new).await.context("by the new certificates alone")?;
        self.stays_out(&new, &old).await.context("by a certificate of the old CA")?;
        self.stays_out(&old, &new).await.context("believing the old CA alone")
    }

    /// Waits until the gateway has seen what was changed, by what it counts.
    async fn noticed(&self, gateway: &Process, notice: Notice, counter: &str) -> Result<()> {
        let before = self.books.count(counter).await?;
        if notice == Notice::Signal {
            gateway.signal("HUP").await?;
        }
        let seen = eventually(TAKEN_UP, async || self.books.count(counter).await.is_ok_and(|now| now > before)).await;
        seen.map(drop).with_context(|| format!("{counter} stayed {before}:\n{}", gateway.last_words()))
    }

    /// A service that believes the CA of one folder, and shows the certificate of another, serves, and leaves.
    async fn comes_in(&mut self, ca: &str, own: &str) -> Result<()> {
        let service = self.stand.service_by(&dial_tls(self.listen, ca, own)).await?;
        self.came_in += 1;
        service.stop().await
    }

    /// Such a service is turned away, or turns away.
    async fn stays_out(&mut self, ca: &str, own: &str) -> Result<()> {
        let (before, instances) = (self.books.count(FAILED).await?, self.books.instances().await?);
        let mut service = self.stand.begin_service(&dial_tls(self.listen, ca, own))?;
        let seen = eventually(PATIENCE, async || self.books.count(FAILED).await.is_ok_and(|now| now > before)).await;
        ensure!(seen.is_some(), "no handshake failed:\n{}", service.last_words());
        ensure!(self.books.instances().await? == instances, "it came in:\n{}", service.last_words());
        self.stayed_out += 1;
        // It would dial for ever.
        service.signal("KILL").await?;
        service.ended().await.map(drop)
    }
}
