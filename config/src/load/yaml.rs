//! YAML text to keys and values with their places. The parser is `serde-saphyr`; the bounds are ours.
//!
//! Scalars stay the text that was written. Types, sections and layers are not known here.

use std::fmt;
use std::ops::Range;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, Spanned};

use crate::error::{ConfigError, Diagnostic, Excerpt, Place};
use crate::load::Text;
use crate::scalar::password;
use crate::validate::{KeyPath, Step};

/// Deepest nesting; the deepest key of either file lies seven levels down.
const DEPTH: usize = 32;
const NODES: usize = 100_000;
const ALIASES: usize = 1_000;

/// A value with its place.
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) span: Span,
}

pub(super) enum Value {
    /// `null` or `~`, written out.
    Null,
    /// A key with nothing after it.
    Nothing,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(String, Span, Node)>),
}

/// Where something stands: line, column and width in characters, line and column from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) width: usize,
}

/// Reads one document.
pub(super) fn parse(file: &Text) -> Result<Node, ConfigError> {
    let text = file.text.strip_prefix('\u{feff}').unwrap_or(&file.text);
    read(text, DuplicateKeyPolicy::Error).map_err(|error| refuse(file, text, &error))
}

fn read(text: &str, duplicate_keys: DuplicateKeyPolicy) -> Result<Node, serde_saphyr::Error> {
    let raw: Spanned<Raw> = serde_saphyr::from_str_with_options(text, options(duplicate_keys))?;
    Ok(node(raw, text))
}

fn options(duplicate_keys: DuplicateKeyPolicy) -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH,
            flow_nesting_limit: DEPTH,
            max_nodes: NODES,
            max_events: 4 * NODES,
            max_aliases: ALIASES,
            max_anchors: ALIASES,
            max_documents: 2,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: NODES,
            max_replay_stack_depth: DEPTH,
        },
        duplicate_keys: duplicate_keys,
        // Only `true` and `false`: `off` is a word of ours.
        strict_booleans: true,
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    }
}

/// What the parser found, before the text of its scalars is known.
enum Raw {
    /// `null`, `~`, or nothing.
    Empty,
    /// Looked like a number or a truth value: its text must be looked up.
    Plain,
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

fn node(raw: Spanned<Raw>, text: &str) -> Node {
    // An alias stands where it is used, but its text stands where it was defined.
    let span = span(raw.referenced);
    let written = bytes(raw.defined).and_then(|range| text.get(range)).unwrap_or_default().trim();
    let value = match raw.value {
        Raw::Empty if written.is_empty() => Value::Nothing,
        Raw::Empty => match written {
            "~" | "null" | "Null" | "NULL" => Value::Null,
            _ => Value::Nothing,
        },
        Raw::Plain => Value::Scalar(written.to_owned()),
        Raw::Text(text) => Value::Scalar(text),
        Raw::List(items) => Value::List(items.into_iter().map(|item| node(item, text)).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| (key.value, self::span(key.referenced), node(value, text)))
                .collect(),
        ),
    };
    Node { value, span }
}

fn span(location: Location) -> Span {
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Span {
        line: number(location.line()),
        column: number(location.column()),
        width: number(location.span().len()).max(1),
    }
}

fn bytes(location: Location) -> Option<Range<usize>> {
    let start = usize::try_from(location.span().byte_offset()?).ok()?;
    let len = usize::try_from(location.span().byte_len()?).ok()?;
    Some(start..start.checked_add(len)?)
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Anything;

        impl<'de> Visitor<'de> for Anything {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map, a list or a scalar")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Raw, E> {
                Ok(Raw::Empty)
            }

            fn visit_bool<E: de::Error>(self, _: bool) -> Result<Raw, E> {
                Ok(Raw::Plain)
            }

            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Raw, E> {
                Ok(Raw::Plain)
            }

            fn visit_u64<E: de::Error>(self, _: u64) -> Result<Raw, E> {
                Ok(Raw::Plain)
            }

            fn visit_i128<E: de::Error>(self, _: i128) -> Result<Raw, E> {
                Ok(Raw::Plain)
            }

            fn visit_u128<E: de::Error>(self, _: u128) -> Result<Raw, E> {
                Ok(Raw::Plain)
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Raw, E> {
                Ok(Raw::Plain)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Raw, E> {
                Ok(Raw::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Raw::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Raw::Map(entries))
            }
        }

        deserializer.deserialize_any(Anything)
    }
}

/// The diagnostic of what the parser refused.
fn refuse(file: &Text, text: &str, error: &serde_saphyr::Error) -> ConfigError {
    let error = match error.without_snippet() {
        serde_saphyr::Error::AliasError { error, .. } => error,
        error => error,
    };
    let place = match error.location().map(span) {
        Some(span) if span.line > 0 => at(file, span),
        _ => Place::file(file.name.clone()),
    };
    let said = message(error);
    let (summary, key, found) = match error {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), location } => {
            return duplicate(text, key, span(*location), place);
        }
        serde_saphyr::Error::MultipleDocuments { .. } => {
            ("the file holds more than one document".to_owned(), None, "found a second one".to_owned())
        }
        serde_saphyr::Error::Budget { .. }
        | serde_saphyr::Error::AliasReplayLimitExceeded { .. }
        | serde_saphyr::Error::AliasReplayStackDepthExceeded { .. } => return too_large(place),
        _ if said == NESTED_TOO_DEEP => return too_large(place),
        _ => ("the file is not valid YAML".to_owned(), None, said),
    };
    let help = match found.contains("flow mapping") {
        true => vec!["inside brackets, quote text that holds `{` or `}`: `\"/orders/{id}\"`".to_owned()],
        false => Vec::new(),
    };
    Diagnostic { summary, key, place: Some(place), found, allowed: None, help }.into()
}

