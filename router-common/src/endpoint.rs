//! What a service offers: endpoint descriptors, path templates and required claims (SPEC 2).
//!
//! Nothing here knows who owns a path or how a request is matched in a table; `path` knows how one request is read.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use http::Method;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits;
use crate::wire;

/// A service's own number for an endpoint, from 1. A process never gives it to another method + path (SPEC 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EndpointId(NonZeroU32);

impl EndpointId {
    /// The first one: 1.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// `None` for 0, which on the wire says "by method and path".
    #[must_use]
    pub fn new(id: u32) -> Option<Self> {
        NonZeroU32::new(id).map(Self)
    }

    #[must_use]
    pub const fn as_u32(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One claim that a caller holds, as it travels to the service: for example `scope` = `orders:read`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Claim {
    #[serde(rename = "type")]
    pub kind: String,
    pub value: String,
}

/// One claim that an endpoint requires; all of an endpoint's requirements must hold (SPEC 9).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimRequirement {
    #[serde(rename = "type")]
    pub kind: String,
    /// Values of which the caller must hold one; empty: any value will do.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "wire::list::<_, _, { limits::CLAIM_VALUES }>"
    )]
    pub any_of: Vec<String>,
}

/// All that a gateway knows of an endpoint. On the wire it is a map with these names, so that fields can be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointDescriptor {
    pub id: EndpointId,
    #[serde(with = "method")]
    pub method: Method,
    pub path: PathTemplate,
    /// Time to answer; absent: the gateway's default. Milliseconds on the wire.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "milliseconds", rename = "timeout_ms")]
    pub timeout: Option<Duration>,
    #[serde(default, skip_serializing_if = "crate::wire::is_default")]
    pub streaming_request: bool,
    #[serde(default, skip_serializing_if = "crate::wire::is_default")]
    pub streaming_response: bool,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "wire::list::<_, _, { limits::CLAIM_REQUIREMENTS }>"
    )]
    pub requiring_claims: Vec<ClaimRequirement>,
    /// The handler may run more than once for one request. GET implies nothing.
    #[serde(default, skip_serializing_if = "crate::wire::is_default")]
    pub idempotent: bool,
    /// Largest request body, in bytes; absent: the gateway's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_request_bytes: Option<u64>,
    /// Fire and forget: 202 on admission, and a client that leaves does not cancel the work.
    #[serde(default, skip_serializing_if = "crate::wire::is_default")]
    pub one_way: bool,
    #[serde(default, skip_serializing_if = "crate::wire::is_default")]
    pub deprecated: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "wire::list::<_, _, { limits::TAGS }>")]
    pub tags: Vec<String>,
    /// JSON Schema of the request body, as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_schema: Option<String>,
    /// JSON Schema of the response body, as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_schema: Option<String>,
}

impl EndpointDescriptor {
    /// A descriptor with every other field at its default.
    #[must_use]
    pub const fn new(id: EndpointId, method: Method, path: PathTemplate) -> Self {
        Self {
            id,
            method,
            path,
            timeout: None,
            streaming_request: false,
            streaming_response: false,
            requiring_claims: Vec::new(),
            idempotent: false,
            max_request_bytes: None,
            one_way: false,
            deprecated: false,
            summary: None,
            tags: Vec::new(),
            request_schema: None,
            response_schema: None,
        }
    }

    /// Whether it needs a link on which bodies stream.
    #[must_use]
    pub const fn is_streaming(&self) -> bool {
        self.streaming_request || self.streaming_response
    }

    /// Whether its lists are within their bounds; one that is not cannot be read by any gateway.
    ///
    /// # Errors
    /// The first list that is too long.
    pub fn check(&self) -> Result<(), DescriptorError> {
        if self.tags.len() > limits::TAGS {
            return Err(DescriptorError::Tags(self.tags.len()));
        }
        if self.requiring_claims.len() > limits::CLAIM_REQUIREMENTS {
            return Err(DescriptorError::Claims(self.requiring_claims.len()));
        }
        match self.requiring_claims.iter().find(|claim| claim.any_of.len() > limits::CLAIM_VALUES) {
            Some(claim) => Err(DescriptorError::ClaimValues { kind: claim.kind.clone(), values: claim.any_of.len() }),
            None => Ok(()),
        }
    }
}

