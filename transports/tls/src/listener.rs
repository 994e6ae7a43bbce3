//! Accepting services over TLS: handshakes beside the accepting, so that nobody who is slow keeps others out.
//!
//! How many handshakes there may be at a time, and how long one may take, is bounded here; how many links may wait for their
//! welcome is the gateway's to bound.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use router_common::limits;
use router_link::{BoxLink, FramedLink, LinkError, Listener, PeerInfo};
use rustls::ConnectionCommon;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinError, JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsListenerSettings;
use crate::explain::{self, Speaker};
use crate::server::{Counters, Credentials};
use crate::stream::{Carrier, Socket};
use crate::{CertificateProblem, TRANSPORT};

/// First byte of a TLS handshake.
const HANDSHAKE_RECORD: u8 = 0x16;
/// Bytes of something else that an error quotes.
const QUOTED_BYTES: usize = 16;
/// What a refused peer may still send while it is told why.
const FAREWELL_BYTES: u64 = 64 * 1024;
const FAREWELL: Duration = Duration::from_secs(1);

/// RFC 9266: what binds a handshake above TLS to this very connection.
const CHANNEL_BINDING: &[u8] = b"EXPORTER-Channel-Binding";
const CHANNEL_BINDING_BYTES: usize = 32;

/// Accepts TLS connections (SPEC 7).
#[derive(Debug)]
pub struct TlsListener {
    listener: tokio::net::TcpListener,
    local: String,
    address: SocketAddr,
    max_frame: u32,
    credentials: Arc<Credentials>,
    handshakes: JoinSet<Result<BoxLink, LinkError>>,
    /// Those in progress, the oldest first.
    begun: VecDeque<Begun>,
    max_handshakes: usize,
    handshake_timeout: Duration,
    _watch: Watch,
}

/// A handshake in progress.
#[derive(Debug)]
struct Begun {
    peer: SocketAddr,
    task: AbortHandle,
    /// It had to go for another one, and ends as soon as its task is looked at.
    evicted: bool,
}

/// The task that looks at the files; it ends with its listener.
#[derive(Debug)]
struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl TlsListener {
    /// Listens as the settings say; port 0 takes a free one. To be called within a tokio runtime.
    ///
    /// # Errors
    /// [`LinkError::Io`] that names the address; [`LinkError::Target`] for what is wrong with the certificates.
    pub fn bind(settings: &TlsListenerSettings) -> Result<Self, LinkError> {
        let address = settings.listen.addr();
        let target = format!("tls://{address}");
        let credentials = Credentials::load(settings).map_err(|problem: CertificateProblem| LinkError::Target {
            target: target.clone(),
            problem: problem.to_string(),
        })?;
        let listening = |error| LinkError::io(format!("listening on {target}"), error);
        let socket = transport_tcp::open(address).map_err(listening)?;
        Self::from_std(socket, settings, credentials).map_err(listening)
    }

    /// The socket alone, for whoever wants to keep a copy of it; needs no runtime.
    ///
    /// # Errors
    /// [`LinkError::Io`] that names the address.
    pub fn bind_std(address: SocketAddr) -> Result<std::net::TcpListener, LinkError> {
        transport_tcp::open(address).map_err(|error| LinkError::io(format!("listening on tls://{address}"), error))
    }

    /// Goes on with a socket that listens already: one that another process handed over. To be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// The operating system's.
    pub fn from_std(
        listener: std::net::TcpListener,
        settings: &TlsListenerSettings,
        credentials: Arc<Credentials>,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let watch = watch(Arc::clone(&credentials), settings.reload_interval.as_duration());
        Ok(Self {
            listener,
            local: format!("tls://{address}"),
            address,
            max_frame: limits::FRAME_PAYLOAD_BYTES,
            credentials,
            handshakes: JoinSet::new(),
            begun: VecDeque::new(),
            max_handshakes: settings.max_handshakes.get(),
            handshake_timeout: settings.handshake_timeout.as_duration(),
            _watch: Watch(tokio::spawn(watch)),
        })
    }

    /// Accepts frames with payloads up to `bytes`: the same as in the gateway's receive limits. Default 64 KiB.
    #[must_use]
    pub const fn max_frame(mut self, bytes: u32) -> Self {
        self.max_frame = bytes;
        self
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Its certificates, to renew them and to see how it went.
    #[must_use]
    pub const fn credentials(&self) -> &Arc<Credentials> {
        &self.credentials
    }

    fn begin(&mut self, stream: TcpStream, peer: SocketAddr) {
        if self.begun.iter().filter(|one| !one.evicted).count() >= self.max_handshakes {
            self.evict();
        }
        let credentials = Arc::clone(&self.credentials);
        let (max_frame, after) = (self.max_frame, self.handshake_timeout);
        let work = async move {
            let refuse = |problem| LinkError::Handshake { peer: peer.to_string(), problem };
            let shaken = timeout(after, handshake(stream, peer, &credentials, max_frame)).await;
            let counters = &credentials.counters;
            let shaken = shaken.unwrap_or_else(|_| {
                Counters::count(&counters.timed_out);
                Err(format!("the TLS handshake took more than {after:?}"))
            });
            shaken.map_err(|problem| {
                Counters::count(&counters.failed);
                refuse(problem)
            })
        };
        let task = self.handshakes.spawn(work);
        self.begun.push_back(Begun { peer, task, evicted: false });
    }

    /// Ends the oldest handshake of the address that has the most in progress: whoever hoards them is the one to lose some.
    fn evict(&mut self) {
        // Of each address, how many it has, and where the oldest of them is.
        let mut held: HashMap<IpAddr, (usize, Reverse<usize>)> = HashMap::new();
        for (place, one) in self.begun.iter().enumerate().filter(|(_, one)| !one.evicted) {
            held.entry(one.peer.ip()).or_insert((0, Reverse(place))).0 += 1;
        }
        // Of addresses that have as many, the one whose first handshake is the oldest.
        let most = held.values().max();
        if let Some(one) = most.and_then(|&(_, Reverse(place))| self.begun.get_mut(place)) {
            one.evicted = true;
            one.task.abort();
            Counters::count(&self.credentials.counters.evicted);
            Counters::count(&self.credentials.counters.failed);
        }
    }

    /// Forgets a handshake that has ended, and says whose it was.
    fn ended(&mut self, id: tokio::task::Id) -> Option<SocketAddr> {
        let place = self.begun.iter().position(|one| one.task.id() == id)?;
        self.begun.remove(place).map(|one| one.peer)
    }

    fn outcome(
        &mut self,
        joined: Result<(tokio::task::Id, Result<BoxLink, LinkError>), JoinError>,
    ) -> Result<BoxLink, LinkError> {
        match joined {
            Ok((id, outcome)) => {
                self.ended(id);
                outcome
            }
            Err(error) => {
                let peer = self.ended(error.id()).map_or_else(|| self.local.clone(), |peer| peer.to_string());
                let problem = match error.is_cancelled() {
                    true => "too many TLS handshakes at a time; the oldest went".to_owned(),
                    false => format!("the TLS handshake panicked: {error}"),
                };
                Err(LinkError::Handshake { peer, problem })
            }
        }
    }
}

impl Listener for TlsListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<BoxLink, LinkError>> {
        loop {
            if let Poll::Ready(Some(joined)) = self.handshakes.poll_join_next_with_id(cx) {
                return Poll::Ready(self.outcome(joined));
            }
            // What begins here is looked at above, in the next round.
            match ready!(self.listener.poll_accept(cx)) {
                Ok((stream, peer)) => self.begin(stream, peer),
                Err(error) => {
                    return Poll::Ready(Err(LinkError::io(format!("accepting on {}", self.local), error)));
                }
            }
        }
    }

    fn local(&self) -> &str {
        &self.local
    }
}

