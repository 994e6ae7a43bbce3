//! The `transports.tls` section of `router.yaml`.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use router_config::{Checks, HumanDuration, ListenAddr, ListenerSafety, SharedSecrets, Validate};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::fingerprint::hex;

/// Default port of the TLS transport.
const PORT: u16 = 5101;
/// Longest handshake that may be allowed: accept to WELCOME is 10 s (SPEC 4).
const HANDSHAKE_SECONDS: u64 = 10;
/// Most handshakes that may be allowed at a time.
const HANDSHAKES: usize = 4096;
/// Most further certificates, and most entries of `identities`.
const LIST: usize = 4096;

/// Where services reach a gateway over TLS, as whom it shows itself, and what they must show (SPEC 7, 8, 10).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsListenerSettings {
    /// Default 127.0.0.1:5101.
    #[serde(default = "listen")]
    pub listen: ListenAddr,
    /// The gateway's certificate with the chain to its CA, a PEM file. It is read anew when it changes.
    pub certificate: PathBuf,
    /// Its private key, a PEM file.
    pub key: PathBuf,
    /// Further certificates, for services that ask for other names (SNI).
    #[serde(default)]
    pub certificates: Vec<CertificatePair>,
    /// The CAs that have signed services' certificates, a PEM file.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Whether services show a certificate.
    #[serde(default)]
    pub client_certificate: ClientCertificates,
    /// Which certificates may come in, and under which identity. Absent: all that a CA of `client_ca` has signed, each under
    /// its first URI, else `dns:` and its first DNS name, else `sha256:` and its fingerprint.
    #[serde(default)]
    pub identities: Vec<NamedIdentity>,
    /// What services prove to know, if they show nothing else.
    #[serde(default)]
    pub shared_secret: Option<SharedSecrets>,
    /// Bearer tokens that services may show instead, at least 32 bytes each; `team-a` gives the identity `token:team-a`.
    #[serde(default)]
    pub tokens: Option<SharedSecrets>,
    /// The oldest TLS that is spoken.
    #[serde(default)]
    pub minimum_version: MinimumVersion,
    /// Accept to the end of the TLS handshake. Default 5 s, at most 10 s.
    #[serde(default = "handshake_timeout")]
    pub handshake_timeout: HumanDuration,
    /// Handshakes in progress; for one more, the oldest of the address that has the most goes. Default 256.
    #[serde(default = "max_handshakes")]
    pub max_handshakes: NonZeroUsize,
    /// Between two looks at whether the files have changed. Default 2 s.
    #[serde(default = "reload_interval")]
    pub reload_interval: HumanDuration,
    /// Listen beyond loopback without asking who comes: whoever connects may register any service.
    #[serde(default)]
    pub insecure: bool,
}

/// A certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificatePair {
    /// A PEM file: the certificate, then the chain to its CA.
    pub certificate: PathBuf,
    /// A PEM file.
    pub key: PathBuf,
}

/// Whether services show a certificate (SPEC 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificates {
    /// None is asked for.
    #[default]
    None,
    /// Who shows none is anonymous, unless it proves who it is by a secret or a token; where there are such, it must.
    Optional,
    Required,
}

/// The oldest TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum MinimumVersion {
    /// 1.2, with extended master secret.
    #[default]
    #[serde(rename = "tls1.2")]
    Tls12,
    #[serde(rename = "tls1.3")]
    Tls13,
}

/// A certificate that may come in, and as whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedIdentity {
    /// A name in the certificate, as it is there: a URI, `dns:` and a DNS name; or `sha256:` and its fingerprint.
    #[schemars(with = "String")]
    pub name: IdentityName,
    /// What its holder is called under `services`. Absent: as `name`.
    #[serde(default)]
    pub identity: Option<String>,
}

impl NamedIdentity {
    pub(crate) fn identity(&self) -> String {
        self.identity.clone().unwrap_or_else(|| self.name.to_string())
    }
}

/// What tells a certificate from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityName {
    /// One of its URI names, to the letter.
    Uri(String),
    /// One of its DNS names, in any case.
    Dns(String),
    /// The SHA-256 of the certificate.
    Sha256([u8; 32]),
}

impl FromStr for IdentityName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const ALLOWED: &str =
            "allowed: a URI such as `spiffe://acme/orders`, `dns:orders.acme`, or `sha256:` and 64 digits";
        let refuse = |why: &str| Err(format!("found `{text}`, {why}\n{ALLOWED}"));
        if let Some(digits) = text.strip_prefix("sha256:") {
            // With colons, as openssl prints it, or without.
            let digits: String = digits.chars().filter(|c| *c != ':').collect();
            if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return refuse("which is no SHA-256 fingerprint");
            }
            let bytes: Option<Vec<u8>> =
                (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()).collect();
            let digest = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            return digest.map_or_else(|| refuse("which is no SHA-256 fingerprint"), |digest| Ok(Self::Sha256(digest)));
        }
        if let Some(name) = text.strip_prefix("dns:") {
            let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._*".contains(&b));
            return if is_name { Ok(Self::Dns(name.to_ascii_lowercase())) } else { refuse("which is no DNS name") };
        }
        match text.split_once(':') {
            Some((scheme, rest)) if !scheme.is_empty() && !rest.is_empty() => Ok(Self::Uri(text.to_owned())),
            _ => refuse("which is no URI"),
        }
    }
}

