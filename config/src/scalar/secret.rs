//! Secrets: where they are kept, and their bytes.
//!
//! A configuration names a secret (`env:NAME`, `file:/path`); only `resolve` reads it. Nothing here prints, logs or
//! serializes a secret's bytes, and a literal one is hidden as soon as it has been read.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use router_common::identity::KeyId;
use router_common::limits;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const REDACTED: &str = "<redacted>";
const ALLOWED: &str = "a secret as `env:NAME`, `file:/path` or the secret itself";
const ALLOWED_MANY: &str =
    "a secret as `env:NAME` or `file:/path`, or a map of key ids to one or several of them, the newest first";

/// Largest file a secret is read from, in bytes.
const FILE_BYTES: u64 = 64 * 1024;
/// Most key ids of one map of secrets.
const KEYS: usize = 64;
/// Most secrets of one key id: a rotation needs two.
const SECRETS_PER_KEY: usize = 8;

/// The bytes of a secret. `Debug` hides them.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// The bytes themselves: not for logs.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({REDACTED})")
    }
}

/// Where a secret is kept: `env:NAME`, `file:/path`, or (for trials) the secret itself (SPEC 10).
///
/// `Debug`, `Display` and `Serialize` show the name or the path, and never a literal secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretRef(Kept);

#[derive(Clone, PartialEq, Eq)]
enum Kept {
    Env(String),
    File(PathBuf),
    Literal(Secret),
}

/// Why a secret could not be had. The messages name where it was looked for and never what it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The environment has no such variable.
    #[error("the environment variable {name} is not set")]
    NoVariable { name: String },
    /// The file cannot be read.
    #[error("the secret file {} cannot be read: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    /// The file is larger than any secret.
    #[error("the secret file {} is larger than {FILE_BYTES} bytes", path.display())]
    FileTooLarge { path: PathBuf },
    /// Nothing stands there.
    #[error("the secret from {origin} is empty")]
    Empty { origin: String },
    /// A shared secret that could be guessed (SPEC 4).
    #[error(
        "the secret from {origin} is {length} bytes long, and a shared secret has at least {}; make one with `openssl rand -hex 32`",
        limits::SECRET_BYTES
    )]
    TooShort { origin: String, length: usize },
}

impl SecretRef {
    /// A secret that is at hand: for tests, and for programs that embed a gateway.
    #[must_use]
    pub fn literal(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Kept::Literal(Secret::from(bytes.into())))
    }

    /// Reads the secret. Contents of a file lose one newline at their end.
    ///
    /// # Errors
    /// The variable or file is missing, unreadable, empty, or larger than 64 KiB.
    pub fn resolve(&self) -> Result<Secret, SecretError> {
        self.resolve_in(|name| std::env::var_os(name))
    }

    /// As [`Self::resolve`], with the environment given.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn resolve_in(&self, variable: impl Fn(&str) -> Option<OsString>) -> Result<Secret, SecretError> {
        let bytes = match &self.0 {
            Kept::Literal(secret) => secret.0.to_vec(),
            Kept::Env(name) => {
                variable(name).ok_or_else(|| SecretError::NoVariable { name: name.clone() })?.into_encoded_bytes()
            }
            Kept::File(path) => read_file(path)?,
        };
        match bytes.is_empty() {
            true => Err(SecretError::Empty { origin: self.origin() }),
            false => Ok(bytes.into()),
        }
    }

    /// Reads the secret as one that two peers share: at least 32 bytes (SPEC 4).
    ///
    /// # Errors
    /// As [`Self::resolve`], and if it is shorter.
    pub fn resolve_shared(&self) -> Result<Secret, SecretError> {
        self.resolve_shared_in(|name| std::env::var_os(name))
    }

    /// As [`Self::resolve_shared`], with the environment given.
    ///
    /// # Errors
    /// As [`Self::resolve_shared`].
    pub fn resolve_shared_in(&self, variable: impl Fn(&str) -> Option<OsString>) -> Result<Secret, SecretError> {
        let secret = self.resolve_in(variable)?;
        match secret.expose().len() {
            length if length < limits::SECRET_BYTES => Err(SecretError::TooShort { origin: self.origin(), length }),
            _ => Ok(secret),
        }
    }

    fn origin(&self) -> String {
        match &self.0 {
            Kept::Env(name) => format!("the environment variable {name}"),
            Kept::File(path) => format!("the file {}", path.display()),
            Kept::Literal(_) => "the configuration".to_owned(),
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, SecretError> {
    let refuse = |source| SecretError::File { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES + 1).read_to_end(&mut bytes)).map_err(refuse)?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(SecretError::FileTooLarge { path: path.to_owned() });
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    Ok(bytes)
}

impl From<&str> for SecretRef {
    fn from(text: &str) -> Self {
        Self(match (text.strip_prefix("env:"), text.strip_prefix("file:")) {
            (Some(name), _) => Kept::Env(name.to_owned()),
            (_, Some(path)) => Kept::File(path.into()),
            _ => Kept::Literal(text.as_bytes().to_vec().into()),
        })
    }
}

impl FromStr for SecretRef {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.into())
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kept::Env(name) => write!(f, "env:{name}"),
            Kept::File(path) => write!(f, "file:{}", path.display()),
            Kept::Literal(_) => f.write_str(REDACTED),
        }
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretRef({self})")
    }
}

