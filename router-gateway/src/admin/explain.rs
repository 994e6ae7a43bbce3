//! The page that explains a request without sending it (SPEC 5, 13).
//!
//! It reads what is asked about from the query; the explanation itself is `routing::explain`'s work.

use std::borrow::Cow;
use std::time::Instant;

use http::Method;
use http::uri::PathAndQuery;
use percent_encoding::percent_decode_str;
use router_common::path::RequestPath;
use router_common::problem::{Problem, ProblemCode};

use crate::registry::{LinkHandle, Registry};
use crate::routing::RequestFacts;
use crate::routing::explain::{Explanation, explain};
use crate::routing::instance::Needs;

const USAGE: &str = "Ask as in /explain?method=GET&path=/orders/1, with &version=1.2.0 or without.";

/// What is asked about.
struct Asked {
    method: Method,
    path: PathAndQuery,
    version: Option<String>,
}

/// Explains what the query asks about; nothing changes by it.
///
/// # Errors
/// `bad_request` for a parameter that is missing, unknown, given twice or malformed. What would be wrong with the request
/// itself is part of its explanation.
pub(super) fn page<H: LinkHandle>(
    registry: &Registry<H>,
    query: Option<&str>,
    random: u64,
    now: Instant,
) -> Result<Explanation, Problem> {
    let Asked { method, path, version } = parse(query.unwrap_or_default())?;
    // Whoever is listed is found by requests too.
    registry.catch_up(now);
    let table = registry.snapshot();
    let path = match RequestPath::parse(path.path()) {
        Ok(path) => path,
        Err(error) => {
            return Ok(Explanation::of_bad_path(&table, (&method, path.path(), version.as_deref()), error));
        }
    };
    let facts = RequestFacts {
        method: &method,
        path: &path,
        version_header: version.as_deref(),
        claims: None,
        worker: 0,
        excluded: &[],
        excluded_links: &[],
        needs: Needs::Nothing,
        random,
        now,
    };
    Ok(explain(&table, &facts))
}

fn parse(query: &str) -> Result<Asked, Problem> {
    let (mut method, mut path, mut version) = (None, None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let slot = match name {
            "method" => &mut method,
            "path" => &mut path,
            "version" => &mut version,
            _ => return Err(bad(format!("`{name}` is no parameter of this page."))),
        };
        let value = decode(value).ok_or_else(|| bad(format!("`{name}` is not UTF-8, percent-encoded.")))?;
        if slot.replace(value).is_some() {
            return Err(bad(format!("`{name}` stands there twice.")));
        }
    }
    let method = method.ok_or_else(|| bad("`method` is missing.".to_owned()))?;
    let path = path.ok_or_else(|| bad("`path` is missing.".to_owned()))?;
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| bad(format!("`method` is `{}`, which is no HTTP method.", method.escape_debug())))?;
    if !path.starts_with('/') {
        return Err(bad(format!("`path` is `{}`, and does not begin with `/`.", path.escape_debug())));
    }
    let path = PathAndQuery::try_from(&*path)
        .map_err(|_| bad(format!("`path` is `{}`, which is no request target.", path.escape_debug())))?;
    Ok(Asked { method, path, version: version.map(Cow::into_owned) })
}

/// As forms are encoded.
fn decode(value: &str) -> Option<Cow<'_, str>> {
    if value.contains('+') {
        let spaced = value.replace('+', " ");
        return Some(Cow::Owned(percent_decode_str(&spaced).decode_utf8().ok()?.into_owned()));
    }
    percent_decode_str(value).decode_utf8().ok()
}

fn bad(detail: String) -> Problem {
    Problem::new(ProblemCode::BadRequest).detail(format!("{detail} {USAGE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_question_is_told_precisely() {
        for (query, told) in [
            ("", "`method` is missing."),
            ("method=GET", "`path` is missing."),
            ("method=GET&path=", "`path` is ``, and does not begin with `/`."),
            ("method=GET&path=x", "`path` is `x`, and does not begin with `/`."),
            ("method=GET&path=/%01", "`path` is `/\\u{1}`, which is no request target."),
            ("method=GET&path=/%ff", "`path` is not UTF-8, percent-encoded."),
            ("method=G%20T&path=/", "`method` is `G T`, which is no HTTP method."),
            ("method=&path=/", "`method` is ``, which is no HTTP method."),
            ("method=GET&method=GET&path=/", "`method` stands there twice."),
            ("method=GET&path=/&verison=1", "`verison` is no parameter of this page."),
        ] {
            let problem = parse(query).err().unwrap_or_else(|| panic!("{query} was read"));
            assert_eq!(problem.code, ProblemCode::BadRequest);
            assert_eq!(problem.detail.as_deref(), Some(&*format!("{told} {USAGE}")), "{query}");
        }
    }

    #[test]
    fn a_path_may_be_encoded_or_not_and_its_query_is_left_out() {
        for (query, path, version) in [
            ("method=GET&path=/a/b", "/a/b", None),
            ("path=%2Fa%2Fb&method=GET&version=1.0.0%2Bbuild", "/a/b", Some("1.0.0+build")),
            ("method=GET&path=/a%2520b?c=d&version=1", "/a%20b", Some("1")),
        ] {
            let asked = parse(query).unwrap();
            assert_eq!((asked.path.path(), asked.version.as_deref()), (path, version), "{query}");
        }
    }
}
