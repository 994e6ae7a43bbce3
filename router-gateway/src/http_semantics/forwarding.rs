//! Who the client is, as far as proxies before this one are to be believed, and what the next hop is told of it (RFC 7239).

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{Uri, Version};
use router_common::problem::Problem;
use router_config::IpRange;

use super::{authority, bad, list_members, members};

pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The proxies before this hop whose word about the client is taken.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<IpRange>);

impl TrustedProxies {
    #[must_use]
    pub const fn new(ranges: Vec<IpRange>) -> Self {
        Self(ranges)
    }

    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|range| range.contains(address))
    }
}

/// How a request's sender presents itself: who it is, and which host it asks for. Requests of one connection hardly
/// differ in this, so that it is made once and then only compared.
#[derive(Debug)]
pub struct Introduction {
    source: (Version, Option<Authority>, Option<HeaderValue>),
    peer: SocketAddr,
    /// The host that the request is for (see [`authority`]).
    pub authority: Option<Authority>,
    /// The same as a field value.
    host: Option<HeaderValue>,
    /// This hop's element of `Forwarded`, and of `X-Forwarded-For`.
    element: HeaderValue,
    address: HeaderValue,
    scheme: HeaderValue,
}

impl Introduction {
    /// Of the request with this version, target and fields, which came from `peer`.
    ///
    /// # Errors
    /// As [`authority`].
    pub fn new(
        peer: SocketAddr,
        scheme: &'static str,
        (version, uri, headers): (Version, &Uri, &HeaderMap),
    ) -> Result<Self, Problem> {
        // Copies, because it lives as long as the connection: shared bytes would keep what the request was read into.
        let copied = |authority: &Authority| authority.as_str().parse::<Authority>().ok();
        let line = headers.get(header::HOST).and_then(|line| HeaderValue::from_bytes(line.as_bytes()).ok());
        let authority = authority(version, uri, headers)?.as_ref().and_then(copied);
        let address = peer.ip().to_canonical();
        let mut element = String::with_capacity(64);
        element.push_str("for=");
        push_node(&mut element, address);
        if let Some(host) = &authority {
            element.push_str(";host=");
            push_quoted(&mut element, host.as_str());
        }
        element.push_str(";proto=");
        element.push_str(scheme);
        // Addresses, hosts that were parsed and quoted text are field values.
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| bad("The Host field is not well-formed."));
        Ok(Self {
            source: (version, uri.authority().and_then(copied), line),
            peer,
            host: authority.as_ref().map(|host| value(host.as_str())).transpose()?,
            authority,
            element: value(&element)?,
            address: value(&address.to_string())?,
            scheme: HeaderValue::from_static(scheme),
        })
    }

    /// Whether it is that of this request too.
    #[must_use]
    pub fn fits(&self, version: Version, uri: &Uri, headers: &HeaderMap) -> bool {
        let (its_version, target, host) = &self.source;
        let mut lines = headers.get_all(header::HOST).iter();
        *its_version == version
            && uri.authority() == target.as_ref()
            && lines.next() == host.as_ref()
            && lines.next().is_none()
    }

    /// Makes `Host` say what the target said (RFC 9112 3.2.2).
    pub fn set_host(&self, headers: &mut HeaderMap) {
        if let Some(host) = &self.host
            && self.source.2.as_ref() != Some(host)
        {
            headers.insert(header::HOST, host.clone());
        }
    }
}

/// Writes `Forwarded` and `X-Forwarded-*` for the next hop and says who the client is (RFC 7239). What came in is kept
/// and added to if the peer is a trusted proxy; otherwise it is a claim by nobody and is replaced.
pub fn forwarded(headers: &mut HeaderMap, sender: &Introduction, trusted: &TrustedProxies) -> SocketAddr {
    // Most requests bring none of these.
    let mut client = sender.peer;
    if headers.keys().any(tells_of_forwarding) {
        if !trusted.trusts(sender.peer.ip().to_canonical()) {
            for name in [header::FORWARDED, X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST] {
                headers.remove(name);
            }
        }
        client = original_client(headers, sender.peer, trusted);
    }
    append_list(headers, header::FORWARDED, &sender.element);
    append_list(headers, X_FORWARDED_FOR, &sender.address);
    headers.entry(X_FORWARDED_PROTO).or_insert_with(|| sender.scheme.clone());
    if let Some(host) = &sender.host {
        headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
    }
    client
}

fn tells_of_forwarding(name: &HeaderName) -> bool {
    *name == header::FORWARDED || name.as_str().starts_with("x-forwarded-")
}

