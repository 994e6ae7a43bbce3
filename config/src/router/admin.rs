//! The `admin` section: where operators look in, and who may.
//!
//! What they see there is the gateway's business.

use schemars::JsonSchema;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::local;
use crate::scalar::{ListenAddr, SecretRef};

/// The listener for operators (SPEC 13).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    pub listen: ListenAddr,
    pub access: AdminAccess,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: local(9901), access: AdminAccess::Open }
    }
}

/// Who may use the admin listener: `open`, `off` (404), or `{ token: env:NAME }` (401/403 without it).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminAccess {
    Open,
    Off,
    Token(SecretRef),
}

const ADMIN_ACCESS: &str = "`open`, `off`, or a map with a token: `{ token: env:ADMIN_TOKEN }`";

impl<'de> Deserialize<'de> for AdminAccess {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Access;

        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Guarded {
            token: SecretRef,
        }

        impl<'de> Visitor<'de> for Access {
            type Value = AdminAccess;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(ADMIN_ACCESS)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<AdminAccess, E> {
                match text {
                    "open" => Ok(AdminAccess::Open),
                    "off" => Ok(AdminAccess::Off),
                    _ => Err(E::custom(format_args!("found `{text}`\nallowed: {ADMIN_ACCESS}"))),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<AdminAccess, A::Error> {
                Guarded::deserialize(de::value::MapAccessDeserializer::new(map))
                    .map(|guarded| AdminAccess::Token(guarded.token))
            }
        }

        deserializer.deserialize_any(Access)
    }
}

impl JsonSchema for AdminAccess {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AdminAccess".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let token = generator.subschema_for::<SecretRef>();
        schemars::json_schema!({
            "description": ADMIN_ACCESS,
            "anyOf": [
                { "enum": ["open", "off"] },
                {
                    "type": "object",
                    "properties": { "token": token },
                    "required": ["token"],
                    "additionalProperties": false
                }
            ]
        })
    }
}
