//! The HTTP router gateway: a library and a binary.

pub mod routing;
