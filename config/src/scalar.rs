//! The scalar types of both files: written by people, parsed once, valid ever after (SPEC 10).
//!
//! Each is read from text (`FromStr`), printed as it would be written (`Display`), and refuses with a message that
//! says what was found, what is allowed, and how to write it. Nothing here knows a key, a file or a line.

mod duration;
mod http_names;
mod listen;
mod secret;
mod size;
mod url;

pub use self::duration::HumanDuration;
pub use self::http_names::{HeaderKey, MethodName};
pub use self::listen::{IpRange, ListenAddr};
pub use self::secret::{ResolvedSecrets, Secret, SecretError, SecretRef, SharedSecrets};
pub use self::size::ByteSize;
pub use self::url::GatewayUrl;
pub(crate) use self::url::{password, without_password};

/// Why a scalar was refused.
///
/// Displays as lines: the first says what was found, each further one is `allowed: …` or `help: …`. The loader turns
/// the lines into the notes of a diagnostic; anyone else can print them as they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}\nallowed: {allowed}{}", help.as_ref().map(|help| format!("\nhelp: {help}")).unwrap_or_default())]
pub struct ScalarError {
    problem: String,
    allowed: &'static str,
    help: Option<String>,
}

impl ScalarError {
    fn new(problem: impl Into<String>, allowed: &'static str) -> Self {
        Self { problem: problem.into(), allowed, help: None }
    }

    /// "found `x`", with a very long x cut.
    fn found(input: &str, allowed: &'static str) -> Self {
        const SHOWN: usize = 80;
        match input.char_indices().nth(SHOWN) {
            Some((end, _)) => Self::new(format!("found `{}…`", &input[..end]), allowed),
            None if input.is_empty() => Self::new("found nothing", allowed),
            None => Self::new(format!("found `{input}`"), allowed),
        }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Serde and JSON Schema for a type that is written as a string and has `FromStr<Err = ScalarError>` and `Display`.
macro_rules! text_scalar {
    ($type:ident, allowed: $allowed:expr, schema: $schema:tt) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;

                impl serde::de::Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($allowed)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(Text)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}
use text_scalar;
