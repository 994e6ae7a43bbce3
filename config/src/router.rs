//! `router.yaml`: what a gateway is told (SPEC 10).
//!
//! The settings of the transports are a type parameter: each transport owns its own, and the gateway's composition
//! root puts them together. A key stands here only once something acts on it.

mod admin;
mod ending;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};

use router_common::endpoint::{ClaimRequirement, PathTemplate};
use router_common::identity::{NodeId, Region, ServiceName, Version};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::admin::{AdminAccess, AdminConfig};
pub use self::ending::{ShutdownConfig, UpgradeConfig};
use crate::claims;
use crate::scalar::{ByteSize, HeaderKey, HumanDuration, IpRange, ListenAddr, MethodName};
use crate::validate::{Checks, Validate};

/// All of `router.yaml`. `T` is the type of the `transports` section. An empty file is a valid one.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, bound(deserialize = "T: Default + DeserializeOwned"))]
#[schemars(title = "router.yaml", rename = "RouterConfig", bound = "T: Default + Serialize + JsonSchema")]
pub struct RouterConfig<T> {
    pub node: NodeConfig,
    pub http: HttpConfig,
    pub admin: AdminConfig,
    /// How services reach this gateway.
    pub transports: T,
    pub routing: RoutingConfig,
    pub limits: LimitsConfig,
    pub health: HealthConfig,
    /// What the gateway knows of services beforehand, by name; services that are not named may register too.
    #[schemars(with = "BTreeMap<String, ServiceConfig>")]
    pub services: BTreeMap<ServiceName, ServiceConfig>,
    pub log: LogConfig,
    pub shutdown: ShutdownConfig,
    pub upgrade: UpgradeConfig,
}

impl<T: Validate> Validate for RouterConfig<T> {
    fn validate(&self, checks: &mut Checks) {
        checks.section("node", &self.node);
        checks.section("http", &self.http);
        checks.section("transports", &self.transports);
        checks.section("routing", &self.routing);
        checks.section("limits", &self.limits);
        checks.section("health", &self.health);
        checks.section("services", &self.services);
        checks.section("upgrade", &self.upgrade);
    }
}

/// Who this gateway is. Its region comes from here and from nowhere else (SPEC 1).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// The node's name.
    #[schemars(with = "String")]
    pub id: NodeId,
    #[schemars(with = "String")]
    pub region: Region,
    /// The regions to prefer when the own one has no instance, the nearest first.
    #[schemars(with = "Vec<String>")]
    pub neighbor_regions: Vec<Region>,
    /// A word for people, such as `prod`.
    pub environment: Option<String>,
    /// Threads that serve requests; absent: one per core.
    pub workers: Option<NonZeroUsize>,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            id: fixed("gateway"),
            region: fixed("local"),
            neighbor_regions: Vec::new(),
            environment: None,
            workers: None,
        }
    }
}

impl Validate for NodeConfig {
    fn validate(&self, checks: &mut Checks) {
        for (place, region) in self.neighbor_regions.iter().enumerate() {
            let key = format!("neighbor_regions[{place}]");
            if *region == self.region {
                checks
                    .refuse(&key, format!("`{region}` is this node's own region"))
                    .help("the own region always comes first");
            } else if self.neighbor_regions[..place].contains(region) {
                checks.refuse(&key, format!("`{region}` stands here twice"));
            }
        }
    }
}

/// Where HTTP clients come in, and how slow and how large they may be (SPEC 12).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    pub listen: ListenAddr,
    /// Time for a whole request head to arrive. Default 10 s; then 408.
    pub header_timeout: HumanDuration,
    /// Size of a request head. Default 32 KiB; then 431.
    pub max_header_bytes: ByteSize,
    /// Fields of a request head. Default 100; then 431.
    pub max_headers: NonZeroUsize,
    /// How long a connection without a request is kept. Default 75 s.
    pub keep_alive_timeout: HumanDuration,
    /// Longest pause between two pieces of a request body, or in a client's reading of the response. Default 30 s; then 408.
    pub body_idle_timeout: HumanDuration,
    /// Proxies whose `Forwarded` and `X-Forwarded-*` fields are believed. Default: none.
    pub trusted_proxies: Vec<IpRange>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: local(8080),
            header_timeout: HumanDuration::from_secs(10),
            max_header_bytes: ByteSize::kib(32),
            max_headers: const { NonZeroUsize::new(100).unwrap() },
            keep_alive_timeout: HumanDuration::from_secs(75),
            body_idle_timeout: HumanDuration::from_secs(30),
            trusted_proxies: Vec::new(),
        }
    }
}

