//! Fleet: all links of a service, to all its gateways; each is opened when it is wanted, and kept by its own task.
//!
//! Gateways are those that are dialled, for as long as the service runs, and those that are found, until they are gone. It
//! knows nothing of what happens on a link, and does not decide how many there are to be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use router_link::{Connector, Discovered};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::board::{Board, Place};
use crate::finder::Found;
use crate::link_state::GatewayState;
use crate::link_task::{Kept, LinkTask};
use crate::plan::{GatewayPlan, Identity};
use crate::serve::Server;
use crate::shares::Shares;
use crate::start_error::StartError;

/// Links that only serve to their end, over all gateways. With more, none is dialled in the place of a further one until it
/// has ended: a gateway that drains every link as soon as it has come does not make them countless.
const REPLACED: usize = 64;
/// Gateways that one entry of the configuration may lead to. Further ones are left alone, whoever announces them.
const FOUND: usize = 64;

/// A way to a gateway, and the link's number on it.
type Berth = (Place, u16);

/// All links of a service. They end when it is dropped.
pub(crate) struct Fleet {
    identity: Arc<Identity>,
    server: Server,
    board: Arc<Board>,
    shares: Arc<Shares>,
    ways: BTreeMap<Place, Way>,
    /// Ways that were ever found.
    found: u64,
    /// The service drains: nothing more is opened.
    stop: CancellationToken,
    open: BTreeSet<Berth>,
    /// Whose link serves to its end, and another is to be dialled. Once for each.
    to_replace: BTreeSet<Berth>,
    /// One for each open berth, and one for each link whose berth another one has.
    tasks: JoinSet<(Berth, Result<Kept, StartError>)>,
}

/// One way to a gateway.
struct Way {
    plan: Arc<GatewayPlan>,
    state: Arc<GatewayState>,
    /// By which name it was found; none of one that is dialled.
    node: Option<Arc<str>>,
}

impl Fleet {
    pub(crate) fn new(
        identity: Arc<Identity>,
        server: Server,
        (board, shares): (Arc<Board>, Arc<Shares>),
        stop: CancellationToken,
    ) -> Self {
        Self {
            identity,
            server,
            board,
            shares,
            ways: BTreeMap::new(),
            found: 0,
            stop,
            open: BTreeSet::new(),
            to_replace: BTreeSet::new(),
            tasks: JoinSet::new(),
        }
    }

    /// An entry that leads to one gateway.
    pub(crate) fn dial(&mut self, entry: u8, plan: &Arc<GatewayPlan>) {
        self.add(Place::dialled(entry), plan, Arc::clone(&plan.connector), None);
    }

    /// What has changed about the gateways that an entry leads to.
    pub(crate) fn changed(&mut self, found: Found) {
        let Found { entry, plan, change } = found;
        let target = plan.connector.target();
        match change {
            Discovered::Found { node, connector } => {
                if let Some((_, way)) = self.way_of(entry, &node) {
                    tracing::debug!(gateway = target, %node, "found again");
                    return way.state.found_again(connector);
                }
                if self.ways.keys().filter(|place| place.entry == entry && !place.is_dialled()).count() >= FOUND {
                    tracing::warn!(gateway = target, %node, "left alone: {FOUND} gateways were found there already");
                    return;
                }
                tracing::info!(gateway = target, %node, "found");
                self.found += 1;
                self.add(Place { entry, number: self.found }, &plan, connector, Some(node));
            }
            Discovered::Gone { node } => {
                let Some((place, _)) = self.way_of(entry, &node) else { return };
                tracing::info!(gateway = target, %node, "gone");
                if let Some(way) = self.ways.remove(&place) {
                    way.state.over.cancel();
                }
                self.board.remove(place);
                self.board.announce_leases(&self.shares.remove(place));
            }
        }
    }

    fn way_of(&self, entry: u8, node: &str) -> Option<(Place, &Way)> {
        let mut ways = self.ways.iter().filter(|(place, _)| place.entry == entry);
        ways.find(|(_, way)| way.node.as_deref() == Some(node)).map(|(place, way)| (*place, way))
    }

    fn add(&mut self, place: Place, plan: &Arc<GatewayPlan>, connector: Arc<dyn Connector>, node: Option<Arc<str>>) {
        self.board.add(place);
        self.board.announce_leases(&self.shares.add(place));
        let shared = (Arc::clone(&self.board), Arc::clone(&self.shares));
        let state = GatewayState::new(shared, place, plan, connector, self.stop.child_token());
        self.ways.insert(place, Way { plan: Arc::clone(plan), state, node });
    }

    /// Opens the links that are wanted and not there. One too many is left alone: it ends when it is lost.
    pub(crate) fn open_missing(&mut self) {
        if self.stop.is_cancelled() {
            return;
        }
        for (&place, way) in &self.ways {
            self.to_replace.extend(way.state.take_replaceable().into_iter().map(|number| (place, number)));
            for number in 0..way.state.links() {
                let berth = (place, number);
                let replaced = self.tasks.len().saturating_sub(self.open.len());
                let is_replacement = replaced < REPLACED && self.to_replace.remove(&berth);
                if !self.open.insert(berth) && !is_replacement {
                    continue;
                }
                let task = LinkTask {
                    identity: Arc::clone(&self.identity),
                    gateway: Arc::clone(&way.plan),
                    state: Arc::clone(&way.state),
                    server: self.server.clone(),
                    number,
                    is_replacement,
                    stop: self.stop.clone(),
                };
                self.tasks.spawn(async move { (berth, task.run().await) });
            }
        }
    }

    /// Whether there are links, or tasks that dial them.
    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Waits for the next task that ends; for ever when there is none. To be called again if it was dropped.
    pub(crate) async fn next_ended(&mut self) -> Result<(), StartError> {
        match self.tasks.join_next().await {
            // Its berth is another one's, or is yet to be.
            Some(Ok((_, Ok(Kept::Replaced)))) => Ok(()),
            Some(Ok((berth, ended))) => {
                self.open.remove(&berth);
                ended.map(|_| ())
            }
            Some(Err(error)) => Err(StartError::Panicked(error.to_string())),
            None => std::future::pending().await,
        }
    }
}
