//! From what the code and microservice.yaml say to what is run: identity, gateways, lease, endpoints (SPEC 10).
//!
//! The file stands above the code. Everything that can be wrong is found here, before anything is dialled.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use router_common::frame::ReceiveLimits;
use router_common::identity::{Incarnation, Instance, InstanceId, KeyId, Region, ServiceName, Version};
use router_common::limits;
use router_common::session::{Budget, Secret};
use router_common::token::{Token, TokenError};
use router_config::microservice::{GatewayConfig, OnRefused};
use router_config::{ByteSize, GatewayUrl, MicroserviceConfig, SecretRef, Sources};
use router_link::{Connector, Environment};

use crate::connect::{self, Access, TlsAccess};
use crate::dispatch::Table;
use crate::overrides;
use crate::service::{Dial, Gateway, Hook, ServiceParts, Settings};
use crate::start_error::{Mistake, StartError};

/// All that is needed to run a service.
pub(crate) struct Plan {
    pub(crate) identity: Arc<Identity>,
    pub(crate) table: Arc<Table>,
    /// In the order in which they are preferred where several lead to one gateway.
    pub(crate) gateways: Vec<GatewayPlan>,
    /// Requests that may be in flight on the instance, over all of them.
    pub(crate) lease: u32,
    /// Time for what is in flight to finish.
    pub(crate) grace: Duration,
    pub(crate) hooks: Vec<Hook>,
}

/// Who this process is, the same on all its links.
pub(crate) struct Identity {
    pub(crate) instance: Instance,
    pub(crate) incarnation: Incarnation,
    pub(crate) limits: ReceiveLimits,
    pub(crate) budget: Arc<Budget>,
    pub(crate) environment: Arc<dyn Environment>,
}

/// An entry of the configuration: what leads to a gateway, or to as many as are found there.
pub(crate) struct GatewayPlan {
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) secret: Option<Secret>,
    pub(crate) key_id: Option<KeyId>,
    pub(crate) token: Option<Token>,
    /// `None`: as many as the gateway wants.
    pub(crate) links: Option<u16>,
    /// What to do when it refuses an endpoint.
    pub(crate) on_refused: OnRefused,
}

impl Plan {
    /// Reads the configuration and puts everything together.
    ///
    /// # Errors
    /// All mistakes at once, or what is wrong with the configuration.
    pub(crate) fn make(mut parts: ServiceParts) -> Result<Self, StartError> {
        let config = config(&mut parts.settings)?;
        for unmet in overrides::apply(&mut parts.endpoints, &config.endpoints) {
            tracing::warn!("{unmet}");
        }
        identities(&mut parts, &config);
        let dialled = gateways(&mut parts, &config);
        parts.check()?;
        let table = parts.table()?;
        let (Some(name), Some(version)) = (parts.name, parts.version) else { return Err(StartError::Ended) };
        if dialled.is_empty() {
            return Err(StartError::NoGateway);
        }
        let settings = parts.settings;
        let identity = identity(name, version, &settings, &config);
        let on_refused = match (config.on_refused, settings.on_refused) {
            (OnRefused::Warn, _) | (_, Some(OnRefused::Warn)) => OnRefused::Warn,
            _ => OnRefused::Fail,
        };
        let configured_grace: Duration = config.shutdown.grace.into();
        let default_grace: Duration = MicroserviceConfig::default().shutdown.grace.into();
        Ok(Self {
            identity: Arc::new(identity),
            table,
            gateways: dialled.into_iter().map(|gateway| gateway.into_plan(on_refused)).collect(),
            lease: if config.lease == limits::LEASE { settings.lease.unwrap_or(limits::LEASE) } else { config.lease },
            grace: if configured_grace == default_grace {
                settings.grace.unwrap_or(default_grace)
            } else {
                configured_grace
            },
            hooks: settings.on_shutdown,
        })
    }
}

/// The configuration that was given, or file and environment.
fn config(settings: &mut Settings) -> Result<MicroserviceConfig, StartError> {
    if let Some(config) = settings.config.take() {
        return Ok(config);
    }
    let sources = Sources::microservice().process_environment();
    let sources = match settings.config_file.take() {
        Some(path) => sources.file(path),
        None => sources,
    };
    Ok(router_config::load(sources)?)
}

/// Name and version are the code's; the file may repeat them.
fn identities(parts: &mut ServiceParts, config: &MicroserviceConfig) {
    if let (Some(configured), Some(coded)) = (&config.service.name, &parts.name)
        && configured != coded
    {
        let (configured, coded) = (configured.to_string(), coded.to_string());
        parts.mistakes.push(Mistake::Identity { key: "name", configured, coded });
    }
    if let (Some(configured), Some(coded)) = (&config.service.version, &parts.version)
        && configured != coded
    {
        let (configured, coded) = (configured.to_string(), coded.to_string());
        parts.mistakes.push(Mistake::Identity { key: "version", configured, coded });
    }
}

fn identity(name: ServiceName, version: Version, settings: &Settings, config: &MicroserviceConfig) -> Identity {
    let environment = Arc::clone(&settings.environment);
    let region = config.service.region.clone().or_else(|| settings.region.clone());
    let id = config.service.instance_id.clone().or_else(|| settings.instance_id.clone());
    let incarnation = Incarnation::new(since_epoch(&*environment), environment.random_u64());
    let instance = Instance {
        service: name,
        version,
        region: region.unwrap_or_else(default_region),
        id: id.unwrap_or_else(|| new_instance_id(&*environment)),
    };
    Identity {
        instance,
        incarnation,
        limits: ReceiveLimits::default(),
        budget: Budget::new(limits::NODE_BUFFER_BYTES),
        environment,
    }
}

