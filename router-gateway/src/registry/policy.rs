//! Who may register what, and what the gateway says over a service's own words (SPEC 6, 8).
//!
//! It knows names, identities and templates; not who is connected, and not how an identity was proved.

use std::collections::BTreeMap;
use std::time::Duration;

use router_common::endpoint::{ClaimRequirement, EndpointDescriptor, PathTemplate};
use router_common::identity::{Identity, ServiceName, Version};
use router_config::router::{EndpointPolicy, ServiceConfig};
use rustc_hash::FxHashMap;

use crate::routing::key::EndpointKey;

/// What the configuration says of services, by name; of others it says nothing, and they may register.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    services: FxHashMap<ServiceName, ServicePolicy>,
}

#[derive(Debug, Clone, Default)]
struct ServicePolicy {
    default_version: Option<Version>,
    identities: Option<Vec<String>>,
    path_prefixes: Option<Vec<String>>,
    overrides: FxHashMap<EndpointKey, Override>,
}

#[derive(Debug, Clone)]
struct Override {
    timeout: Option<Duration>,
    requiring_claims: Option<Vec<ClaimRequirement>>,
    idempotent: Option<bool>,
    max_request_bytes: Option<u64>,
}

impl Policy {
    /// From the `services` section of `router.yaml`.
    #[must_use]
    pub fn from_config(services: &BTreeMap<ServiceName, ServiceConfig>) -> Self {
        let policy =
            |(name, config): (&ServiceName, &ServiceConfig)| (name.clone(), ServicePolicy::from_config(config));
        Self { services: services.iter().map(policy).collect() }
    }

    /// Whether an identity may register a service's name. Who is in the same process is part of the gateway's own
    /// composition, and always may.
    #[must_use]
    pub fn may_register(&self, identity: &Identity, service: &ServiceName) -> bool {
        if matches!(identity, Identity::InProcess) {
            return true;
        }
        let allowed = self.services.get(service).and_then(|policy| policy.identities.as_ref());
        allowed.is_none_or(|allowed| {
            let identity = identity.to_string();
            allowed.contains(&identity)
        })
    }

    /// Why a service may not register a path; `None`: it may.
    #[must_use]
    pub fn refuses_path(&self, service: &ServiceName, path: &PathTemplate) -> Option<String> {
        let prefixes = self.services.get(service)?.path_prefixes.as_ref()?;
        if prefixes.iter().any(|prefix| is_under(path.as_str(), prefix)) {
            return None;
        }
        let allowed = prefixes.join("`, `");
        Some(format!("the gateway's policy lets the service `{service}` register only under `{allowed}`"))
    }

    /// The version that serves those who name none, if the configuration says so.
    #[must_use]
    pub fn default_version(&self, service: &ServiceName) -> Option<&Version> {
        self.services.get(service)?.default_version.as_ref()
    }

    /// Whether the configuration says anything over this service's own words.
    #[must_use]
    pub fn overrides(&self, service: &ServiceName) -> bool {
        self.services.get(service).is_some_and(|policy| !policy.overrides.is_empty())
    }

    /// Writes the gateway's words over the service's.
    pub fn apply(&self, service: &ServiceName, key: &EndpointKey, descriptor: &mut EndpointDescriptor) {
        let Some(over) = self.services.get(service).and_then(|policy| policy.overrides.get(key)) else { return };
        descriptor.timeout = over.timeout.or(descriptor.timeout);
        descriptor.max_request_bytes = over.max_request_bytes.or(descriptor.max_request_bytes);
        descriptor.idempotent = over.idempotent.unwrap_or(descriptor.idempotent);
        if let Some(claims) = &over.requiring_claims {
            descriptor.requiring_claims.clone_from(claims);
        }
    }
}

