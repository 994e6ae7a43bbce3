//! The HTTP router gateway: a library and a binary.

pub mod registry;
pub mod routing;
