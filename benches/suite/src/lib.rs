//! What the benches measure on: an ordinary request, a linked pair of sessions, route tables of any size, a small service.
//!
//! It measures nothing itself, and no figure is ever compared with a limit here.

pub mod calls;
pub mod heads;
pub mod sessions;
pub mod tables;
