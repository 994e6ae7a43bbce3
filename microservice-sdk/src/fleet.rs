//! Fleet: all links of a service, to all its gateways; each is opened when it is wanted, and kept by its own task.
//!
//! It knows nothing of what happens on a link, and does not decide how many there are to be.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::link_state::GatewayState;
use crate::link_task::LinkTask;
use crate::plan::{GatewayPlan, Identity};
use crate::serve::Server;
use crate::start_error::StartError;

/// A gateway's place among all, and the link's number at it.
type Berth = (usize, u16);

/// All links of a service. They end when it is dropped.
pub(crate) struct Fleet {
    identity: Arc<Identity>,
    server: Server,
    gateways: Vec<(Arc<GatewayPlan>, Arc<GatewayState>)>,
    /// The service drains: nothing more is opened.
    stop: CancellationToken,
    open: BTreeSet<Berth>,
    tasks: JoinSet<(Berth, Result<(), StartError>)>,
}

impl Fleet {
    pub(crate) fn new(
        identity: Arc<Identity>,
        server: Server,
        gateways: Vec<(Arc<GatewayPlan>, Arc<GatewayState>)>,
        stop: CancellationToken,
    ) -> Self {
        Self { identity, server, gateways, stop, open: BTreeSet::new(), tasks: JoinSet::new() }
    }

    /// Opens the links that are wanted and not there. One too many is left alone: it ends when it is lost.
    pub(crate) fn open_missing(&mut self) {
        if self.stop.is_cancelled() {
            return;
        }
        for (place, (gateway, state)) in self.gateways.iter().enumerate() {
            for number in 0..state.links() {
                let berth = (place, number);
                if !self.open.insert(berth) {
                    continue;
                }
                let task = LinkTask {
                    identity: Arc::clone(&self.identity),
                    gateway: Arc::clone(gateway),
                    state: Arc::clone(state),
                    server: self.server.clone(),
                    number,
                    stop: self.stop.clone(),
                };
                self.tasks.spawn(async move { (berth, task.run().await) });
            }
        }
    }

    /// Waits for the next task that ends; `None` when there is none left. To be called again if it was dropped.
    pub(crate) async fn next_ended(&mut self) -> Option<Result<(), StartError>> {
        match self.tasks.join_next().await? {
            Ok((berth, ended)) => {
                self.open.remove(&berth);
                Some(ended)
            }
            Err(error) => Some(Err(StartError::Panicked(error.to_string()))),
        }
    }
}
