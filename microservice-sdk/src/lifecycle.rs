//! A service's life: connected to all its gateways, until it is told to stop and has drained (SPEC 11).
//!
//! One task owns all others; when it ends, nothing of the service is left. Links are `fleet`'s, handlers `serve`'s.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use router_common::frame::HealthStatus;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::board::Board;
use crate::client::Client;
use crate::finder::Finder;
use crate::fleet::Fleet;
use crate::health::Health;
use crate::plan::Plan;
use crate::serve::Server;
use crate::service::{Hook, Microservice};
use crate::shares::Shares;
use crate::start_error::StartError;

impl<S: Send + Sync + 'static> Microservice<S> {
    /// Connects to all gateways, registers, and answers requests until SIGTERM or SIGINT; then drains: the gateways send
    /// nothing more, and what is in flight is answered, within the grace. A second signal ends it at once.
    ///
    /// A link that is lost is dialled again, for ever, with growing waits.
    ///
    /// # Errors
    /// The service is ill-defined or wrongly configured, a gateway does not let it in or refuses an endpoint, or another
    /// process took over this instance: see [`StartError`].
    pub async fn run(self) -> Result<(), StartError> {
        let mut signals = Signals::listen().map_err(StartError::Signals)?;
        let mut running = self.start()?;
        tokio::select! {
            biased;
            ended = running.ended() => return ended,
            signal = signals.next() => tracing::info!(signal, "draining"),
        }
        tokio::select! {
            biased;
            ended = running.shutdown() => ended,
            signal = signals.next() => {
                tracing::warn!(signal, "ending at once");
                Ok(())
            }
        }
    }

    /// As [`Microservice::run`], until `end` instead of a signal.
    ///
    /// # Errors
    /// As there.
    pub async fn run_until(self, end: impl Future<Output = ()>) -> Result<(), StartError> {
        let mut running = self.start()?;
        tokio::select! {
            biased;
            ended = running.ended() => return ended,
            () = end => {}
        }
        running.shutdown().await
    }

    /// Starts the service in the background, for a program that is more than this service. Within a tokio runtime.
    ///
    /// # Errors
    /// The service is ill-defined or wrongly configured. What gateways say comes later, by [`Running::ready`] and
    /// [`Running::ended`].
    pub fn start(self) -> Result<Running, StartError> {
        let plan = Plan::make(self.parts)?;
        let board = Board::new(plan.gateways.len());
        // Handlers may be told of it.
        let stop = plan.table.surroundings.draining.clone();
        let client = Client::new(Arc::clone(&board), Arc::clone(&plan.identity.environment));
        // A table has one life: a service is consumed by its start.
        let _ = plan.table.surroundings.client.set(client.clone());
        let _ = plan.table.surroundings.health.set(Health::new(Arc::clone(&board)));
        let task = tokio::spawn(supervise(plan, Arc::clone(&board), stop.clone()));
        Ok(Running { board, client, stop, task: Some(task) })
    }
}

/// A service that runs in the background. Dropping it drains and ends the service, without waiting for that.
pub struct Running {
    board: Arc<Board>,
    client: Client,
    stop: CancellationToken,
    /// `None` once its outcome was given.
    task: Option<JoinHandle<Result<(), StartError>>>,
}

impl Running {
    /// Waits until every gateway has taken the endpoints and sends requests; of an entry that finds its gateways by itself,
    /// one of them. Requests are served before that: what cannot be reached keeps nobody else waiting.
    ///
    /// # Errors
    /// The service ended before that.
    pub async fn ready(&mut self) -> Result<(), StartError> {
        let board = Arc::clone(&self.board);
        tokio::select! {
            biased;
            ended = self.ended() => Err(ended.err().unwrap_or(StartError::Ended)),
            () = board.ready() => Ok(()),
        }
    }

    /// Waits until the service ends by itself, which it does only for a reason.
    ///
    /// # Errors
    /// That reason, once.
    pub async fn ended(&mut self) -> Result<(), StartError> {
        let Some(task) = &mut self.task else { return Err(StartError::Ended) };
        let ended = task.await;
        self.task = None;
        outcome(ended)
    }

