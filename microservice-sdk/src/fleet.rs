//! Fleet: all links of a service, to all its gateways; each is opened when it is wanted, and kept by its own task.
//!
//! It knows nothing of what happens on a link, and does not decide how many there are to be.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::link_state::GatewayState;
use crate::link_task::{Kept, LinkTask};
use crate::plan::{GatewayPlan, Identity};
use crate::serve::Server;
use crate::start_error::StartError;

/// Links that only serve to their end, over all gateways. With more, none is dialled in the place of a further one until it
/// has ended: a gateway that drains every link as soon as it has come does not make them countless.
const REPLACED: usize = 64;

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
    /// Whose link serves to its end, and another is to be dialled. Once for each.
    to_replace: BTreeSet<Berth>,
    /// One for each open berth, and one for each link whose berth another one has.
    tasks: JoinSet<(Berth, Result<Kept, StartError>)>,
}

impl Fleet {
    pub(crate) fn new(
        identity: Arc<Identity>,
        server: Server,
        gateways: Vec<(Arc<GatewayPlan>, Arc<GatewayState>)>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            identity,
            server,
            gateways,
            stop,
            open: BTreeSet::new(),
            to_replace: BTreeSet::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Opens the links that are wanted and not there. One too many is left alone: it ends when it is lost.
    pub(crate) fn open_missing(&mut self) {
        if self.stop.is_cancelled() {
            return;
        }
        for (place, (gateway, state)) in self.gateways.iter().enumerate() {
            self.to_replace.extend(state.take_replaceable().into_iter().map(|number| (place, number)));
            for number in 0..state.links() {
                let berth = (place, number);
                let replaced = self.tasks.len().saturating_sub(self.open.len());
                let is_replacement = replaced < REPLACED && self.to_replace.remove(&berth);
                if !self.open.insert(berth) && !is_replacement {
                    continue;
                }
                let task = LinkTask {
                    identity: Arc::clone(&self.identity),
                    gateway: Arc::clone(gateway),
                    state: Arc::clone(state),
                    server: self.server.clone(),
                    number,
                    is_replacement,
                    stop: self.stop.clone(),
                };
                self.tasks.spawn(async move { (berth, task.run().await) });
            }
        }
    }

    /// Waits for the next task that ends; `None` when there is none left. To be called again if it was dropped.
    pub(crate) async fn next_ended(&mut self) -> Option<Result<(), StartError>> {
        match self.tasks.join_next().await? {
            // Its berth is another one's, or is yet to be.
            Ok((_, Ok(Kept::Replaced))) => Some(Ok(())),
            Ok((berth, ended)) => {
                self.open.remove(&berth);
                Some(ended.map(|_| ()))
            }
            Err(error) => Some(Err(StartError::Panicked(error.to_string()))),
        }
    }
}
