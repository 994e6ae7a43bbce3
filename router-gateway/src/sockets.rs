//! Listening sockets that are there before a gateway is, or that are to outlive it: what each is for, and whether it is
//! the one that the configuration means. Where they come from is not known here.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

use serde::{Deserialize, Serialize};

/// What a listening socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// HTTP clients; there may be several, one for each worker.
    Http,
    /// Operators.
    Admin,
    /// Services, over TCP.
    Tcp,
    /// Services, over TLS.
    Tls,
}

impl Purpose {
    /// Its name, as systemd's `FileDescriptorName=` has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Admin => "admin",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// The purpose of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Http, Self::Admin, Self::Tcp, Self::Tls].into_iter().find(|purpose| purpose.as_str() == name)
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Listening sockets, each with its purpose.
#[derive(Debug, Default)]
pub struct Sockets(Vec<Kept>);

#[derive(Debug)]
struct Kept {
    /// Unknown: only its address tells.
    purpose: Option<Purpose>,
    socket: TcpListener,
    /// The configured address that it was had for; unknown: whoever gave it knows better than the configuration.
    configured: Option<SocketAddr>,
}

impl Sockets {
    /// One for this purpose, had for this configured address; without one, for whatever is configured.
    pub fn add(&mut self, purpose: Purpose, socket: TcpListener, configured: Option<SocketAddr>) {
        self.0.push(Kept { purpose: Some(purpose), socket, configured });
    }

    /// One that is for whatever is configured to listen where it does.
    pub fn add_unnamed(&mut self, socket: TcpListener) {
        self.0.push(Kept { purpose: None, socket, configured: None });
    }

    /// All of another collection too.
    pub fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    /// Takes out those for a purpose. One that was had for another address than is configured now, and does not listen
    /// where it should, is closed, and that is said: there may be clients in its queue.
    pub fn take(&mut self, purpose: Purpose, configured: SocketAddr) -> Vec<TcpListener> {
        let listens_there = |kept: &Kept| kept.socket.local_addr().is_ok_and(|bound| is_meant(bound, configured));
        let candidates = self.0.extract_if(.., |kept| match kept.purpose {
            Some(own) => own == purpose,
            None => listens_there(kept),
        });
        let mut taken = Vec::new();
        for kept in candidates {
            if kept.configured.is_none_or(|had_for| had_for == configured) || listens_there(&kept) {
                taken.push(kept.socket);
            } else {
                let bound = kept.socket.local_addr().map_or_else(|error| error.to_string(), |bound| bound.to_string());
                tracing::warn!(%purpose, %configured, "the configured address is another now: {bound} is not taken over");
            }
        }
        taken
    }

    /// Leaves out those of a purpose that the other collection has some of.
    #[must_use]
    pub fn without(mut self, others: &Self) -> Self {
        self.0
            .retain(|kept| kept.purpose.is_none_or(|purpose| !others.iter().any(|(other, ..)| other == Some(purpose))));
        self
    }

    /// What each is for, its socket, and the configured address that it was had for.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Option<Purpose>, &TcpListener, Option<SocketAddr>)> {
        self.0.iter().map(|kept| (kept.purpose, &kept.socket, kept.configured))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same sockets once more.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn try_clone(&self) -> io::Result<Self> {
        let copy = |kept: &Kept| {
            let socket = kept.socket.try_clone()?;
            Ok(Kept { purpose: kept.purpose, socket, configured: kept.configured })
        };
        self.0.iter().map(copy).collect::<io::Result<_>>().map(Self)
    }
}

/// Whether a socket that is bound there is what is meant by a configured address, whose port may be any.
fn is_meant(bound: SocketAddr, configured: SocketAddr) -> bool {
    bound.ip() == configured.ip() && (configured.port() == 0 || bound.port() == configured.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> (TcpListener, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[test]
    fn a_socket_is_taken_for_the_address_it_was_had_for_or_listens_on() {
        let (any, elsewhere): (SocketAddr, SocketAddr) =
            ("127.0.0.1:0".parse().unwrap(), "127.0.0.2:1".parse().unwrap());
        let mut sockets = Sockets::default();
        let addresses: Vec<_> = (0..3)
            .map(|_| {
                let (socket, address) = socket();
                sockets.add(Purpose::Http, socket, Some(any));
                address
            })
            .collect();
        assert_eq!(sockets.try_clone().unwrap().take(Purpose::Admin, any).len(), 0);
        assert_eq!(sockets.try_clone().unwrap().take(Purpose::Http, any).len(), 3);
        assert_eq!(sockets.try_clone().unwrap().take(Purpose::Http, addresses[1]).len(), 1);
        assert_eq!(sockets.take(Purpose::Http, elsewhere).len(), 0);
        assert!(sockets.is_empty(), "what is not meant any more is closed");
    }

    #[test]
    fn who_gives_a_name_knows_better_than_the_configuration_and_without_one_the_address_tells() {
        let elsewhere: SocketAddr = "127.0.0.2:1".parse().unwrap();
        let mut sockets = Sockets::default();
        sockets.add(Purpose::Http, socket().0, None);
        let (unnamed, address) = socket();
        sockets.add_unnamed(unnamed);
        assert_eq!(sockets.take(Purpose::Http, elsewhere).len(), 1);
        assert_eq!(sockets.take(Purpose::Admin, elsewhere).len(), 0);
        assert_eq!(sockets.take(Purpose::Admin, address).len(), 1);
        assert!(sockets.is_empty());
    }
}
