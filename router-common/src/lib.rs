//! The vocabulary, the codec and the pure protocol session of Stella Router.
//!
//! This crate knows what is said on a link and what each side must then do. It deliberately does not know how bytes
//! travel, what time it is, or who runs it: there is no I/O, no clock, no task and no randomness here. Time and random
//! bytes are arguments, and `Cargo.toml` is the proof.
//!
//! # Glossary
//!
//! | word | meaning |
//! |---|---|
//! | node, gateway | the process that HTTP clients talk to |
//! | service, instance | a named set of endpoints; one running process of it |
//! | endpoint | method + path template of a service's version |
//! | link | one carrier of frames between an instance and a gateway; an instance may have several |
//! | frame | the unit of the wire: a 12-byte header and a payload |
//! | stream | one request/response exchange |
//! | window | byte credit of a stream or of a link |
//! | lease | request credit of an instance |
//! | drain | the agreed end of opening streams on a link |
//! | deadline | the instant after which nobody wants the answer any more |

pub mod codec;
pub mod endpoint;
pub mod frame;
pub mod head;
pub mod hop_by_hop;
pub mod identity;
pub mod limits;
pub mod path;
pub mod problem;
pub mod session;
#[cfg(feature = "testing")]
pub mod testing;
pub mod token;
pub mod wire;
