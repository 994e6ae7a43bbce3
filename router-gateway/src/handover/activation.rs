//! Listening sockets that a service manager opened before this process began: systemd's socket activation.

use std::io;

use listenfd::ListenFd;

use crate::sockets::{Purpose, Sockets};

/// Takes the sockets that were passed by `LISTEN_FDS`, and takes the variables away, so that no child thinks they were
/// meant for it. To be called once, before there are threads. One named `http`, `admin` or `tcp` (`LISTEN_FDNAMES`) is for
/// that whatever is configured; one of another name for what is configured to listen where it does.
///
/// # Errors
/// What was passed is no listening TCP socket.
pub fn passed_sockets() -> io::Result<Sockets> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut passed = ListenFd::from_env();
    let mut sockets = Sockets::default();
    for place in 0..passed.len() {
        let Some(socket) = passed.take_tcp_listener(place)? else { continue };
        socket.set_nonblocking(true)?;
        match names.next().and_then(Purpose::named) {
            Some(purpose) => sockets.add(purpose, socket, None),
            None => sockets.add_unnamed(socket),
        }
    }
    Ok(sockets)
}
