//! The contract of links that carry small messages, over one that delivers them in any order.

use router_link::testing::{Ends, Scattering};

async fn ends() -> Ends {
    Scattering::default().ends()
}

router_link::contract!(small: ends);
