//! Metrics: what is counted, under which names, and how the hot path counts without looking families up (SPEC 13).
//!
//! Labels are templates and names, never raw input. A worker keeps the handles of the routes it has served; a handle
//! holds its route, so that a route's memory is never mistaken for another's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use router_common::identity::Instance;
use router_link::Discarded;
use rustc_hash::FxHashMap;

use crate::certificates::{CertificateMetrics, Certificates};
use crate::routing::RouteEndpoint;

/// Routes whose handles a worker keeps; when there are more, it begins anew.
const CACHED_ROUTES: usize = 20_000;
/// 0.5 ms to 32 s, doubling.
const BUCKETS: [f64; 17] = [
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384,
    32.768,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    service: String,
    route: String,
    method: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    service: String,
    route: String,
    method: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InstanceLabels {
    service: String,
    version: String,
    instance: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabels {
    service: String,
    version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WorkerLabels {
    worker: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// Why a request was shed: refused, or cut, to keep the node within its bounds (SPEC 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shed {
    /// `limits.max_buffered_bytes` is nearly reached.
    BufferedBytes,
    /// `limits.max_aggregate_inflight_bytes` is nearly reached, or would be exceeded.
    InflightBytes,
    /// `limits.max_request_bytes_per_connection`.
    ConnectionBytes,
    /// As many wait for this version of the service as may (`limits.max_waiting`).
    Waiting,
    /// As many wait in the whole node as may.
    WaitingInNode,
    /// Nobody read its answer while the node's buffers filled up.
    Stalled,
}

impl Shed {
    const ALL: [Self; 6] = [
        Self::BufferedBytes,
        Self::InflightBytes,
        Self::ConnectionBytes,
        Self::Waiting,
        Self::WaitingInNode,
        Self::Stalled,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::BufferedBytes => "buffered_bytes",
            Self::InflightBytes => "inflight_bytes",
            Self::ConnectionBytes => "connection_bytes",
            Self::Waiting => "waiting",
            Self::WaitingInNode => "waiting_in_node",
            Self::Stalled => "stalled",
        }
    }
}

/// What is counted in the whole node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    duration: Family<RouteLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    inflight_bytes: Gauge,
    buffered_bytes: Gauge,
    shed: Family<ReasonLabels, Counter>,
    connections_limit: Gauge,
    accept_waits: Counter,
    instances: Gauge,
    links: Gauge,
    waiting: Gauge,
    lease_used: Family<InstanceLabels, Gauge>,
    lease_limit: Family<InstanceLabels, Gauge>,
    worker_connections: Family<WorkerLabels, Gauge>,
    worker_links: Family<WorkerLabels, Gauge>,
    links_refused: Family<ReasonLabels, Counter>,
    datagrams_dropped: Family<ReasonLabels, Counter>,
    /// Who counts those.
    droppers: Mutex<Vec<Arc<dyn Discarded>>>,
    pub retries: Counter,
    ejections: Family<VersionLabels, Counter>,
    instances_ejected: Gauge,
    certificates: CertificateMetrics,
    /// Of which listeners.
    with_certificates: Mutex<Vec<Arc<dyn Certificates>>>,
}

/// What is looked up when somebody asks for the metrics.
#[derive(Debug, Default)]
pub struct Present {
    pub inflight_bytes: u64,
    pub buffered_bytes: usize,
    /// Streams given up because nobody read them while the buffers filled up.
    pub stalled: u64,
    /// Client connections that may be open.
    pub connections_limit: usize,
    /// How often accepting has waited because so many were.
    pub accept_waits: u64,
    pub instances: usize,
    pub links: usize,
    pub waiting: usize,
    /// Instances that are passed over because they keep failing.
    pub ejected: usize,
    /// Service, version, instance, slots used, slots granted.
    pub leases: Vec<(String, String, String, u32, u32)>,
    /// Client connections of each worker.
    pub worker_connections: Vec<usize>,
    /// Links of each worker.
    pub worker_links: Vec<usize>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("stella");
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register("requests", "Requests answered", requests.clone());
        let duration = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        registry.register("request_duration_seconds", "From a request's head to its response's end", duration.clone());
        let in_flight = Gauge::default();
        registry.register("requests_in_flight", "Requests not yet answered to their end", in_flight.clone());
        let inflight_bytes = Gauge::default();
        registry.register("inflight_bytes", "Request bytes held in this node", inflight_bytes.clone());
        let buffered_bytes = Gauge::default();
        let meaning = "Body bytes that have arrived over links and are not yet taken";
        registry.register("buffered_bytes", meaning, buffered_bytes.clone());
        let shed = Family::<ReasonLabels, Counter>::default();
        registry.register("requests_shed", "Requests refused or cut to keep the node within its bounds", shed.clone());
        for reason in Shed::ALL {
            // An alarm can be set before there is anything to be alarmed by.
            drop(shed.get_or_create(&ReasonLabels { reason: reason.as_str() }));
        }
        let connections_limit = Gauge::default();
        registry.register("connections_limit", "Client connections that may be open", connections_limit.clone());
        let accept_waits = Counter::default();
        let meaning = "How often accepting has waited because as many client connections were open as may be";
        registry.register("accept_waits", meaning, accept_waits.clone());
        let instances = Gauge::default();
        registry.register("instances", "Live instances", instances.clone());
        let links = Gauge::default();
        registry.register("links", "Live links", links.clone());
        let waiting = Gauge::default();
        registry.register("requests_waiting", "Requests that wait for a lease", waiting.clone());
        let lease_used = Family::<InstanceLabels, Gauge>::default();
        registry.register("lease_used", "Requests in flight on an instance", lease_used.clone());
        let lease_limit = Family::<InstanceLabels, Gauge>::default();
        registry.register("lease_limit", "Requests an instance may have in flight", lease_limit.clone());
        let worker_connections = Family::<WorkerLabels, Gauge>::default();
        registry.register("worker_connections", "Client connections of each worker", worker_connections.clone());
        let worker_links = Family::<WorkerLabels, Gauge>::default();
        registry.register("worker_links", "Live links of each worker", worker_links.clone());
        let links_refused = Family::<ReasonLabels, Counter>::default();
        registry.register("links_refused", "Links that ended before they were welcomed", links_refused.clone());
        let datagrams_dropped = Family::<ReasonLabels, Counter>::default();
        let meaning = "Datagrams over UDP that were thrown away: forged, replayed, of no connection, or out of place";
        registry.register("udp_datagrams_dropped", meaning, datagrams_dropped.clone());
        let retries = Counter::default();
        registry.register("retries", "Requests sent again", retries.clone());
        let ejections = Family::<VersionLabels, Counter>::default();
        registry.register("ejections", "Instances passed over because they kept failing", ejections.clone());
        let instances_ejected = Gauge::default();
        registry.register("instances_ejected", "Instances that are passed over at present", instances_ejected.clone());
        let certificates = CertificateMetrics::default();
        certificates.register(&mut registry);
        Self {
            registry,
            requests,
            duration,
            in_flight,
            inflight_bytes,
            buffered_bytes,
            shed,
            connections_limit,
            accept_waits,
            instances,
            links,
            waiting,
            lease_used,
            lease_limit,
            worker_connections,
            worker_links,
            links_refused,
            datagrams_dropped,
            droppers: Mutex::default(),
            retries,
            ejections,
            instances_ejected,
            certificates,
            with_certificates: Mutex::default(),
        }
    }
}

