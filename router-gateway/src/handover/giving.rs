//! The old process: lets a new one come, gives it what it needs, and goes on as before if that one fails.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

use super::channel::{Channel, Listening, Message, Name};
use super::{HandoverError, LONGEST_WAIT, SOCKETS, STARTING, STEP, VERSION};
use crate::gateway::Gateway;

/// After an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The Unix socket at which this process can be asked for its place.
#[derive(Debug)]
pub struct UpgradeSocket {
    listener: UnixListener,
    path: PathBuf,
    /// The file's number: another process may have put its own in its place.
    file: u64,
    node: String,
}

impl UpgradeSocket {
    /// Listens, for the owner of this process alone. A file that nobody listens on is replaced.
    ///
    /// # Errors
    /// [`HandoverError::InUse`] if a gateway serves there, or the operating system's.
    pub async fn bind(path: &Path, node: &str) -> Result<Self, HandoverError> {
        match UnixStream::connect(path).await {
            Ok(_) => Err(HandoverError::InUse(path.to_owned())),
            Err(_) => Self::replace(path, node),
        }
    }

    /// The same in the place of whoever listens there.
    ///
    /// # Errors
    /// The operating system's.
    pub fn replace(path: &Path, node: &str) -> Result<Self, HandoverError> {
        let refused = |source| HandoverError::Socket { path: path.to_owned(), source };
        let (listener, file) = listen(path).map_err(refused)?;
        Ok(Self { listener, path: path.to_owned(), file, node: node.to_owned() })
    }

    /// Waits until another process has taken the place of this one, and clients are its business. Those that come and fail
    /// are told of in the log; the gateway serves on as before. To be dropped where the gateway is to stop anyway.
    pub async fn handed_over(&mut self, gateway: &Gateway) {
        loop {
            let handover = match self.listener.accept().await {
                Ok((stream, _)) => self.hand_over(stream, gateway).await,
                Err(error) => {
                    tracing::warn!(%error, "cannot let another process take over");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match handover {
                Ok(()) => {
                    // The file is the other process's to replace, and no longer this one's to remove.
                    self.file = 0;
                    return;
                }
                // Whoever starts as an ordinary process looks whether somebody is here.
                Err((Step::Greeting, HandoverError::Connection(error)))
                    if error.kind() == io::ErrorKind::UnexpectedEof => {}
                Err((step, error)) => tracing::warn!(%error, "{}; serving on", step.as_str()),
            }
        }
    }

    async fn hand_over(&self, stream: UnixStream, gateway: &Gateway) -> Result<(), (Step, HandoverError)> {
        let mut channel = Channel::new(stream).map_err(|error| (Step::Greeting, error))?;
        let mut step = Step::Greeting;
        let outcome = self.step_by_step(&mut channel, gateway, &mut step).await;
        if outcome.is_err() {
            // It may still be there, and must not think that it serves alone.
            let told = Message::Refused { reason: "the old process goes on".to_owned() };
            let _ = channel.send(&told, STEP).await;
        }
        outcome.map_err(|error| (step, error))
    }

    async fn step_by_step(
        &self,
        channel: &mut Channel,
        gateway: &Gateway,
        step: &mut Step,
    ) -> Result<(), HandoverError> {
        let other = self.greeted(channel, gateway).await?;
        *step = Step::Starting;
        let Message::ServicesMayCome { wait_ms } = channel.receive(STARTING).await? else {
            return Err(HandoverError::Unexpected);
        };
        let wait = Duration::from_millis(wait_ms).saturating_add(STEP).min(LONGEST_WAIT);
        *step = Step::Coming;
        let sent = Away::send(gateway, other);
        channel.send(&sent.message, STEP).await?;
        let Message::Serving = channel.receive(wait).await? else {
            return Err(HandoverError::Unexpected);
        };
        tracing::info!(pid = other, "the other process serves; finishing what is in flight");
        sent.stay_away();
        Ok(())
    }

    /// Gives the listening sockets to a process that asks as it should, and returns its id.
    async fn greeted(&self, channel: &mut Channel, gateway: &Gateway) -> Result<u32, HandoverError> {
        let Message::TakeOver { version, pid, release } = channel.receive(STEP).await? else {
            return Err(HandoverError::Unexpected);
        };
        if version != VERSION {
            let reason = format!("it speaks version {VERSION} of the handover, and was asked in version {version}");
            channel.send(&Message::Refused { reason }, STEP).await?;
            return Err(HandoverError::Version(version));
        }
        tracing::info!(pid, release, "another process wants to take over");
        let sockets = gateway.sockets()?;
        let listening: Vec<_> = sockets
            .iter()
            .filter_map(|(purpose, socket, configured)| Some((Listening { purpose: purpose?, configured }, socket)))
            .take(SOCKETS)
            .collect();
        let offer = Message::Offer {
            version: VERSION,
            pid: std::process::id(),
            node: self.node.clone(),
            sockets: listening.iter().map(|(listening, _)| listening.clone()).collect(),
        };
        channel.send(&offer, STEP).await?;
        for (_, socket) in &listening {
            channel.send_descriptor(socket.as_fd(), STEP).await?;
        }
        tracing::info!(pid, sockets = listening.len(), "the listening sockets are handed over");
        Ok(pid)
    }
}

impl Drop for UpgradeSocket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.file) {
            // A file that is left is replaced by whoever comes next.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// How far a handover was when it failed.
#[derive(Debug, Clone, Copy)]
enum Step {
    Greeting,
    Starting,
    Coming,
}

impl Step {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Greeting => "a process that wanted to take over was not let",
            Self::Starting => "the process that wanted to take over did not start",
            Self::Coming => "the process that wanted to take over did not serve; services may come back",
        }
    }
}

/// Services that were asked to go to the other process; taken back when it is dropped.
struct Away<'g> {
    gateway: Option<&'g Gateway>,
    message: Message,
}

impl<'g> Away<'g> {
    fn send(gateway: &'g Gateway, to: u32) -> Self {
        let instances: Vec<Name> = gateway.send_services_away().iter().map(Name::from).collect();
        let (_, links) = gateway.registry().len();
        tracing::info!(pid = to, instances = instances.len(), links, "services are asked to go to the other process");
        let defaults = gateway.settled_defaults().into_iter();
        let defaults = defaults.map(|(service, version)| (service.to_string(), version.to_string())).collect();
        Self { gateway: Some(gateway), message: Message::ServicesAreSent { instances, links, defaults } }
    }

    /// For good.
    fn stay_away(mut self) {
        self.gateway = None;
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        if let Some(gateway) = self.gateway {
            gateway.take_services_back();
        }
    }
}

/// Listens beside the path, closes the file to others, and then puts it there: at no time is the path open to others, or
/// without anybody who listens.
fn listen(path: &Path) -> io::Result<(UnixListener, u64)> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&beside)?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))?;
    let file = fs::symlink_metadata(&beside)?.ino();
    fs::rename(&beside, path)?;
    Ok((listener, file))
}
