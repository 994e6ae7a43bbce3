//! How the path of one request is read, and how one template is held against it (SPEC 2).
//!
//! A path is read once, strictly, and never guessed at: what could be understood in two ways is refused. Nothing here
//! knows tables, services or versions; [`PathTemplate::matches`] is the reference that every faster matcher must equal.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::endpoint::{PathTemplate, Segment};
use crate::limits;
use crate::problem::{Problem, ProblemCode};

/// Longest request path, in bytes: a head must hold it, and offsets into it are 16 bits wide.
pub const PATH_BYTES: usize = limits::HEAD_BYTES;

/// Why a request path was refused. The messages are written for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    #[error("the path must begin with `/`")]
    NoSlash,
    #[error("the path is longer than {PATH_BYTES} bytes")]
    TooLong,
    #[error("the path has a `%` that is not followed by two hexadecimal digits")]
    BadEscape,
    #[error("the path has an encoded NUL (`%00`)")]
    EncodedNul,
    #[error("the path has a backslash, raw or encoded")]
    Backslash,
    #[error("the path has an empty segment (`//`)")]
    EmptySegment,
    #[error("the path has a `.` or `..` segment, raw or encoded")]
    DotSegment,
    #[error("the path has a character that must be percent-encoded")]
    Character,
    #[error("the path has an encoded slash (`%2F`) where it cannot stand: only in a whole-segment parameter")]
    EncodedSlash,
    #[error("a path parameter does not decode to UTF-8")]
    NotUtf8,
}

impl From<PathError> for Problem {
    fn from(error: PathError) -> Self {
        let code = match error {
            PathError::TooLong => ProblemCode::UriTooLong,
            _ => ProblemCode::InvalidPath,
        };
        Self::new(code).detail(error.to_string())
    }
}

/// The path of one request, read and found well-formed (SPEC 2). Does not allocate unless the path has escapes.
///
/// Matching is done on the *normal* form: encoded unreserved characters are decoded, all other escapes are kept with
/// upper-case digits, so that each segment of the normal form is the same segment of the raw path. What is reported
/// about a parameter is where it stands in the **raw** path.
#[derive(Debug, Clone)]
pub struct RequestPath<'a> {
    raw: &'a str,
    normal: Cow<'a, str>,
    encoded_slash: bool,
}

impl<'a> RequestPath<'a> {
    /// Reads the raw path of a request target, without its query.
    ///
    /// # Errors
    ///
    /// Everything that SPEC 2 answers with 400: bad escapes, `%00`, backslashes, empty segments, dot segments in any
    /// encoding (between encoded slashes too), raw control and non-ASCII bytes; and paths over [`PATH_BYTES`]. An
    /// encoded slash is refused when the route is known ([`PathError::EncodedSlash`]), as a parameter may hold one.
    pub fn parse(raw: &'a str) -> Result<Self, PathError> {
        if raw.len() > PATH_BYTES {
            return Err(PathError::TooLong);
        }
        let bytes = raw.as_bytes();
        if bytes.first() != Some(&b'/') {
            return Err(PathError::NoSlash);
        }
        let mut start = 1;
        for (at, &byte) in bytes.iter().enumerate().skip(1) {
            match class(byte) {
                Class::Plain => {}
                Class::Slash => {
                    check_segment(bytes.get(start..at).unwrap_or_default())?;
                    start = at + 1;
                }
                Class::Percent | Class::Odd => return Self::parse_escaped(raw),
                Class::Backslash => return Err(PathError::Backslash),
                Class::Forbidden => return Err(PathError::Character),
            }
        }
        // What follows the last slash may be empty: `/` itself, or a trailing slash.
        if is_dots(bytes.get(start..).unwrap_or_default()) {
            return Err(PathError::DotSegment);
        }
        Ok(Self { raw, normal: Cow::Borrowed(raw), encoded_slash: false })
    }