/// Entries of a configuration: HELLO says the place of each in one byte.
const ENTRIES: usize = 256;

/// A gateway with what it takes to join it.
struct Dialled {
    connector: Arc<dyn Connector>,
    access: Access,
    links: Option<u16>,
    /// What it says itself.
    on_refused: Option<OnRefused>,
}

impl Dialled {
    /// `on_refused` is for all that say nothing.
    fn into_plan(self, on_refused: OnRefused) -> GatewayPlan {
        let Self { connector, access, links, on_refused: own } = self;
        let (key_id, secret) = access.secret.unzip();
        let token = access.token;
        GatewayPlan { connector, secret, key_id, token, links, on_refused: own.unwrap_or(on_refused) }
    }
}

/// The gateways of the configuration, or else of the code; connectors of one's own in any case. What is wrong with one is one more mistake.
fn gateways(parts: &mut ServiceParts, config: &MicroserviceConfig) -> Vec<Dialled> {
    let mut coded = std::mem::take(&mut parts.settings.gateways);
    if !config.gateways.is_empty() {
        coded.retain(|gateway| matches!(gateway.by, Dial::Connector(_)));
    }
    let all = coded.into_iter().map(dial_coded).chain(config.gateways.iter().map(dial_configured));
    let mut dialled: Vec<Dialled> = Vec::new();
    for gateway in all {
        match gateway {
            Ok(gateway) => dialled.push(gateway),
            Err((url, problem)) => parts.mistakes.push(Mistake::Gateway { url, problem }),
        }
    }
    if dialled.len() > ENTRIES {
        parts.mistakes.push(Mistake::TooManyGateways { max: ENTRIES });
    }
    dialled
}

type Refused = (String, String);

fn dial_coded(gateway: Gateway) -> Result<Dialled, Refused> {
    let target = match &gateway.by {
        Dial::Connector(connector) => connector.target().to_owned(),
        // A URL may hold a password.
        Dial::Url(url) => match url.parse::<GatewayUrl>() {
            Ok(url) => url.to_string(),
            Err(_) if url.contains('@') => "a gateway's URL".to_owned(),
            Err(_) => url.clone(),
        },
    };
    let refuse = |problem: String| (target.clone(), problem);
    let secret = gateway.secret.map(Secret::new).transpose().map_err(|error| refuse(error.to_string()))?;
    let token = gateway.token.map(Token::new).transpose().map_err(|error| refuse(error.to_string()))?;
    if token.is_some() && secret.is_some() {
        return Err(refuse("a token and a shared secret: one of them is enough".to_owned()));
    }
    let access = Access {
        secret: secret.map(|secret| (KeyId::sole(), secret)),
        token,
        tls: gateway.tls,
        datagram: gateway.datagram,
    };
    let connector = match gateway.by {
        Dial::Connector(connector) => connector,
        Dial::Url(url) => connect::connector(&url, &access).map_err(refuse)?,
    };
    Ok(Dialled { connector, access, links: gateway.links, on_refused: gateway.on_refused })
}

fn dial_configured(gateway: &GatewayConfig) -> Result<Dialled, Refused> {
    let refuse = |problem: String| (gateway.url.to_string(), problem);
    let secret = match &gateway.shared_secret {
        Some(reference) => {
            let resolved = reference.resolve_shared().map_err(|error| refuse(error.to_string()))?;
            Some(Secret::new(resolved.expose()).map_err(|error| refuse(error.to_string()))?)
        }
        None => None,
    };
    let key_id = gateway.key_id.clone().unwrap_or_else(KeyId::sole);
    let tls = TlsAccess {
        ca: gateway.ca.clone(),
        certificate: gateway.certificate.clone(),
        key: gateway.key.clone(),
        server_name: gateway.server_name.clone(),
    };
    let token = gateway.token.as_ref().map(token).transpose().map_err(refuse)?;
    let datagram = gateway.datagram.map(ByteSize::as_usize);
    let access = Access { secret: secret.map(|secret| (key_id, secret)), token, tls, datagram };
    let connector = connect::connector(gateway.url.expose(), &access).map_err(refuse)?;
    Ok(Dialled { connector, access, links: gateway.links, on_refused: gateway.on_refused })
}

fn token(reference: &SecretRef) -> Result<Token, String> {
    let resolved = reference.resolve().map_err(|error| error.to_string())?;
    let text = std::str::from_utf8(resolved.expose()).map_err(|_| TokenError::Character.to_string())?;
    Token::new(text).map_err(|error| error.to_string())
}

fn default_region() -> Region {
    const { "local" }.parse().unwrap_or_else(|_| unreachable!("`local` is a region's name"))
}

fn since_epoch(environment: &dyn Environment) -> Duration {
    let now = environment.wall_clock().unwrap_or_else(SystemTime::now);
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// A UUIDv7 (SPEC 2).
fn new_instance_id(environment: &dyn Environment) -> InstanceId {
    let milliseconds = u64::try_from(since_epoch(environment).as_millis()).unwrap_or(u64::MAX);
    let mut random = [0; 10];
    environment.random(&mut random);
    let id = uuid::Builder::from_unix_timestamp_millis(milliseconds, &random).into_uuid();
    id.to_string().parse().unwrap_or_else(|_| unreachable!("a UUID is an instance id"))
}