/// Looks at the files now and then.
async fn watch(credentials: Arc<Credentials>, every: Duration) {
    let mut looks = interval_at(Instant::now() + every, every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let credentials = Arc::clone(&credentials);
        // Files may be on slow disks. What came of it is logged and counted where it is found.
        if tokio::task::spawn_blocking(move || drop(credentials.watch())).await.is_err() {
            return;
        }
    }
}

/// One handshake, to a link whose peer is known by its certificate.
///
/// # Errors
/// What is wrong with the peer, for people.
async fn handshake(
    stream: TcpStream,
    peer: SocketAddr,
    credentials: &Credentials,
    max_frame: u32,
) -> Result<BoxLink, String> {
    let accepted = Instant::now().into_std();
    transport_tcp::prepare(&stream).map_err(|error| error.to_string())?;
    let mut first = [0; QUOTED_BYTES];
    let seen = stream.peek(&mut first).await.map_err(|error| error.to_string())?;
    match first.get(..seen).unwrap_or_default() {
        [] => return Err("it said nothing and closed the connection".to_owned()),
        [HANDSHAKE_RECORD, ..] => {}
        seen => return Err(format!("it does not speak TLS: it began with {}", describe(seen))),
    }
    let live = credentials.live();
    let acceptor = TlsAcceptor::from(Arc::clone(&live.config));
    let tls = match acceptor.accept(Socket::new(stream)).into_fallible().await {
        Ok(tls) => tls,
        Err((error, socket)) => {
            let problem = explain::handshake(Speaker::Gateway, &error);
            farewell(socket).await;
            return Err(problem);
        }
    };
    let (_, connection) = tls.get_ref();
    let mut info = PeerInfo::at(TRANSPORT, peer);
    info.identity = live.identity(connection, &credentials.counters)?;
    info.channel_binding = Some(channel_binding(connection)?);
    info.accepted = Some(accepted);
    Ok(Box::new(FramedLink::new(Carrier::new(tls.into()), info, max_frame)))
}

/// The exporter of a finished handshake (RFC 9266), the same at both ends of it and nowhere else.
pub(crate) fn channel_binding<Data>(connection: &ConnectionCommon<Data>) -> Result<Bytes, String> {
    let binding = connection.export_keying_material([0; CHANNEL_BINDING_BYTES], CHANNEL_BINDING, Some(&[]));
    binding.map(|binding| Bytes::copy_from_slice(&binding)).map_err(|error| error.to_string())
}

/// Lets a refused peer read why: a connection that is closed with bytes unread is reset, and the alert may be lost with it.
async fn farewell(mut socket: Socket) {
    let goodbye = async {
        socket.shutdown().await?;
        let mut rest = [0; 1024];
        let mut left = FAREWELL_BYTES;
        while left > 0 {
            match socket.read(&mut rest).await? {
                0 => break,
                read => left = left.saturating_sub(read as u64),
            }
        }
        io::Result::Ok(())
    };
    // Best effort: it may have gone.
    let _ = timeout(FAREWELL, goodbye).await;
}

/// Says what a stranger began with, for the people who run the listener.
fn describe(bytes: &[u8]) -> String {
    let begins = |with: &[&str]| with.iter().any(|start| bytes.starts_with(start.as_bytes()));
    let looks_like = if bytes.starts_with(b"STELLA/") {
        " (a service that dials `tcp://`: it is to dial `tls://`)"
    } else if begins(&["GET ", "HEAD ", "POST ", "PUT ", "PATCH ", "DELETE ", "OPTIONS ", "CONNECT ", "PRI "]) {
        " (an HTTP request)"
    } else {
        ""
    };
    format!("`{}`{looks_like}", bytes.escape_ascii())
}
