//! How a gateway stops, alone or with another process in its place, and how it lets that one come first (SPEC 13).
//!
//! Who the other process is, and how it is spoken with, is not known here.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use router_common::frame::CloseCode;
use router_common::identity::{Instance, ServiceName, Version};
use tokio::time::timeout;

use super::Gateway;
use crate::sockets::Sockets;

/// After the grace, how long links get to say CLOSE.
const CLOSING: Duration = Duration::from_secs(2);
/// How long client connections that ask for nothing get to be closed.
const SETTLING: Duration = Duration::from_millis(500);

/// Who serves after this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Successor {
    Nobody,
    AnotherProcess,
}

impl Gateway {
    /// Lets clients and operators in, if it was started by [`super::Builder::held`]: from now on it is ready.
    pub fn open(&self) {
        // What has changed and is not published yet would be missed by the first requests.
        self.registry.catch_up(self.environment.now());
        self.ready.store(true, Ordering::Release);
        self.gates.clients.open();
        self.gates.admin.open();
    }

    /// Waits until somebody asks at the admin listener that this node drains: [`Gateway::shutdown`] is to follow.
    pub async fn drain_wanted(&self) {
        self.drain_wanted.requested().await;
    }

    /// Copies of its listening sockets, for another process; none unless `upgrade.socket` is configured.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn sockets(&self) -> io::Result<Sockets> {
        self.sockets.try_clone()
    }

    /// Takes in no services any more, and asks those that are there to go where they find another process. Requests go
    /// to them as before. Returns the instances in service.
    #[must_use]
    pub fn send_services_away(&self) -> Vec<Instance> {
        self.gates.services.hold();
        self.registry.send_away()
    }

    /// The default version of each service, as far as it was settled here and not by the configuration (SPEC 2).
    #[must_use]
    pub fn settled_defaults(&self) -> BTreeMap<ServiceName, Version> {
        self.registry.settled_defaults(self.environment.now())
    }

    /// Takes over what another process had settled, before services come.
    pub fn inherit_defaults(&self, defaults: BTreeMap<ServiceName, Version>) {
        self.registry.inherit_defaults(defaults);
    }

    /// Takes services in again.
    pub fn take_services_back(&self) {
        self.registry.take_back();
        self.gates.services.open();
    }

    /// Stops in good order: not ready any more, no new connections, what is in flight may finish within the grace, then
    /// the links are closed (SPEC 13). A client connection that asks for nothing is kept for `shutdown.idle_linger`.
    pub async fn shutdown(self) {
        self.end(Successor::Nobody).await;
    }

    /// The same, while another process serves on the same sockets: connections that nobody has accepted are left to it,
    /// `/readyz` is as before, because the node is, and idle connections are kept until the grace is over.
    pub async fn leave_to_another_process(self) {
        self.end(Successor::AnotherProcess).await;
    }

    async fn end(mut self, successor: Successor) {
        // Together with these the listeners close; without, they would stay open.
        self.sockets = Sockets::default();
        let linger = match successor {
            Successor::Nobody => {
                self.ready.store(false, Ordering::Release);
                self.gates.clients.shut();
                self.gates.services.shut();
                self.idle_linger.min(self.grace)
            }
            Successor::AnotherProcess => {
                self.gates.clients.shut();
                self.gates.services.shut();
                self.gates.admin.shut();
                self.stop_admin.request();
                self.grace
            }
        };
        self.stop.request();
        self.registry.send_away();
        self.http_tasks.close();
        let ended = async {
            if timeout(linger, self.http_tasks.wait()).await.is_err() {
                self.linger_over.request();
                let left = self.grace.saturating_sub(linger).max(SETTLING);
                if timeout(left, self.http_tasks.wait()).await.is_err() {
                    tracing::warn!(grace = ?self.grace, "requests were still in flight when the grace was over");
                }
            }
        };
        ended.await;
        for handle in self.registry.handles() {
            handle.close(CloseCode::Shutdown, "the gateway is shutting down");
        }
        self.link_tasks.close();
        let _ = timeout(CLOSING, self.link_tasks.wait()).await;
        self.gates.admin.shut();
        self.stop_admin.request();
        self.cut.request();
        for tasks in [&self.http_tasks, &self.link_tasks, &self.other_tasks] {
            tasks.close();
            let _ = timeout(CLOSING, tasks.wait()).await;
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.ready.store(false, Ordering::Release);
        for gate in [&self.gates.clients, &self.gates.services, &self.gates.admin] {
            gate.shut();
        }
        self.stop.request();
        self.stop_admin.request();
        self.linger_over.request();
        self.cut.request();
    }
}
