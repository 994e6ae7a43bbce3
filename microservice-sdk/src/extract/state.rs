//! `State<T>`: what the service was given when it was built.

use super::{FromRequestParts, Parts};
use crate::error::Problem;

/// The service's state, or a part of it: a pool, a client, settings.
///
/// A service has one state, [`Microservice::state`](crate::Microservice::state); a handler takes all of it, or each part
/// for which [`FromRef`] is implemented. That there is such a part is checked when the service is compiled.
#[derive(Debug, Clone, Copy, Default)]
pub struct State<T>(pub T);

/// A part that can be taken out of a state by reference. Every state is a part of itself.
#[diagnostic::on_unimplemented(
    message = "the service's state `{S}` has no part `{Self}`",
    label = "`State<{Self}>` is taken here",
    note = "give the service that state before its endpoints: `Microservice::new(..).state(..)`; or implement `FromRef<{S}> for {Self}`",
    note = "a state is cloned for each request that takes it: wrap what is expensive to clone in an `Arc`"
)]
pub trait FromRef<S: ?Sized> {
    /// Takes the part out, usually by a cheap clone.
    fn from_ref(state: &S) -> Self;
}

impl<T: Clone> FromRef<T> for T {
    fn from_ref(state: &T) -> T {
        state.clone()
    }
}

impl<S, T> FromRequestParts<S> for State<T>
where
    S: Send + Sync,
    T: FromRef<S>,
{
    type Rejection = Problem;
    const FIELDS: bool = false;

    async fn from_request_parts(_: &mut Parts, state: &S) -> Result<Self, Problem> {
        Ok(Self(T::from_ref(state)))
    }
}

/// A state that has every part, and of which no value exists: `#[endpoint]` checks its arguments against it, so that a
/// mistake is told where the argument stands and not where the endpoint is listed.
#[doc(hidden)]
#[derive(Debug)]
pub enum AnyState {}

impl<T> FromRef<AnyState> for T {
    fn from_ref(state: &AnyState) -> T {
        match *state {}
    }
}
