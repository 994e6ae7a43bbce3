//! Named texts as a serde data format: what `Path` and `Query` deserialize from.
//!
//! A text becomes whatever type asks for it; what does not fit is told with the name it stands under.

use std::borrow::Cow;
use std::fmt;
use std::vec;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer as _, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;

/// A name with the texts it was given, at least one.
pub(super) struct Named<'de> {
    pub(super) name: Cow<'de, str>,
    pub(super) texts: Texts<'de>,
}

pub(super) enum Texts<'de> {
    One(Cow<'de, str>),
    Many(Vec<Cow<'de, str>>),
}

impl<'de> Texts<'de> {
    pub(super) fn push(&mut self, text: Cow<'de, str>) {
        match self {
            Self::Many(texts) => texts.push(text),
            Self::One(first) => *self = Self::Many(vec![std::mem::take(first), text]),
        }
    }
}

/// What does not fit, written for the client.
#[derive(Debug)]
pub(super) struct Misfit(String);

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misfit {}

impl serde::de::Error for Misfit {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// All of them: a struct or map by name, a tuple by order, one value if there is one.
pub(super) struct All<'de> {
    pub(super) values: Vec<Named<'de>>,
}

impl<'de> All<'de> {
    fn single(self) -> Result<One<'de>, Misfit> {
        let count = self.values.len();
        let mut values = self.values.into_iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(One(value)),
            _ => Err(Misfit(format!("one value is taken, but there are {count}"))),
        }
    }
}

macro_rules! by_single {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
            self.single()?.$method(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for All<'de> {
    type Error = Misfit;

    by_single! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64
        deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf
        deserialize_identifier
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        if self.values.len() == 1 { self.single()?.deserialize_any(visitor) } else { self.deserialize_map(visitor) }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        if self.values.is_empty() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_seq(InOrder { values: self.values.into_iter() })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Misfit> {
        if self.values.len() != len {
            return Err(Misfit(format!("{len} values are taken, but there are {}", self.values.len())));
        }
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_map(ByName { values: self.values.into_iter(), next: None })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.single()?.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_unit()
    }
}

struct InOrder<'de> {
    values: vec::IntoIter<Named<'de>>,
}

impl<'de> SeqAccess<'de> for InOrder<'de> {
    type Error = Misfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Misfit> {
        self.values.next().map(|value| seed.deserialize(One(value))).transpose()
    }
}

struct ByName<'de> {
    values: vec::IntoIter<Named<'de>>,
    next: Option<Named<'de>>,
}

impl<'de> MapAccess<'de> for ByName<'de> {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Misfit> {
        let Some(value) = self.values.next() else { return Ok(None) };
        let name: StrDeserializer<'_, Misfit> = value.name.as_ref().into_deserializer();
        let key = seed.deserialize(name)?;
        self.next = Some(value);
        Ok(Some(key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misfit> {
        match self.next.take() {
            Some(value) => seed.deserialize(One(value)),
            None => Err(Misfit::custom("a value was asked for before its name")),
        }
    }
}

/// One name's texts as one value.
struct One<'de>(Named<'de>);

impl<'de> One<'de> {
    fn text(self) -> Result<(Cow<'de, str>, Cow<'de, str>), Misfit> {
        match self.0.texts {
            Texts::One(text) => Ok((self.0.name, text)),
            Texts::Many(texts) => {
                Err(Misfit(format!("`{}` takes one value, but is given {}", self.0.name, texts.len())))
            }
        }
    }
}

macro_rules! parsed {
    ($($method:ident $visit:ident $ty:ty, $what:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
            let (name, text) = self.text()?;
            match text.parse::<$ty>() {
                Ok(value) => visitor.$visit(value).map_err(|error: Misfit| named(&name, error)),
                Err(_) => Err(Misfit(format!("`{name}`: `{}` is not {}", excerpt(&text), $what))),
            }
        }
    )*};
}

fn named(name: &str, error: Misfit) -> Misfit {
    Misfit(format!("`{name}`: {}", error.0))
}

/// What an answer quotes of an input that may be very long.
fn excerpt(text: &str) -> Cow<'_, str> {
    const SHOWN: usize = 64;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}

