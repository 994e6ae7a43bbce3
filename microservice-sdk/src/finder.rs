//! Finder: the entries of a configuration that lead to gateways which come and go, and what is found there (SPEC 7).
//!
//! It dials nothing, and remembers nobody.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use router_link::{Backoff, Discovered, Discovery, Environment, LinkError};
use tokio::time::Sleep;

use crate::error::Chain;
use crate::outage::{Outage, SoFar, Telling};
use crate::plan::GatewayPlan;

/// The longest pause after a failure. A discovery has waits of its own; this only keeps one that fails at once from being
/// asked without end.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// All entries that discover. They end when it is dropped.
pub(crate) struct Finder {
    environment: Arc<dyn Environment>,
    searches: Vec<Search>,
}

/// One entry that discovers.
struct Search {
    entry: u8,
    plan: Arc<GatewayPlan>,
    /// `None`: it has ended, and another one is to be asked for.
    discovery: Option<Box<dyn Discovery>>,
    backoff: Backoff,
    /// After a failure, so that one which fails at once does not keep the service busy.
    pause: Option<Pin<Box<Sleep>>>,
    outage: Outage,
}

/// What has changed at an entry.
pub(crate) struct Found {
    pub(crate) entry: u8,
    pub(crate) plan: Arc<GatewayPlan>,
    pub(crate) change: Discovered,
}

impl Finder {
    pub(crate) const fn new(environment: Arc<dyn Environment>) -> Self {
        Self { environment, searches: Vec::new() }
    }

    /// Searches at one more entry.
    pub(crate) fn search(&mut self, entry: u8, plan: Arc<GatewayPlan>, discovery: Box<dyn Discovery>) {
        tracing::info!(gateway = plan.connector.target(), "looking for gateways");
        let (backoff, pause, outage) = (Backoff::new(Backoff::FIRST, PAUSE_MAX), None, Outage::default());
        self.searches.push(Search { entry, plan, discovery: Some(discovery), backoff, pause, outage });
    }

    /// Whether something may still be found.
    pub(crate) const fn is_searching(&self) -> bool {
        !self.searches.is_empty()
    }

    /// Waits for the next change anywhere; for ever if there will be none. Nothing is lost when it is dropped.
    pub(crate) async fn next(&mut self) -> Found {
        poll_fn(|cx| {
            let Self { environment, searches } = self;
            let found = searches.iter_mut().find_map(|search| match search.poll(&**environment, cx) {
                Poll::Ready(change) => Some(Found { entry: search.entry, plan: Arc::clone(&search.plan), change }),
                Poll::Pending => None,
            });
            found.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

impl Search {
    fn poll(&mut self, environment: &dyn Environment, cx: &mut Context<'_>) -> Poll<Discovered> {
        loop {
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.pause = None;
            }
            if self.discovery.is_none() {
                self.discovery = self.plan.connector.discover();
            }
            let Some(discovery) = &mut self.discovery else { return Poll::Pending };
            match discovery.poll_change(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(change)) => {
                    self.backoff.reset();
                    if let Some(SoFar { failures, lasting }) = self.outage.over(environment.now()) {
                        let gateway = self.plan.connector.target();
                        tracing::info!(%gateway, failures, ?lasting, "gateways can be found again");
                    }
                    return Poll::Ready(change);
                }
                Poll::Ready(Err(error)) => self.failed(&error, environment),
            }
        }
    }

    fn failed(&mut self, error: &LinkError, environment: &dyn Environment) {
        let gateway = self.plan.connector.target();
        if matches!(error, LinkError::Closed) {
            self.discovery = None;
        }
        let wait = self.backoff.next_wait(environment.random_u64());
        // A search that fails at once is not asked again at once.
        self.pause = Some(Box::pin(tokio::time::sleep(wait)));
        let error = Chain(error);
        match self.outage.failed(environment.now()) {
            Telling::First => tracing::warn!(%gateway, %error, "no gateways can be found; trying again until they can"),
            Telling::Again(SoFar { failures, lasting }) => {
                tracing::warn!(%gateway, %error, failures, ?lasting, "no gateways can be found; still trying");
            }
            Telling::Quietly(SoFar { failures, lasting }) => {
                tracing::debug!(%gateway, %error, failures, ?lasting, "no gateways can be found");
            }
        }
    }
}