impl ServicePolicy {
    fn from_config(config: &ServiceConfig) -> Self {
        let over = |endpoint: &EndpointPolicy| {
            let over = Override {
                timeout: endpoint.timeout.map(Into::into),
                requiring_claims: endpoint.requiring_claims.clone(),
                idempotent: endpoint.idempotent,
                max_request_bytes: endpoint.max_request_bytes.map(|size| size.as_u64()),
            };
            (EndpointKey::new(endpoint.method.as_method().clone(), &endpoint.path), over)
        };
        Self {
            default_version: config.default_version.clone(),
            identities: config.identities.clone(),
            path_prefixes: config.path_prefixes.clone(),
            overrides: config.endpoints.iter().map(over).collect(),
        }
    }
}

/// By whole segments: `/orders` covers `/orders` and `/orders/7`, not `/orders-old`.
fn is_under(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use router_common::endpoint::EndpointId;

    use super::*;

    fn policy(config: ServiceConfig) -> Policy {
        Policy::from_config(&BTreeMap::from([("orders".parse().unwrap(), config)]))
    }

    fn key(id: &str) -> Identity {
        Identity::Key(id.parse().unwrap())
    }

    #[test]
    fn an_identity_registers_only_the_names_it_may() {
        let orders = "orders".parse().unwrap();
        let listed = |identities: &[&str]| {
            let identities = Some(identities.iter().map(|one| (*one).to_owned()).collect());
            policy(ServiceConfig { identities, ..ServiceConfig::default() })
        };
        let one = listed(&["key:team-a"]);
        assert!(one.may_register(&key("team-a"), &orders));
        assert!(!one.may_register(&key("team-b"), &orders));
        assert!(!one.may_register(&Identity::Anonymous, &orders));
        assert!(one.may_register(&Identity::InProcess, &orders));
        assert!(one.may_register(&key("team-b"), &"others".parse().unwrap()));
        assert!(!listed(&[]).may_register(&key("team-a"), &orders));
    }

    #[test]
    fn prefixes_are_whole_segments() {
        let orders: ServiceName = "orders".parse().unwrap();
        let prefixes = Some(vec!["/orders".into(), "/o/".into()]);
        let policy = policy(ServiceConfig { path_prefixes: prefixes, ..ServiceConfig::default() });
        let refused = |path: &str| policy.refuses_path(&orders, &path.parse().unwrap()).is_some();
        for path in ["/orders", "/orders/", "/orders/{id}", "/o/x", "/o"] {
            assert!(!refused(path), "{path}");
        }
        for path in ["/", "/orders-old", "/{x}", "/{*rest}", "/other"] {
            assert!(refused(path), "{path}");
        }
        assert_eq!(policy.refuses_path(&"free".parse().unwrap(), &"/x".parse().unwrap()), None);
        assert!(is_under("/anything", "/"));
    }

    #[test]
    fn overrides_replace_what_they_name_and_nothing_else() {
        let endpoint = EndpointPolicy {
            method: "GET".parse().unwrap(),
            path: "/orders/{number}".parse().unwrap(),
            timeout: Some(Duration::from_secs(1).into()),
            requiring_claims: Some(vec![ClaimRequirement { kind: "scope".into(), any_of: Vec::new() }]),
            idempotent: None,
            max_request_bytes: None,
        };
        let policy = policy(ServiceConfig { endpoints: vec![endpoint], ..ServiceConfig::default() });
        let path: PathTemplate = "/orders/{id}".parse().unwrap();
        let mut descriptor = EndpointDescriptor::new(EndpointId::new(1).unwrap(), Method::GET, path);
        descriptor.idempotent = true;
        descriptor.max_request_bytes = Some(7);
        let key = EndpointKey::new(Method::GET, &descriptor.path);
        policy.apply(&"orders".parse().unwrap(), &key, &mut descriptor);
        assert_eq!(descriptor.timeout, Some(Duration::from_secs(1)));
        assert_eq!(descriptor.requiring_claims.len(), 1);
        assert!(descriptor.idempotent && descriptor.max_request_bytes == Some(7));
    }
}
