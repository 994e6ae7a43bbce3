//! The contract of every transport, over a framed in-memory byte stream whose pieces are small and odd.

use router_common::limits::FRAME_PAYLOAD_BYTES;
use router_link::testing::Ends;
use router_link::{BoxLink, FramedLink, PeerInfo};

async fn ends() -> Ends {
    let (service, gateway) = tokio::io::duplex(1_021);
    let link =
        |io, end: &str| -> BoxLink { Box::new(FramedLink::new(io, PeerInfo::new("duplex", end), FRAME_PAYLOAD_BYTES)) };
    Ends { service: link(service, "gateway"), gateway: link(gateway, "service") }
}

router_link::contract!(ends);