impl<'de> Deserializer<'de> for One<'de> {
    type Error = Misfit;

    parsed! {
        deserialize_bool visit_bool bool, "`true` or `false`";
        deserialize_i8 visit_i8 i8, "a whole number of 8 bits";
        deserialize_i16 visit_i16 i16, "a whole number of 16 bits";
        deserialize_i32 visit_i32 i32, "a whole number of 32 bits";
        deserialize_i64 visit_i64 i64, "a whole number of 64 bits";
        deserialize_i128 visit_i128 i128, "a whole number of 128 bits";
        deserialize_u8 visit_u8 u8, "a whole number from 0 to 255";
        deserialize_u16 visit_u16 u16, "a whole number from 0 to 65535";
        deserialize_u32 visit_u32 u32, "a whole number from 0 to 4294967295";
        deserialize_u64 visit_u64 u64, "a whole number from 0 on, of 64 bits";
        deserialize_u128 visit_u128 u128, "a whole number from 0 on, of 128 bits";
        deserialize_f32 visit_f32 f32, "a number";
        deserialize_f64 visit_f64 f64, "a number";
        deserialize_char visit_char char, "one character";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let (name, text) = self.text()?;
        match text {
            Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
            Cow::Owned(text) => visitor.visit_string(text),
        }
        .map_err(|error: Misfit| named(&name, error))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let Named { name, texts } = self.0;
        let texts = match texts {
            Texts::One(text) => vec![text],
            Texts::Many(texts) => texts,
        };
        let values: Vec<Named<'de>> =
            texts.into_iter().map(|text| Named { name: name.clone(), texts: Texts::One(text) }).collect();
        visitor.visit_seq(InOrder { values: values.into_iter() })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        let (name, text) = self.text()?;
        visitor.visit_enum(Variant(text)).map_err(|error| named(&name, error))
    }

    forward_to_deserialize_any! {
        str string bytes byte_buf unit unit_struct map struct identifier ignored_any
    }
}

struct Variant<'de>(Cow<'de, str>);

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Misfit;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Misfit> {
        let name: StrDeserializer<'_, Misfit> = self.0.as_ref().into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Misfit;

    fn unit_variant(self) -> Result<(), Misfit> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Misfit> {
        Err(Misfit(format!("`{}` needs more than its name", self.0)))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Misfit> {
        Err(Misfit(format!("`{}` needs more than its name", self.0)))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Misfit> {
        Err(Misfit(format!("`{}` needs more than its name", self.0)))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    fn values<'a>(pairs: &[(&'a str, &'a str)]) -> All<'a> {
        let named = |(name, text): &(&'a str, &'a str)| Named {
            name: Cow::Borrowed(name),
            texts: Texts::One(Cow::Borrowed(text)),
        };
        All { values: pairs.iter().map(named).collect() }
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Small,
        Large,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Id(u64);

    #[derive(Debug, PartialEq, Deserialize)]
    struct Wanted {
        id: Id,
        kind: Kind,
        #[serde(default)]
        page: Option<u32>,
    }

    #[test]
    fn one_value_a_tuple_and_a_struct() {
        assert_eq!(u64::deserialize(values(&[("id", "7")])).unwrap(), 7);
        assert_eq!(Id::deserialize(values(&[("id", "7")])).unwrap(), Id(7));
        assert_eq!(String::deserialize(values(&[("id", "a b")])).unwrap(), "a b");
        assert_eq!(<(u8, String)>::deserialize(values(&[("id", "7"), ("name", "x")])).unwrap(), (7, "x".to_owned()));
        assert_eq!(
            Wanted::deserialize(values(&[("kind", "large"), ("id", "7")])).unwrap(),
            Wanted { id: Id(7), kind: Kind::Large, page: None }
        );
        assert_eq!(Kind::deserialize(values(&[("kind", "small")])).unwrap(), Kind::Small);
    }

    #[test]
    fn what_does_not_fit_is_told_by_name() {
        let told = |result: Result<Wanted, Misfit>| result.unwrap_err().to_string();
        assert_eq!(
            told(Wanted::deserialize(values(&[("id", "x"), ("kind", "small")]))),
            "`id`: `x` is not a whole number from 0 on, of 64 bits"
        );
        assert_eq!(
            told(Wanted::deserialize(values(&[("id", "1"), ("kind", "tiny")]))),
            "`kind`: unknown variant `tiny`, expected `small` or `large`"
        );
        assert_eq!(told(Wanted::deserialize(values(&[("id", "1")]))), "missing field `kind`");
        assert_eq!(
            <(u8, u8)>::deserialize(values(&[("id", "1")])).unwrap_err().to_string(),
            "2 values are taken, but there are 1"
        );
    }

    #[test]
    fn a_name_given_twice_is_a_list_or_an_error() {
        #[derive(Debug, Deserialize)]
        struct Tags {
            tag: Vec<u8>,
        }
        let twice = || {
            let mut texts = Texts::One(Cow::Borrowed("1"));
            texts.push(Cow::Borrowed("2"));
            All { values: vec![Named { name: Cow::Borrowed("tag"), texts }] }
        };
        assert_eq!(Tags::deserialize(twice()).unwrap().tag, [1, 2]);
        assert_eq!(u8::deserialize(twice()).unwrap_err().to_string(), "`tag` takes one value, but is given 2");
    }
}
