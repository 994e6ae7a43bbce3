//! The sockets of tokio as carriers of frames: how each changes its runtime. How one is dialled, accepted or prepared is its
//! transport's business.

use std::io;

use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use crate::framed::ByteStream;

impl ByteStream for TcpStream {
    type Detached = std::net::TcpStream;

    fn detach(self) -> io::Result<Self::Detached> {
        self.into_std()
    }

    fn attach(detached: Self::Detached) -> io::Result<Self> {
        Self::from_std(detached)
    }
}

#[cfg(unix)]
impl ByteStream for UnixStream {
    type Detached = std::os::unix::net::UnixStream;

    fn detach(self) -> io::Result<Self::Detached> {
        self.into_std()
    }

    fn attach(detached: Self::Detached) -> io::Result<Self> {
        Self::from_std(detached)
    }
}