/// The last address in `X-Forwarded-For` that no trusted proxy has: everything left of it is hearsay.
fn original_client(headers: &HeaderMap, peer: SocketAddr, trusted: &TrustedProxies) -> SocketAddr {
    let mut client = peer;
    let hops: Vec<&str> = list_members(headers, X_FORWARDED_FOR).collect();
    for hop in hops.into_iter().rev() {
        let Ok(address) = hop.parse::<IpAddr>() else { break };
        client = SocketAddr::new(address, 0);
        if !trusted.trusts(address) {
            break;
        }
    }
    client
}

/// RFC 7239 6: an IPv6 address stands in brackets and is quoted.
fn push_node(element: &mut String, address: IpAddr) {
    use std::fmt::Write as _;
    // Writing to a String cannot fail.
    let _ = match address {
        IpAddr::V4(address) => write!(element, "{address}"),
        IpAddr::V6(address) => write!(element, "\"[{address}]\""),
    };
}

fn push_quoted(element: &mut String, text: &str) {
    let is_token = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    if is_token {
        element.push_str(text);
    } else {
        element.push('"');
        for letter in text.chars().filter(|letter| !letter.is_control()) {
            if matches!(letter, '"' | '\\') {
                element.push('\\');
            }
            element.push(letter);
        }
        element.push('"');
    }
}

/// Puts a member at the end of a list, in one line.
fn append_list(headers: &mut HeaderMap, name: HeaderName, member: &HeaderValue) {
    let mut there = match headers.entry(name) {
        header::Entry::Vacant(place) => {
            place.insert(member.clone());
            return;
        }
        header::Entry::Occupied(there) => there,
    };
    let Ok(member) = member.to_str() else { return };
    let mut whole: Vec<&str> = there.iter().filter_map(|line| line.to_str().ok()).flat_map(members).collect();
    whole.push(member);
    if let Ok(value) = HeaderValue::from_str(&whole.join(", ")) {
        there.insert(value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::headers;
    use super::*;

    fn introduced(peer: &str, scheme: &'static str, headers: &HeaderMap) -> Introduction {
        Introduction::new(peer.parse().unwrap(), scheme, (Version::HTTP_11, &Uri::from_static("/"), headers)).unwrap()
    }

    #[test]
    fn an_introduction_fits_requests_that_say_the_same_host_alone() {
        let (given, path) = (headers(&[("host", "a")]), Uri::from_static("/x"));
        let known = introduced("10.1.2.3:4567", "http", &given);
        assert!(known.fits(Version::HTTP_11, &path, &given));
        assert!(!known.fits(Version::HTTP_10, &path, &given));
        assert!(!known.fits(Version::HTTP_11, &Uri::from_static("http://a/x"), &given));
        for other in [headers(&[]), headers(&[("host", "b")]), headers(&[("host", "a"), ("host", "a")])] {
            assert!(!known.fits(Version::HTTP_11, &path, &other), "{other:?}");
        }
    }

    #[test]
    fn forwarded_is_replaced_unless_a_trusted_proxy_wrote_it_rfc_7239() {
        let sender = introduced("10.1.2.3:4567", "http", &headers(&[("host", "a.example:8080")]));
        let given = [("x-forwarded-for", "9.9.9.9"), ("x-forwarded-proto", "https"), ("forwarded", "for=9.9.9.9")];

        let mut map = headers(&given);
        let client = forwarded(&mut map, &sender, &TrustedProxies::default());
        assert_eq!(client, "10.1.2.3:4567".parse().unwrap());
        assert_eq!(map["x-forwarded-for"], "10.1.2.3");
        assert_eq!(map["x-forwarded-proto"], "http");
        assert_eq!(map["x-forwarded-host"], "a.example:8080");
        assert_eq!(map["forwarded"], "for=10.1.2.3;host=\"a.example:8080\";proto=http");

        let mut map = headers(&given);
        let trusted = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let client = forwarded(&mut map, &sender, &trusted);
        assert_eq!(client.ip(), "9.9.9.9".parse::<IpAddr>().unwrap());
        assert_eq!(map["x-forwarded-for"], "9.9.9.9, 10.1.2.3");
        assert_eq!(map["x-forwarded-proto"], "https");
        assert_eq!(map["forwarded"], "for=9.9.9.9, for=10.1.2.3;host=\"a.example:8080\";proto=http");
    }

    #[test]
    fn an_ipv6_client_is_bracketed_and_quoted_rfc_7239_6() {
        let mut map = HeaderMap::new();
        let sender = introduced("[2001:db8::1]:9", "https", &headers(&[("host", "")]));
        forwarded(&mut map, &sender, &TrustedProxies::default());
        assert_eq!(map["forwarded"], "for=\"[2001:db8::1]\";proto=https");
    }
}