    #[cold]
    fn parse_escaped(raw: &'a str) -> Result<Self, PathError> {
        let mut normal = String::with_capacity(raw.len() + 16);
        let mut encoded_slash = false;
        let mut rest = raw.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            match class(byte) {
                Class::Plain | Class::Slash => normal.push(char::from(byte)),
                Class::Odd => push_escape(&mut normal, byte),
                Class::Backslash => return Err(PathError::Backslash),
                Class::Forbidden => return Err(PathError::Character),
                Class::Percent => {
                    let decoded = escape(rest).ok_or(PathError::BadEscape)?;
                    rest = rest.get(2..).unwrap_or_default();
                    match decoded {
                        0 => return Err(PathError::EncodedNul),
                        b'\\' => return Err(PathError::Backslash),
                        unreserved if is_unreserved(unreserved) => normal.push(char::from(unreserved)),
                        other => {
                            encoded_slash |= other == b'/';
                            push_escape(&mut normal, other);
                        }
                    }
                }
            }
        }
        let inner = normal.strip_prefix('/').unwrap_or_default();
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        // `//` and `/a//` leave an empty segment here; `/` alone leaves nothing at all.
        if normal.len() > 1 && inner.split('/').any(str::is_empty) {
            return Err(PathError::EmptySegment);
        }
        // An encoded slash must not smuggle a dot segment into whoever decodes the parameter and joins a path.
        if inner.split('/').flat_map(|segment| segment.split("%2F")).any(|part| is_dots(part.as_bytes())) {
            return Err(PathError::DotSegment);
        }
        Ok(Self { raw, normal: Cow::Owned(normal), encoded_slash })
    }

    /// The path as it came.
    #[must_use]
    pub const fn raw(&self) -> &'a str {
        self.raw
    }

    /// The path to match: begins with `/`, and has the same segments as the raw one.
    #[must_use]
    pub fn normal(&self) -> &str {
        &self.normal
    }

    /// Whether some segment has an encoded slash (`%2F`): such a segment fits a `{parameter}` only.
    #[must_use]
    pub const fn has_encoded_slash(&self) -> bool {
        self.encoded_slash
    }

    /// Where parameters that were found in the normal form stand in the raw path.
    #[must_use]
    pub fn raw_parameters(&self, mut normal: Parameters) -> Parameters {
        if let Cow::Owned(text) = &self.normal {
            for span in normal.as_mut_slice() {
                *span = raw_span(self.raw, text, *span);
            }
        }
        normal
    }

    fn segments(&self) -> impl Iterator<Item = &str> {
        let inner = self.normal.strip_prefix('/').unwrap_or_default();
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        inner.split('/').filter(|segment| !segment.is_empty())
    }

    fn has_trailing_slash(&self) -> bool {
        self.normal.len() > 1 && self.normal.ends_with('/')
    }
}

/// The same segment, or from the same segment to the end, in the raw path: both forms have the same slashes.
fn raw_span(raw: &str, normal: &str, (start, length): (u16, u16)) -> (u16, u16) {
    let (start, length) = (usize::from(start), usize::from(length));
    let slashes = |text: &str| text.bytes().filter(|byte| *byte == b'/').count();
    let before = slashes(normal.get(..start).unwrap_or_default());
    let inside = slashes(normal.get(start..start + length).unwrap_or_default());
    let nth_slash = |nth: usize| raw.bytes().enumerate().filter(|(_, byte)| *byte == b'/').nth(nth).map(|(at, _)| at);
    let raw_start = before.checked_sub(1).and_then(nth_slash).map_or(0, |at| at + 1);
    let raw_end = nth_slash(before + inside).unwrap_or(raw.len());
    span(raw_start, raw_end)
}

/// Where the values of a template's parameters stand in a path: (start, length) in bytes, in the template's order. Up to
/// four cost no allocation.
#[derive(Debug, Clone)]
pub struct Parameters(Spans);

