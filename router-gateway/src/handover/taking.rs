//! The new process: asks the old one for its place, and serves when the services have come over.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use router_common::identity::Instance;
use socket2::SockRef;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use super::channel::{Channel, Message, Name};
use super::{HandoverError, SOCKETS, STEP, VERSION};
use crate::gateway::Gateway;
use crate::sockets::Sockets;

/// Between two looks at who has come.
const LOOK: Duration = Duration::from_millis(10);
/// How many of those who are missing are told by name.
const NAMED: usize = 8;

/// A place that is about to be taken. Dropping it leaves the old process in it.
pub struct TakeOver {
    channel: Channel,
    sockets: Sockets,
    pid: u32,
}

impl TakeOver {
    /// Asks whoever serves at `path` for its listening sockets; `None` if nobody does.
    ///
    /// # Errors
    /// [`HandoverError`]; the old process goes on as before.
    pub async fn ask(path: &Path) -> Result<Option<Self>, HandoverError> {
        let stream = match UnixStream::connect(path).await {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(source) => return Err(HandoverError::Socket { path: path.to_owned(), source }),
        };
        let mut channel = Channel::new(stream)?;
        let release = env!("CARGO_PKG_VERSION").to_owned();
        channel.send(&Message::TakeOver { version: VERSION, pid: std::process::id(), release }, STEP).await?;
        let (pid, node, listening) = match channel.receive(STEP).await? {
            Message::Offer { version: VERSION, pid, node, sockets } => (pid, node, sockets),
            Message::Offer { version, .. } => return Err(HandoverError::Version(version)),
            Message::Refused { reason } => return Err(HandoverError::Refused(reason)),
            _ => return Err(HandoverError::Unexpected),
        };
        if listening.len() > SOCKETS {
            return Err(HandoverError::Unexpected);
        }
        let mut sockets = Sockets::default();
        for listening in listening {
            let socket = TcpListener::from(channel.receive_descriptor(STEP).await?);
            if !SockRef::from(&socket).is_listener()? {
                return Err(HandoverError::Unexpected);
            }
            sockets.add(listening.purpose, socket, listening.configured);
        }
        tracing::info!(pid, node, sockets = sockets.len(), "taking over");
        Ok(Some(Self { channel, sockets, pid }))
    }

    /// The old process's listening sockets, to start with.
    pub fn take_sockets(&mut self) -> Sockets {
        std::mem::take(&mut self.sockets)
    }

    /// Has the services come over to this gateway, which was started by [`crate::Builder::held`], for at most `wait`; then
    /// lets clients in, and has the old process end. If that one ends before, clients are let in at once.
    ///
    /// # Errors
    /// [`HandoverError`]: the old process goes on as before, and this one must not serve.
    pub async fn complete(mut self, gateway: &Gateway, wait: Duration) -> Result<(), HandoverError> {
        match self.services_come_over(gateway, wait).await {
            Ok(()) => {}
            Err(error) if is_gone(&error) => {
                tracing::warn!(pid = self.pid, "the old process has ended before its time; serving at once");
                gateway.open();
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        gateway.open();
        match self.channel.send(&Message::Serving, STEP).await {
            Err(error) if !is_gone(&error) => Err(error),
            _ => Ok(()),
        }
    }

    async fn services_come_over(&mut self, gateway: &Gateway, wait: Duration) -> Result<(), HandoverError> {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let told = self.channel.send(&Message::ServicesMayCome { wait_ms }, STEP).await;
        // Whoever does not listen any more may have said why.
        let answer = match self.channel.receive(STEP).await {
            Ok(answer) => answer,
            Err(error) => return Err(told.err().unwrap_or(error)),
        };
        let (instances, links) = match answer {
            Message::ServicesAreSent { instances, links, defaults } => {
                gateway.inherit_defaults(parsed(&defaults));
                (instances, links)
            }
            Message::Refused { reason } => return Err(HandoverError::Refused(reason)),
            _ => return Err(HandoverError::Unexpected),
        };
        tracing::info!(instances = instances.len(), links, "waiting for the old process's services");
        let mut missing: Vec<Instance> = instances.iter().filter_map(Name::parse).collect();
        let until = Instant::now() + wait;
        let coming = async {
            loop {
                missing.retain(|instance| !gateway.registry().is_in_service(instance));
                if missing.is_empty() {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            waited = timeout_at(until, coming) => {
                if waited.is_err() {
                    let names: Vec<_> = missing.iter().take(NAMED).map(ToString::to_string).collect();
                    tracing::warn!(missing = missing.len(), ?names, "some instances have not come over; serving without");
                }
                Ok(())
            }
            // It has nothing to say but that it goes on, or nothing at all because it has ended.
            said = self.channel.receive_sometime() => match said? {
                Message::Refused { reason } => Err(HandoverError::Refused(reason)),
                _ => Err(HandoverError::Unexpected),
            },
        }
    }
}

impl fmt::Debug for TakeOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TakeOver").field("pid", &self.pid).field("sockets", &self.sockets.len()).finish_non_exhaustive()
    }
}

/// The other end was closed, which its process does only by ending.
fn is_gone(error: &HandoverError) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error, HandoverError::Connection(error) if matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof))
}

fn parsed<K: std::str::FromStr + Ord, V: std::str::FromStr>(words: &BTreeMap<String, String>) -> BTreeMap<K, V> {
    words.iter().filter_map(|(key, value)| Some((key.parse().ok()?, value.parse().ok()?))).collect()
}
