//! The accept loop of one worker: a bounded number of connections, and a graceful stop.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::HttpListener;
use super::connection::{Answering, Connection};
use super::worker::Edge;

/// How long to wait after an accept that failed for want of something (descriptors, memory): trying again at once would
/// fail again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Edge {
    /// Accepts connections until it is stopped. Returns when the listener is closed; the connections' tasks, which
    /// finish what they have begun, are the tracker's.
    pub async fn run<L: HttpListener, S: Answering>(self, mut listener: L, stack: S) {
        let this = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                biased;
                () = this.stop.requested() => break,
                accepted = this.next(&mut listener) => accepted,
            };
            match accepted {
                Ok((io, peer, place)) => {
                    let seat = this.floor.sit(this.worker);
                    this.tasks.spawn(Connection::new(io, peer, stack.clone(), Arc::clone(&this), place, seat));
                }
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept client connections");
                    tokio::select! {
                        biased;
                        () = this.stop.requested() => break,
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
