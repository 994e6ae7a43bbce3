//! Taking out of an HTTP message what belongs to one connection only, before it becomes a head (SPEC 4).
//!
//! Which fields a head refuses is `head`'s; nothing here knows frames.

use http::header::{self, HeaderMap, HeaderName};

use crate::head::is_hop_by_hop;

/// Removes the fields of [`is_hop_by_hop`] and those that `Connection` names (RFC 9110 7.6.1), so that the rest can cross.
pub fn strip(headers: &mut HeaderMap) {
    // Most messages have none of these, and only pay for looking at the names. What `Connection` names takes `Connection`.
    if !headers.keys().any(is_own) {
        return;
    }
    let options = headers.get_all(header::CONNECTION).iter().filter_map(|line| line.to_str().ok());
    let named = options.flat_map(|line| line.split(',')).filter_map(|option| option.trim().parse::<HeaderName>().ok());
    let own = headers.keys().filter(|name| is_own(name)).cloned();
    let doomed: Vec<HeaderName> = named.filter(|name| !is_for_all_recipients(name)).chain(own).collect();
    for name in doomed {
        headers.remove(name);
    }
}

fn is_own(name: &HeaderName) -> bool {
    is_hop_by_hop(name.as_str().as_bytes())
}

/// "A sender MUST NOT send a connection option corresponding to a field that is intended for all recipients" (RFC 9110
/// 7.6.1); without these a message would be another one.
fn is_for_all_recipients(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::HOST
            | header::CONTENT_LENGTH
            | header::CONTENT_TYPE
            | header::CONTENT_ENCODING
            | header::CACHE_CONTROL
            | header::AUTHORIZATION
            | header::VIA
            | header::DATE
    )
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::head::ResponseHead;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_belongs_to_one_connection_goes_and_the_rest_can_cross() {
        let mut fields = headers(&[
            ("connection", "close, X-Hop ,, no token,"),
            ("connection", "content-length, x-other"),
            ("keep-alive", "timeout=5"),
            ("x-hop", "1"),
            ("x-hop", "2"),
            ("x-other", "3"),
            ("content-length", "4"),
            ("x-end", "5"),
        ]);
        strip(&mut fields);
        assert_eq!(fields, headers(&[("content-length", "4"), ("x-end", "5")]));
        assert!(ResponseHead::encode(200, &fields).is_ok());
    }
}