/// Why a descriptor cannot be offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptorError {
    #[error("{0} tags, where {most} are allowed", most = limits::TAGS)]
    Tags(usize),
    #[error("{0} required claims, where {most} are allowed", most = limits::CLAIM_REQUIREMENTS)]
    Claims(usize),
    #[error("{values} values of the required claim `{kind}`, where {most} are allowed", most = limits::CLAIM_VALUES)]
    ClaimValues { kind: String, values: usize },
}

mod method {
    use super::{Deserialize, Deserializer, Method, Serializer, de};

    pub(super) fn serialize<S: Serializer>(method: &Method, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(method.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Method, D::Error> {
        let text = String::deserialize(deserializer)?;
        Method::from_bytes(text.as_bytes())
            .map_err(|_| de::Error::custom(format_args!("`{text}` is not an HTTP method")))
    }
}

mod milliseconds {
    use super::{Deserialize, Deserializer, Duration, Serializer};

    pub(super) fn serialize<S: Serializer>(timeout: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match timeout {
            Some(timeout) => serializer.serialize_some(&u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}

/// One segment of a path template.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// Matches these decoded bytes only.
    Literal(String),
    /// `{name}`: matches one segment.
    Parameter(String),
    /// `{*name}`: matches one or more last segments.
    CatchAll(String),
}

/// Why a path template was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("a path template begins with `/`")]
    NoSlash,
    #[error("longer than {} bytes", limits::TEMPLATE_BYTES)]
    TooLong,
    #[error("more than {} parameters", limits::TEMPLATE_PARAMETERS)]
    TooManyParameters,
    #[error("an empty segment (`//`) can never be matched")]
    EmptySegment,
    #[error("the segment `{0}` can never be matched: `.` and `..` are refused in requests")]
    DotSegment(String),
    #[error("`{0}`: a parameter is a whole segment, `{{name}}` or `{{*name}}`")]
    Braces(String),
    #[error("`{0}` is not a parameter name: use letters, digits and `_`, not beginning with a digit")]
    ParameterName(String),
    #[error("the parameter `{0}` stands twice")]
    DuplicateParameter(String),
    #[error("`{{*{0}}}` must be the last segment")]
    CatchAllNotLast(String),
    #[error(
        "`{0}` has a character that needs no escape in a template or may not stand in one: write paths decoded, without `%`, `?`, `#`, `\\` and control characters"
    )]
    Character(String),
}

/// A path with parameters: literals, `{name}`, and a last `{*name}` (SPEC 2). Written decoded. A trailing slash is
/// significant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathTemplate {
    text: String,
    segments: Vec<Segment>,
    trailing_slash: bool,
}

impl PathTemplate {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The segments without the trailing slash, if any; none for `/`.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether the template ends with a slash after its last segment; `false` for `/` itself.
    #[must_use]
    pub const fn has_trailing_slash(&self) -> bool {
        self.trailing_slash
    }

    /// The names of the parameters, in order.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::Parameter(name) | Segment::CatchAll(name) => Some(name.as_str()),
        })
    }

    /// The template with its parameters' names taken out: templates with equal canonical forms conflict.
    #[must_use]
    pub fn canonical(&self) -> String {
        if self.segments.is_empty() {
            return "/".to_owned();
        }
        let mut canonical = String::with_capacity(self.text.len());
        for segment in &self.segments {
            canonical.push('/');
            match segment {
                Segment::Literal(literal) => canonical.push_str(literal),
                Segment::Parameter(_) => canonical.push_str("{}"),
                Segment::CatchAll(_) => canonical.push_str("{*}"),
            }
        }
        if self.trailing_slash {
            canonical.push('/');
        }
        canonical
    }
}

impl FromStr for PathTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        if text.len() > limits::TEMPLATE_BYTES {
            return Err(TemplateError::TooLong);
        }
        let path = text.strip_prefix('/').ok_or(TemplateError::NoSlash)?;
        let (inner, trailing_slash) = match path.strip_suffix('/') {
            Some(inner) => (inner, true),
            None => (path, false),
        };
        let mut segments: Vec<Segment> = Vec::new();
        if inner.is_empty() {
            if trailing_slash {
                return Err(TemplateError::EmptySegment);
            }
            return Ok(Self { text: text.to_owned(), segments, trailing_slash: false });
        }
        let mut names: Vec<&str> = Vec::new();
        for part in inner.split('/') {
            if let Some(Segment::CatchAll(name)) = segments.last() {
                return Err(TemplateError::CatchAllNotLast(name.clone()));
            }
            let segment = parse_segment(part)?;
            if let Segment::Parameter(_) | Segment::CatchAll(_) = &segment {
                let name = part.trim_matches(['{', '}', '*']);
                if names.contains(&name) {
                    return Err(TemplateError::DuplicateParameter(name.to_owned()));
                }
                names.push(name);
            }
            segments.push(segment);
        }
        if names.len() > limits::TEMPLATE_PARAMETERS {
            return Err(TemplateError::TooManyParameters);
        }
        if trailing_slash && let Some(Segment::CatchAll(name)) = segments.last() {
            return Err(TemplateError::CatchAllNotLast(name.clone()));
        }
        Ok(Self { text: text.to_owned(), segments, trailing_slash })
    }
}

