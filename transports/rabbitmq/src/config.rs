//! The `transports.rabbitmq` section of `router.yaml`.

use std::fmt;
use std::path::PathBuf;

use router_config::{Checks, GatewayUrl, SharedSecrets, Validate};
use schemars::JsonSchema;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use transport_tls::ClientTls;

use crate::broker::{Broker, check_exchange};
use crate::{EXCHANGE, PREFETCH};

const DEFAULT_URL: &str = "amqp://guest:guest@127.0.0.1:5672/%2f";
const ALLOWED: &str = "the URL of a broker, such as `amqp://user:password@host:5672/%2f`, or a list of such";

/// At which broker services reach a gateway, and what they must know (SPEC 7, 8, 10).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RabbitListenerSettings {
    /// The broker, or several addresses of one cluster, which are tried in turn.
    /// Default `amqp://guest:guest@127.0.0.1:5672/%2f`.
    pub url: BrokerUrls,
    /// What services prove to know, and what seals every message.
    pub shared_secret: Option<SharedSecrets>,
    /// The exchange at which gateways and services meet. Default `stella`.
    pub exchange: String,
    /// Messages that the broker may have sent and that are not acknowledged. Default 256.
    #[schemars(range(min = 1))]
    pub prefetch: u16,
    /// Do without a secret: whoever has access to the broker may register any service, and read and write all traffic.
    pub insecure: bool,
    /// For AMQPS: the CAs of which one has signed the broker's certificate, a PEM file. Absent: the system's.
    pub ca: Option<PathBuf>,
    /// For AMQPS: a client certificate with its chain, a PEM file. Needs `ca` and `key`.
    pub certificate: Option<PathBuf>,
    /// For AMQPS: the private key of `certificate`, a PEM file.
    pub key: Option<PathBuf>,
    /// For AMQPS: the name that the broker's certificate must be for. Absent: the host of the URL.
    pub server_name: Option<String>,
}

impl Default for RabbitListenerSettings {
    fn default() -> Self {
        Self {
            url: BrokerUrls::default(),
            shared_secret: None,
            exchange: EXCHANGE.to_owned(),
            prefetch: PREFETCH,
            insecure: false,
            ca: None,
            certificate: None,
            key: None,
            server_name: None,
        }
    }
}

impl RabbitListenerSettings {
    /// The broker that is meant.
    ///
    /// # Errors
    /// What is wrong with an address or the exchange's name, for people; never with a password.
    pub fn broker(&self) -> Result<Broker, router_link::LinkError> {
        let mut broker = Broker::new(self.url.iter().map(GatewayUrl::expose))?;
        broker
            .set_exchange(&self.exchange)
            .map_err(|problem| router_link::LinkError::Target { target: broker.shown().to_string(), problem })?;
        let Self { ca, certificate, key, server_name, .. } = self.clone();
        Ok(broker.with_tls(ClientTls { ca, certificate, key, server_name }))
    }
}

impl Validate for RabbitListenerSettings {
    fn validate(&self, checks: &mut Checks) {
        if let Err(problem) = Broker::new(self.url.iter().map(GatewayUrl::expose)) {
            checks.refuse("url", problem.to_string()).allowed(ALLOWED);
        }
        if let Err(problem) = check_exchange(&self.exchange) {
            checks.refuse("exchange", format!("found `{}`", self.exchange)).allowed(problem);
        }
        if self.prefetch == 0 {
            checks.refuse("prefetch", "found `0`").allowed("1 to 65535");
        }
        if self.certificate.is_some() != self.key.is_some() {
            checks.refuse("certificate", "found a certificate or a key without the other").allowed("both, or neither");
        }
        if self.certificate.is_some() && self.ca.is_none() {
            checks
                .refuse("certificate", "found a client certificate without `ca`")
                .help("name the broker's CA by `ca`");
        }
        if self.shared_secret.is_none() && !self.insecure {
            checks
                .refuse("url", "whoever has access to the broker could register any service".to_owned())
                .help("add `shared_secret: env:NAME`")
                .help("if everybody at the broker is trusted, say so with `insecure: true`");
        }
    }
}

/// The addresses of one broker; in a file one URL, or a list of them. Passwords are never shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerUrls(Vec<GatewayUrl>);

impl BrokerUrls {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &GatewayUrl> {
        self.0.iter()
    }
}

impl Default for BrokerUrls {
    fn default() -> Self {
        Self(DEFAULT_URL.parse().into_iter().collect())
    }
}

impl Serialize for BrokerUrls {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for BrokerUrls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;

        impl<'de> Visitor<'de> for OneOrMore {
            type Value = BrokerUrls;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(ALLOWED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<BrokerUrls, E> {
                Ok(BrokerUrls(vec![text.parse().map_err(E::custom)?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<BrokerUrls, A::Error> {
                let mut urls = Vec::new();
                while let Some(url) = list.next_element()? {
                    urls.push(url);
                }
                match urls.is_empty() {
                    true => Err(de::Error::custom(format_args!("found an empty list\nallowed: {ALLOWED}"))),
                    false => Ok(BrokerUrls(urls)),
                }
            }
        }

        deserializer.deserialize_any(OneOrMore)
    }
}

impl JsonSchema for BrokerUrls {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "BrokerUrls".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let one = serde_json::json!({ "type": "string", "pattern": "^amqps?://", "examples": [DEFAULT_URL] });
        schemars::json_schema!({
            "description": ALLOWED,
            "anyOf": [one, { "type": "array", "minItems": 1, "items": one }]
        })
    }
}
