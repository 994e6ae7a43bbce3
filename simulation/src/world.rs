//! A run: every gateway, instance and host of clients is a host of turmoil, with a runtime and a paused clock of its own;
//! between them is turmoil's network, or memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use microservice_sdk::HealthStatus;
use router_gateway::edge::BoxHttpListener;
use router_link::{BoxFuture, BoxListener, Connector};
use turmoil::Sim;

use crate::Carrier;
use crate::client::{self, Dial};
use crate::environment::SimEnvironment;
use crate::gateway::{self, GatewayPost};
use crate::invariants;
use crate::ledger::{Ledger, Outcome};
use crate::memory::{Doors, MemoryConnector, MemoryDial, Nature, Weather};
use crate::net::{HTTP_PORT, NetConnector, NetDial, NetListener, SERVICE_PORT};
use crate::plan::{Ask, Fault, Host, Plan, What};
use crate::post::Post;
use crate::service::{self, ServicePost, Standing};
use crate::wire::{Card, Wire};

/// What the simulated clock goes on by at once.
const STEP: Duration = Duration::from_millis(5);
/// Between two looks at whether all is at rest.
const LOOK: Duration = Duration::from_millis(500);
/// By when all is to be at rest after the last repair: `dead_after` of both sides, backoffs, keep-alive and grace.
const REST_WITHIN: Duration = Duration::from_secs(150);
/// By when a probe is to be answered.
const PROBE_WITHIN: Duration = Duration::from_secs(10);

/// What the clients' host is told.
enum Errand {
    Probe(Ask, usize),
}

type ClientPost = Post<Errand, Outcome>;

/// What is between the hosts.
enum Medium {
    Network,
    Memory { doors: Vec<Arc<Doors>>, nature: Arc<Nature> },
}

impl Medium {
    fn new(carrier: Carrier, seed: u64, plan: &Plan, ledger: &Arc<Ledger>) -> Self {
        match carrier {
            Carrier::Network => Self::Network,
            Carrier::Memory => {
                let (cut, stall) = if plan.is_calm() { (0, 0) } else { (6, 2) };
                let weather = Weather { latency: plan.latency, cut, stall };
                let doors = (0..plan.gateways).map(|_| Arc::default()).collect();
                Self::Memory { doors, nature: Nature::new(weather, seed, Arc::clone(ledger)) }
            }
        }
    }

    /// Where a gateway is entered by services and by clients.
    fn listen(&self, gateway: usize, card: &Arc<Card>) -> Listen {
        match self {
            Self::Network => {
                let card = Arc::clone(card);
                Box::pin(async move {
                    let services: BoxListener = Box::new(NetListener::bind(SERVICE_PORT, &card).await?);
                    let clients: BoxHttpListener = Box::new(NetListener::bind(HTTP_PORT, &card).await?);
                    Ok((services, clients))
                })
            }
            Self::Memory { doors, nature } => {
                let (services, clients) = doors[gateway].open(card, nature);
                Box::pin(std::future::ready(Ok((
                    Box::new(services) as BoxListener,
                    Box::new(clients) as BoxHttpListener,
                ))))
            }
        }
    }

    fn connector(&self, gateway: usize, card: Arc<Card>, wire: Arc<Wire>) -> Arc<dyn Connector> {
        match self {
            Self::Network => Arc::new(NetConnector::new(Host::Gateway(gateway).to_string(), card, wire)),
            Self::Memory { doors, nature } => {
                let (doors, nature) = (Arc::clone(&doors[gateway]), Arc::clone(nature));
                Arc::new(MemoryConnector { doors, card, wire, nature })
            }
        }
    }

    fn dial(&self, card: Arc<Card>, wires: Vec<Arc<Wire>>) -> Arc<dyn Dial> {
        match self {
            Self::Network => {
                let named = |(number, wire)| (Host::Gateway(number).to_string(), wire);
                Arc::new(NetDial { card, gateways: wires.into_iter().enumerate().map(named).collect() })
            }
            Self::Memory { doors, .. } => {
                Arc::new(MemoryDial { card, gateways: doors.iter().cloned().zip(wires).collect() })
            }
        }
    }
}

type Listen = BoxFuture<'static, std::io::Result<(BoxListener, BoxHttpListener)>>;

/// A run in progress.
struct World<'a> {
    sim: Sim<'a>,
    medium: Arc<Medium>,
    plan: &'a Plan,
    ledger: Arc<Ledger>,
    /// Milliseconds, for whoever is outside of every host, or in one that is being torn down.
    elapsed: Arc<AtomicU64>,
    gateways: Vec<Arc<GatewayPost>>,
    instances: Vec<Arc<ServicePost>>,
    clients: Arc<ClientPost>,
    cards: BTreeMap<Host, Arc<Card>>,
    /// For each pair of a gateway and somebody who dials it.
    wires: BTreeMap<(Host, Host), Arc<Wire>>,
}

