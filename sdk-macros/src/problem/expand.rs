//! `EndpointError` and `IntoResponse` for the user's error type.

use proc_macro2::TokenStream;
use quote::quote;
use syn::DeriveInput;

use super::model::{Answer, Arm, Detail, Own};
use crate::sink::Sink;

pub(crate) fn expand(input: &DeriveInput, arms: &[Arm], sink: Sink) -> TokenStream {
    let name = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let sound = sink.is_empty();
    let errors = sink.into_tokens();
    let body = if sound {
        let arms = arms.iter().map(arm);
        quote!(match *self { #(#arms)* })
    } else {
        // The impls exist all the same, so that handlers returning this type add no errors of their own.
        quote!(::core::unreachable!())
    };
    quote! {
        #[automatically_derived]
        impl #impl_generics ::microservice_sdk::EndpointError for #name #type_generics #where_clause {
            fn problem(&self) -> ::microservice_sdk::Problem {
                #body
            }
        }

        #[automatically_derived]
        impl #impl_generics ::microservice_sdk::IntoResponse for #name #type_generics #where_clause {
            fn into_response(self) -> ::microservice_sdk::Response {
                ::microservice_sdk::macros::error_response(&self)
            }
        }

        #errors
    }
}

fn arm(arm: &Arm) -> TokenStream {
    let pattern = &arm.pattern;
    match &arm.answer {
        Answer::Transparent { binding } => {
            quote!(#pattern => ::microservice_sdk::EndpointError::problem(#binding),)
        }
        Answer::Own(own) => {
            let answer = answer(own);
            quote!(#pattern => #answer,)
        }
    }
}

fn answer(own: &Own) -> TokenStream {
    let status = own.status;
    let code = own.code.as_deref().unwrap_or("error");
    let mut steps = TokenStream::new();
    if let Some(title) = &own.title {
        steps.extend(quote!(.title(#title)));
    }
    match &own.detail {
        Detail::Text(text) => steps.extend(quote!(.detail(#text))),
        Detail::ByStatus if own.status >= 500 => {}
        Detail::Display | Detail::ByStatus => {
            steps.extend(quote!(.detail(::std::string::ToString::to_string(self))));
        }
    }
    if let Some(milliseconds) = own.retry_after_ms {
        steps.extend(quote!(.retry_after(::core::time::Duration::from_millis(#milliseconds))));
    }
    quote!(::microservice_sdk::macros::problem(#status, #code) #steps)
}