    /// Drains and ends: the gateways send nothing more, what is in flight is answered within the grace, the hooks of
    /// [`Microservice::on_shutdown`] have run.
    ///
    /// # Errors
    /// The service had ended by itself.
    pub async fn shutdown(mut self) -> Result<(), StartError> {
        self.stop.cancel();
        match self.task.take() {
            Some(task) => outcome(task.await),
            None => Ok(()),
        }
    }

    /// Calls to other services, through the same links.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// What the service says of its own health, at once and with each heartbeat. `Unhealthy` gets no requests.
    pub fn set_health(&self, status: HealthStatus) {
        self.board.set_health(status);
    }

    /// The same for whoever finds out how the service is, in another task; handlers take [`Health`] as an argument.
    #[must_use]
    pub fn health(&self) -> Health {
        Health::new(Arc::clone(&self.board))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("stopping", &self.stop.is_cancelled()).finish_non_exhaustive()
    }
}

fn outcome(ended: Result<Result<(), StartError>, JoinError>) -> Result<(), StartError> {
    ended.unwrap_or_else(|error| Err(StartError::Panicked(error.to_string())))
}

/// Owns every task of the service, from its start to its end.
async fn supervise(plan: Plan, board: Arc<Board>, stop: CancellationToken) -> Result<(), StartError> {
    let Plan { identity, table, gateways, lease, grace, hooks } = plan;
    // Children of neither: a drain stops the links first and cuts only when the grace is over.
    let cut = CancellationToken::new();
    // Whatever ends this task early ends its children too.
    let _guards = (stop.clone().drop_guard(), cut.clone().drop_guard());
    let server = Server { table, handlers: TaskTracker::new(), cut: cut.clone() };
    let mut changes = board.changes();
    let mut finder = Finder::new(Arc::clone(&identity.environment));
    let (entries, mut dialled) = (gateways.len(), Vec::new());
    for (entry, gateway) in (0..).zip(gateways) {
        let gateway = Arc::new(gateway);
        match gateway.connector.discover() {
            Some(discovery) => finder.search(entry, gateway, discovery),
            None => dialled.push((entry, gateway)),
        }
    }
    let shares = Shares::new(lease, entries, dialled.iter().map(|(entry, _)| *entry));
    let common = (Arc::clone(&board), Arc::clone(&shares));
    let mut fleet = Fleet::new(identity, server.clone(), common, stop.clone());
    for (entry, gateway) in dialled {
        fleet.dial(entry, &gateway);
    }
    let mut result = Ok(());
    let working = async {
        loop {
            fleet.open_missing();
            let searches = finder.is_searching() && !stop.is_cancelled();
            if fleet.is_empty() && !searches {
                break;
            }
            let ended = tokio::select! {
                biased;
                ended = fleet.next_ended() => ended,
                () = stop.cancelled(), if searches => continue,
                found = finder.next(), if searches => {
                    fleet.changed(found);
                    continue;
                }
                () = shares.freed() => {
                    board.announce_leases(&shares.settle());
                    continue;
                }
                // The board is the links', so there is always somebody who writes on it.
                _ = changes.changed() => continue,
            };
            if let Err(error) = ended {
                // The first one is the reason; the others may only follow from it.
                if result.is_ok() {
                    result = Err(error);
                }
                stop.cancel();
            }
        }
        server.handlers.close();
        server.handlers.wait().await;
    };
    let grace_is_over = async {
        stop.cancelled().await;
        tokio::time::sleep(grace).await;
        cut.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = working => {}
        () = grace_is_over => {}
    }
    run_hooks(hooks).await;
    result
}

async fn run_hooks(hooks: Vec<Hook>) {
    for hook in hooks.into_iter().rev() {
        hook().await;
    }
}

/// The signals that end a service.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    #[cfg(not(unix))]
    fn listen() -> std::io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for the next one, and names it.
    #[cfg(unix)]
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    #[cfg(not(unix))]
    async fn next(&mut self) -> &'static str {
        // Where it cannot be listened to, the process ends by it.
        let _ = tokio::signal::ctrl_c().await;
        "Ctrl-C"
    }
}
