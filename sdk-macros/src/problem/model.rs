//! What each variant of an error answers: its `#[problem(..)]`, checked.

use std::collections::BTreeSet;

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Data, DeriveInput, Fields, Ident, LitInt, LitStr, Token};

use crate::sink::Sink;
use crate::value::{Value, Written, listed, nearest};

const OPTIONS: &[&str] = &["code", "title", "detail", "retry_after", "transparent"];
const EXAMPLE: &str = "`#[problem(404, code = \"order_not_found\")]`";

/// One arm of the match over the error.
pub(crate) struct Arm {
    /// Matches the variant, binding what the answer needs.
    pub(crate) pattern: TokenStream,
    pub(crate) answer: Answer,
}

pub(crate) enum Answer {
    /// The bound field decides.
    Transparent {
        binding: Ident,
    },
    Own(Own),
}

#[derive(Clone)]
pub(crate) struct Own {
    pub(crate) status: u16,
    pub(crate) code: Option<String>,
    pub(crate) title: Option<LitStr>,
    pub(crate) detail: Detail,
    pub(crate) retry_after_ms: Option<u64>,
}

#[derive(Clone)]
pub(crate) enum Detail {
    /// The error's text where it is the client's fault, nothing where it is ours.
    ByStatus,
    Display,
    Text(LitStr),
}

pub(crate) fn arms(input: &DeriveInput, sink: &mut Sink) -> Vec<Arm> {
    let default = read(&input.attrs, sink);
    match &input.data {
        Data::Enum(data) => {
            if let Some(Problem::Transparent(at)) = &default {
                sink.error(at, "`transparent` stands on variants, not on the enum");
            }
            data.variants
                .iter()
                .filter_map(|variant| {
                    let name = &variant.ident;
                    let own = read(&variant.attrs, sink);
                    let written = match (&own, &default) {
                        (Some(own), _) => own,
                        (None, Some(default)) => default,
                        (None, None) => {
                            sink.error_with_help(
                                name,
                                format_args!("`{name}` has no `#[problem(..)]`"),
                                format_args!("{EXAMPLE} here, or on the enum for all variants without one"),
                            );
                            return None;
                        }
                    };
                    arm(&quote!(Self::#name), name, &variant.fields, written, sink)
                })
                .collect()
        }
        Data::Struct(data) => match default {
            Some(written) => arm(&quote!(Self), &input.ident, &data.fields, &written, sink).into_iter().collect(),
            None => {
                sink.error_with_help(&input.ident, format_args!("`{}` has no `#[problem(..)]`", input.ident), EXAMPLE);
                Vec::new()
            }
        },
        Data::Union(_) => {
            sink.error(&input.ident, "an endpoint error is an enum or a struct");
            Vec::new()
        }
    }
}

/// A `#[problem(..)]` that was understood, or one that was not and has been reported.
enum Problem {
    Transparent(Ident),
    Own(Own),
    Wrong,
}

fn read(attributes: &[Attribute], sink: &mut Sink) -> Option<Problem> {
    let mut found = attributes.iter().filter(|attribute| attribute.path().is_ident("problem"));
    let attribute = found.next()?;
    if let Some(second) = found.next() {
        sink.error(second, "`#[problem(..)]` stands twice");
    }
    Some(match attribute.parse_args::<Syntax>() {
        Ok(syntax) => interpret(&syntax, attribute, sink),
        Err(error) => {
            sink.push(error);
            Problem::Wrong
        }
    })
}

struct Syntax {
    status: Option<LitInt>,
    options: Punctuated<Written, Token![,]>,
}

impl Parse for Syntax {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let status = if input.peek(LitInt) { Some(input.parse()?) } else { None };
        if status.is_some() && !input.is_empty() {
            input.parse::<Token![,]>()?;
        }
        Ok(Self { status, options: Punctuated::parse_terminated(input)? })
    }
}

fn interpret(syntax: &Syntax, attribute: &Attribute, sink: &mut Sink) -> Problem {
    if let Some(transparent) = syntax.options.iter().find(|option| option.name == "transparent") {
        if syntax.status.is_some() || syntax.options.len() > 1 || !matches!(transparent.value, Value::Flag) {
            sink.error(attribute, "`transparent` stands alone: the inner error has a status of its own");
            return Problem::Wrong;
        }
        return Problem::Transparent(transparent.name.clone());
    }
    let mut own = Own { status: 500, code: None, title: None, detail: Detail::ByStatus, retry_after_ms: None };
    let mut right = true;
    match &syntax.status {
        None => {
            sink.error_with_help(attribute, "a problem begins with a status", EXAMPLE);
            right = false;
        }
        Some(literal) => match literal.base10_parse::<u16>() {
            Ok(status @ 400..=599) => own.status = status,
            _ => {
                sink.error_with_help(
                    literal,
                    format_args!("{literal} is not the status of a problem"),
                    "statuses of problems are 400 to 599",
                );
                right = false;
            }
        },
    }
    let mut seen = BTreeSet::new();
    for option in &syntax.options {
        let name = option.name.to_string();
        let outcome = if !OPTIONS.contains(&name.as_str()) {
            let help = match nearest(&name, OPTIONS) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the options are {}", listed(OPTIONS)),
            };
            Err(syn::Error::new_spanned(&option.name, format!("unknown option `{name}`\n\nhelp: {help}")))
        } else if seen.insert(name.clone()) {
            set(&mut own, &name, option)
        } else {
            Err(syn::Error::new_spanned(option, format!("the option `{name}` stands twice")))
        };
        if let Err(error) = outcome {
            sink.push(error);
            right = false;
        }
    }
    if right { Problem::Own(own) } else { Problem::Wrong }
}

