//! Moving a driver to another runtime, so that a gateway can place a link once it knows whose it is.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::task::{Context, Poll};

use router_common::frame::Frame;

use super::Driver;
use crate::link::{BoxLink, Capabilities, DetachedLink, Link, LinkError, PeerInfo};

/// A driver between two runtimes. It can be sent to another thread; meanwhile nothing moves on its link.
#[must_use = "a link only lives while its driver is polled"]
pub struct DetachedDriver {
    driver: Driver,
    link: Box<dyn DetachedLink>,
}

impl Driver {
    /// Leaves this runtime, between two polls. Handles, exchanges and bodies stay valid: what they do waits.
    pub fn detach(mut self) -> DetachedDriver {
        let nothing = Box::new(Nothing(self.shared.peer.clone()));
        let link = std::mem::replace(&mut self.link, nothing).detach();
        // A timer belongs to its runtime.
        self.sleep = None;
        self.armed = None;
        DetachedDriver { driver: self, link }
    }
}

impl DetachedDriver {
    /// Joins the current runtime.
    ///
    /// # Errors
    /// When the runtime cannot take the link. The driver is dropped then, which its application is told.
    pub fn attach(mut self) -> io::Result<Driver> {
        self.driver.link = self.link.attach()?;
        Ok(self.driver)
    }
}

impl fmt::Debug for DetachedDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DetachedDriver({})", self.driver.shared.peer)
    }
}

/// Stands in the link's place while that is detached.
struct Nothing(PeerInfo);

impl Link for Nothing {
    fn poll_recv(&mut self, _: &mut Context<'_>, _: &mut Vec<Frame>) -> Poll<Result<(), LinkError>> {
        Poll::Pending
    }

    fn poll_send(&mut self, _: &mut Context<'_>, _: &mut VecDeque<Frame>) -> Poll<Result<(), LinkError>> {
        Poll::Pending
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::STREAM
    }

    fn peer(&self) -> &PeerInfo {
        &self.0
    }

    fn detach(self: Box<Self>) -> Box<dyn DetachedLink> {
        self
    }
}

impl DetachedLink for Nothing {
    fn attach(self: Box<Self>) -> io::Result<BoxLink> {
        Ok(self)
    }
}