impl Metrics {
    /// The Prometheus text format.
    #[must_use]
    pub fn text(&self, present: &Present) -> String {
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.inflight_bytes.set(signed(present.inflight_bytes));
        self.buffered_bytes.set(signed(present.buffered_bytes as u64));
        let stalled = ReasonLabels { reason: Shed::Stalled.as_str() };
        self.shed.get_or_create(&stalled).inner().store(present.stalled, Ordering::Relaxed);
        self.connections_limit.set(signed(present.connections_limit as u64));
        self.accept_waits.inner().store(present.accept_waits, Ordering::Relaxed);
        self.instances.set(signed(present.instances as u64));
        self.links.set(signed(present.links as u64));
        self.waiting.set(signed(present.waiting as u64));
        self.instances_ejected.set(signed(present.ejected as u64));
        self.lease_used.clear();
        self.lease_limit.clear();
        for (service, version, instance, used, limit) in &present.leases {
            // From zero on, so that the first one is seen as a change.
            self.ejections_of(service, version);
            let labels =
                InstanceLabels { service: service.clone(), version: version.clone(), instance: instance.clone() };
            self.lease_used.get_or_create(&labels).set(i64::from(*used));
            self.lease_limit.get_or_create(&labels).set(i64::from(*limit));
        }
        for (family, counts) in
            [(&self.worker_connections, &present.worker_connections), (&self.worker_links, &present.worker_links)]
        {
            for (worker, count) in (0..).zip(counts) {
                family.get_or_create(&WorkerLabels { worker }).set(signed(*count as u64));
            }
        }
        self.certificates.set(&self.with_certificates());
        let mut dropped = BTreeMap::<&'static str, u64>::new();
        for dropper in self.droppers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            dropper.counts().into_iter().for_each(|(reason, count)| *dropped.entry(reason).or_default() += count);
        }
        for (reason, count) in dropped {
            self.datagrams_dropped.get_or_create(&ReasonLabels { reason }).inner().store(count, Ordering::Relaxed);
        }
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            // Writing to a String cannot fail.
            Err(std::fmt::Error) => String::new(),
        }
    }

    /// Tells of these certificates too.
    pub fn add_certificates(&self, certificates: Arc<dyn Certificates>) {
        self.with_certificates.lock().unwrap_or_else(PoisonError::into_inner).push(certificates);
    }

    /// The listeners' certificates.
    pub(crate) fn with_certificates(&self) -> Vec<Arc<dyn Certificates>> {
        self.with_certificates.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts what a listener throws away, from now on.
    pub fn watch(&self, dropper: Arc<dyn Discarded>) {
        self.droppers.lock().unwrap_or_else(PoisonError::into_inner).push(dropper);
    }

    /// Requests not yet answered to their end.
    #[must_use]
    pub fn in_flight(&self) -> i64 {
        self.in_flight.get()
    }

    /// Counts an instance that was ejected.
    pub fn ejected(&self, instance: &Instance) {
        self.ejections_of(instance.service.as_str(), &instance.version.to_string()).inc();
    }

    fn ejections_of(&self, service: &str, version: &str) -> Counter {
        let labels = VersionLabels { service: service.to_owned(), version: version.to_owned() };
        self.ejections.get_or_create(&labels).clone()
    }

    /// Counts a request that was shed.
    #[cold]
    pub fn shed(&self, reason: Shed) {
        self.shed.get_or_create(&ReasonLabels { reason: reason.as_str() }).inc();
    }

    /// Counts a link that ended before it was welcomed.
    pub fn link_refused(&self, reason: &'static str) {
        self.links_refused.get_or_create(&ReasonLabels { reason }).inc();
    }

    fn route(&self, service: &str, route: &str, method: &str) -> RouteMetrics {
        let labels = RouteLabels { service: service.to_owned(), route: route.to_owned(), method: method.to_owned() };
        RouteMetrics {
            requests: self.requests.clone(),
            duration: self.duration.get_or_create(&labels).clone(),
            statuses: Mutex::new(Vec::new()),
            labels,
        }
    }
}

