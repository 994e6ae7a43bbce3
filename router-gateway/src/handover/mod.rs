//! Handover: a new process of a gateway takes the old one's place, and nobody notices (SPEC 13).
//!
//! The old process listens on a Unix socket; the new one connects to it and is given every listening socket. Since both
//! then hold the same sockets, whoever waits in their queues is served by whichever process accepts. The order of the
//! steps is what loses nothing:
//!
//! ```text
//!   new                                              old
//!    |-- take over ----------------------------------->|  serves
//!    |<------------------- offer, listening sockets ---|
//!    |  starts; lets services in, no clients           |
//!    |-- services may come --------------------------->|  lets no services in any more, and asks those
//!    |<------------------ instances, default versions -|  that are there to dial anew; its clients' requests
//!    |  waits until they have all come over            |  go over the old links
//!    |  lets clients in                                |
//!    |-- serving ------------------------------------->|  lets no clients in any more, finishes what is in
//!    v                                                 v  flight, ends
//! ```
//!
//! Until `serving` nothing is final: if the new process goes away, the old one lets services in again and goes on, and if
//! the old one does, the new one serves at once. Services do their part by dialling a gateway anew that drains their link.
//!
//! | file | what it does |
//! |---|---|
//! | `channel` | messages and descriptors over a Unix socket |
//! | `giving` | the old process |
//! | `taking` | the new process |
//! | `activation` | listening sockets that a service manager opened |
//! | `notify` | telling a service manager how far one is |
//!
//! What the sockets are used for is the gateway's business. What cannot be used by two processes at once is released with
//! `services may come` (`Listener::release`): over UDP the old one's links stay, and the port is the new one's.

pub mod activation;
mod channel;
mod giving;
pub mod notify;
mod taking;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use self::giving::UpgradeSocket;
pub use self::taking::TakeOver;

/// The version of what the two processes say. One that does not know the other's refuses, and nothing has happened.
const VERSION: u32 = 1;
/// What is answered at once is answered within this.
const STEP: Duration = Duration::from_secs(10);
/// Until a process that has the sockets lets services in: it has them to read its configuration and to start.
const STARTING: Duration = Duration::from_secs(60);
/// The longest that the new process may let the old one wait for it to serve, whatever it says.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// Listening sockets that are handed over: one for each worker, and a few.
const SOCKETS: usize = 1024;

/// Why a handover does not come about.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    #[error("upgrade.socket {path}: {source}", path = path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("another gateway serves at upgrade.socket {path}: start with `--take-over` to take its place", path = .0.display())]
    InUse(PathBuf),
    #[error("the other process belongs to the user {0}")]
    Stranger(u32),
    #[error("the other process says: {0}")]
    Refused(String),
    #[error("the other process speaks version {0} of the handover, this one {VERSION}")]
    Version(u32),
    #[error("the other process has said something else than was its turn")]
    Unexpected,
    #[error("the other process has not answered within {0:?}")]
    Silent(Duration),
    #[error("the connection to the other process: {0}")]
    Connection(#[from] io::Error),
}
