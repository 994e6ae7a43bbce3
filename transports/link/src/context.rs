//! What an incoming request carries beside HTTP: its context, and whether anybody still waits for its answer.
//!
//! The first is a request extension, set by the link, and holds the second. Nothing here knows how they travel.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http::uri::Authority;
use router_common::endpoint::{Claim, EndpointId};
use router_common::frame::Reason;
use router_common::session::StreamKey;

use crate::shared::Shared;
use router_common::head::Scheme;

/// What the router knows of a request beside its HTTP parts (SPEC 4): an extension of each incoming request.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RequestContext {
    /// The receiving service's own number of the endpoint; `None`: to be found by method and path.
    pub endpoint: Option<EndpointId>,
    /// When the answer is no longer wanted, by the local clock.
    pub deadline: Option<Instant>,
    /// Routers and services this request has been through.
    pub hops: u8,
    /// How the client came: http or https.
    pub scheme: Scheme,
    /// The host the client asked for.
    pub authority: Option<Authority>,
    /// The client's address.
    pub client: Option<SocketAddr>,
    /// Where the path parameters stand in the raw target, in the template's order; not yet percent-decoded.
    pub parameters: Parameters,
    /// The protocol of a tunnel (`websocket`), if the request opens one.
    pub tunnel: Option<Arc<str>>,
    pub(crate) cancellation: Cancellation,
    claims: Option<Arc<[Claim]>>,
}

impl RequestContext {
    /// The claims the caller holds, as the gateway verified them (SPEC 9).
    #[must_use]
    pub fn claims(&self) -> &[Claim] {
        self.claims.as_deref().unwrap_or_default()
    }

    /// Whether anybody still waits for the answer.
    #[must_use]
    pub const fn cancellation(&self) -> &Cancellation {
        &self.cancellation
    }

    /// Replaces the claims.
    #[must_use]
    pub fn with_claims(mut self, claims: impl IntoIterator<Item = Claim>) -> Self {
        let claims: Arc<[Claim]> = claims.into_iter().collect();
        self.claims = (!claims.is_empty()).then_some(claims);
        self
    }
}

/// Parameters that fit without an allocation.
const INLINE: usize = 4;

/// Offsets of path parameters: (start, length) in bytes of the raw request target, in the template's order. Up to four
/// cost no allocation.
#[derive(Clone, PartialEq, Eq)]
pub struct Parameters(Offsets);

#[derive(Clone, PartialEq, Eq)]
enum Offsets {
    Inline(u8, [(u16, u16); INLINE]),
    Heap(Box<[(u16, u16)]>),
}

impl Parameters {
    /// From offsets in order.
    #[must_use]
    pub fn new(offsets: &[(u16, u16)]) -> Self {
        offsets.iter().copied().collect()
    }

    /// The offsets in order.
    #[must_use]
    pub fn as_slice(&self) -> &[(u16, u16)] {
        match &self.0 {
            Offsets::Inline(length, offsets) => offsets.get(..usize::from(*length)).unwrap_or_default(),
            Offsets::Heap(offsets) => offsets,
        }
    }

    /// The raw values in order, cut out of the request target they were made for.
    pub fn values<'a>(&'a self, target: &'a str) -> impl Iterator<Item = &'a str> {
        self.as_slice().iter().map(move |(start, length)| {
            let start = usize::from(*start);
            target.get(start..start + usize::from(*length)).unwrap_or_default()
        })
    }
}

impl FromIterator<(u16, u16)> for Parameters {
    fn from_iter<I: IntoIterator<Item = (u16, u16)>>(offsets: I) -> Self {
        let mut offsets = offsets.into_iter();
        let mut inline = [(0, 0); INLINE];
        let mut length = 0_u8;
        for slot in &mut inline {
            let Some(offset) = offsets.next() else { break };
            *slot = offset;
            length += 1;
        }
        match offsets.next() {
            None => Self(Offsets::Inline(length, inline)),
            Some(next) => Self(Offsets::Heap(inline.into_iter().chain([next]).chain(offsets).collect())),
        }
    }
}

impl Default for Parameters {
    fn default() -> Self {
        Self(Offsets::Inline(0, [(0, 0); INLINE]))
    }
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// Whether anybody still waits for a request's answer: part of each incoming request's [`RequestContext`], cheap to clone.
///
/// The default one belongs to no link and never fires.
#[derive(Debug, Clone, Default)]
pub struct Cancellation(Option<(Arc<Shared>, StreamKey)>);

impl Cancellation {
    pub(crate) const fn of(shared: Arc<Shared>, key: StreamKey) -> Self {
        Self(Some((shared, key)))
    }

    /// Resolves when nobody waits for the answer any more: the opener cancelled, the link died, or the answer was given.
    pub fn cancelled(&self) -> Cancelled {
        Cancelled(self.clone())
    }

    /// Whether [`Cancellation::cancelled`] would resolve now.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.as_ref().is_some_and(|(shared, key)| shared.look(|state| state.session.send_capacity(*key).is_err()))
    }

    /// Why: the reason the opener gave, `deadline_exceeded` also if this side's clock was first, and `shutdown` or
    /// `superseded` if the link was closed for that. `None` while the answer is awaited, once it was given, and if the link
    /// broke.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        let (shared, key) = self.0.as_ref()?;
        shared.look(|state| state.session.cancel_reason(*key))
    }
}

/// A future that resolves when nobody waits for an answer any more. See [`Cancellation::cancelled`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Cancelled(Cancellation);

impl Future for Cancelled {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some((shared, key)) = &self.0.0 else { return Poll::Pending };
        shared.look(|state| {
            if state.session.send_capacity(*key).is_err() {
                return Poll::Ready(());
            }
            state.watch(*key, cx);
            Poll::Pending
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_cut_out_of_the_target_in_order() {
        let target = "/orders/17/files/a/b?x=1";
        let parameters = Parameters::new(&[(8, 2), (17, 3)]);
        assert_eq!(parameters.values(target).collect::<Vec<_>>(), ["17", "a/b"]);
    }

    #[test]
    fn many_parameters_keep_their_order() {
        for count in 0..9_u16 {
            let offsets: Vec<_> = (0..count).map(|i| (i, i + 1)).collect();
            assert_eq!(Parameters::new(&offsets).as_slice(), offsets);
        }
    }

    #[test]
    fn offsets_outside_the_target_read_as_nothing() {
        assert_eq!(Parameters::new(&[(3, 9), (u16::MAX, u16::MAX)]).values("/a").collect::<Vec<_>>(), ["", ""]);
    }
}