impl Validate for HttpConfig {
    fn validate(&self, checks: &mut Checks) {
        positive(checks, "header_timeout", self.header_timeout);
        positive(checks, "keep_alive_timeout", self.keep_alive_timeout);
        positive(checks, "body_idle_timeout", self.body_idle_timeout);
        // hyper's smallest read buffer; below it no request would pass at all. The upper bound is a head's place in one
        // frame (SPEC 4), with room for what HTTP/1.1 spells out.
        let (least, most) = (ByteSize::kib(8), ByteSize::kib(1024));
        if !(least..=most).contains(&self.max_header_bytes) {
            checks
                .refuse("max_header_bytes", format!("found `{}`", self.max_header_bytes))
                .allowed(format!("{least} to {most}"));
        }
        if self.max_headers.get() > router_common::limits::HEAD_FIELDS {
            checks
                .refuse("max_headers", format!("found `{}`", self.max_headers))
                .allowed(format!("1 to {}", router_common::limits::HEAD_FIELDS));
        }
    }
}

/// How a request finds its instance (SPEC 2, SPEC 5).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RoutingConfig {
    pub strategy: Strategy,
    /// The request header that selects a version.
    pub version_header: HeaderKey,
    /// The request header that names the tenant, for fair waiting; absent: all wait in one line.
    pub tenant_header: Option<HeaderKey>,
    pub promote: PromoteConfig,
    pub outlier: OutlierConfig,
}

impl Default for RoutingConfig {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            version_header: HeaderKey::from_static("x-service-version"),
            tenant_header: None,
            promote: PromoteConfig::default(),
            outlier: OutlierConfig::default(),
        }
    }
}

impl Validate for RoutingConfig {
    fn validate(&self, checks: &mut Checks) {
        checks.section("outlier", &self.outlier);
    }
}

/// How one of several equally good instances is chosen (SPEC 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The lowest round-trip average, then the fewest in flight.
    #[default]
    LowestPing,
    /// Two at random, of them the one with less latency x in-flight.
    LeastLoaded,
    RoundRobin,
    Random,
}

/// When a new highest version becomes its service's default (SPEC 2).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PromoteConfig {
    /// How many of its instances must be live. Default 1.
    pub instances: NonZeroU32,
    /// For how long. Default 30 s.
    pub after: HumanDuration,
}

impl Default for PromoteConfig {
    fn default() -> Self {
        Self { instances: NonZeroU32::MIN, after: HumanDuration::from_secs(30) }
    }
}

/// When an instance that keeps failing is passed over for a while, as long as another one is fit (SPEC 5).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OutlierConfig {
    /// After so many failed requests in a row. Default 5; 0: never.
    pub consecutive_failures: u32,
    /// For how long the first time; twice as long the second time in a row, and so on up to 5 min. Default 30 s.
    pub base: HumanDuration,
    /// How many of a version's instances at once, in per cent; one in any case. Default 10.
    pub max_percent: u32,
}

impl Default for OutlierConfig {
    fn default() -> Self {
        Self { consecutive_failures: 5, base: HumanDuration::from_secs(30), max_percent: 10 }
    }
}

impl Validate for OutlierConfig {
    fn validate(&self, checks: &mut Checks) {
        let least = HumanDuration::from_secs(1);
        if self.base < least {
            checks
                .refuse("base", format!("found `{}`", self.base))
                .allowed(format!("{least} or more"))
                .help("to eject nobody, write `consecutive_failures: 0`");
        }
        if !(1..=100).contains(&self.max_percent) {
            checks
                .refuse("max_percent", format!("found `{}`", self.max_percent))
                .allowed("1 to 100")
                .help("to eject nobody, write `consecutive_failures: 0`");
        }
    }
}

