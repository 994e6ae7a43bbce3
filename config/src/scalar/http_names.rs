//! HTTP methods and header names as configuration writes them.

use std::fmt;
use std::str::FromStr;

use super::{ScalarError, text_scalar};

const METHOD_ALLOWED: &str = "an HTTP method in capitals, such as `GET` or `POST`";
const HEADER_ALLOWED: &str = "a header name, such as `x-service-version`";

/// An HTTP method, in capitals: methods are case-sensitive, and nobody means `get`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MethodName(http::Method);

impl MethodName {
    /// The method.
    #[must_use]
    pub const fn as_method(&self) -> &http::Method {
        &self.0
    }
}

impl From<MethodName> for http::Method {
    fn from(name: MethodName) -> Self {
        name.0
    }
}

impl From<http::Method> for MethodName {
    fn from(method: http::Method) -> Self {
        Self(method)
    }
}

impl FromStr for MethodName {
    type Err = ScalarError;

    fn from_str(input: &str) -> Result<Self, ScalarError> {
        let refuse = || ScalarError::found(input, METHOD_ALLOWED);
        let method = http::Method::from_bytes(input.as_bytes()).map_err(|_| refuse())?;
        let capitals = input.to_ascii_uppercase();
        match capitals == input {
            true => Ok(Self(method)),
            false => Err(refuse().help(format!("methods are case-sensitive: write `{capitals}`"))),
        }
    }
}

impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_scalar!(MethodName, allowed: METHOD_ALLOWED, schema: {
    "type": "string",
    "description": METHOD_ALLOWED,
    "pattern": "^[A-Z0-9!#$%&'*+.^_`|~-]+$",
    "examples": ["GET", "POST", "PUT", "PATCH", "DELETE"]
});

/// The name of a header field; kept in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeaderKey(http::HeaderName);

impl HeaderKey {
    pub(crate) const fn from_static(name: &'static str) -> Self {
        Self(http::HeaderName::from_static(name))
    }

    /// The name.
    #[must_use]
    pub const fn as_name(&self) -> &http::HeaderName {
        &self.0
    }
}

impl From<HeaderKey> for http::HeaderName {
    fn from(key: HeaderKey) -> Self {
        key.0
    }
}

impl FromStr for HeaderKey {
    type Err = ScalarError;

    fn from_str(input: &str) -> Result<Self, ScalarError> {
        http::HeaderName::from_bytes(input.as_bytes()).map(Self).map_err(|_| {
            let error = ScalarError::found(input, HEADER_ALLOWED);
            match input.strip_suffix(':') {
                Some(name) if !name.is_empty() => error.help(format!("without the colon: `{name}`")),
                _ => error,
            }
        })
    }
}

impl fmt::Display for HeaderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_scalar!(HeaderKey, allowed: HEADER_ALLOWED, schema: {
    "type": "string",
    "description": HEADER_ALLOWED,
    "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_in_small_letters_is_refused_with_the_right_one() {
        let error = "get".parse::<MethodName>().unwrap_err();
        assert_eq!(error.help.as_deref(), Some("methods are case-sensitive: write `GET`"));
        assert!("PROPFIND".parse::<MethodName>().is_ok());
        assert!("".parse::<MethodName>().is_err() && "GE T".parse::<MethodName>().is_err());
    }

    #[test]
    fn header_names_are_kept_in_lower_case() {
        assert_eq!("X-Service-Version".parse::<HeaderKey>().unwrap().to_string(), "x-service-version");
        assert_eq!("host:".parse::<HeaderKey>().unwrap_err().help.as_deref(), Some("without the colon: `host`"));
        assert!("a b".parse::<HeaderKey>().is_err());
    }
}
