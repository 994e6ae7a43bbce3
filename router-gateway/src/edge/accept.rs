//! The accept loop of one worker: a bounded number of connections, and a graceful stop.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::unconstrained;
use tokio::time::Instant;

use super::connection::{Answering, Connection};
use super::listener::BACKLOG;
use super::worker::Edge;
use super::{ByteStream, HttpListener};

/// How long to wait after an accept that failed for want of something (descriptors, memory): trying again at once would
/// fail again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A connection, where it comes from, and its place among those the node may have.
type Placed<IO> = (IO, SocketAddr, OwnedSemaphorePermit);

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
        // The system has answered those who wait, and they may have sent their requests: with the socket they would be reset.
        for _ in 0..BACKLOG {
            let Ok(place) = Arc::clone(&this.places).try_acquire_owned() else { break };
            match unconstrained(poll_fn(|cx| listener.poll_rest(cx))).await {
                Some(Ok((io, peer))) => this.serve((io, peer, place), &stack),
                Some(Err(_)) => {}
                None => break,
            }
        }
    }

    fn serve<IO: ByteStream, S: Answering>(self: &Arc<Self>, accepted: Placed<IO>, stack: &S) {
        let (io, peer, place) = accepted;
        let seat = self.floor.sit(self.worker);
        self.tasks.spawn(Connection::new(io, peer, stack.clone(), Arc::clone(self), place, seat));
    }

    async fn next<L: HttpListener>(&self, listener: &mut L) -> io::Result<Placed<L::Io>> {
        if self.places.available_permits() == 0 {
            self.floor.note_wait();
            self.tell_full();
        }
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
        let (io, peer) = poll_fn(|cx| listener.poll_accept(cx)).await?;
        Ok((io, peer, place))
    }

    /// Says that further clients have to wait, but not with each of them.
    #[cold]
    fn tell_full(&self) {
        if self.floor.is_time_to_tell(Instant::now()) {
            tracing::warn!(
                open = self.floor.connections().iter().sum::<usize>(),
                "as many client connections are open as may be (limits.max_connections): further ones wait"
            );
        }
    }
}

/// The client left before it was accepted: nothing is wrong here.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