/// Runs a plan to its end, and checks everything.
pub(crate) fn run(carrier: Carrier, seed: u64, plan: &Plan) -> Arc<Ledger> {
    let elapsed = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&elapsed);
    let ledger = Ledger::new(move || Duration::from_millis(clock.load(Ordering::Relaxed)));
    let sim = turmoil::Builder::new()
        .simulation_duration(Duration::from_secs(100_000))
        .tick_duration(STEP)
        .min_message_latency(plan.latency.0)
        .max_message_latency(plan.latency.1)
        .rng_seed(seed)
        .tcp_capacity(64)
        .build();
    let mut world = World {
        sim,
        medium: Arc::new(Medium::new(carrier, seed, plan, &ledger)),
        plan,
        ledger: Arc::clone(&ledger),
        elapsed,
        gateways: Vec::new(),
        instances: Vec::new(),
        clients: Post::new(),
        cards: BTreeMap::new(),
        wires: BTreeMap::new(),
    };
    world.populate(seed);
    world.live();
    if world.comes_to_rest("after the repairs") {
        world.probe();
        world.comes_to_rest("after the probes");
    }
    world.stop();
    ledger.books().tearing_down = true;
    drop(world);
    invariants::judge(plan, &ledger);
    ledger
}

impl<'a> World<'a> {
    fn populate(&mut self, seed: u64) {
        let plan = self.plan;
        let lives = Arc::new(AtomicU64::new(0));
        for number in 0..plan.gateways {
            let post = GatewayPost::new();
            self.gateways.push(Arc::clone(&post));
            let (ledger, lives, card) =
                (Arc::clone(&self.ledger), Arc::clone(&lives), self.card(Host::Gateway(number)));
            let (config, medium) = (gateway::config(number, &plan.limits), Arc::clone(&self.medium));
            self.sim.host(Host::Gateway(number).to_string(), move || {
                let (ledger, post, config) = (Arc::clone(&ledger), Arc::clone(&post), config.clone());
                let (card, listening) = (Arc::clone(&card), medium.listen(number, &card));
                let environment =
                    SimEnvironment::new(seed ^ (lives.fetch_add(1, Ordering::Relaxed) << 32), ledger.now());
                async move {
                    tokio::task::spawn_local(Arc::clone(&card).serve());
                    let (services, clients) = listening.await?;
                    gateway::process(&config, environment, services, clients, &post, &ledger).await;
                    Ok(())
                }
            });
        }
        for (number, instance) in plan.instances.iter().enumerate() {
            let host = Host::Instance(number);
            let post = ServicePost::new();
            self.instances.push(Arc::clone(&post));
            let card = self.card(host);
            let mut connectors = Vec::new();
            for gateway in 0..plan.gateways {
                let wire = self.wire(Host::Gateway(gateway), host);
                connectors.push(self.medium.connector(gateway, Arc::clone(&card), wire));
            }
            let (ledger, lives, instance) = (Arc::clone(&self.ledger), Arc::clone(&lives), instance.clone());
            self.sim.host(host.to_string(), move || {
                let environment =
                    SimEnvironment::new(seed ^ (lives.fetch_add(1, Ordering::Relaxed) << 32), ledger.now());
                let program = service::program(number, &instance, environment, connectors.clone(), &ledger);
                let (ledger, post, card) = (Arc::clone(&ledger), Arc::clone(&post), Arc::clone(&card));
                async move {
                    tokio::task::spawn_local(card.serve());
                    service::process(program, &post, &ledger, &host.to_string()).await;
                    Ok(())
                }
            });
            if plan.instances[number].double_of.is_some() {
                self.sim.crash(host.to_string());
            }
        }
        for number in 0..plan.client_hosts {
            let host = Host::Clients(number);
            let wires = (0..plan.gateways).map(|gateway| self.wire(Host::Gateway(gateway), host)).collect();
            let card = self.card(host);
            let dial = self.medium.dial(card, wires);
            let clients: Vec<_> = plan.clients.iter().filter(|client| client.host == number).cloned().collect();
            self.ledger.books().clients += clients.len();
            let (ledger, post) = (Arc::clone(&self.ledger), Arc::clone(&self.clients));
            self.sim.host(host.to_string(), move || {
                let (dial, clients) = (Arc::clone(&dial), clients.clone());
                let (ledger, post) = (Arc::clone(&ledger), Arc::clone(&post));
                async move {
                    for client in clients {
                        tokio::spawn(client::run(client, Arc::clone(&dial), Arc::clone(&ledger)));
                    }
                    if number > 0 {
                        std::future::pending::<()>().await;
                    }
                    // The first host makes the probes.
                    loop {
                        let Errand::Probe(ask, gateway) = post.next().await;
                        ledger.asked(&ask, number, gateway);
                        let outcome = client::probe(&ask, gateway, &*dial, &ledger).await;
                        ledger.ended(ask.tag, outcome.clone());
                        post.report(outcome);
                    }
                }
            });
        }
    }

