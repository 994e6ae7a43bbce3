//! Settings of transports as a gateway would compose them, and how the tests load with them.

use router_config::{
    Checks, ConfigError, ListenAddr, ListenerSafety, MicroserviceConfig, RouterConfig, SharedSecrets, Sources,
    Validate, load,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Transports {
    pub(crate) in_memory: Option<InMemory>,
    pub(crate) tcp: Option<Tcp>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct InMemory {}

#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tcp {
    pub(crate) listen: ListenAddr,
    pub(crate) shared_secret: Option<SharedSecrets>,
    #[serde(default)]
    pub(crate) insecure: bool,
}

impl Validate for Transports {
    fn validate(&self, checks: &mut Checks) {
        checks.section("tcp", &self.tcp);
    }
}

impl Validate for Tcp {
    fn validate(&self, checks: &mut Checks) {
        let Self { listen, ref shared_secret, insecure } = *self;
        checks.take(ListenerSafety { listen, authenticated: shared_secret.is_some(), insecure }.check("listen"));
    }
}

pub(crate) type Router = RouterConfig<Transports>;

pub(crate) fn router(yaml: &str) -> Result<Router, ConfigError> {
    router_with(yaml, &[], &[])
}

pub(crate) fn router_with(yaml: &str, environment: &[(&str, &str)], overrides: &[&str]) -> Result<Router, ConfigError> {
    load(sources(yaml, environment, overrides))
}

pub(crate) fn sources(yaml: &str, environment: &[(&str, &str)], overrides: &[&str]) -> Sources {
    Sources::router()
        .text("router.yaml", yaml)
        .environment(environment.iter().copied())
        .overrides(overrides.iter().copied())
}

pub(crate) fn microservice(yaml: &str) -> Result<MicroserviceConfig, ConfigError> {
    load(Sources::microservice().text("microservice.yaml", yaml))
}
