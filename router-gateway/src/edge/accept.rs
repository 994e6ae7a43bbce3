//! The accept loop of one worker: a bounded number of connections, and a graceful stop.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::OwnedSemaphorePermit;

use super::connection::{Answering, Connection};
use super::listener::BACKLOG;
use super::worker::Edge;
use super::{ByteStream, HttpListener};

/// How long to wait after an accept that failed for want of something (descriptors, memory): trying again at once would
/// fail again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A connection, where it comes from, and its place among those the node may have.
type Accepted<IO> = (IO, SocketAddr, OwnedSemaphorePermit);

impl Edge {
    /// Accepts connections until its gate is closed for good. Returns when the listener is closed; the connections' tasks, which
    /// finish what they have begun, are the tracker's.
    pub async fn run<L: HttpListener, S: Answering>(self, mut listener: L, stack: S) {
        let this = Arc::new(self);
        let mut keeper = this.gate.keeper();
        while keeper.opens().await {
            let accepted = tokio::select! {
                biased;
                () = keeper.changes() => continue,
                accepted = this.next(&mut listener) => accepted,
            };
            match accepted {
                Ok(accepted) => this.serve(accepted, &stack),
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept client connections");
                    tokio::select! {
                        biased;
                        () = keeper.changes() => {}
                        () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    }
                }
            }
        }
        listener.close();
        if keeper.takes_the_rest() {
            // The system has answered for us already; closing the socket would reset them.
            for _ in 0..BACKLOG {
                match tokio::task::unconstrained(this.next(&mut listener)).now_or_never() {
                    Some(Ok(accepted)) => this.serve(accepted, &stack),
                    Some(Err(_)) => {}
                    None => break,
                }
            }
        }
    }

    fn serve<IO: ByteStream, S: Answering>(self: &Arc<Self>, accepted: Accepted<IO>, stack: &S) {
        let (io, peer, place) = accepted;
        let seat = self.floor.sit(self.worker);
        self.tasks.spawn(Connection::new(io, peer, stack.clone(), Arc::clone(self), place, seat));
    }

    async fn next<L: HttpListener>(&self, listener: &mut L) -> io::Result<Accepted<L::Io>> {
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
