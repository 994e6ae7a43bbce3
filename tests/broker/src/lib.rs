//! Private RabbitMQ nodes for tests: each on its own loopback ports and in its own folder, and never left behind.
//!
//! It runs the server that the system has installed, and knows neither AMQP nor who uses it. Everything here blocks: a
//! test that runs on a runtime calls it where that is allowed.
//!
//! [`shared_url`] is for ordinary tests, which keep apart by random names; a [`Node`] of one's own is for what a broker
//! does not survive.

mod node;
mod watched;

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

pub use node::{Node, Options, Tls};

/// Names the broker that is there already: `amqp://user:password@host:port/vhost`.
pub const URL_VARIABLE: &str = "AMQP_URL";
/// Names the folder that the server's programs are in, where it is not the package's.
pub const PROGRAMS_VARIABLE: &str = "RABBITMQ_PROGRAMS";
/// Where Debian's package `rabbitmq-server` has them.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";

/// Longest wait for a node to answer: a cold start on a busy machine takes a good many seconds.
const START: Duration = Duration::from_secs(120);

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    #[error(
        "there is no {0}: install the package `rabbitmq-server`, name its folder by {PROGRAMS_VARIABLE}, or name a \
         broker by {URL_VARIABLE}"
    )]
    NotInstalled(PathBuf),
    #[error("{doing}: {source}")]
    Io { doing: &'static str, source: std::io::Error },
    #[error("the broker did not answer on port {port} within {after:?}; it says:\n{said}")]
    Silent { port: u16, after: Duration, said: String },
    #[error("rabbitmqctl {arguments} failed:\n{said}")]
    Control { arguments: String, said: String },
}

impl BrokerError {
    fn io(doing: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}

/// Whether the server is installed where it is looked for.
#[must_use]
pub fn is_installed() -> bool {
    program("rabbitmq-server").is_ok()
}

/// The URL of a broker for tests that disturb nobody: the one that [`URL_VARIABLE`] names, else one that this process
/// starts at its first call and keeps to its end.
///
/// # Errors
/// When there is none, and none can be started.
pub fn shared_url() -> Result<String, BrokerError> {
    static SHARED: OnceLock<Node> = OnceLock::new();
    static STARTING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    if let Ok(url) = std::env::var(URL_VARIABLE) {
        return Ok(url);
    }
    let _one_at_a_time = STARTING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(node) = SHARED.get() {
        return Ok(node.url());
    }
    let node = Node::start(Options::default())?;
    Ok(SHARED.get_or_init(|| node).url())
}

/// One of the server's programs.
fn program(name: &str) -> Result<PathBuf, BrokerError> {
    let folder = std::env::var_os(PROGRAMS_VARIABLE).map_or_else(|| PathBuf::from(PROGRAMS), PathBuf::from);
    let path = folder.join(name);
    if path.is_file() { Ok(path) } else { Err(BrokerError::NotInstalled(path)) }
}