/// Parameters that fit without an allocation.
const INLINE_PARAMETERS: usize = 4;

#[derive(Debug, Clone)]
enum Spans {
    Inline(u8, [(u16, u16); INLINE_PARAMETERS]),
    Heap(Vec<(u16, u16)>),
}

impl Parameters {
    #[must_use]
    pub const fn new() -> Self {
        Self(Spans::Inline(0, [(0, 0); INLINE_PARAMETERS]))
    }

    /// Adds the bytes `start..end` of a path.
    pub fn push(&mut self, start: usize, end: usize) {
        match &mut self.0 {
            Spans::Inline(len, spans) => match spans.get_mut(usize::from(*len)) {
                Some(place) => {
                    *place = span(start, end);
                    *len += 1;
                }
                None => {
                    let mut all = spans.to_vec();
                    all.push(span(start, end));
                    self.0 = Spans::Heap(all);
                }
            },
            Spans::Heap(spans) => spans.push(span(start, end)),
        }
    }

    /// Forgets the last one.
    pub fn pop(&mut self) {
        match &mut self.0 {
            Spans::Inline(len, _) => *len = len.saturating_sub(1),
            Spans::Heap(spans) => drop(spans.pop()),
        }
    }

    /// (start, length) of each.
    #[must_use]
    pub fn as_slice(&self) -> &[(u16, u16)] {
        match &self.0 {
            Spans::Inline(len, spans) => spans.get(..usize::from(*len)).unwrap_or_default(),
            Spans::Heap(spans) => spans,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [(u16, u16)] {
        match &mut self.0 {
            Spans::Inline(len, spans) => spans.get_mut(..usize::from(*len)).unwrap_or_default(),
            Spans::Heap(spans) => spans,
        }
    }

    /// The raw values, still encoded; see [`decode_parameter`].
    pub fn values<'p>(&self, raw_path: &'p str) -> impl Iterator<Item = &'p str> {
        self.as_slice().iter().map(|&(start, length)| {
            let start = usize::from(start);
            raw_path.get(start..start + usize::from(length)).unwrap_or_default()
        })
    }
}

impl Default for Parameters {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for Parameters {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Parameters {}

fn span(start: usize, end: usize) -> (u16, u16) {
    // Paths are at most 32 KiB long, so this never saturates.
    let narrow = |offset: usize| u16::try_from(offset).unwrap_or(u16::MAX);
    (narrow(start), narrow(end.saturating_sub(start)))
}

impl PathTemplate {
    /// Whether a request path fits this template, and where its parameters stand in the **raw** path (SPEC 2).
    ///
    /// A `{*rest}` takes one or more segments and a trailing slash, if there is one, but never an encoded slash.
    #[must_use]
    pub fn matches(&self, path: &RequestPath<'_>) -> Option<Parameters> {
        let mut found = Parameters::new();
        let mut at = 1;
        let mut actual = path.segments();
        for wanted in self.segments() {
            let segment = actual.next()?;
            let end = at + segment.len();
            match wanted {
                Segment::Literal(literal) if normal_literal(literal) == segment => {}
                Segment::Literal(_) => return None,
                Segment::Parameter(_) => found.push(at, end),
                Segment::CatchAll(_) => {
                    let rest = path.normal.get(at..)?;
                    if rest.contains("%2F") {
                        return None;
                    }
                    found.push(at, path.normal.len());
                    return Some(path.raw_parameters(found));
                }
            }
            at = end + 1;
        }
        let fits = actual.next().is_none() && path.has_trailing_slash() == self.has_trailing_slash();
        fits.then(|| path.raw_parameters(found))
    }
}

/// A template's literal in the normal form of requests: what may not stand raw in a path is percent-encoded.
#[must_use]
pub fn normal_literal(literal: &str) -> Cow<'_, str> {
    encode(literal, |byte| matches!(class(byte), Class::Plain))
}

/// Percent-decodes a parameter's raw value, once.
///
/// # Errors
///
/// [`PathError::BadEscape`], and [`PathError::NotUtf8`] where the result is not UTF-8.
pub fn decode_parameter(raw: &str) -> Result<Cow<'_, str>, PathError> {
    if !raw.contains('%') {
        return Ok(Cow::Borrowed(raw));
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            decoded.push(escape(rest).ok_or(PathError::BadEscape)?);
            rest = rest.get(2..).unwrap_or_default();
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| PathError::NotUtf8)
}

