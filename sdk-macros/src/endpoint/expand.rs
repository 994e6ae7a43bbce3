//! The function as it stands, a type of its name that describes it, and assertions at the spans of its types.
//!
//! Functions and types live in different namespaces, so `use orders::fetch` brings both, and `endpoints![fetch]`
//! finds the description by the function's own path.

use proc_macro2::{TokenStream, TokenTree};
use quote::{ToTokens as _, quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{FnArg, ItemFn, ReturnType, Signature};

use super::model::Model;
use crate::sink::Sink;

pub(crate) fn expand(function: &ItemFn, model: Option<&Model>, sink: Sink) -> TokenStream {
    let vis = &function.vis;
    // What the function is compiled under, its description is too.
    let cfgs: Vec<_> = function.attrs.iter().filter(|attribute| attribute.path().is_ident("cfg")).collect();
    let name = &function.sig.ident;
    let sound = sink.is_empty();
    let errors = sink.into_tokens();
    if function.sig.receiver().is_some() {
        // A method stands where neither a type nor an impl may stand.
        return quote!(#function #errors);
    }
    let definition = definition(name, model.filter(|_| sound));
    // With errors, the type still exists, so that `endpoints![..]` adds none of its own.
    let assertions = if sound {
        assertions(function)
    } else {
        quote!(
            const _: () = ();
        )
    };
    quote! {
        #function

        #(#cfgs)*
        #[doc(hidden)]
        #[allow(non_camel_case_types, dead_code, missing_debug_implementations)]
        #vis struct #name {}

        #(#cfgs)*
        impl ::microservice_sdk::macros::Described for #name {
            const DEFINITION: ::microservice_sdk::macros::Definition = #definition;
        }

        #(#cfgs)*
        #assertions
        #errors
    }
}

pub(crate) fn definition(name: &syn::Ident, model: Option<&Model>) -> TokenStream {
    let text = name.to_string();
    let Some(model) = model else {
        return quote!(::microservice_sdk::macros::Definition::new(#text, "GET", "/"));
    };
    let (method, path) = (&model.method, &model.path);
    let mut steps = TokenStream::new();
    if let Some(timeout) = model.timeout_ms {
        steps.extend(quote!(.timeout_ms(#timeout)));
    }
    if let Some(bytes) = model.max_request_bytes {
        steps.extend(quote!(.max_request_bytes(#bytes)));
    }
    for (on, step) in [
        (model.idempotent, quote!(.idempotent())),
        (model.streaming_request, quote!(.streaming_request())),
        (model.streaming_response, quote!(.streaming_response())),
        (model.one_way, quote!(.one_way())),
        (model.detached, quote!(.detached())),
        (model.blocking, quote!(.blocking())),
        (model.deprecated, quote!(.deprecated())),
    ] {
        if on {
            steps.extend(step);
        }
    }
    if let Some(summary) = &model.summary {
        steps.extend(quote!(.summary(#summary)));
    }
    if !model.tags.is_empty() {
        let tags = &model.tags;
        steps.extend(quote!(.tags(&[#(#tags),*])));
    }
    if !model.claims.is_empty() {
        let claims = model.claims.iter().map(|(kind, any_of)| quote!((#kind, &[#(#any_of),*])));
        steps.extend(quote!(.claims(&[#(#claims),*])));
    }
    quote!(::microservice_sdk::macros::Definition::new(#text, #method, #path) #steps)
}

/// Type checks where the types are written, instead of one obscure error where the endpoint is listed.
///
/// The name begins with `_` and nothing refers to it, so it neither warns nor keeps a forgotten endpoint from being
/// reported as never used.
fn assertions(function: &ItemFn) -> TokenStream {
    let name = &function.sig.ident;
    let check = quote::format_ident!("__{}_is_an_endpoint", name);
    let types = type_assertions(&function.sig);
    // Coercing to a pointer names no type a second time; what is asserted is that the future can change threads.
    let pointers = function.sig.inputs.iter().map(|_| quote!(_));
    let sendable = quote_spanned! { name.span()=>
        ::microservice_sdk::macros::future(#name as fn(#(#pointers),*) -> _);
    };
    quote! {
        #[doc(hidden)]
        fn #check() {
            #types
            #sendable
        }
    }
}

/// That each argument can be extracted and the result is a response.
pub(crate) fn type_assertions(signature: &Signature) -> TokenStream {
    let types: Vec<_> = signature
        .inputs
        .iter()
        .filter_map(|input| match input {
            FnArg::Typed(argument) => Some(&argument.ty),
            FnArg::Receiver(_) => None,
        })
        .collect();
    let last = types.len().saturating_sub(1);
    let arguments = types.iter().enumerate().map(|(index, ty)| {
        if index == last {
            quote_spanned! { ty.span()=> ::microservice_sdk::macros::last_argument::<_, #ty>(); }
        } else {
            quote_spanned! { ty.span()=> ::microservice_sdk::macros::argument::<#ty>(); }
        }
    });
    let output = match &signature.output {
        ReturnType::Type(_, ty) if !has_impl_trait(ty.to_token_stream()) => {
            quote_spanned! { ty.span()=> ::microservice_sdk::macros::output::<#ty>(); }
        }
        _ => TokenStream::new(),
    };
    quote! {
        #(#arguments)*
        #output
    }
}

/// Whether `impl Trait` stands anywhere in a type: such a type cannot be written a second time.
fn has_impl_trait(ty: TokenStream) -> bool {
    ty.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == "impl",
        TokenTree::Group(group) => has_impl_trait(group.stream()),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}
