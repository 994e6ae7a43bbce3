//! A road of TCP that a test can cut: all connections over it end, and none comes through until it is mended.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// Forwards connections to an address. They end when it is dropped.
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    whole: watch::Sender<bool>,
    _task: AbortOnDropHandle<()>,
}

impl Forwarder {
    /// A road to `target`, which is `tcp://` and an address, on a port of its own.
    ///
    /// # Panics
    /// When there is no port, or no such address.
    pub async fn new(target: &str) -> Self {
        let target = target.trim_start_matches("tcp://").parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let whole = watch::Sender::new(true);
        let task = tokio::spawn(forward(listener, target, whole.subscribe()));
        Self { address, whole, _task: AbortOnDropHandle::new(task) }
    }

    /// Where it begins, as a service is told: `tcp://127.0.0.1:45678`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("tcp://{}", self.address)
    }

    /// Ends all connections; those that come end at once.
    pub fn cut(&self) {
        self.whole.send_replace(false);
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.whole.send_replace(true);
    }
}

async fn forward(listener: TcpListener, target: SocketAddr, whole: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((mut from, _)) = listener.accept().await else { continue };
        if !*whole.borrow() {
            continue;
        }
        let mut whole = whole.clone();
        connections.spawn(async move {
            let Ok(mut to) = TcpStream::connect(target).await else { return };
            tokio::select! {
                _ = copy_bidirectional(&mut from, &mut to) => {}
                _ = whole.wait_for(|whole| !*whole) => {}
            }
        });
    }
}
