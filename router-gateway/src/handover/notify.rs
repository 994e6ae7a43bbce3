//! Telling a service manager how far this process is: systemd's notification protocol.
//!
//! Nobody need listen: without `NOTIFY_SOCKET` nothing is said.

use std::os::unix::net::UnixDatagram;

/// This process serves, and is the one that matters from now on.
pub fn ready() {
    notify(&format!("MAINPID={}\nREADY=1", std::process::id()));
}

/// This process was told to stop. Not to be said by one whose place another process has taken.
pub fn stopping() {
    notify("STOPPING=1");
}

fn notify(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let sent =
        UnixDatagram::unbound().and_then(|datagram| match socket.to_str().and_then(|name| name.strip_prefix('@')) {
            Some(name) => send_to_abstract(&datagram, name, state),
            None => datagram.send_to(state.as_bytes(), &socket).map(drop),
        });
    if let Err(error) = sent {
        tracing::warn!(%error, "the service manager could not be told `{state}`");
    }
}

#[cfg(target_os = "linux")]
fn send_to_abstract(datagram: &UnixDatagram, name: &str, state: &str) -> std::io::Result<()> {
    use std::os::linux::net::SocketAddrExt as _;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    datagram.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(not(target_os = "linux"))]
fn send_to_abstract(_: &UnixDatagram, _: &str, _: &str) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}
