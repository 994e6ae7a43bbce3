//! `Query<T>`: the query string.

use std::borrow::Cow;

use http::StatusCode;
use serde::de::DeserializeOwned;

use super::values::{All, Named, Texts};
use super::{FromRequestParts, Parts};
use crate::error::Problem;

/// The query string as a struct or map by its names. A name that is given several times fits a `Vec`.
///
/// No query is an empty one: take `Option` fields, or `#[serde(default)]`, for what may be absent. What does not fit is
/// answered 400 `invalid_query`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Query<T>(pub T);

impl<S, T> FromRequestParts<S> for Query<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    type Rejection = Problem;
    const FIELDS: bool = false;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parse(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// `None` where the request has no query string at all.
impl<S, T> FromRequestParts<S> for Option<Query<T>>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    type Rejection = Problem;
    const FIELDS: bool = false;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.uri.query().map(|query| parse(query).map(Query)).transpose()
    }
}

fn parse<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let rejection = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "invalid_query").detail(detail);
    let pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> =
        serde_urlencoded::from_str(query).map_err(|error| rejection(error.to_string()))?;
    let mut values: Vec<Named<'_>> = Vec::new();
    // Names are looked up one by one up to here, and by hash beyond, so that many names cost no more than their number.
    let mut places: std::collections::HashMap<Cow<'_, str>, usize> = std::collections::HashMap::new();
    for (name, text) in pairs {
        match places.get(&name).and_then(|place| values.get_mut(*place)) {
            Some(value) => value.texts.push(text),
            None => {
                places.insert(name.clone(), values.len());
                values.push(Named { name, texts: Texts::One(text) });
            }
        }
    }
    T::deserialize(All { values }).map_err(|misfit| rejection(misfit.to_string()))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Page {
        page: u32,
        #[serde(default)]
        tag: Vec<String>,
        q: Option<String>,
    }

    #[test]
    fn names_fit_fields_and_repeated_names_fit_lists() {
        let page: Page = parse("page=2&tag=a&q=x%20y&tag=b").unwrap();
        assert_eq!(page, Page { page: 2, tag: vec!["a".into(), "b".into()], q: Some("x y".into()) });
        assert_eq!(parse::<Page>("page=1").unwrap(), Page { page: 1, tag: vec![], q: None });
    }

    #[test]
    fn what_does_not_fit_is_told_by_name() {
        let told = |query| parse::<Page>(query).unwrap_err().detail_text().unwrap_or_default().to_owned();
        assert_eq!(told("page=x"), "`page`: `x` is not a whole number from 0 to 4294967295");
        assert_eq!(told(""), "missing field `page`");
        assert_eq!(told("page=1&page=2"), "`page` takes one value, but is given 2");
    }
}
