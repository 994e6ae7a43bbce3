//! The syntax of `#[endpoint(METHOD, "/path", options..)]` and of what it stands on; no meaning yet.

use proc_macro2::TokenStream;
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Ident, ItemFn, LitStr, Token};

use crate::sink::Sink;
use crate::value::Written;

pub(crate) struct Arguments {
    pub(crate) method: Ident,
    pub(crate) path: LitStr,
    pub(crate) options: Punctuated<Written, Token![,]>,
}

const EXAMPLE: &str = "help: `#[endpoint(GET, \"/orders/{id}\")]`";

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if input.is_empty() {
            return Err(input.error(format!("an endpoint needs a method and a path\n\n{EXAMPLE}")));
        }
        if input.peek(LitStr) {
            return Err(input.error(format!("the method comes first, without quotes\n\n{EXAMPLE}")));
        }
        let method = Ident::parse_any(input)
            .map_err(|error| syn::Error::new(error.span(), format!("expected an HTTP method\n\n{EXAMPLE}")))?;
        if input.is_empty() {
            return Err(syn::Error::new_spanned(&method, format!("the path is missing\n\n{EXAMPLE}")));
        }
        input.parse::<Token![,]>()?;
        let path = input.parse().map_err(|error| {
            syn::Error::new(error.span(), format!("after the method comes the path, as a string\n\n{EXAMPLE}"))
        })?;
        if input.is_empty() {
            return Ok(Self { method, path, options: Punctuated::new() });
        }
        input.parse::<Token![,]>()?;
        Ok(Self { method, path, options: Punctuated::parse_terminated(input)? })
    }
}

/// The function that the attribute stands on.
pub(crate) fn function(item: TokenStream, sink: &mut Sink) -> Option<ItemFn> {
    match syn::parse2(item.clone()) {
        Ok(function) => Some(function),
        Err(error) => {
            if syn::parse2::<syn::Item>(item.clone()).is_ok() {
                sink.error(item, "`#[endpoint(..)]` stands on an async function");
            } else {
                sink.push(error);
            }
            None
        }
    }
}
