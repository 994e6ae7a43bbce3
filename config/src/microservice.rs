//! `microservice.yaml`: what a service is told when it starts (SPEC 10).
//!
//! Name, version and endpoints come from the service's code; this file says where its gateways are and overrides what
//! operators decide. Which URL schemes there are, and whether an override meets an endpoint, is the SDK's to say.

use std::path::PathBuf;

use router_common::endpoint::{ClaimRequirement, PathTemplate};
use router_common::identity::{InstanceId, KeyId, Region, ServiceName, Version};
use router_common::limits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::claims;
use crate::router::{distinct_endpoints, positive};
use crate::scalar::{ByteSize, GatewayUrl, HumanDuration, MethodName, SecretRef};
use crate::validate::{Checks, Validate};

/// All of `microservice.yaml`. An empty file is a valid one, of a service that is told its gateways in code.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "microservice.yaml")]
pub struct MicroserviceConfig {
    pub service: IdentityConfig,
    /// The gateways to dial, all of them. Where several of these lead to one gateway, requests go over the first that works.
    pub gateways: Vec<GatewayConfig>,
    /// Overrides of what the code says of its endpoints.
    pub endpoints: Vec<EndpointOverride>,
    /// Requests that may be in flight in this instance, over all its gateways. Default 1024.
    pub lease: u32,
    /// What to do when a gateway refuses an endpoint. Default: fail the start.
    pub on_refused: OnRefused,
    pub shutdown: ShutdownConfig,
}

/// How a service ends (SPEC 11).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownConfig {
    /// Time for what is in flight to finish. Default 30 s; then it is cut.
    pub grace: HumanDuration,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { grace: HumanDuration::from_secs(30) }
    }
}

impl Default for MicroserviceConfig {
    fn default() -> Self {
        Self {
            service: IdentityConfig::default(),
            gateways: Vec::new(),
            endpoints: Vec::new(),
            lease: limits::LEASE,
            on_refused: OnRefused::default(),
            shutdown: ShutdownConfig::default(),
        }
    }
}

impl Validate for MicroserviceConfig {
    fn validate(&self, checks: &mut Checks) {
        if !(1..=limits::LEASE_MAX).contains(&self.lease) {
            checks.refuse("lease", format!("found `{}`", self.lease)).allowed(format!("1 to {}", limits::LEASE_MAX));
        }
        checks.items("gateways", &self.gateways);
        for (place, gateway) in self.gateways.iter().enumerate() {
            if self.gateways[..place].iter().any(|earlier| earlier.url == gateway.url) {
                checks
                    .refuse(&format!("gateways[{place}].url"), format!("`{}` stands here twice", gateway.url))
                    .help("for several parallel connections to one gateway, write `links: 2`");
            }
        }
        distinct_endpoints(checks, self.endpoints.iter().map(|endpoint| (&endpoint.method, &endpoint.path)));
        checks.items("endpoints", &self.endpoints);
    }
}

/// Who this instance is (SPEC 2).
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IdentityConfig {
    /// Given by the code; when it stands here too, it must be the same.
    #[schemars(with = "Option<String>")]
    pub name: Option<ServiceName>,
    /// Given by the code; when it stands here too, it must be the same.
    #[schemars(with = "Option<String>")]
    pub version: Option<Version>,
    /// Where this instance runs. Absent: what the code says, else `local`.
    #[schemars(with = "Option<String>")]
    pub region: Option<Region>,
    /// Absent: a new UUIDv7 at each start.
    #[schemars(with = "Option<String>")]
    pub instance_id: Option<InstanceId>,
}

/// One gateway to dial.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// The scheme names the transport: `tcp://127.0.0.1:5100`.
    pub url: GatewayUrl,
    /// The secret that both ends prove to know.
    pub shared_secret: Option<SecretRef>,
    /// Which of the gateway's secrets that is. Absent: `default`.
    #[schemars(with = "Option<String>")]
    pub key_id: Option<KeyId>,
    /// Over TLS: the CAs of which one has signed the gateway's certificate, a PEM file.
    pub ca: Option<PathBuf>,
    /// Over TLS: this service's own certificate, a PEM file. It is read anew when it changes.
    pub certificate: Option<PathBuf>,
    /// Its private key, a PEM file.
    pub key: Option<PathBuf>,
    /// Over TLS: the name that the gateway's certificate is for. Absent: the host of the URL.
    pub server_name: Option<String>,
    /// Over TLS: a bearer token, in place of a secret or a certificate.
    pub token: Option<SecretRef>,
    /// Over UDP: the largest datagram to send, 1200 to 65507 bytes. Absent: 1200. An answer that does not fit is told to the
    /// client as 502.
    pub datagram: Option<ByteSize>,
    /// Parallel connections to this gateway, 1 to 64. Absent: as many as the gateway says that it can make use of, one
    /// for each of its workers, but 16 at most.
    #[schemars(range(min = 1, max = 64))]
    pub links: Option<u16>,
    /// What to do when this gateway refuses an endpoint. Absent: what `on_refused` says of all.
    pub on_refused: Option<OnRefused>,
}

