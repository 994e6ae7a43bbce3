//! `version!()`: the version of the user's crate, known to be one when it compiles.

use proc_macro2::TokenStream;
use quote::quote;
use router_common::identity::Version;
use syn::LitStr;

pub(crate) fn expand(input: TokenStream) -> TokenStream {
    if !input.is_empty() {
        return match syn::parse2::<LitStr>(input) {
            Ok(literal) => match literal.value().parse::<Version>() {
                Ok(_) => quote!(#literal),
                Err(error) => syn::Error::new_spanned(literal, error).to_compile_error(),
            },
            Err(error) => {
                syn::Error::new(error.span(), "`version!()` takes nothing, or one literal version").to_compile_error()
            }
        };
    }
    // `env!` in the user's crate is what makes cargo rebuild it when its version changes.
    match std::env::var("CARGO_PKG_VERSION").ok().map(|version| version.parse::<Version>()) {
        Some(Err(error)) => {
            let message = error.to_string();
            quote!(::core::compile_error!(#message))
        }
        _ => quote!(::core::env!("CARGO_PKG_VERSION")),
    }
}