impl Serialize for SecretRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = SecretRef;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(ALLOWED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<SecretRef, E> {
                match text {
                    "" => Err(E::custom(format_args!("found nothing\nallowed: {ALLOWED}"))),
                    "env:" => Err(E::custom("found `env:` without a name\nhelp: write `env:NAME`")),
                    "file:" => Err(E::custom("found `file:` without a path\nhelp: write `file:/path`")),
                    text => Ok(text.into()),
                }
            }
        }

        deserializer.deserialize_str(Text)
    }
}

impl schemars::JsonSchema for SecretRef {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretRef".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "minLength": 1,
            "description": ALLOWED,
            "examples": ["env:ROUTER_SECRET", "file:/run/secrets/router"]
        })
    }
}

/// The secrets a listener accepts, by key id; of each the newest first, so that they can be rotated (SPEC 4).
///
/// Written as one secret, whose key id is then `default`, or as a map: `{ team-a: [env:NEW, env:OLD], team-b: env:B }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedSecrets(BTreeMap<KeyId, Vec<SecretRef>>);

/// What [`SharedSecrets`] hold once read: never empty, each key id with at least one secret of at least 32 bytes.
pub type ResolvedSecrets = BTreeMap<KeyId, Vec<Secret>>;

impl SharedSecrets {
    /// One secret, with the key id `default`.
    #[must_use]
    pub fn sole(secret: SecretRef) -> Self {
        Self(BTreeMap::from([(KeyId::sole(), vec![secret])]))
    }

    /// The key ids with where their secrets are kept.
    pub fn iter(&self) -> impl Iterator<Item = (&KeyId, &[SecretRef])> {
        self.0.iter().map(|(id, secrets)| (id, secrets.as_slice()))
    }

    /// Reads them all.
    ///
    /// # Errors
    /// The first that cannot be read or is shorter than 32 bytes.
    pub fn resolve(&self) -> Result<ResolvedSecrets, SecretError> {
        self.resolve_in(|name| std::env::var_os(name))
    }

    /// As [`Self::resolve`], with the environment given.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn resolve_in(&self, variable: impl Fn(&str) -> Option<OsString>) -> Result<ResolvedSecrets, SecretError> {
        let read = |secrets: &[SecretRef]| -> Result<Vec<_>, _> {
            secrets.iter().map(|secret| secret.resolve_shared_in(&variable)).collect()
        };
        self.iter().map(|(id, secrets)| Ok((id.clone(), read(secrets)?))).collect()
    }
}

impl Serialize for SharedSecrets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.iter().next() {
            Some((id, secrets)) if self.0.len() == 1 && secrets.len() == 1 && *id == KeyId::sole() => {
                secrets[0].serialize(serializer)
            }
            _ => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for SharedSecrets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Secrets;

        impl<'de> Visitor<'de> for Secrets {
            type Value = SharedSecrets;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(ALLOWED_MANY)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<SharedSecrets, E> {
                SecretRef::deserialize(de::value::StrDeserializer::new(text)).map(SharedSecrets::sole)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SharedSecrets, A::Error> {
                let mut secrets = BTreeMap::new();
                while let Some((id, OneOrMore(refs))) = map.next_entry::<KeyId, OneOrMore>()? {
                    secrets.insert(id, refs);
                    if secrets.len() > KEYS {
                        return Err(de::Error::custom(format_args!("found more than {KEYS} key ids")));
                    }
                }
                match secrets.is_empty() {
                    true => Err(de::Error::custom(format_args!("found an empty map\nallowed: {ALLOWED_MANY}"))),
                    false => Ok(SharedSecrets(secrets)),
                }
            }
        }

        deserializer.deserialize_any(Secrets)
    }
}

/// What stands after one key id.
struct OneOrMore(Vec<SecretRef>);

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Refs;

        impl<'de> Visitor<'de> for Refs {
            type Value = OneOrMore;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a secret as `env:NAME` or `file:/path`, or a list of them, the newest first")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMore, E> {
                SecretRef::deserialize(de::value::StrDeserializer::new(text)).map(|secret| OneOrMore(vec![secret]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMore, A::Error> {
                let mut refs = Vec::new();
                while let Some(secret) = seq.next_element()? {
                    refs.push(secret);
                    if refs.len() > SECRETS_PER_KEY {
                        return Err(de::Error::custom(format_args!(
                            "found more than {SECRETS_PER_KEY} secrets for one key id"
                        )));
                    }
                }
                match refs.is_empty() {
                    true => Err(de::Error::custom("found an empty list\nhelp: a key id needs at least one secret")),
                    false => Ok(OneOrMore(refs)),
                }
            }
        }

        deserializer.deserialize_any(Refs)
    }
}

