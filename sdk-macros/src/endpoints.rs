//! `endpoints![a, module::b]`: each name twice, as the function and as its description.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::parse::Parser as _;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{Path, Token};

pub(crate) fn expand(list: TokenStream) -> TokenStream {
    let paths = match Punctuated::<Path, Token![,]>::parse_terminated.parse2(list) {
        Ok(paths) => paths,
        Err(error) => {
            return syn::Error::new(
                error.span(),
                "`endpoints!` takes the names of functions with `#[endpoint(..)]`, as in `endpoints![get_order, orders::create]`",
            )
            .to_compile_error();
        }
    };
    let endpoints = paths.iter().map(|path| {
        quote_spanned! { path.span()=> .with(::microservice_sdk::macros::definition::<#path>(), #path) }
    });
    quote! { ::microservice_sdk::Endpoints::new() #(#endpoints)* }
}
