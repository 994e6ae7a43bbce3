//! Connectors whose links do not leave what a service says as it is.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use router_common::frame::Frame;
use router_common::session::Budget;
use router_link::{
    BoxFuture, BoxLink, Capabilities, Connector, DetachedLink, Discovered, Discovery, Link, LinkError, PeerInfo,
};

/// What is done to the frames that a service is about to send.
pub(crate) type Meddle = Arc<dyn Fn(&mut VecDeque<Frame>) + Send + Sync>;

/// A connector whose links are meddled with, the ones to gateways that it finds too.
pub(crate) fn meddling(
    inner: Arc<dyn Connector>,
    meddle: impl Fn(&mut VecDeque<Frame>) + Send + Sync + 'static,
) -> Arc<dyn Connector> {
    Arc::new(Meddling { inner, meddle: Arc::new(meddle) })
}

struct Meddling {
    inner: Arc<dyn Connector>,
    meddle: Meddle,
}

impl Connector for Meddling {
    fn connect(&self) -> BoxFuture<'_, Result<BoxLink, LinkError>> {
        Box::pin(async {
            let inner = self.inner.connect().await?;
            Ok(Box::new(Meddled { inner, meddle: Arc::clone(&self.meddle) }) as BoxLink)
        })
    }

    fn target(&self) -> &str {
        self.inner.target()
    }

    fn discover(&self) -> Option<Box<dyn Discovery>> {
        let inner = self.inner.discover()?;
        Some(Box::new(Search { inner, meddle: Arc::clone(&self.meddle) }))
    }
}

struct Search {
    inner: Box<dyn Discovery>,
    meddle: Meddle,
}

impl Discovery for Search {
    fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Result<Discovered, LinkError>> {
        self.inner.poll_change(cx).map_ok(|change| match change {
            Discovered::Found { node, connector } => Discovered::Found {
                node,
                connector: Arc::new(Meddling { inner: connector, meddle: Arc::clone(&self.meddle) }),
            },
            gone @ Discovered::Gone { .. } => gone,
        })
    }
}

struct Meddled {
    inner: BoxLink,
    meddle: Meddle,
}

impl Link for Meddled {
    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut Vec<Frame>) -> Poll<Result<(), LinkError>> {
        self.inner.poll_recv(cx, into)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut VecDeque<Frame>) -> Poll<Result<(), LinkError>> {
        (self.meddle)(batch);
        self.inner.poll_send(cx, batch)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.inner.poll_close(cx)
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn peer(&self) -> &PeerInfo {
        self.inner.peer()
    }

    fn count_in(&mut self, budget: &Arc<Budget>) {
        self.inner.count_in(budget);
    }

    fn receiving_since(&self) -> Option<Instant> {
        self.inner.receiving_since()
    }

    fn detach(self: Box<Self>) -> Box<dyn DetachedLink> {
        Box::new(DetachedMeddled { inner: self.inner.detach(), meddle: self.meddle })
    }
}

struct DetachedMeddled {
    inner: Box<dyn DetachedLink>,
    meddle: Meddle,
}

impl DetachedLink for DetachedMeddled {
    fn attach(self: Box<Self>) -> io::Result<BoxLink> {
        Ok(Box::new(Meddled { inner: self.inner.attach()?, meddle: self.meddle }))
    }
}
