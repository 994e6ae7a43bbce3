//! The contract of every transport that carries small messages, over UDP on loopback.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use router_common::frame::Frame;
use router_common::session::Secrets;
use router_link::testing::{self, Ends, within};
use router_link::{BoxLink, Capabilities, Connector as _, DetachedLink, Link, LinkError, Listener, PeerInfo};
use transport_udp::{UdpConnector, UdpConnectorSettings, UdpListener};

/// A gateway's link that is not accepted yet: a service has to speak first.
struct Accepting {
    listener: UdpListener,
    link: Option<BoxLink>,
    peer: PeerInfo,
}

impl Accepting {
    fn poll_link(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut BoxLink, LinkError>> {
        if self.link.is_none() {
            self.link = Some(ready!(self.listener.poll_accept(cx))?);
        }
        Poll::Ready(Ok(self.link.as_mut().expect("it was accepted")))
    }
}

impl Link for Accepting {
    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut Vec<Frame>) -> Poll<Result<(), LinkError>> {
        ready!(self.poll_link(cx))?.poll_recv(cx, into)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut VecDeque<Frame>) -> Poll<Result<(), LinkError>> {
        ready!(self.poll_link(cx))?.poll_send(cx, batch)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.link.as_mut().map_or(Poll::Ready(()), |link| link.poll_close(cx))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { ordered: false, streaming: false, max_frame: transport_udp::outgoing::max_frame(1200) }
    }

    fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    fn detach(mut self: Box<Self>) -> Box<dyn DetachedLink> {
        let link = self.link.take().map(|link| link.detach());
        Box::new(Detached(self, link))
    }
}

struct Detached(Box<Accepting>, Option<Box<dyn DetachedLink>>);

impl DetachedLink for Detached {
    fn attach(mut self: Box<Self>) -> std::io::Result<BoxLink> {
        self.0.link = self.1.map(|link| link.attach()).transpose()?;
        Ok(self.0)
    }
}

async fn ends() -> Ends {
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let listener = UdpListener::bind(any, Secrets::none(), 1200).expect("a free port");
    let connector = UdpConnector::new(listener.local(), UdpConnectorSettings::default()).expect("a target");
    let service = connector.connect().await.expect("a socket");
    let peer = PeerInfo::at("udp", any);
    Ends { service, gateway: Box::new(Accepting { listener, link: None, peer }) }
}

router_link::contract!(small: ends);

// Beyond what links of the kind must do: one that ends tells its peer, as far as datagrams can.

#[tokio::test]
async fn a_link_that_dies_leaves_sent_requests_with_an_unknown_outcome() {
    within(testing::lifecycle::a_link_that_dies_leaves_sent_requests_with_an_unknown_outcome(ends().await)).await;
}

#[tokio::test]
async fn a_request_on_a_dead_link_comes_back_whole() {
    within(testing::lifecycle::a_request_on_a_dead_link_comes_back_whole(ends().await)).await;
}

#[tokio::test]
async fn a_driver_that_is_dropped_tells_its_application_once() {
    within(testing::lifecycle::a_driver_that_is_dropped_tells_its_application_once(ends().await)).await;
}
