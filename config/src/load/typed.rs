//! Reads merged layers as the wanted type, and knows at each moment by which key it stands.
//!
//! figment's own reading is not used, because it takes `042` for a number before it knows that a string was wanted, and
//! because its errors name no key of a map. Here every scalar is text until its field asks for something else.

use std::fmt;

use figment::value::{Dict, Empty, Value};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor, value::StrDeserializer,
};
use serde::forward_to_deserialize_any;

use crate::error::nearest;
use crate::validate::KeyPath;

/// Reads `root` as a `T`.
pub(super) fn read<T: DeserializeOwned>(root: &Value) -> Result<T, Box<TypedError>> {
    T::deserialize(At { value: root, path: KeyPath::default() }).map_err(|refused| refused.0)
}

/// What the wanted type refused.
#[derive(Debug)]
pub(super) struct TypedError {
    /// Added by the first on the way up who knows it: serde makes errors without.
    pub(super) at: Option<KeyPath>,
    pub(super) about: About,
    pub(super) problem: String,
    pub(super) allowed: Option<String>,
    pub(super) help: Vec<String>,
}

#[derive(Debug)]
pub(super) enum About {
    Value,
    /// The key itself cannot be one.
    Key,
    Unknown {
        written: String,
        known: &'static [&'static str],
    },
    Missing {
        field: &'static str,
    },
}

/// A refusal on its way up.
#[derive(Debug)]
struct Refused(Box<TypedError>);

impl Refused {
    fn about(about: About) -> Self {
        Self(Box::new(TypedError { at: None, about, problem: String::new(), allowed: None, help: Vec::new() }))
    }

    fn new(problem: String, allowed: impl Into<String>) -> Self {
        let mut refused = Self::about(About::Value);
        refused.0.problem = problem;
        refused.0.allowed = Some(allowed.into());
        refused
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help.push(help.into());
        self
    }

    fn within(mut self, path: &KeyPath) -> Self {
        self.0.at.get_or_insert_with(|| path.clone());
        self
    }

    fn at_key(mut self, path: &KeyPath) -> Self {
        if self.0.at.is_none() && matches!(self.0.about, About::Value) {
            self.0.about = About::Key;
        }
        self.within(path)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.problem)
    }
}

impl std::error::Error for Refused {}

impl de::Error for Refused {
    /// Scalars say what is allowed, and what to do, on lines of their own.
    fn custom<M: fmt::Display>(message: M) -> Self {
        let text = message.to_string();
        let mut lines = text.lines();
        let mut refused = Self::about(About::Value);
        refused.0.problem = lines.next().unwrap_or_default().to_owned();
        for line in lines {
            match (line.strip_prefix("allowed: "), line.strip_prefix("help: ")) {
                (Some(allowed), _) => refused.0.allowed = Some(allowed.to_owned()),
                (_, Some(help)) => refused.0.help.push(help.to_owned()),
                _ => {
                    refused.0.problem.push(' ');
                    refused.0.problem.push_str(line);
                }
            }
        }
        refused
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(describe(found), for_people(&expected.to_string()))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::new(format!("found {length} items"), for_people(&expected.to_string()))
    }

    fn unknown_variant(written: &str, known: &'static [&'static str]) -> Self {
        let refused = Self::new(format!("found `{written}`"), known.join(", "));
        match nearest(written, known) {
            Some(meant) => refused.help(format!("did you mean `{meant}`?")),
            None => refused,
        }
    }

    fn unknown_field(written: &str, known: &'static [&'static str]) -> Self {
        Self::about(About::Unknown { written: written.to_owned(), known })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::about(About::Missing { field })
    }
}

fn describe(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Str(text) => format!("found `{text}`"),
        Unexpected::Bool(value) => format!("found `{value}`"),
        Unexpected::Unsigned(value) => format!("found `{value}`"),
        Unexpected::Signed(value) => format!("found `{value}`"),
        Unexpected::Seq => "found a list".to_owned(),
        Unexpected::Map => "found a map".to_owned(),
        Unexpected::Unit | Unexpected::Option => "found nothing".to_owned(),
        other => format!("found {other}"),
    }
}

/// serde's words for what it expects, in the words of a configuration.
fn for_people(expected: &str) -> String {
    match expected {
        "a string" | "a borrowed string" => "text".to_owned(),
        "a sequence" => "a list, such as `[a, b]`".to_owned(),
        "a map" => "a map, such as `{ key: value }`".to_owned(),
        other if other.starts_with("a nonzero ") => "a whole number, at least 1".to_owned(),
        other => other.to_owned(),
    }
}

/// A value, with the way to it.
struct At<'de> {
    value: &'de Value,
    path: KeyPath,
}

impl<'de> At<'de> {
    fn found(&self) -> Unexpected<'de> {
        match self.value {
            Value::String(_, text) => Unexpected::Str(text),
            Value::Dict(..) => Unexpected::Map,
            Value::Array(..) => Unexpected::Seq,
            Value::Empty(..) => Unexpected::Unit,
            Value::Char(_, c) => Unexpected::Char(*c),
            Value::Bool(_, b) => Unexpected::Bool(*b),
            Value::Num(..) => Unexpected::Other("a number"),
        }
    }

    fn refuse(&self, allowed: impl Into<String>) -> Refused {
        Refused::new(describe(self.found()), allowed).within(&self.path)
    }

    /// The scalar's text. Layers hold no other scalars.
    fn text(&self, allowed: impl Into<String>) -> Result<&'de str, Refused> {
        match self.value {
            Value::String(_, text) => Ok(text),
            _ => Err(self.refuse(allowed)),
        }
    }

    fn visit_dict<V: Visitor<'de>>(self, dict: &'de Dict, visitor: V) -> Result<V::Value, Refused> {
        let entries = Entries { rest: dict.iter(), value: None, path: self.path.clone() };
        visitor.visit_map(entries).map_err(|error| error.within(&self.path))
    }
}