/// What requests may cost (SPEC 6).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Time for an answer where neither endpoint nor client says otherwise. Default 30 s.
    pub default_timeout: HumanDuration,
    /// The most anyone may ask for. Default 5 min.
    pub max_timeout: HumanDuration,
    /// Longest silence of a streaming response once its head has arrived. Default 60 s.
    pub stream_idle_timeout: HumanDuration,
    /// Longest silence of a tunnel (WebSocket), in both directions. Default 5 min; then both its sides are cut off.
    pub tunnel_idle_timeout: HumanDuration,
    /// Body of one request. Default 16 MiB; then 413.
    pub max_request_bytes_per_call: ByteSize,
    /// Request bytes held for one client connection. Default 64 MiB; then 429.
    pub max_request_bytes_per_connection: ByteSize,
    /// Request bytes in flight in the whole node. Default 1 GiB; then 503.
    pub max_aggregate_inflight_bytes: ByteSize,
    /// Client connections. Default 65536; further ones wait to be accepted.
    pub max_connections: NonZeroUsize,
    /// What is buffered in the node over all streams. Default 256 MiB; past it the longest-stalled stream is cancelled.
    pub max_buffered_bytes: ByteSize,
    /// Requests that may wait for one version of a service while all its instances are busy; in the node, 16 times as
    /// many. Default 1024; then 503.
    pub max_waiting: NonZeroUsize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            default_timeout: HumanDuration::from_secs(30),
            max_timeout: HumanDuration::from_secs(300),
            stream_idle_timeout: HumanDuration::from_secs(60),
            tunnel_idle_timeout: HumanDuration::from_secs(300),
            max_request_bytes_per_call: ByteSize::mib(16),
            max_request_bytes_per_connection: ByteSize::mib(64),
            max_aggregate_inflight_bytes: ByteSize::mib(1024),
            max_connections: const { NonZeroUsize::new(65_536).unwrap() },
            max_buffered_bytes: ByteSize::bytes(router_common::limits::NODE_BUFFER_BYTES as u64),
            max_waiting: const { NonZeroUsize::new(1024).unwrap() },
        }
    }
}

impl Validate for LimitsConfig {
    fn validate(&self, checks: &mut Checks) {
        positive(checks, "default_timeout", self.default_timeout);
        positive(checks, "max_timeout", self.max_timeout);
        positive(checks, "stream_idle_timeout", self.stream_idle_timeout);
        positive(checks, "tunnel_idle_timeout", self.tunnel_idle_timeout);
        if self.default_timeout > self.max_timeout {
            checks
                .refuse_one_of(
                    &["default_timeout", "max_timeout"],
                    format!("default_timeout is {}, but max_timeout is {}", self.default_timeout, self.max_timeout),
                )
                .allowed("default_timeout <= max_timeout");
        }
        let least = ByteSize::mib(1);
        if self.max_buffered_bytes < least {
            checks
                .refuse("max_buffered_bytes", format!("found `{}`", self.max_buffered_bytes))
                .allowed(format!("{least} or more"))
                .help("one stream alone may hold up to 1MiB");
        }
    }
}

/// When an instance counts as degraded and as dead (SPEC 4).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// Between two heartbeats. Default 10 s.
    pub heartbeat: HumanDuration,
    /// Silence after which others are preferred. Default 15 s.
    pub degraded_after: HumanDuration,
    /// Silence after which it is gone. Default 30 s.
    pub dead_after: HumanDuration,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            heartbeat: HumanDuration::from_secs(10),
            degraded_after: HumanDuration::from_secs(15),
            dead_after: HumanDuration::from_secs(30),
        }
    }
}

impl Validate for HealthConfig {
    fn validate(&self, checks: &mut Checks) {
        const RULE: &str = "heartbeat < degraded_after < dead_after";
        positive(checks, "heartbeat", self.heartbeat);
        if self.heartbeat >= self.degraded_after {
            checks
                .refuse_one_of(
                    &["degraded_after", "heartbeat"],
                    format!("degraded_after is {}, but heartbeat is {}", self.degraded_after, self.heartbeat),
                )
                .allowed(RULE)
                .help("an instance that is silent between two heartbeats is not yet degraded");
        }
        if self.degraded_after >= self.dead_after {
            checks
                .refuse_one_of(
                    &["dead_after", "degraded_after"],
                    format!("dead_after is {}, but degraded_after is {}", self.dead_after, self.degraded_after),
                )
                .allowed(RULE);
        }
    }
}