impl schemars::JsonSchema for SharedSecrets {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SharedSecrets".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let one = generator.subschema_for::<SecretRef>();
        schemars::json_schema!({
            "description": ALLOWED_MANY,
            "anyOf": [
                one,
                {
                    "type": "object",
                    "minProperties": 1,
                    "maxProperties": KEYS,
                    "additionalProperties": {
                        "anyOf": [one, { "type": "array", "minItems": 1, "maxItems": SECRETS_PER_KEY, "items": one }]
                    }
                }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<OsString> {
        match name {
            "LONG" => Some("0123456789abcdef0123456789abcdef".into()),
            "SHORT" => Some("hunter2".into()),
            "EMPTY" => Some("".into()),
            _ => None,
        }
    }

    fn resolve(text: &str) -> Result<Secret, String> {
        SecretRef::from(text).resolve_shared_in(environment).map_err(|error| error.to_string())
    }

    #[test]
    fn a_secret_comes_from_the_environment_a_file_or_the_text_itself() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "0123456789abcdef0123456789abcdef\n").unwrap();
        let expected = Secret::from(b"0123456789abcdef0123456789abcdef".to_vec());
        assert_eq!(resolve("env:LONG"), Ok(expected.clone()));
        assert_eq!(resolve(&format!("file:{}", file.path().display())), Ok(expected.clone()));
        assert_eq!(resolve("0123456789abcdef0123456789abcdef"), Ok(expected));
    }

    #[test]
    fn a_file_loses_one_newline_and_no_more() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let secret = SecretRef::from(format!("file:{}", file.path().display()).as_str());
        for (contents, bytes) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a", "a"), (" a ", " a ")] {
            std::fs::write(file.path(), contents).unwrap();
            assert_eq!(secret.resolve().unwrap().expose(), bytes.as_bytes(), "{contents:?}");
        }
        std::fs::write(file.path(), "\n").unwrap();
        assert!(matches!(secret.resolve(), Err(SecretError::Empty { .. })));
        std::fs::write(file.path(), vec![b'x'; 70_000]).unwrap();
        assert!(matches!(secret.resolve(), Err(SecretError::FileTooLarge { .. })));
    }

    #[test]
    fn a_secret_that_cannot_be_had_says_why_and_never_what_it_is() {
        assert_eq!(resolve("env:NONE").unwrap_err(), "the environment variable NONE is not set");
        assert_eq!(resolve("env:EMPTY").unwrap_err(), "the secret from the environment variable EMPTY is empty");
        assert!(
            resolve("file:/nowhere/at/all")
                .unwrap_err()
                .starts_with("the secret file /nowhere/at/all cannot be read: ")
        );
        assert_eq!(
            resolve("env:SHORT").unwrap_err(),
            "the secret from the environment variable SHORT is 7 bytes long, and a shared secret has at least 32; make one with `openssl rand -hex 32`"
        );
        let literal = resolve("hunter2").unwrap_err();
        assert!(
            literal.starts_with("the secret from the configuration is 7 bytes long") && !literal.contains("hunter2")
        );
    }

    #[test]
    fn a_literal_is_hidden_however_it_is_printed() {
        let secret = SecretRef::literal("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "<redacted> SecretRef(<redacted>)");
        assert_eq!(serde_json::to_string(&SharedSecrets::sole(secret.clone())).unwrap(), "\"<redacted>\"");
        assert!(!format!("{:?}", secret.resolve().unwrap()).contains("hunter2"));
        assert_eq!(SecretRef::from("env:NAME").to_string(), "env:NAME");
    }

    #[test]
    fn shared_secrets_are_one_or_a_map() {
        let read = |json: &str| serde_json::from_str::<SharedSecrets>(json);
        let sole = read("\"env:LONG\"").unwrap();
        assert_eq!(sole, SharedSecrets::sole("env:LONG".into()));
        let map = read(r#"{"team-a": ["env:LONG", "env:LONG"], "team-b": "env:LONG"}"#).unwrap();
        let keys: Vec<_> = map.iter().map(|(id, secrets)| (id.to_string(), secrets.len())).collect();
        assert_eq!(keys, [("team-a".to_owned(), 2), ("team-b".to_owned(), 1)]);
        assert_eq!(map.resolve_in(environment).unwrap().len(), 2);
        for bad in ["{}", r#"{"a": []}"#, r#"{"a b": "x"}"#, "[]", "\"\"", "\"env:\"", "\"file:\""] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
