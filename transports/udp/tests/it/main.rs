//! The UDP transport over real sockets.

mod attacks;
mod golden;
mod links;
mod support;
