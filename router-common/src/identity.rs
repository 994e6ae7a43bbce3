//! Who is who: names, versions, instances and authenticated identities (SPEC 2).
//!
//! Every type here is parsed once and valid ever after. Nothing here knows what a name may register or reach.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits;

/// Why a name was refused; the message quotes the input and says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("`{found}` is not a {what}: use 1 to 63 of a-z, 0-9 and `-`, beginning and ending with a letter or digit")]
    Label { what: &'static str, found: String },
    #[error("`{found}` is not a {what}: use 1 to {max} of A-Z, a-z, 0-9, `.`, `_` and `-`", max = limits::INSTANCE_ID_BYTES)]
    Token { what: &'static str, found: String },
    #[error("`{found}` is not a semantic version: {why}")]
    Version { found: String, why: String },
}

/// What an error quotes of an input that may be very long.
fn excerpt(input: &str) -> String {
    const SHOWN: usize = 80;
    match input.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &input[..end]),
        None => input.to_owned(),
    }
}

/// `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`, the rule of SPEC 2.
fn is_label(input: &str) -> bool {
    let bytes = input.as_bytes();
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    matches!(bytes.len(), 1..=limits::NAME_BYTES)
        && bytes.iter().all(|b| inner(b) || *b == b'-')
        && bytes.first().is_some_and(inner)
        && bytes.last().is_some_and(inner)
}

fn is_token(input: &str) -> bool {
    matches!(input.len(), 1..=limits::INSTANCE_ID_BYTES)
        && input.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

macro_rules! string_newtype {
    ($(#[$doc:meta])* $name:ident, $check:path, $error:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(input: &str) -> Result<Self, NameError> {
                if $check(input) {
                    Ok(Self(input.into()))
                } else {
                    Err(NameError::$error { what: $what, found: excerpt(input) })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

string_newtype!(
    /// The name of a service: 1 to 63 lower-case letters, digits and inner hyphens (SPEC 2).
    ServiceName, is_label, Label, "service name"
);
string_newtype!(
    /// The name of a gateway node; same rule as [`ServiceName`].
    NodeId, is_label, Label, "node id"
);
string_newtype!(
    /// The name of a region; same rule as [`ServiceName`]. A gateway's own comes from its configuration only.
    Region, is_label, Label, "region"
);
string_newtype!(
    /// The name of one running instance: 1 to 128 of `[A-Za-z0-9._-]`.
    InstanceId, is_token, Token, "instance id"
);
string_newtype!(
    /// The name of a shared secret, so that secrets can be rotated: 1 to 128 of `[A-Za-z0-9._-]`.
    KeyId, is_token, Token, "key id"
);

impl KeyId {
    /// The key id of a gateway's only secret, when it was given without one.
    #[must_use]
    pub fn sole() -> Self {
        Self("default".into())
    }
}

/// A strict semantic version. Compared, hashed and ordered by precedence, so build metadata is ignored (SPEC 2).
#[derive(Clone)]
pub struct Version(semver::Version);

impl Version {
    #[must_use]
    pub const fn new(major: u64, minor: u64, patch: u64) -> Self {
        Self(semver::Version::new(major, minor, patch))
    }

    #[must_use]
    pub fn is_prerelease(&self) -> bool {
        !self.0.pre.is_empty()
    }
}

impl FromStr for Version {
    type Err = NameError;

    fn from_str(input: &str) -> Result<Self, NameError> {
        let refuse = |why: String| NameError::Version { found: excerpt(input), why };
        if input.len() > limits::VERSION_BYTES {
            return Err(refuse(format!("longer than {} bytes", limits::VERSION_BYTES)));
        }
        semver::Version::parse(input).map(Self).map_err(|error| refuse(error.to_string()))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp_precedence(&other.0)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl Hash for Version {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0.major, self.0.minor, self.0.patch).hash(state);
        self.0.pre.as_str().hash(state);
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({})", self.0)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Sixteen bytes that name one run of a process: its further links carry the same ones (SPEC 4). Of two processes that
/// claim one instance, the one with the greater bytes is the newer one, and stays, whichever a gateway hears of first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(#[serde(with = "serde_bytes")] pub [u8; 16]);

impl Incarnation {
    /// That of a process that started `since_epoch` after the Unix epoch: eight bytes of nanoseconds, then random ones.
    #[must_use]
    pub fn new(since_epoch: Duration, random: u64) -> Self {
        let nanos = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
        Self(((u128::from(nanos) << 64) | u128::from(random)).to_be_bytes())
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Incarnation(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// One running process of a service, as it names itself in HELLO.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Instance {
    pub service: ServiceName,
    pub version: Version,
    pub region: Region,
    pub id: InstanceId,
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({}, {})", self.service, self.version, self.id, self.region)
    }
}

/// Who a peer proved to be: what registration policy and superseding are decided by (SPEC 8).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// Nothing was proved: a listener without authentication.
    Anonymous,
    /// A peer of the same process, over the in-memory transport.
    InProcess,
    /// The holder of the shared secret with this key id; written `key:<id>`.
    Key(KeyId),
    /// The holder of the private key of a certificate, by a name in it, or by what the configuration calls it; written as
    /// that is: `spiffe://acme/orders`, `dns:orders.acme`.
    Certificate(Arc<str>),
    /// The bearer of the token of this name; written `token:<name>`.
    Token(KeyId),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::InProcess => f.write_str("in-process"),
            Self::Key(id) => write!(f, "key:{id}"),
            Self::Certificate(name) => f.write_str(name),
            Self::Token(name) => write!(f, "token:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_started_later_is_the_newer_incarnation() {
        let at = |nanos, random| Incarnation::new(Duration::from_nanos(nanos), random);
        assert!(at(1, u64::MAX) < at(2, 0) && at(u64::from(u32::MAX), 9) < at(1 << 40, 0));
        assert_ne!(at(1, 1), at(1, 2));
        assert_eq!(at(0x0102, 0x03).0, [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
    }

    #[test]
    fn names_follow_the_label_rule() {
        for good in ["a", "0", "orders", "a-b", "a--b", &"a".repeat(63)] {
            assert!(good.parse::<ServiceName>().is_ok(), "{good}");
        }
        for bad in ["", "-", "-a", "a-", "A", "a_b", "a.b", "é", &"a".repeat(64)] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refused_name_is_quoted_with_the_rule() {
        let error = "Orders".parse::<ServiceName>().unwrap_err().to_string();
        assert_eq!(
            error,
            "`Orders` is not a service name: use 1 to 63 of a-z, 0-9 and `-`, beginning and ending with a letter or digit"
        );
    }

    #[test]
    fn versions_compare_by_precedence_and_ignore_build_metadata() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert_eq!(version("1.2.3+a"), version("1.2.3+b"));
        assert!(version("1.2.3-rc.1") < version("1.2.3"));
        assert!(version("1.10.0") > version("1.9.0"));
        assert_ne!(version("1.2.3-rc.1"), version("1.2.3"));
    }

    #[test]
    fn bad_versions_are_refused_with_the_reason() {
        for bad in ["", "1", "1.2", "v1.2.3", "1.2.3.4", "01.2.3", "1.2.3-", "latest"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
        assert!("1.2".parse::<Version>().unwrap_err().to_string().starts_with("`1.2` is not a semantic version: "));
    }
}
