//! A scenario: its name, what it needs, and how it is played. Which there are is not known here.

use std::pin::Pin;

use router_link::Capabilities;

use crate::carrier::Transport;

/// What a scenario asks of a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing: all transports pass it.
    Nothing,
    /// Bodies larger than a frame, or without a known end.
    Streaming,
    /// That there is no such thing: it is refused, and clearly.
    SmallMessages,
}

impl Needs {
    pub(crate) const fn are_met_by(self, capabilities: Capabilities) -> bool {
        match self {
            Self::Nothing => true,
            Self::Streaming => capabilities.streaming,
            Self::SmallMessages => !capabilities.streaming,
        }
    }
}

/// Something that happens between a client, a gateway and services.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) needs: Needs,
    pub(crate) play: fn(Transport) -> Pin<Box<dyn Future<Output = ()>>>,
}

/// Lists the scenarios of a file, each with what it needs.
macro_rules! scenarios {
    ($($name:ident => $needs:ident,)+) => {
        pub(super) const SCENARIOS: &[crate::scenario::Scenario] = &[$(crate::scenario::Scenario {
            name: stringify!($name),
            needs: crate::scenario::Needs::$needs,
            play: |transport| Box::pin($name(transport)),
        }),+];
    };
}
pub(crate) use scenarios as list;
