//! The simulated gateways: the product's own, with short timeouts, and what it tells of itself at rest.

use std::num::NonZeroUsize;
use std::sync::Arc;

use router_common::identity::KeyId;
use router_common::session::{Secret, Secrets};
use router_config::RouterConfig;
use router_config::scalar::{ByteSize, HumanDuration};
use router_gateway::Gateway;
use router_gateway::edge::BoxHttpListener;
use router_gateway::routing::instance::Health;
use router_gateway::settings::ServiceListener;
use router_link::{BoxListener, Environment};

use crate::ledger::Ledger;
use crate::plan::{Limits, REGIONS};
use crate::post::Post;
use crate::service::SECRET;

/// Time for an answer, in seconds, where nobody says otherwise.
pub(crate) const TIMEOUT: u64 = 4;
/// Longest pause in a body, in seconds.
pub(crate) const BODY_IDLE: u64 = 3;

/// What a gateway's process is told.
#[derive(Debug)]
pub(crate) enum Order {
    Report,
    Stop,
}

/// What a gateway tells of itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Account {
    /// It was told to stop, and has ended in good order.
    pub(crate) stopped: bool,
    pub(crate) in_flight: i64,
    pub(crate) waiting: usize,
    pub(crate) inflight_bytes: u64,
    pub(crate) buffered_bytes: usize,
    /// Slots of leases that are taken.
    pub(crate) leased: u32,
    /// Streams that are not over, on all links.
    pub(crate) streams: usize,
    pub(crate) links: usize,
    /// Instance ids with versions that get requests, and those that do not for whatever reason.
    pub(crate) serving: Vec<String>,
    pub(crate) others: Vec<String>,
    /// Tasks of the runtime beyond those that it started with and one a link.
    pub(crate) tasks: isize,
}

/// The mailbox of a gateway's process.
pub(crate) type GatewayPost = Post<Order, Account>;

/// What `router.yaml` would say.
pub(crate) fn config(number: usize, limits: &Limits) -> RouterConfig<()> {
    let mut config = RouterConfig::<()>::default();
    config.node.id = format!("gateway-{number}").parse().expect("a node's name");
    config.node.region = REGIONS[0].parse().expect("a region");
    config.http.header_timeout = HumanDuration::from_secs(3);
    config.http.keep_alive_timeout = HumanDuration::from_secs(20);
    config.http.body_idle_timeout = HumanDuration::from_secs(BODY_IDLE);
    config.limits.default_timeout = HumanDuration::from_secs(TIMEOUT);
    config.limits.stream_idle_timeout = HumanDuration::from_secs(4);
    config.limits.max_request_bytes_per_call = ByteSize::bytes(limits.call_bytes);
    config.limits.max_request_bytes_per_connection = ByteSize::bytes(limits.connection_bytes);
    config.limits.max_aggregate_inflight_bytes = ByteSize::bytes(limits.node_bytes);
    config.limits.max_waiting = NonZeroUsize::new(limits.waiting).expect("more than none");
    config.health.heartbeat = HumanDuration::from_secs(1);
    config.health.degraded_after = HumanDuration::from_secs(3);
    config.health.dead_after = HumanDuration::from_secs(6);
    config.shutdown.grace = HumanDuration::from_secs(6);
    config
}

/// One process, until its simulated host ends it.
pub(crate) async fn process(
    config: &RouterConfig<()>,
    environment: Arc<dyn Environment>,
    services: BoxListener,
    clients: BoxHttpListener,
    post: &GatewayPost,
    ledger: &Ledger,
) {
    let who = config.node.id.as_str();
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = alive();
    let secret = Secret::new(SECRET.as_bytes()).expect("it is long enough");
    let secrets: Secrets = [(KeyId::sole(), secret)].into_iter().collect();
    let started = Gateway::builder(config)
        .environment(Arc::clone(&environment))
        .services(ServiceListener::new(services, secrets))
        .http_listener(clients)
        .without_admin()
        .start()
        .await;
    let gateway = match started {
        Ok(gateway) => gateway,
        Err(error) => return ledger.violation(format!("{who} does not start: {error}")),
    };
    ledger.log(format!("{who} starts"));
    let own = alive() - before;
    while let Order::Report = post.next().await {
        let mut account = account(&gateway, &*environment);
        account.tasks =
            isize::try_from(alive()).unwrap_or(isize::MAX) - isize::try_from(own + account.links).unwrap_or(isize::MAX);
        post.report(account);
    }
    gateway.shutdown().await;
    ledger.log(format!("{who} has shut down"));
    loop {
        if let Order::Report = post.next().await {
            let tasks = isize::try_from(alive()).unwrap_or(isize::MAX);
            post.report(Account { stopped: true, tasks, ..Account::default() });
        }
    }
}

fn account(gateway: &Gateway, environment: &dyn Environment) -> Account {
    let instances = gateway.registry().instances(environment.now());
    let handles = gateway.registry().handles();
    let (serving, others): (Vec<_>, Vec<_>) = instances
        .iter()
        .partition(|instance| instance.routable && !instance.draining && instance.health == Health::Healthy);
    let name = |instance: &&router_gateway::registry::views::InstanceView| {
        format!("{} {} {}", instance.service, instance.version, instance.id)
    };
    Account {
        stopped: false,
        in_flight: gateway.in_flight(),
        waiting: gateway.waiting(),
        inflight_bytes: gateway.inflight_bytes(),
        buffered_bytes: gateway.buffered_bytes(),
        leased: instances.iter().map(|instance| instance.in_flight).sum(),
        streams: handles.iter().map(|handle| handle.streams()).map(|(own, others)| own + others).sum(),
        links: handles.len(),
        serving: serving.iter().map(name).collect(),
        others: others.iter().map(name).collect(),
        tasks: 0,
    }
}
