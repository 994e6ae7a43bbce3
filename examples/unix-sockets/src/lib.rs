//! A transport from outside: frames over Unix sockets, for a gateway and services on one machine that want no ports.
//!
//! All that a transport is stands in this file. `FramedLink` does the framing over any stream of bytes (a `ByteStream`, as
//! tokio's sockets are), and sessions prove who is who; what is left is how a stream is dialled and accepted.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use unix_sockets::UnixConnector;
//!
//! // Microservice::new(..).connector(Arc::new(connector))
//! let connector = UnixConnector::new("unix:///run/stella.sock")?;
//! # Ok(()) }
//! ```

use std::path::{Path, PathBuf};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use router_common::limits;
use router_link::{BoxFuture, BoxLink, Connector, FramedLink, LinkError, Listener, PeerInfo};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Name of the transport, in lists and logs.
const TRANSPORT: &str = "unix";
const SCHEME: &str = "unix://";
/// Connecting to a socket whose queue is full takes as long as its owner likes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Dials `unix:///path/to/socket`.
#[derive(Debug, Clone)]
pub struct UnixConnector {
    target: String,
}

impl UnixConnector {
    /// # Errors
    /// [`LinkError::Target`] when the URL is not of that form.
    pub fn new(url: &str) -> Result<Self, LinkError> {
        match url.strip_prefix(SCHEME) {
            Some(path) if path.starts_with('/') => Ok(Self { target: url.to_owned() }),
            _ => {
                let problem = "write `unix://` and an absolute path".to_owned();
                Err(LinkError::Target { target: url.to_owned(), problem })
            }
        }
    }

    fn path(&self) -> &str {
        self.target.get(SCHEME.len()..).unwrap_or_default()
    }

    async fn dial(&self) -> Result<BoxLink, LinkError> {
        let target = self.target.clone();
        let stream = timeout(CONNECT_TIMEOUT, UnixStream::connect(self.path()))
            .await
            .map_err(|_| LinkError::ConnectTimeout { target, after: CONNECT_TIMEOUT })?
            .map_err(|error| LinkError::io(format!("connecting to {}", self.target), error))?;
        Ok(link(stream, &self.target))
    }
}

impl Connector for UnixConnector {
    fn connect(&self) -> BoxFuture<'_, Result<BoxLink, LinkError>> {
        Box::pin(self.dial())
    }

    fn target(&self) -> &str {
        &self.target
    }
}

/// Accepts at a path. The socket's file goes with the listener.
#[derive(Debug)]
pub struct UnixListener {
    listener: tokio::net::UnixListener,
    path: PathBuf,
    local: String,
}

impl UnixListener {
    /// Listens at `path`, which must not exist. To be called within a tokio runtime.
    ///
    /// # Errors
    /// [`LinkError::Io`] that names the path.
    pub fn bind(path: &Path) -> Result<Self, LinkError> {
        let local = format!("{SCHEME}{}", path.display());
        let listener = tokio::net::UnixListener::bind(path)
            .map_err(|error| LinkError::io(format!("listening on {local}"), error))?;
        Ok(Self { listener, path: path.to_owned(), local })
    }
}

impl Drop for UnixListener {
    fn drop(&mut self) {
        // Whoever removed it before has done what is wanted.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Listener for UnixListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<BoxLink, LinkError>> {
        let accepted = ready!(self.listener.poll_accept(cx));
        Poll::Ready(match accepted {
            Ok((stream, _)) => Ok(link(stream, &self.local)),
            Err(error) => Err(LinkError::io(format!("accepting on {}", self.local), error)),
        })
    }

    fn local(&self) -> &str {
        &self.local
    }
}

fn link(stream: UnixStream, address: &str) -> BoxLink {
    Box::new(FramedLink::new(stream, PeerInfo::new(TRANSPORT, address), limits::FRAME_PAYLOAD_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_absolute_paths() {
        assert!(UnixConnector::new("unix:///run/stella.sock").is_ok());
        for bad in ["unix://run/stella.sock", "/run/stella.sock", "tcp://127.0.0.1:5100", ""] {
            assert!(matches!(UnixConnector::new(bad), Err(LinkError::Target { .. })), "{bad}");
        }
    }
}