/// The handles of one route.
#[derive(Debug)]
pub struct RouteMetrics {
    labels: RouteLabels,
    requests: Family<RequestLabels, Counter>,
    duration: Histogram,
    /// The few statuses that a route answers with.
    statuses: Mutex<Vec<(u16, Counter)>>,
}

impl RouteMetrics {
    /// Counts one answered request.
    pub fn answered(&self, status: StatusCode, took: Duration) {
        self.duration.observe(took.as_secs_f64());
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, counter)) = statuses.iter().find(|(seen, _)| *seen == status.as_u16()) {
            counter.inc();
            return;
        }
        let RouteLabels { service, route, method } = self.labels.clone();
        let labels = RequestLabels { service, route, method, status: status.as_u16() };
        let counter = self.requests.get_or_create(&labels).clone();
        counter.inc();
        statuses.push((status.as_u16(), counter));
    }
}

/// A route and its handles.
type Served = (Arc<RouteEndpoint>, Arc<RouteMetrics>);

/// One worker's view of the metrics.
#[derive(Debug)]
pub struct WorkerMetrics {
    metrics: Arc<Metrics>,
    /// By address; the route is kept with its handles, so that its address is its own.
    routes: Mutex<FxHashMap<usize, Served>>,
    unrouted: Arc<RouteMetrics>,
}

impl WorkerMetrics {
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let unrouted = Arc::new(metrics.route("", "", ""));
        Self { metrics, routes: Mutex::default(), unrouted }
    }

    /// The handles of a route.
    #[must_use]
    pub fn of(&self, endpoint: &Arc<RouteEndpoint>) -> Arc<RouteMetrics> {
        let address = Arc::as_ptr(endpoint).addr();
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, metrics)) = routes.get(&address) {
            return Arc::clone(metrics);
        }
        if routes.len() >= CACHED_ROUTES {
            routes.clear();
        }
        let descriptor = &endpoint.descriptor;
        let metrics = Arc::new(self.metrics.route(
            endpoint.service.as_str(),
            descriptor.path.as_str(),
            descriptor.method.as_str(),
        ));
        routes.insert(address, (Arc::clone(endpoint), Arc::clone(&metrics)));
        metrics
    }

    /// The handles of requests that reach no route.
    #[must_use]
    pub const fn unrouted(&self) -> &Arc<RouteMetrics> {
        &self.unrouted
    }

    #[must_use]
    pub const fn node(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// A request begins; it is in flight until the guard is dropped.
    #[must_use]
    pub fn enter(&self) -> InFlight {
        self.metrics.in_flight.inc();
        InFlight(self.metrics.in_flight.clone())
    }
}

/// One request in flight.
#[derive(Debug)]
pub struct InFlight(Gauge<i64, AtomicI64>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_metrics_with_their_prefix_and_labels() {
        let metrics = Arc::new(Metrics::default());
        metrics.route("orders", "/orders/{id}", "GET").answered(StatusCode::OK, Duration::from_millis(3));
        let worker = WorkerMetrics::new(Arc::clone(&metrics));
        let in_flight = worker.enter();
        let present = Present {
            instances: 2,
            leases: vec![("orders".into(), "1.0.0".into(), "a".into(), 1, 8)],
            ..Present::default()
        };
        let text = metrics.text(&present);
        for line in [
            "stella_requests_total{service=\"orders\",route=\"/orders/{id}\",method=\"GET\",status=\"200\"} 1",
            "stella_requests_in_flight 1",
            "stella_instances 2",
            "stella_lease_used{service=\"orders\",version=\"1.0.0\",instance=\"a\"} 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        drop(in_flight);
        assert!(metrics.text(&Present::default()).contains("stella_requests_in_flight 0"));
    }
}
