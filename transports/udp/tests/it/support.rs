//! Links over real sockets, driven without sessions: frames go in and come out.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use router_common::frame::{Challenge, Data, DataPayload, Frame, Proof, ReceiveLimits, StreamId, Welcome};
use router_common::session::{Secret, Secrets};
use router_common::wire::Wire;
use router_link::{BoxLink, Connector as _, LinkError, Listener, PeerInfo};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use transport_udp::{UdpConnector, UdpConnectorSettings, UdpListener};

/// Longest that anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn secret() -> Secret {
    Secret::new([0x5e; 32]).unwrap()
}

pub(crate) fn listener(secrets: Secrets) -> UdpListener {
    UdpListener::bind("127.0.0.1:0".parse().unwrap(), secrets, 1200).unwrap()
}

pub(crate) fn connector(to: SocketAddr, secret: Option<Secret>) -> UdpConnector {
    let mut settings = UdpConnectorSettings::default();
    settings.secret = secret;
    UdpConnector::new(&format!("udp://{to}"), settings).unwrap()
}

pub(crate) async fn accept(listener: &mut UdpListener) -> BoxLink {
    let listener: &mut dyn Listener = listener;
    tokio::time::timeout(PATIENCE, listener.accept()).await.expect("in time").expect("a link")
}

/// A link with a task that moves its frames.
#[derive(Debug)]
pub(crate) struct Driven {
    pub(crate) peer: PeerInfo,
    to: Option<mpsc::Sender<Frame>>,
    from: mpsc::Receiver<Result<Frame, LinkError>>,
    task: JoinHandle<()>,
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Frames that wait for the link.
const BATCH: usize = 64;

impl Driven {
    pub(crate) fn new(mut link: BoxLink) -> Self {
        let (to, mut outgoing) = mpsc::channel::<Frame>(8192);
        let (incoming, from) = mpsc::channel(8192);
        let peer = link.peer().clone();
        let (mut batch, mut frames, mut is_closing) = (VecDeque::new(), Vec::new(), false);
        let task = tokio::spawn(poll_fn(move |cx| {
            loop {
                match link.poll_recv(cx, &mut frames) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(())) => {
                        frames.drain(..).for_each(|frame| incoming.try_send(Ok(frame)).expect("room"))
                    }
                    Poll::Ready(Err(error)) => {
                        let _ = incoming.try_send(Err(error));
                        return Poll::Ready(());
                    }
                }
            }
            loop {
                while batch.len() < BATCH && !is_closing {
                    match outgoing.poll_recv(cx) {
                        Poll::Pending => break,
                        Poll::Ready(Some(frame)) => batch.push_back(frame),
                        Poll::Ready(None) => is_closing = true,
                    }
                }
                if batch.is_empty() {
                    break;
                }
                match link.poll_send(cx, &mut batch) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if is_closing { link.poll_close(cx) } else { Poll::Pending }
        }));
        Self { peer, to: Some(to), from, task }
    }

    pub(crate) fn send(&self, frame: Frame) {
        self.to.as_ref().expect("it is open").try_send(frame).expect("room");
    }

    /// The next frame, or how the link ended.
    pub(crate) async fn next(&mut self) -> Result<Frame, LinkError> {
        tokio::time::timeout(PATIENCE, self.from.recv()).await.expect("in time").unwrap_or(Err(LinkError::Closed))
    }

    pub(crate) async fn frame(&mut self) -> Frame {
        self.next().await.expect("the link stands")
    }

    /// What has come and was not looked at.
    pub(crate) fn left(&mut self) -> usize {
        std::iter::from_fn(|| self.from.try_recv().ok()).count()
    }

    /// Ends the link in good order.
    pub(crate) async fn close(&mut self) {
        self.to = None;
        tokio::time::timeout(PATIENCE, &mut self.task).await.expect("in time").expect("no panic");
    }

    /// Ends it as a process that is killed does.
    pub(crate) async fn kill(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

pub(crate) fn hello(nonce: u8) -> Frame {
    let mut hello = router_common::testing::hello();
    hello.nonce = [nonce; 32];
    Frame::Hello(Box::new(Wire::new(hello)))
}

pub(crate) fn proof() -> Frame {
    Frame::Proof(Box::new(Wire::new(Proof { proof: [9; 32] })))
}

pub(crate) fn challenge(nonce: [u8; 32]) -> Frame {
    Frame::Challenge(Box::new(Wire::new(Challenge { algorithm: "hmac-sha256".to_owned(), nonce })))
}

pub(crate) fn welcome() -> Frame {
    Frame::Welcome(Box::new(Wire::new(Welcome {
        version: 1,
        extensions: Vec::new(),
        node: "gw-1".parse().unwrap(),
        limits: ReceiveLimits::default(),
        heartbeat_ms: 10_000,
        links: 1,
        revision: 0,
        incarnation: None,
        proof: None,
    })))
}

/// A frame with a number in it, and some bytes more.
pub(crate) fn numbered(number: u64, bytes: usize) -> Frame {
    let bytes = Bytes::from([&number.to_be_bytes()[..], &vec![0; bytes]].concat());
    Frame::RequestData(Data { stream: StreamId::new(2).unwrap(), payload: DataPayload::Bytes { bytes, end: false } })
}

pub(crate) fn number_of(frame: &Frame) -> u64 {
    match frame {
        Frame::RequestData(Data { payload: DataPayload::Bytes { bytes, .. }, .. }) => {
            u64::from_be_bytes(*bytes.first_chunk().unwrap())
        }
        other => panic!("{other:?}"),
    }
}

/// Joins a service with a gateway as their sessions would, where a secret rules.
pub(crate) async fn joined(listener: &mut UdpListener, to: SocketAddr, nonce: u8) -> (Driven, Driven) {
    let mut service = Driven::new(connector(to, Some(secret())).connect().await.unwrap());
    service.send(hello(nonce));
    let Frame::Challenge(asked) = service.frame().await else { panic!("a challenge") };
    service.send(proof());
    let mut gateway = Driven::new(accept(listener).await);
    assert_eq!(gateway.frame().await, hello(nonce));
    assert_eq!(gateway.frame().await, proof());
    let cookie = gateway.peer.handshake_nonce.expect("the cookie");
    assert_eq!(asked.value().nonce, cookie);
    // As the session does, which says again what the carrier has said.
    gateway.send(challenge(cookie));
    gateway.send(welcome());
    assert_eq!(service.frame().await, welcome());
    (service, gateway)
}

pub(crate) fn secrets() -> Secrets {
    Secrets::sole(secret())
}
