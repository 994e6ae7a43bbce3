//! `Path<T>`: the parameters of the path, percent-decoded once.

use std::borrow::Cow;

use http::StatusCode;
use router_common::path::decode_parameter;
use serde::de::DeserializeOwned;

use super::values::{All, Named, Texts};
use super::{FromRequestParts, Parts};
use crate::error::Problem;
use crate::invocation::Invocation;

/// The parameters of the path: one value, a tuple in the template's order, or a struct by their names.
///
/// A parameter that does not fit is answered 400 `invalid_path_parameter`. The count of values is checked by
/// `#[endpoint]` where the type tells it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Path<T>(pub T);

impl<S, T> FromRequestParts<S> for Path<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    type Rejection = Problem;
    const FIELDS: bool = false;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(Invocation { endpoint, context, .. }) = parts.extensions.get::<Invocation>() else {
            return Err(Problem::misuse("`Path` was taken from a request that no endpoint matched"));
        };
        let mut values = Vec::new();
        let target = parts.uri.path();
        for (name, raw) in endpoint.path.parameters().zip(context.parameters.values(target)) {
            let text = decode_parameter(raw).map_err(|error| rejection(format!("`{name}`: {error}")))?;
            values.push(Named { name: Cow::Borrowed(name), texts: Texts::One(text) });
        }
        match T::deserialize(All { values }) {
            Ok(value) => Ok(Self(value)),
            Err(misfit) => Err(rejection(misfit.to_string())),
        }
    }
}

fn rejection(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_path_parameter").detail(detail)
}