impl Validate for GatewayConfig {
    fn validate(&self, checks: &mut Checks) {
        if let Some(links) = self.links
            && !(1..=limits::LINKS).contains(&links)
        {
            checks.refuse("links", format!("found `{links}`")).allowed(format!("1 to {}", limits::LINKS));
        }
        if self.key_id.is_some() && self.shared_secret.is_none() {
            checks
                .refuse("key_id", "found a key id without a secret")
                .help("add `shared_secret: env:NAME`, or remove `key_id`");
        }
        self.validate_tls(checks);
    }
}

impl GatewayConfig {
    /// What is said of TLS where there is none would be taken for protection.
    fn validate_tls(&self, checks: &mut Checks) {
        let secured = match self.url.scheme() {
            "tcp" | "udp" => Some("tls"),
            "amqp" => Some("amqps"),
            _ => None,
        };
        let files = [
            ("ca", self.ca.is_some()),
            ("certificate", self.certificate.is_some()),
            ("key", self.key.is_some()),
            ("server_name", self.server_name.is_some()),
        ];
        if let Some(secured) = secured {
            for (key, _) in files.into_iter().filter(|(_, is_there)| *is_there) {
                checks
                    .refuse(key, format!("there is no TLS over `{}://`", self.url.scheme()))
                    .help(format!("dial `{secured}://`, or remove `{key}`"));
            }
        }
        if self.token.is_some() && self.url.scheme() != "tls" {
            checks
                .refuse("token", format!("a token is shown over TLS alone, and not over `{}://`", self.url.scheme()))
                .help("dial `tls://`, or use `shared_secret`");
        }
        if self.token.is_some() && self.shared_secret.is_some() {
            checks.refuse("token", "found a token and a secret").help("one of them is enough: remove the other");
        }
        for (key, own, other) in [("certificate", &self.certificate, &self.key), ("key", &self.key, &self.certificate)]
        {
            if own.is_some() && other.is_none() {
                let missing = if key == "key" { "certificate" } else { "key" };
                checks.refuse(key, format!("found a {key} without its {missing}")).help(format!("add `{missing}`"));
            }
        }
    }
}

/// What the operator says of one endpoint, over what the code says (SPEC 10).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointOverride {
    pub method: MethodName,
    /// The path template as the code has it, parameter names aside.
    #[schemars(with = "String")]
    pub path: PathTemplate,
    /// Time to answer.
    pub timeout: Option<HumanDuration>,
    /// Which bodies are streams, without an end to wait for.
    pub streaming: Option<Streaming>,
    /// Replaces the claims that a caller must hold; empty: none.
    #[schemars(with = "Option<Vec<claims::ClaimRequirement>>")]
    pub requiring_claims: Option<Vec<ClaimRequirement>>,
    /// Body of one request; then 413.
    pub max_request_bytes: Option<ByteSize>,
}

impl Validate for EndpointOverride {
    fn validate(&self, checks: &mut Checks) {
        if let Some(timeout) = self.timeout {
            positive(checks, "timeout", timeout);
        }
    }
}

/// Which bodies of an endpoint are streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Streaming {
    None,
    Request,
    Response,
    Both,
}

impl Streaming {
    /// Whether the request body is a stream.
    #[must_use]
    pub const fn request(self) -> bool {
        matches!(self, Self::Request | Self::Both)
    }

    /// Whether the response body is a stream.
    #[must_use]
    pub const fn response(self) -> bool {
        matches!(self, Self::Response | Self::Both)
    }
}

/// What a service does when a gateway refuses one of its endpoints (SPEC 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnRefused {
    /// The start fails.
    #[default]
    Fail,
    /// A warning is logged; the other endpoints work.
    Warn,
}
