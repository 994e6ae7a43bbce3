//! Clients without a network: connections to the edge that are pipes in this process. With paused time nothing but
//! the test's own steps moves the clock, however loaded the machine is.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use router_gateway::edge::{BoxHttpListener, BoxIo, HttpListener};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;

/// What a pipe holds in each direction, in bytes.
const PIPE: usize = 64 * 1024;

/// Makes connections to one edge.
#[derive(Clone)]
pub(crate) struct Clients(mpsc::Sender<DuplexStream>);

/// A listener, and who connects to it.
pub(crate) fn network() -> (BoxHttpListener, Clients) {
    let (sender, receiver) = mpsc::channel(16);
    (Box::new(Pipes(receiver)), Clients(sender))
}

impl Clients {
    pub(crate) async fn connect(&self) -> DuplexStream {
        let (near, far) = duplex(PIPE);
        self.0.send(far).await.expect("the edge listens");
        near
    }

    /// Sends raw bytes and reads until the other side closes.
    pub(crate) async fn exchange(&self, request: &[u8]) -> String {
        let mut client = self.connect().await;
        client.write_all(request).await.unwrap();
        crate::common::read_all(&mut client).await
    }

    pub(crate) async fn get(&self, path: &str, headers: &str) -> String {
        self.exchange(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n").as_bytes()).await
    }
}

struct Pipes(mpsc::Receiver<DuplexStream>);

impl HttpListener for Pipes {
    type Io = BoxIo;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(BoxIo, SocketAddr)>> {
        match ready!(self.0.poll_recv(cx)) {
            Some(pipe) => Poll::Ready(Ok((BoxIo::new(pipe), SocketAddr::from(([127, 0, 0, 1], 1))))),
            // Nobody will connect any more.
            None => Poll::Pending,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
