//! `router.yaml` and `microservice.yaml`: types, layers and diagnostics (SPEC 10).
//!
//! A value comes from, in rising order: the defaults of the types, the file, the environment
//! (`ROUTER__NODE__REGION=eu-west`), the command line (`node.region=eu-west`). What is wrong is said like a compiler
//! says it: file, line, column, key, what was found, what is allowed, and what was probably meant.
//!
//! This crate is the machinery and the types that all gateways and services share. It knows no transport: each owns its
//! settings type, and the composition root gives them to [`router::RouterConfig`]. It watches no file and opens no
//! listener.

mod claims;
mod error;
pub mod listener;
mod load;
pub mod microservice;
pub mod router;
pub mod scalar;
mod schema;
pub mod validate;

pub use self::error::{ConfigError, Diagnostic, Excerpt, Origin, Place};
pub use self::listener::ListenerSafety;
pub use self::load::{FILE_BYTES, Loaded, Sources, load, load_traced};
pub use self::microservice::MicroserviceConfig;
pub use self::router::RouterConfig;
pub use self::scalar::{
    ByteSize, GatewayUrl, HeaderKey, HumanDuration, IpRange, ListenAddr, MethodName, ResolvedSecrets, ScalarError,
    Secret, SecretError, SecretRef, SharedSecrets,
};
pub use self::schema::{schema_for_microservice, schema_for_router};
pub use self::validate::{Checks, KeyPath, Refusal, Validate};