/// Encodes a value so that it can stand as one segment of a path: everything but unreserved characters is escaped.
#[must_use]
pub fn encode_parameter(value: &str) -> Cow<'_, str> {
    encode(value, is_unreserved)
}

fn encode(text: &str, keep: impl Fn(u8) -> bool) -> Cow<'_, str> {
    if text.bytes().all(&keep) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if keep(byte) {
            encoded.push(char::from(byte));
        } else {
            push_escape(&mut encoded, byte);
        }
    }
    Cow::Owned(encoded)
}

fn push_escape(into: &mut String, byte: u8) {
    // Writing to a String cannot fail.
    let _ = write!(into, "%{byte:02X}");
}

/// The value of the two digits that follow a `%`.
fn escape(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| digits.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

fn check_segment(segment: &[u8]) -> Result<(), PathError> {
    if segment.is_empty() {
        return Err(PathError::EmptySegment);
    }
    if is_dots(segment) { Err(PathError::DotSegment) } else { Ok(()) }
}

fn is_dots(segment: &[u8]) -> bool {
    matches!(segment, b"." | b"..")
}

/// RFC 3986 section 2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// `pchar` of RFC 3986 without the escape.
    Plain,
    Slash,
    Percent,
    Backslash,
    /// Not allowed raw by RFC 3986 but unambiguous, and sent by real clients: normalised to its escape.
    Odd,
    Forbidden,
}

fn class(byte: u8) -> Class {
    CLASSES[usize::from(byte)]
}