/// What the gateway knows of one service: its default version, who may register it, and overrides (SPEC 2, 6, 8, 9).
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceConfig {
    /// Serves requests that name no version; while it is not live they get 503. Absent: the highest live release.
    #[schemars(with = "Option<String>")]
    pub default_version: Option<Version>,
    /// Who may register this name, such as `key:team-a`. Absent: whoever has authenticated. Empty: nobody.
    pub identities: Option<Vec<String>>,
    /// The path prefixes under which this service may register endpoints, by whole segments. Absent: any.
    pub path_prefixes: Option<Vec<String>>,
    /// Overrides of what the service's own code and file say.
    pub endpoints: Vec<EndpointPolicy>,
}

impl Validate for BTreeMap<ServiceName, ServiceConfig> {
    fn validate(&self, checks: &mut Checks) {
        for (name, service) in self {
            checks.section(name.as_str(), service);
        }
    }
}

impl Validate for ServiceConfig {
    fn validate(&self, checks: &mut Checks) {
        for (place, identity) in self.identities.iter().flatten().enumerate() {
            if !identity.contains(':') {
                checks
                    .refuse(&format!("identities[{place}]"), format!("found `{identity}`"))
                    .allowed("an identity with its kind, such as `key:team-a` or `spiffe://acme/orders`")
                    .help(format!("for the shared secret with this key id, write `key:{identity}`"));
            }
        }
        for (place, prefix) in self.path_prefixes.iter().flatten().enumerate() {
            if !prefix.starts_with('/') {
                checks
                    .refuse(&format!("path_prefixes[{place}]"), format!("found `{prefix}`"))
                    .allowed("a path that begins with `/`, such as `/orders`");
            }
        }
        if self.path_prefixes.as_ref().is_some_and(Vec::is_empty) {
            checks
                .refuse("path_prefixes", "found an empty list, under which no endpoint could be registered")
                .help("remove the key to allow all paths");
        }
        let keys = self.endpoints.iter().map(|endpoint| (&endpoint.method, &endpoint.path));
        distinct_endpoints(checks, keys);
        checks.items("endpoints", &self.endpoints);
    }
}

/// What the gateway says of one endpoint, over what its service says (SPEC 6, SPEC 9).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointPolicy {
    pub method: MethodName,
    /// The path template as the service has it, parameter names aside.
    #[schemars(with = "String")]
    pub path: PathTemplate,
    /// Time to answer.
    pub timeout: Option<HumanDuration>,
    /// Replaces the claims that a caller must hold; empty: none.
    #[schemars(with = "Option<Vec<claims::ClaimRequirement>>")]
    pub requiring_claims: Option<Vec<ClaimRequirement>>,
    /// Whether the gateway may send a request again when its outcome is unknown.
    pub idempotent: Option<bool>,
    /// Body of one request; then 413.
    pub max_request_bytes: Option<ByteSize>,
}

impl Validate for EndpointPolicy {
    fn validate(&self, checks: &mut Checks) {
        if let Some(timeout) = self.timeout {
            positive(checks, "timeout", timeout);
        }
    }
}

/// What the process writes to standard error (SPEC 13).
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    pub format: LogFormat,
    pub level: LogLevel,
    /// One line a request. Default: off.
    pub access: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    Off,
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// The level's name as it is written, which is also a directive of `tracing`'s filters.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Refuses a duration of zero, which would refuse everything.
pub(crate) fn positive(checks: &mut Checks, key: &str, duration: HumanDuration) {
    if duration.is_zero() {
        checks.refuse(key, "found `0s`").allowed("more than zero");
    }
}

/// Refuses a second entry for the same endpoint: which one rules could only be guessed.
pub(crate) fn distinct_endpoints<'a>(
    checks: &mut Checks,
    endpoints: impl Iterator<Item = (&'a MethodName, &'a PathTemplate)>,
) {
    let mut seen = std::collections::HashSet::new();
    for (place, (method, path)) in endpoints.enumerate() {
        if !seen.insert((method, path.canonical())) {
            checks.refuse(&format!("endpoints[{place}].path"), format!("`{method} {path}` stands here twice"));
        }
    }
}

fn local(port: u16) -> ListenAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port).into()
}

/// A name that is a constant of this file; the tests read every default.
fn fixed<N: std::str::FromStr>(name: &str) -> N {
    let Ok(name) = name.parse() else { unreachable!("`{name}` is a well-formed name") };
    name
}
