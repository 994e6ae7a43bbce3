//! The values that options take, and suggestions for names that almost exist.
//!
//! An option is read as plain syntax first (`name`, `name = literal`, `name = [literal, ..]`, `name(options)`), so that
//! one that is wrong does not hide the ones after it.

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Ident, Lit, LitStr, Token, token};

/// One option as it was written.
pub(crate) struct Written {
    pub(crate) name: Ident,
    pub(crate) value: Value,
}

pub(crate) enum Value {
    /// `name`
    Flag,
    /// `name = literal`
    Literal(Lit),
    /// `name = [literal, ..]`
    Array(Punctuated<Lit, Token![,]>),
    /// `name(option, ..)`
    List(Punctuated<Written, Token![,]>),
}

impl Parse for Written {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let name =
            Ident::parse_any(input).map_err(|error| syn::Error::new(error.span(), "expected the name of an option"))?;
        let value = if input.peek(Token![=]) {
            input.parse::<Token![=]>()?;
            if input.peek(token::Bracket) {
                let inner;
                syn::bracketed!(inner in input);
                Value::Array(inner.parse_terminated(Lit::parse, Token![,])?)
            } else {
                Value::Literal(input.parse().map_err(|error| {
                    syn::Error::new(error.span(), format!("`{name} = ..` takes a literal, or literals in brackets"))
                })?)
            }
        } else if input.peek(token::Paren) {
            let inner;
            syn::parenthesized!(inner in input);
            Value::List(inner.parse_terminated(Self::parse, Token![,])?)
        } else {
            Value::Flag
        };
        Ok(Self { name, value })
    }
}

impl ToTokens for Written {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        self.name.to_tokens(tokens);
        match &self.value {
            Value::Flag => {}
            Value::Literal(literal) => literal.to_tokens(tokens),
            Value::Array(literals) => literals.to_tokens(tokens),
            Value::List(list) => list.to_tokens(tokens),
        }
    }
}

impl Written {
    /// The option as a flag: nothing may follow its name.
    pub(crate) fn flag(&self) -> syn::Result<bool> {
        match &self.value {
            Value::Flag => Ok(true),
            _ => Err(syn::Error::new_spanned(
                self,
                format!("`{0}` takes no value\n\nhelp: write `{0}` alone", self.name),
            )),
        }
    }

    /// The option as `name = ".."`.
    pub(crate) fn string(&self, example: &str) -> syn::Result<&LitStr> {
        match &self.value {
            Value::Literal(Lit::Str(text)) => Ok(text),
            _ => Err(syn::Error::new_spanned(
                self,
                format!("`{0}` takes a string\n\nhelp: `{0} = \"{example}\"`", self.name),
            )),
        }
    }

    /// The option as `name = ["..", ..]`; one string will do for a list of one.
    pub(crate) fn strings(&self, example: &str) -> syn::Result<Vec<LitStr>> {
        let wrong = |at: &dyn ToTokens| {
            syn::Error::new_spanned(
                at.to_token_stream(),
                format!("`{0}` takes strings\n\nhelp: `{0} = [\"{example}\"]`", self.name),
            )
        };
        match &self.value {
            Value::Literal(Lit::Str(text)) => Ok(vec![text.clone()]),
            Value::Array(literals) => literals
                .iter()
                .map(|literal| match literal {
                    Lit::Str(text) => Ok(text.clone()),
                    other => Err(wrong(other)),
                })
                .collect(),
            _ => Err(wrong(self)),
        }
    }

    /// The option as a duration in milliseconds.
    pub(crate) fn milliseconds(&self) -> syn::Result<u64> {
        let text = self.string("5s")?;
        duration(&text.value()).map_err(|why| {
            syn::Error::new_spanned(
                text,
                format!(
                    "`{}` is not a duration: {why}\n\nhelp: a number and a unit, as in \"500ms\", \"5s\", \"2m\", \"1h\"",
                    text.value()
                ),
            )
        })
    }

    /// The option as a size in bytes.
    pub(crate) fn bytes(&self) -> syn::Result<u64> {
        const HELP: &str =
            "help: a number of bytes, or a string with a unit, as in 4096, \"64KiB\", \"16MiB\", \"1GiB\"";
        match &self.value {
            Value::Literal(Lit::Int(number)) if number.suffix().is_empty() => number
                .base10_parse()
                .map_err(|error| syn::Error::new_spanned(number, format!("not a size: {error}\n\n{HELP}"))),
            Value::Literal(Lit::Str(text)) => size(&text.value()).map_err(|why| {
                syn::Error::new_spanned(text, format!("`{}` is not a size: {why}\n\n{HELP}", text.value()))
            }),
            _ => Err(syn::Error::new_spanned(self, format!("`{}` takes a size\n\n{HELP}", self.name))),
        }
    }
}

/// The known name that `wrong` most likely stands for.
pub(crate) fn nearest<'a>(wrong: &str, known: &[&'a str]) -> Option<&'a str> {
    let wrong = wrong.to_ascii_lowercase();
    known
        .iter()
        .map(|name| (distance(&wrong, &name.to_ascii_lowercase()), *name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `GET, POST and PUT`, each in backticks.
pub(crate) fn listed(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

fn duration(text: &str) -> Result<u64, &'static str> {
    let (number, unit) = split(text)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "" => return Err("it has no unit"),
        _ => return Err("its unit is unknown"),
    };
    match number.checked_mul(milliseconds) {
        Some(0) => Err("it must be longer than zero"),
        Some(duration) => Ok(duration),
        None => Err("it is too long"),
    }
}

fn size(text: &str) -> Result<u64, &'static str> {
    let (number, unit) = split(text)?;
    let bytes = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "KB" | "kB" | "MB" | "GB" | "K" | "M" | "G" => return Err("units are binary: KiB, MiB, GiB"),
        _ => return Err("its unit is unknown"),
    };
    number.checked_mul(bytes).ok_or("it is too large")
}

fn split(text: &str) -> Result<(u64, &str), &'static str> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err("it does not begin with a whole number");
    }
    number.parse().map(|number| (number, unit.trim_start())).map_err(|_| "its number is too large")
}

/// Edits (insert, delete, replace) between two short words.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (j, to) in b.chars().enumerate() {
            let above = row[j + 1];
            let here = (diagonal + usize::from(from != to)).min(left + 1).min(above + 1);
            diagonal = above;
            row[j] = left;
            left = here;
        }
        let last = row.len() - 1;
        row[last] = left;
    }
    row[row.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_want_a_number_and_a_unit() {
        assert_eq!(duration("500ms"), Ok(500));
        assert_eq!(duration("5s"), Ok(5_000));
        assert_eq!(duration("2 m"), Ok(120_000));
        assert!(duration("5").is_err());
        assert!(duration("0s").is_err());
        assert!(duration("fast").is_err());
        assert!(duration("99999999999999999999s").is_err());
        assert!(duration("18446744073709551615h").is_err());
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(size("16MiB"), Ok(16 << 20));
        assert_eq!(size("10"), Ok(10));
        assert!(size("16MB").is_err());
        assert!(size("18446744073709551615GiB").is_err());
    }

    #[test]
    fn the_nearest_name_is_near() {
        assert_eq!(nearest("timout", &["timeout", "tags"]), Some("timeout"));
        assert_eq!(nearest("get", &["GET", "PUT"]), Some("GET"));
        assert_eq!(nearest("zebra", &["timeout", "tags"]), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