static CLASSES: [Class; 256] = {
    let mut classes = [Class::Forbidden; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        classes[byte as usize] = match byte {
            b'/' => Class::Slash,
            b'%' => Class::Percent,
            b'\\' => Class::Backslash,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@' => Class::Plain,
            b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}' => Class::Odd,
            _ if is_unreserved(byte) => Class::Plain,
            _ => Class::Forbidden,
        };
        byte += 1;
    }
    classes
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn template(text: &str) -> PathTemplate {
        text.parse().unwrap()
    }

    fn matched<'p>(pattern: &str, path: &'p str) -> Option<Vec<&'p str>> {
        let read = RequestPath::parse(path).unwrap();
        template(pattern).matches(&read).map(|found| found.values(path).collect())
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (path, error) in [
            ("", PathError::NoSlash),
            ("a", PathError::NoSlash),
            ("*", PathError::NoSlash),
            ("//", PathError::EmptySegment),
            ("//a", PathError::EmptySegment),
            ("/a//b", PathError::EmptySegment),
            ("/a//", PathError::EmptySegment),
            ("/%41//", PathError::EmptySegment),
            ("//%41", PathError::EmptySegment),
            ("/.", PathError::DotSegment),
            ("/..", PathError::DotSegment),
            ("/a/../b", PathError::DotSegment),
            ("/a/./", PathError::DotSegment),
            ("/%2e%2E/a", PathError::DotSegment),
            ("/a/.%2e", PathError::DotSegment),
            ("/a/..%2Fetc", PathError::DotSegment),
            ("/a/b%2f%2E%2e", PathError::DotSegment),
            ("/%", PathError::BadEscape),
            ("/%4", PathError::BadEscape),
            ("/%4g", PathError::BadEscape),
            ("/%+1", PathError::BadEscape),
            ("/a%00b", PathError::EncodedNul),
            ("/a\\b", PathError::Backslash),
            ("/a%5cb", PathError::Backslash),
            ("/a b", PathError::Character),
            ("/a\tb", PathError::Character),
            ("/é", PathError::Character),
            ("/a\u{7f}", PathError::Character),
            ("/a?b", PathError::Character),
            ("/a#b", PathError::Character),
            ("/%41\\", PathError::Backslash),
            ("/%41é", PathError::Character),
        ] {
            assert_eq!(RequestPath::parse(path).unwrap_err(), error, "{path:?}");
        }
        assert_eq!(RequestPath::parse(&format!("/{}", "a".repeat(PATH_BYTES))).unwrap_err(), PathError::TooLong);
    }

    #[test]
    fn encoded_unreserved_characters_are_decoded_for_matching_and_no_others() {
        let normal = |path| RequestPath::parse(path).unwrap().normal().to_owned();
        assert_eq!(normal("/%61%2d%7E"), "/a-~");
        assert_eq!(normal("/a%3bb;c"), "/a%3Bb;c");
        assert_eq!(normal("/%2561"), "/%2561");
        assert_eq!(normal("/a|b"), "/a%7Cb");
        assert_eq!(normal("/"), "/");
        assert_eq!(normal("/a/"), "/a/");
        assert_eq!(normal("/.a/..b/..."), "/.a/..b/...");
    }

    #[test]
    fn paths_without_escapes_are_not_copied() {
        assert!(matches!(RequestPath::parse("/orders/7/files").unwrap().normal, Cow::Borrowed(_)));
    }

    #[test]
    fn templates_match_segment_by_segment() {
        assert_eq!(matched("/", "/"), Some(vec![]));
        assert_eq!(matched("/", "/a"), None);
        assert_eq!(matched("/a", "/%61"), Some(vec![]));
        assert_eq!(matched("/a", "/a/"), None);
        assert_eq!(matched("/a/", "/a/"), Some(vec![]));
        assert_eq!(matched("/a/", "/a"), None);
        assert_eq!(matched("/orders/{id}", "/orders/7"), Some(vec!["7"]));
        assert_eq!(matched("/orders/{id}", "/orders/"), None);
        assert_eq!(matched("/orders/{id}", "/orders/7/"), None);
        assert_eq!(matched("/orders/{id}/", "/orders/7/"), Some(vec!["7"]));
        assert_eq!(matched("/{a}/x/{b}", "/1/x/2"), Some(vec!["1", "2"]));
        assert_eq!(matched("/f/{*rest}", "/f/a/b"), Some(vec!["a/b"]));
        assert_eq!(matched("/f/{*rest}", "/f/a/b/"), Some(vec!["a/b/"]));
        assert_eq!(matched("/f/{*rest}", "/f/"), None);
        assert_eq!(matched("/f/{*rest}", "/f"), None);
        assert_eq!(matched("/{*rest}", "/"), None);
        assert_eq!(matched("/two words/é", "/two%20words/%c3%A9"), Some(vec![]));
    }

    #[test]
    fn parameters_are_reported_in_the_raw_path() {
        assert_eq!(matched("/o/{id}/{*rest}", "/%6f/a%20b/c%41/d"), Some(vec!["a%20b", "c%41/d"]));
        assert_eq!(matched("/{a}/{b}/", "/%61/%62/"), Some(vec!["%61", "%62"]));
        assert_eq!(matched("/{a}/{b}", "/x|y/z"), Some(vec!["x|y", "z"]));
    }

    #[test]
    fn any_number_of_parameters_is_kept_in_order() {
        let pattern: String = (0..32).map(|n| format!("/{{p{n}}}")).collect();
        let path: String = (0..32).map(|n| format!("/v{n}%20")).collect();
        let values: Vec<String> = (0..32).map(|n| format!("v{n}%20")).collect();
        assert_eq!(matched(&pattern, &path), Some(values.iter().map(String::as_str).collect()));
        let mut parameters = Parameters::new();
        (0..6).for_each(|n| parameters.push(n, n + 1));
        (0..6).for_each(|_| parameters.pop());
        assert_eq!(parameters, Parameters::new());
    }

    #[test]
    fn an_encoded_slash_fits_a_parameter_only() {
        assert_eq!(matched("/f/{name}", "/f/a%2fb"), Some(vec!["a%2fb"]));
        assert_eq!(matched("/f/{name}", "/f/%2F"), Some(vec!["%2F"]));
        assert_eq!(matched("/f/{*rest}", "/f/a%2Fb"), None);
        assert_eq!(matched("/f/a/b", "/f/a%2Fb"), None);
        assert_eq!(matched("/{x}/{*rest}", "/a%2Fb/c"), Some(vec!["a%2Fb", "c"]));
        assert!(RequestPath::parse("/f/a%2fb").unwrap().has_encoded_slash());
        assert!(!RequestPath::parse("/f/a%252fb").unwrap().has_encoded_slash());
    }

    #[test]
    fn a_parameter_is_decoded_once_and_must_be_text() {
        assert_eq!(decode_parameter("abc").unwrap(), "abc");
        assert_eq!(decode_parameter("a%2Fb+c").unwrap(), "a/b+c");
        assert_eq!(decode_parameter("%2541").unwrap(), "%41");
        assert_eq!(decode_parameter("%FF"), Err(PathError::NotUtf8));
        assert_eq!(decode_parameter("%c3"), Err(PathError::NotUtf8));
        assert_eq!(decode_parameter("%4"), Err(PathError::BadEscape));
    }

    #[test]
    fn a_path_error_is_a_problem_of_the_client() {
        assert_eq!(Problem::from(PathError::DotSegment).code, ProblemCode::InvalidPath);
        assert_eq!(Problem::from(PathError::TooLong).code, ProblemCode::UriTooLong);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = RequestPath::parse(&text);
            let _ = decode_parameter(&text);
        }

        #[test]
        fn no_likely_text_panics_and_what_is_accepted_is_consistent(text in "(/|%|%2|%2[efEF0-9]|\\.|\\\\|%00|[a-c]|\\||é){0,12}") {
            let _ = decode_parameter(&text);
            let path = format!("/{text}");
            if let Ok(read) = RequestPath::parse(&path) {
                let slashes = |text: &str| text.matches('/').count();
                prop_assert_eq!(slashes(read.raw()), slashes(read.normal()));
                // Normalising is idempotent.
                let again = RequestPath::parse(read.normal()).unwrap();
                prop_assert_eq!(again.normal(), read.normal());
                for pattern in ["/{a}", "/{a}/{b}", "/{*r}", "/{a}/{*r}", "/{a}/"] {
                    if let Some(found) = template(pattern).matches(&read) {
                        prop_assert!(found.values(&path).all(|value| !value.is_empty()));
                    }
                }
            }
        }

        #[test]
        fn an_encoded_value_comes_back_from_its_segment(value in "\\PC{1,20}") {
            prop_assume!(!value.contains(['\\', '\0']) && value.split('/').all(|part| !is_dots(part.as_bytes())));
            let path = format!("/v/{}", encode_parameter(&value));
            let read = RequestPath::parse(&path).unwrap();
            let found = template("/v/{value}").matches(&read).unwrap();
            let raw = found.values(&path).next().unwrap();
            prop_assert_eq!(decode_parameter(raw).unwrap(), value);
        }

        #[test]
        fn a_literal_matches_its_own_encoding(literal in "[^/{}%?#\\\\\\p{Cc}]{1,20}") {
            prop_assume!(!is_dots(literal.as_bytes()));
            let path = format!("/{}", normal_literal(&literal));
            let read = RequestPath::parse(&path).unwrap();
            let matched = template(&format!("/{literal}")).matches(&read);
            prop_assert!(matched.is_some());
        }
    }
}
