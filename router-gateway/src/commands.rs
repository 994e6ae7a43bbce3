//! Subcommands of the program that ask a gateway that is running.

pub(crate) mod explain;