/// The second of two equal keys: which key that is, and where the first stands, two further readings tell.
fn duplicate(text: &str, key: &str, second: Span, place: Place) -> ConfigError {
    let last = read(text, DuplicateKeyPolicy::LastWins).ok();
    let path = last.and_then(|root| path_of(&root, &KeyPath::default(), second));
    let first = path.as_ref().and_then(|path| {
        let root = read(text, DuplicateKeyPolicy::FirstWins).ok()?;
        key_span(&root, path.steps())
    });
    let key = path.map_or_else(|| key.to_owned(), |path| path.to_string());
    Diagnostic {
        summary: format!("the key `{key}` stands twice"),
        key: Some(key),
        place: Some(place),
        found: "found it again here".to_owned(),
        allowed: None,
        help: first
            .map(|first| format!("it stands first in line {}, column {}", first.line, first.column))
            .into_iter()
            .collect(),
    }
    .into()
}

/// The way to the key that stands at `span`.
fn path_of(node: &Node, at: &KeyPath, span: Span) -> Option<KeyPath> {
    match &node.value {
        Value::Map(entries) => entries.iter().find_map(|(key, place, value)| {
            let at = at.key(key);
            if (place.line, place.column) == (span.line, span.column) { Some(at) } else { path_of(value, &at, span) }
        }),
        Value::List(items) => items.iter().enumerate().find_map(|(index, item)| path_of(item, &at.index(index), span)),
        Value::Null | Value::Nothing | Value::Scalar(_) => None,
    }
}

fn key_span(node: &Node, path: &[Step]) -> Option<Span> {
    let (step, below) = path.split_first()?;
    match (&node.value, step) {
        (Value::Map(entries), Step::Key(wanted)) => {
            let (_, span, value) = entries.iter().find(|(key, ..)| key == wanted)?;
            if below.is_empty() { Some(*span) } else { key_span(value, below) }
        }
        (Value::List(items), Step::Index(index)) => key_span(items.get(*index)?, below),
        _ => None,
    }
}

/// What the parser says of too deep brackets; it has no variant for it.
const NESTED_TOO_DEEP: &str = "recursion limit exceeded";

fn too_large(place: Place) -> ConfigError {
    Diagnostic {
        summary: "the file is larger or deeper than a configuration may be".to_owned(),
        key: None,
        place: Some(place),
        found: "a limit is passed here".to_owned(),
        allowed: Some(format!("{DEPTH} levels, {NODES} values (counted again for each alias), and {ALIASES} aliases")),
        help: Vec::new(),
    }
    .into()
}

/// The place of something the parser refused. What is missing at the end is shown where the text ends.
fn at(file: &Text, span: Span) -> Place {
    let text = file.text.strip_prefix('\u{feff}').unwrap_or(&file.text);
    let shown = |number: usize| text.lines().nth(number - 1).unwrap_or_default();
    let last = text.trim_end().lines().count().max(1);
    let (line, column, width) = match span.line > last {
        true => (last, shown(last).trim_end().chars().count() + 1, 1),
        false => (span.line, span.column, span.width),
    };
    Place::line(file.name.clone(), line, Excerpt { text: mask_line(shown(line)), column, width })
}

/// The parser's own words, without the place that stands above them anyway.
fn message(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let first = first.split(" at line ").next().unwrap_or(first);
    first.trim_end_matches([':', ' ']).to_owned()
}

/// The text with every literal secret masked, character by character, so that lines and columns stay.
pub(super) fn mask(text: &str, secrets: &[Span]) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
    for secret in secrets {
        let mut left = secret.width;
        let mut from = secret.column.saturating_sub(1);
        for line in lines.iter_mut().skip(secret.line.saturating_sub(1)) {
            let taken = left.min(line.len().saturating_sub(from));
            line.iter_mut().skip(from).take(taken).filter(|c| !c.is_whitespace()).for_each(|c| *c = '*');
            // The end of a line counts as one character too.
            left = left.saturating_sub(taken + 1);
            from = 0;
            if left == 0 {
                break;
            }
        }
    }
    lines.into_iter().map(|line| mask_comment(&mask_url(&line.into_iter().collect::<String>()))).collect()
}

/// As [`mask`], for one line of a file that could not be read: by the look of it.
pub(super) fn mask_line(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let mut shown = line.to_owned();
    for word in SENSITIVE {
        let Some(value) = lower.find(word).and_then(|at| Some(at + lower[at..].find(':')? + 1)) else { continue };
        let start = value + line[value..].len() - line[value..].trim_start().len();
        if !is_reference(line[start..].trim_start_matches(['"', '\''])) {
            shown.replace_range(start.., &"*".repeat(line[start..].chars().count()));
            break;
        }
    }
    mask_url(&shown)
}

/// A secret that was commented out is still one.
fn mask_comment(line: &str) -> String {
    match line.find('#') {
        Some(at) => format!("{}{}", &line[..at], mask_line(&line[at..])),
        None => line.to_owned(),
    }
}

fn mask_url(line: &str) -> String {
    let masked = |word: &str| match password(word) {
        Some(range) => {
            let stars = "*".repeat(word[range.clone()].chars().count());
            format!("{}{stars}{}", &word[..range.start], &word[range.end..])
        }
        None => word.to_owned(),
    };
    line.split_inclusive([' ', '"', '\'', ',']).map(masked).collect()
}

const SENSITIVE: [&str; 3] = ["secret", "token", "password"];

/// Whether values under this key are secrets.
pub(super) fn is_sensitive(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SENSITIVE.iter().any(|word| key.contains(word))
}

/// Whether a value under such a key only says where the secret is kept.
pub(super) fn is_reference(text: &str) -> bool {
    text.starts_with("env:") || text.starts_with("file:")
}
