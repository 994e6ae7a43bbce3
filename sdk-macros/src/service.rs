//! `#[service]`: an impl block whose methods with `#[endpoint(..)]` are endpoints that share `&self`.
//!
//! The block stays as it is, but for the attributes; beside it stands the list of its endpoints.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Attribute, FnArg, ImplItem, ImplItemFn, ItemImpl};

use crate::endpoint::expand::{definition, type_assertions};
use crate::endpoint::model::{Model, Place, check_function};
use crate::endpoint::parse::Arguments;
use crate::sink::Sink;

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut sink = Sink::default();
    if !arguments.is_empty() {
        sink.error(&arguments, "`#[service]` takes nothing");
    }
    let mut block: ItemImpl = match syn::parse2(item.clone()) {
        Ok(block) => block,
        Err(_) => {
            sink.error(&item, "`#[service]` stands on an impl block");
            let errors = sink.into_tokens();
            return quote!(#item #errors);
        }
    };
    if let Some((path, _)) = &block.trait_ {
        sink.error_with_help(path, "a service is an impl block of its own", "call the trait's methods from endpoints");
    }
    let mut endpoints = Vec::new();
    let mut assertions = Vec::new();
    for item in &mut block.items {
        let ImplItem::Fn(method) = item else { continue };
        let Some(attribute) = take_endpoint(&mut method.attrs) else { continue };
        if let Some((endpoint, assertion)) = read(&attribute, method, &mut sink) {
            endpoints.push(endpoint);
            assertions.push(assertion);
        }
    }
    if endpoints.is_empty() && sink.is_empty() {
        sink.error_with_help(
            &block.self_ty,
            "this service has no endpoints",
            "put `#[endpoint(GET, \"/path\")]` on its methods",
        );
    }
    if sink.is_empty() {
        block.items.extend(assertions.into_iter().map(ImplItem::Verbatim));
    } else {
        endpoints.clear();
    }
    let ty = &block.self_ty;
    let (generics, _, clause) = block.generics.split_for_impl();
    let errors = sink.into_tokens();
    quote! {
        #block

        impl #generics ::microservice_sdk::Handlers for #ty #clause {
            fn endpoints(self: ::std::sync::Arc<Self>) -> ::microservice_sdk::Endpoints {
                ::microservice_sdk::Endpoints::new() #(#endpoints)*
            }
        }

        #errors
    }
}

fn take_endpoint(attributes: &mut Vec<Attribute>) -> Option<Attribute> {
    let named =
        |attribute: &Attribute| attribute.path().segments.last().is_some_and(|segment| segment.ident == "endpoint");
    let place = attributes.iter().position(named)?;
    Some(attributes.remove(place))
}

/// One method as a step of the list, and the checks of its types; nothing if it is wrong.
fn read(attribute: &Attribute, method: &ImplItemFn, sink: &mut Sink) -> Option<(TokenStream, TokenStream)> {
    let mut own = Sink::default();
    let arguments = own.take(attribute.parse_args::<Arguments>());
    check_function(&method.sig, Place::Method, &mut own);
    let model = arguments.map(|arguments| Model::read(arguments, &method.attrs, &method.sig, &mut own));
    if !own.is_empty() {
        sink.absorb(own);
        return None;
    }
    let name = &method.sig.ident;
    let definition = definition(name, model.as_ref());
    let types: Vec<_> = method
        .sig
        .inputs
        .iter()
        .filter_map(|input| match input {
            FnArg::Typed(argument) => Some(&argument.ty),
            FnArg::Receiver(_) => None,
        })
        .collect();
    let names: Vec<_> = (0..types.len()).map(|index| format_ident!("argument_{index}")).collect();
    let endpoint = quote_spanned! { name.span()=>
        .with(#definition, {
            let service = ::std::sync::Arc::clone(&self);
            move |#(#names: #types),*| {
                let service = ::std::sync::Arc::clone(&service);
                async move { Self::#name(&service, #(#names),*).await }
            }
        })
    };
    let check = format_ident!("__{}_is_an_endpoint", name);
    let types = type_assertions(&method.sig);
    let assertion = quote_spanned! { method.sig.span()=>
        #[doc(hidden)]
        fn #check() { #types }
    };
    Some((endpoint, assertion))
}