impl fmt::Display for IdentityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(uri) => f.write_str(uri),
            Self::Dns(name) => write!(f, "dns:{name}"),
            Self::Sha256(digest) => write!(f, "sha256:{}", hex(digest)),
        }
    }
}

impl Serialize for IdentityName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IdentityName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn listen() -> ListenAddr {
    std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, PORT)).into()
}

fn handshake_timeout() -> HumanDuration {
    HumanDuration::from_secs(5)
}

fn max_handshakes() -> NonZeroUsize {
    const { NonZeroUsize::new(256).unwrap() }
}

fn reload_interval() -> HumanDuration {
    HumanDuration::from_secs(2)
}

impl TlsListenerSettings {
    /// The defaults, with this certificate and key.
    #[must_use]
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            listen: listen(),
            certificate: certificate.into(),
            key: key.into(),
            certificates: Vec::new(),
            client_ca: None,
            client_certificate: ClientCertificates::None,
            identities: Vec::new(),
            shared_secret: None,
            tokens: None,
            minimum_version: MinimumVersion::Tls12,
            handshake_timeout: handshake_timeout(),
            max_handshakes: max_handshakes(),
            reload_interval: reload_interval(),
            insecure: false,
        }
    }

    /// Whether whoever connects must say who it is (SPEC 8).
    #[must_use]
    pub const fn is_authenticated(&self) -> bool {
        matches!(self.client_certificate, ClientCertificates::Required)
            || self.shared_secret.is_some()
            || self.tokens.is_some()
    }
}

impl Validate for TlsListenerSettings {
    fn validate(&self, checks: &mut Checks) {
        let safety =
            ListenerSafety { listen: self.listen, authenticated: self.is_authenticated(), insecure: self.insecure };
        checks.take(safety.check("listen").map_err(|mut refusal| {
            refusal.help("or ask for certificates: `client_ca: ca.pem` and `client_certificate: required`");
            refusal
        }));
        match (&self.client_ca, self.client_certificate) {
            (None, ClientCertificates::Optional | ClientCertificates::Required) => {
                checks
                    .refuse("client_certificate", "services' certificates are asked for, and no CA of theirs is named")
                    .help("add `client_ca: ca.pem`");
            }
            (Some(_), ClientCertificates::None) => {
                checks
                    .refuse("client_ca", "a CA is named, and no certificate is asked for")
                    .help("add `client_certificate: required`, or `optional`");
            }
            _ => {}
        }
        if !self.identities.is_empty() && self.client_certificate == ClientCertificates::None {
            checks
                .refuse("identities", "certificates are named, and none is asked for")
                .help("add `client_certificate: required`, or `optional`");
        }
        for (place, one) in self.identities.iter().enumerate() {
            if self.identities[..place].iter().any(|earlier| earlier.name == one.name) {
                checks.refuse(&format!("identities[{place}].name"), format!("`{}` stands here twice", one.name));
            }
            if let Some(identity) = one.identity.as_ref().filter(|identity| !identity.contains(':')) {
                checks
                    .refuse(&format!("identities[{place}].identity"), format!("found `{identity}`"))
                    .allowed("an identity with its kind, such as `acme:billing` or `spiffe://acme/billing`");
            }
        }
        for (key, length) in [("identities", self.identities.len()), ("certificates", self.certificates.len())] {
            if length > LIST {
                checks.refuse(key, format!("found {length} entries")).allowed(format!("at most {LIST}"));
            }
        }
        let timeout = self.handshake_timeout.as_duration();
        if timeout.is_zero() || timeout.as_secs_f64() > HANDSHAKE_SECONDS as f64 {
            checks
                .refuse("handshake_timeout", format!("found `{}`", self.handshake_timeout))
                .allowed(format!("more than 0, and at most {HANDSHAKE_SECONDS}s"));
        }
        if self.max_handshakes.get() > HANDSHAKES {
            checks
                .refuse("max_handshakes", format!("found `{}`", self.max_handshakes))
                .allowed(format!("1 to {HANDSHAKES}"));
        }
        if self.reload_interval.as_duration().is_zero() {
            checks.refuse("reload_interval", format!("found `{}`", self.reload_interval)).allowed("more than 0");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_uri_a_dns_name_or_a_fingerprint() {
        let digits = "0a".repeat(32);
        let colons = ["0A"; 32].join(":");
        for (text, shown) in [
            ("spiffe://acme/orders", "spiffe://acme/orders".to_owned()),
            ("dns:Orders.acme", "dns:orders.acme".to_owned()),
            (&format!("sha256:{digits}"), format!("sha256:{digits}")),
            (&format!("sha256:{colons}"), format!("sha256:{digits}")),
        ] {
            assert_eq!(text.parse::<IdentityName>().unwrap().to_string(), shown);
        }
        let (short, long) = (format!("sha256:{}", "0a".repeat(31)), format!("sha256:{}", "0a".repeat(33)));
        let bad = ["", "orders", "dns:", "dns:a b", "sha256:", "sha256:zz", "sha256:é0", ":x", "x:", &short, &long];
        for bad in bad {
            let error = bad.parse::<IdentityName>().unwrap_err();
            assert!(error.contains("allowed: "), "{bad}: {error}");
        }
    }
}
