//! The conformance suite: between a real gateway and real services.

use std::io;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;

use router_common::session::{Secret, Secrets};
use router_conformance::{Carrier, Place, Transport};
use router_link::{BoxFuture, BoxListener, Capabilities, Connector, LinkError};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use unix_sockets::{UnixConnector, UnixListener};

fn main() -> ExitCode {
    router_conformance::main(&[Transport::new(&UnixSockets)])
}

struct UnixSockets;

impl Carrier for UnixSockets {
    fn name(&self) -> &'static str {
        "unix"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::STREAM
    }

    fn place(&self) -> BoxFuture<'_, anyhow::Result<Arc<dyn Place>>> {
        Box::pin(async { Ok(Arc::new(Folder(tempfile::tempdir()?)) as Arc<dyn Place>) })
    }
}

/// A folder with one socket.
struct Folder(TempDir);

impl Place for Folder {
    fn listen<'a>(&'a self, _: &'a Secrets) -> BoxFuture<'a, Result<BoxListener, LinkError>> {
        let bound = UnixListener::bind(&self.0.path().join("gateway.sock"));
        Box::pin(async { bound.map(|listener| Box::new(listener) as BoxListener) })
    }

    fn connector(&self, _: Option<&Secret>) -> Result<Arc<dyn Connector>, LinkError> {
        let socket = self.0.path().join("gateway.sock");
        Ok(Arc::new(UnixConnector::new(&format!("unix://{}", socket.display()))?))
    }

    fn intrude<'a>(&'a self, bytes: &'a [u8]) -> Option<BoxFuture<'a, io::Result<()>>> {
        let socket = UnixStream::connect(self.0.path().join("gateway.sock")).ok()?;
        Some(Box::pin(async move {
            socket.set_nonblocking(true)?;
            let mut stream = tokio::net::UnixStream::from_std(socket)?;
            stream.write_all(bytes).await?;
            stream.read_to_end(&mut Vec::new()).await.map(drop)
        }))
    }
}
