//! The accept loop of one worker: a bounded number of connections, and a graceful stop.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use router_link::Body;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::connection;
use super::stop::Stop;
use super::{EdgeContext, Floor, HttpListener};

/// How long to wait after an accept that failed for want of something (descriptors, memory): trying again at once would
/// fail again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One worker's HTTP edge.
#[derive(Debug)]
pub struct Edge {
    pub context: Arc<EdgeContext>,
    /// Connections the node may still take (SPEC 12); further ones wait in the kernel's queue.
    pub places: Arc<Semaphore>,
    /// Where connections are counted while they last, and under which worker.
    pub floor: Arc<Floor>,
    pub worker: usize,
    pub stop: Stop,
    /// Owns every task of every connection.
    pub tasks: TaskTracker,
    /// Cuts connections in the middle: the grace is over.
    pub cut: Stop,
}

impl Edge {
    /// Accepts connections until it is stopped. Returns when the listener is closed; the connections' tasks, which
    /// finish what they have begun, are the tracker's.
    pub async fn run<L, S>(self, mut listener: L, stack: S)
    where
        L: HttpListener,
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.requested() => break,
                accepted = self.next(&mut listener) => accepted,
            };
            match accepted {
                Ok((io, peer, place)) => {
                    let serving = connection::serve(
                        io,
                        peer,
                        stack.clone(),
                        Arc::clone(&self.context),
                        self.stop.clone(),
                        self.tasks.clone(),
                    );
                    let cut = self.cut.clone();
                    let seat = self.floor.sit(self.worker);
                    self.tasks.spawn(async move {
                        cut.unless_requested(serving).await;
                        drop((place, seat));
                    });
                }
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept client connections");
                    tokio::select! {
                        () = self.stop.requested() => break,
                        () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    }
                }
            }
        }
    }

    async fn next<L: HttpListener>(
        &self,
        listener: &mut L,
    ) -> io::Result<(L::Io, std::net::SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
        let (io, peer) = poll_fn(|cx| listener.poll_accept(cx)).await?;
        Ok((io, peer, place))
    }
}

/// The client left before it was accepted: nothing is wrong here.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