fn parse_segment(part: &str) -> Result<Segment, TemplateError> {
    if part.is_empty() {
        return Err(TemplateError::EmptySegment);
    }
    if part == "." || part == ".." {
        return Err(TemplateError::DotSegment(part.to_owned()));
    }
    if let Some(inner) = part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let (name, catch_all) = match inner.strip_prefix('*') {
            Some(name) => (name, true),
            None => (inner, false),
        };
        let mut letters = name.chars();
        let first_ok = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        if !first_ok || !letters.all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(TemplateError::ParameterName(name.to_owned()));
        }
        let name = name.to_owned();
        return Ok(if catch_all { Segment::CatchAll(name) } else { Segment::Parameter(name) });
    }
    if part.contains(['{', '}']) {
        return Err(TemplateError::Braces(part.to_owned()));
    }
    if part.chars().any(|c| c.is_control() || matches!(c, '%' | '?' | '#' | '\\')) {
        return Err(TemplateError::Character(part.to_owned()));
    }
    Ok(Segment::Literal(part.to_owned()))
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PathTemplate({})", self.text)
    }
}

impl Serialize for PathTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for PathTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| de::Error::custom(format_args!("path template `{text}`: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> PathTemplate {
        text.parse().unwrap()
    }

    #[test]
    fn templates_parse_into_segments() {
        assert_eq!(template("/").segments(), []);
        assert_eq!(
            template("/orders/{id}/files/{*rest}").segments(),
            [
                Segment::Literal("orders".into()),
                Segment::Parameter("id".into()),
                Segment::Literal("files".into()),
                Segment::CatchAll("rest".into()),
            ]
        );
        assert!(template("/orders/").has_trailing_slash());
        assert_eq!(template("/a/{x}/{y}").parameters().collect::<Vec<_>>(), ["x", "y"]);
    }

    #[test]
    fn names_of_parameters_do_not_tell_templates_apart() {
        assert_eq!(template("/a/{x}").canonical(), template("/a/{y}").canonical());
        assert_ne!(template("/a/{x}").canonical(), template("/a/{x}/").canonical());
        assert_ne!(template("/a/{x}").canonical(), template("/a/{*x}").canonical());
        assert_eq!(template("/").canonical(), "/");
    }

    #[test]
    fn bad_templates_are_refused_by_what_is_wrong() {
        let refused = |text: &str| text.parse::<PathTemplate>().unwrap_err();
        assert_eq!(refused(""), TemplateError::NoSlash);
        assert_eq!(refused("a"), TemplateError::NoSlash);
        assert_eq!(refused("//"), TemplateError::EmptySegment);
        assert_eq!(refused("/a//b"), TemplateError::EmptySegment);
        assert_eq!(refused("/a/../b"), TemplateError::DotSegment("..".into()));
        assert_eq!(refused("/a{x}"), TemplateError::Braces("a{x}".into()));
        assert_eq!(refused("/{x}{y}"), TemplateError::ParameterName("x}{y".into()));
        assert_eq!(refused("/{1}"), TemplateError::ParameterName("1".into()));
        assert_eq!(refused("/{}"), TemplateError::ParameterName(String::new()));
        assert_eq!(refused("/{x}/{x}"), TemplateError::DuplicateParameter("x".into()));
        assert_eq!(refused("/{*x}/a"), TemplateError::CatchAllNotLast("x".into()));
        assert_eq!(refused("/{*x}/"), TemplateError::CatchAllNotLast("x".into()));
        assert_eq!(refused("/a%20b"), TemplateError::Character("a%20b".into()));
        assert_eq!(refused(&format!("/{}", "a".repeat(1024))), TemplateError::TooLong);
    }
}
