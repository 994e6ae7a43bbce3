//! Subcommands of the program that serve nobody: they ask a gateway that is running, or prepare for one.

#[cfg(feature = "tls")]
pub(crate) mod certs;
pub(crate) mod explain;