fn set(own: &mut Own, name: &str, option: &Written) -> syn::Result<()> {
    match name {
        "code" => {
            let text = option.string("order_not_found")?;
            let code = text.value();
            let sound = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if code.is_empty() || !code.chars().all(sound) {
                return Err(syn::Error::new_spanned(
                    text,
                    format!("`{code}` is not a code\n\nhelp: a-z, 0-9 and `_`, as in `order_not_found`"),
                ));
            }
            own.code = Some(code);
        }
        "title" => own.title = Some(option.string("No such order")?.clone()),
        "detail" => {
            own.detail = match &option.value {
                Value::Flag => Detail::Display,
                _ => Detail::Text(option.string("What went wrong")?.clone()),
            }
        }
        "retry_after" => own.retry_after_ms = Some(option.milliseconds()?),
        _ => {}
    }
    Ok(())
}

fn arm(path: &TokenStream, name: &Ident, fields: &Fields, written: &Problem, sink: &mut Sink) -> Option<Arm> {
    match written {
        Problem::Wrong => None,
        Problem::Transparent(at) => {
            let binding = format_ident!("inner", span = name.span());
            let mut all = fields.iter();
            let (Some(field), None) = (all.next(), all.next()) else {
                sink.error(at, format_args!("`transparent` needs exactly one field in `{name}`"));
                return None;
            };
            let member = match &field.ident {
                Some(field) => quote!(#field),
                None => quote!(0),
            };
            Some(Arm { pattern: quote!(#path { #member: ref #binding }), answer: Answer::Transparent { binding } })
        }
        Problem::Own(own) => {
            let mut own = own.clone();
            own.code.get_or_insert_with(|| snake_case(&name.to_string()));
            Some(Arm { pattern: quote!(#path { .. }), answer: Answer::Own(own) })
        }
    }
}

fn snake_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::with_capacity(name.len() + 4);
    for (index, letter) in letters.iter().enumerate() {
        if letter.is_uppercase() {
            let after_lower = index > 0 && letters[index - 1].is_lowercase();
            let ends_acronym = index > 0 && letters.get(index + 1).is_some_and(|next| next.is_lowercase());
            if after_lower || ends_acronym {
                out.push('_');
            }
        }
        out.extend(letter.to_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::snake_case;

    #[test]
    fn codes_default_to_the_name_in_snake_case() {
        assert_eq!(snake_case("NotFound"), "not_found");
        assert_eq!(snake_case("HTTPError"), "http_error");
        assert_eq!(snake_case("Busy"), "busy");
    }
}