    fn wire(&mut self, gateway: Host, other: Host) -> Arc<Wire> {
        Arc::clone(self.wires.entry((gateway, other)).or_default())
    }

    fn card(&mut self, host: Host) -> Arc<Card> {
        Arc::clone(self.cards.entry(host).or_default())
    }

    fn is_network(&self) -> bool {
        matches!(*self.medium, Medium::Network)
    }

    fn now(&self) -> Duration {
        self.sim.elapsed()
    }

    fn step(&mut self) {
        if let Err(error) = self.sim.step() {
            self.ledger.violation(format!("a host failed: {error}"));
        }
        let elapsed = u64::try_from(self.sim.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.elapsed.store(elapsed, Ordering::Relaxed);
    }

    fn step_until(&mut self, at: Duration) {
        while self.now() < at {
            self.step();
        }
    }

    /// All that goes wrong, and then its repair; ends when the clients are through.
    fn live(&mut self) {
        let plan = self.plan;
        for (at, fault) in &plan.faults {
            self.step_until(*at);
            self.strike(*fault);
        }
        self.step_until(plan.length);
        self.repair();
        let patience = self.now() + client::PATIENCE * 4;
        while self.ledger.books().clients > 0 {
            if self.now() > patience {
                return self.ledger.violation("the clients do not come to an end");
            }
            self.step();
        }
    }

    fn strike(&mut self, fault: Fault) {
        self.ledger.log(format!("fault {fault:?}"));
        if let Some(kind) = fault.kind() {
            self.ledger.fault(kind);
        }
        match fault {
            Fault::Partition(a, b) if self.is_network() => self.sim.partition(a.to_string(), b.to_string()),
            Fault::Repair(a, b) if self.is_network() => self.sim.repair(a.to_string(), b.to_string()),
            Fault::Hold(a, b) if self.is_network() => self.sim.hold(a.to_string(), b.to_string()),
            Fault::Release(a, b) if self.is_network() => self.sim.release(a.to_string(), b.to_string()),
            Fault::Delay(a, b, most) if self.is_network() => {
                self.sim.set_link_max_message_latency(a.to_string(), b.to_string(), most);
            }
            Fault::Partition(a, b) => self.wire(a, b).partition(),
            Fault::Hold(a, b) => self.wire(a, b).hold(),
            Fault::Repair(a, b) | Fault::Release(a, b) => self.wire(a, b).mend(),
            Fault::Delay(a, b, most) => self.wire(a, b).delay(most),
            Fault::Reset(a, b) => self.wire(a, b).reset(),
            Fault::Crash(host) => self.crash(host),
            Fault::Restart(host) => self.restart(host),
            Fault::Stop(Host::Gateway(number)) => self.gateways[number].order(gateway::Order::Stop),
            Fault::Stop(Host::Instance(number)) => self.instances[number].order(service::Order::Stop),
            Fault::Stop(Host::Clients(_)) => {}
            Fault::Unhealthy(number) => self.health(number, HealthStatus::Unhealthy),
            Fault::Degraded(number) => self.health(number, HealthStatus::Degraded),
            Fault::Healthy(number) => self.health(number, HealthStatus::Healthy),
            Fault::Supersede { new, .. } => self.restart(Host::Instance(new)),
        }
    }

    fn health(&self, number: usize, status: HealthStatus) {
        self.instances[number].order(service::Order::Health(status));
    }

    fn crash(&mut self, host: Host) {
        if self.sim.is_host_running(host.to_string()) {
            self.card(host).kill();
            self.step();
            self.ledger.books().tearing_down = true;
            self.sim.crash(host.to_string());
            self.ledger.books().tearing_down = false;
        }
        self.forget(host);
    }

    fn restart(&mut self, host: Host) {
        self.crash(host);
        self.card(host).revive();
        self.sim.bounce(host.to_string());
    }

    fn forget(&self, host: Host) {
        match host {
            Host::Gateway(number) => self.gateways[number].clear(),
            Host::Instance(number) => self.instances[number].clear(),
            Host::Clients(_) => {}
        }
    }

    /// What is still broken is mended, whatever its own time would be.
    fn repair(&mut self) {
        let plan = self.plan;
        for (at, fault) in &plan.faults {
            if *at > plan.length {
                self.strike(*fault);
            }
        }
        for (_, fault) in &plan.faults {
            if let Fault::Delay(a, b, _) = fault {
                self.wire(*a, *b).mend();
                self.sim.set_link_max_message_latency(a.to_string(), b.to_string(), plan.latency.1);
            }
        }
        if let Medium::Memory { nature, .. } = &*self.medium {
            nature.calm_down();
        }
        self.ledger.log("all is repaired");
    }

    /// Waits until every gateway has given everything back and has all its instances again.
    fn comes_to_rest(&mut self, when: &str) -> bool {
        let until = self.now() + REST_WITHIN;
        let mut unrest = Some("nobody was asked".to_owned());
        while self.now() < until {
            for post in &self.gateways {
                post.order(gateway::Order::Report);
            }
            let standings = self.standings();
            self.step_until(self.now() + LOOK);
            // An instance may not know yet that it was superseded.
            unrest = self.unrest().or_else(|| invariants::judge_processes(self.plan, &standings).err());
            if unrest.is_none() {
                break;
            }
        }
        self.ledger.log(format!("at rest {when}: {}", unrest.is_none()));
        self.ledger.check(unrest.is_none(), || format!("{when}: {}", unrest.unwrap_or_default()))
    }

    fn unrest(&self) -> Option<String> {
        let alive = self.ledger.books().alive;
        if alive > 0 {
            return Some(format!("{alive} handlers are alive"));
        }
        self.gateways.iter().enumerate().find_map(|(number, post)| match post.take_report() {
            Some(account) => invariants::unrest(self.plan, number, &account),
            None => Some(format!("gateway-{number} does not report")),
        })
    }

    /// Every service answers at once through every gateway.
    fn probe(&mut self) {
        let plan = self.plan;
        let mut tag = u64::MAX / 2;
        for gateway in 0..plan.gateways {
            for (number, instance) in plan.instances.iter().enumerate() {
                tag += 1;
                let ask = Ask {
                    tag,
                    pause: Duration::ZERO,
                    what: What::Once,
                    service: instance.service,
                    version: Some(instance.version),
                    sends: 100,
                    wants: 0,
                    work: Duration::ZERO,
                    deadline: None,
                    leaves: None,
                    slow: None,
                };
                self.clients.order(Errand::Probe(ask, gateway));
                let until = self.now() + PROBE_WITHIN;
                let outcome = loop {
                    self.step();
                    match self.clients.take_report() {
                        None if self.now() < until => {}
                        outcome => break outcome,
                    }
                };
                self.ledger.check(outcome == Some(Outcome::Answered { status: 200 }), || {
                    format!("a probe of instance-{number}'s version through gateway-{gateway} gives {outcome:?}")
                });
            }
        }
    }

    /// How every process that runs stands.
    fn standings(&mut self) -> Vec<Option<Standing>> {
        for (number, post) in self.instances.iter().enumerate() {
            post.take_report();
            if self.sim.is_host_running(Host::Instance(number).to_string()) {
                post.order(service::Order::Report);
            }
        }
        self.step_until(self.now() + STEP * 2);
        self.instances.iter().map(|post| post.take_report()).collect()
    }

    /// Everything stops in good order, and leaves no task.
    fn stop(&mut self) {
        for post in &self.instances {
            post.order(service::Order::Stop);
        }
        self.step_until(self.now() + service::GRACE + Duration::from_secs(3));
        for (number, standing) in self.standings().into_iter().enumerate() {
            let good =
                matches!(standing, None | Some(Standing::Stopped { tasks: 0 } | Standing::Superseded { tasks: 0 }));
            self.ledger.check(good, || format!("instance-{number} after its shutdown: {standing:?}"));
        }
        for post in &self.gateways {
            post.order(gateway::Order::Stop);
        }
        self.step_until(self.now() + Duration::from_secs(1));
        for post in &self.gateways {
            post.order(gateway::Order::Report);
        }
        self.step_until(self.now() + STEP * 2);
        for number in 0..self.gateways.len() {
            let account = self.gateways[number].take_report();
            let good = account.as_ref().is_some_and(|account| account.stopped && account.tasks == 0);
            self.ledger.check(good, || format!("gateway-{number} after its shutdown: {account:?}"));
        }
    }
}