/// Whole numbers: parsed as what was asked for, so that the bounds in the message are the right ones.
macro_rules! whole_numbers {
    ($($method:ident $visit:ident $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            let allowed = match (<$type>::MIN == 0, <$type>::BITS) {
                (true, 64..) => "a whole number".to_owned(),
                _ => format!("a whole number, {} to {}", <$type>::MIN, <$type>::MAX),
            };
            match self.text(allowed.as_str())?.parse::<$type>() {
                Ok(number) => visitor.$visit(number).map_err(|error: Refused| error.within(&self.path)),
                Err(_) => Err(self.refuse(allowed)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for At<'de> {
    type Error = Refused;

    whole_numbers! {
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let path = self.path.clone();
        match self.value {
            Value::String(_, text) => visitor.visit_borrowed_str(text),
            Value::Dict(_, dict) => self.visit_dict(dict, visitor),
            Value::Array(_, items) => visitor.visit_seq(Items { rest: items.iter(), next: 0, path: self.path }),
            Value::Empty(..) => visitor.visit_unit(),
            Value::Char(..) | Value::Bool(..) | Value::Num(..) => Err(self.refuse("text")),
        }
        .map_err(|error| error.within(&path))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self.text("`true` or `false`")? {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            _ => Err(self.refuse("`true` or `false`")),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self.text("a number")?.parse::<f64>() {
            Ok(number) if number.is_finite() => visitor.visit_f64(number),
            _ => Err(self.refuse("a number")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self.value {
            // Only what says so is absent: a bare `tcp:` is a section with its defaults, not one that is left out.
            Value::Empty(_, Empty::None) => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        match self.value {
            Value::Dict(_, dict) => self.visit_dict(dict, visitor),
            Value::Empty(..) => {
                let path = self.path.clone();
                let empty = Entries { rest: EMPTY.iter(), value: None, path: self.path };
                visitor.visit_map(empty).map_err(|error| error.within(&path))
            }
            _ if fields.is_empty() => Err(self.refuse("an empty map: `{}`")),
            _ => Err(self.refuse(format!("a map with keys among: {}", fields.join(", ")))),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self.value {
            Value::Empty(..) => visitor.visit_map(Entries { rest: EMPTY.iter(), value: None, path: self.path }),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self.value {
            Value::String(_, text) => {
                let refused = self.refuse("a list, such as `[a, b]`");
                Err(match text.starts_with('[') || text.chars().count() > 40 {
                    true => refused,
                    false => refused.help(format!("for a list of one, write `[{text}]`")),
                })
            }
            Value::Dict(_, dict) if dict.keys().any(|key| key.parse::<usize>().is_ok()) => Err(self
                .refuse("a list, such as `[a, b]`")
                .help("a list is given as a whole: its items cannot be set one by one")),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let path = self.path.clone();
        match self.value {
            Value::String(_, text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Value::Dict(_, dict) if dict.len() == 1 => match dict.iter().next() {
                Some((name, value)) => {
                    visitor.visit_enum(Variant { name, value: At { value, path: self.path.key(name) } })
                }
                None => Err(self.refuse(variants.join(", "))),
            },
            _ => Err(self.refuse(variants.join(", "))),
        }
        .map_err(|error| error.within(&path))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

static EMPTY: Dict = Dict::new();

struct Entries<'de> {
    rest: std::collections::btree_map::Iter<'de, String, Value>,
    value: Option<(&'de Value, KeyPath)>,
    path: KeyPath,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refused> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        let path = self.path.key(key);
        let read = seed.deserialize(StrDeserializer::new(key)).map_err(|error: Refused| error.at_key(&path))?;
        self.value = Some((value, path));
        Ok(Some(read))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refused> {
        let Some((value, path)) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(At { value, path: path.clone() }).map_err(|error| error.within(&path))
    }
}

struct Items<'de> {
    rest: std::slice::Iter<'de, Value>,
    next: usize,
    path: KeyPath,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Refused;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refused> {
        let Some(value) = self.rest.next() else { return Ok(None) };
        let path = self.path.index(self.next);
        self.next += 1;
        seed.deserialize(At { value, path: path.clone() }).map(Some).map_err(|error| error.within(&path))
    }
}

/// A variant with a value: a map of one key.
struct Variant<'de> {
    name: &'de str,
    value: At<'de>,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Refused;
    type Variant = At<'de>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, At<'de>), Refused> {
        let path = &self.value.path;
        let name = seed.deserialize(StrDeserializer::new(self.name)).map_err(|error: Refused| error.at_key(path))?;
        Ok((name, self.value))
    }
}

impl<'de> VariantAccess<'de> for At<'de> {
    type Error = Refused;

    fn unit_variant(self) -> Result<(), Refused> {
        match self.value {
            Value::Empty(..) => Ok(()),
            _ => Err(self.refuse("nothing after this word")),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Refused> {
        let path = self.path.clone();
        seed.deserialize(self).map_err(|error| error.within(&path))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_struct("", fields, visitor)
    }
}
