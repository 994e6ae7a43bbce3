//! `#[endpoint(..)]`: parse (syntax) -> model (meaning) -> expand (tokens).

pub(crate) mod expand;
pub(crate) mod model;
pub(crate) mod parse;

use proc_macro2::TokenStream;

use crate::sink::Sink;

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut sink = Sink::default();
    let Some(function) = parse::function(item.clone(), &mut sink) else {
        // Not a function: leave it as it is, so that the only error is ours.
        let errors = sink.into_tokens();
        return quote::quote! { #item #errors };
    };
    let arguments = sink.take(syn::parse2::<parse::Arguments>(arguments));
    model::check_function(&function.sig, model::Place::Function, &mut sink);
    let model = arguments.map(|arguments| model::Model::read(arguments, &function.attrs, &function.sig, &mut sink));
    expand::expand(&function, model.as_ref(), sink)
}

#[cfg(test)]
mod tests {
    use quote::quote;

    fn pretty(tokens: proc_macro2::TokenStream) -> String {
        prettyplease::unparse(&syn::parse2(tokens).expect("the expansion is a file"))
    }

    #[test]
    fn the_function_stays_and_a_description_of_its_name_comes_beside_it() {
        let expansion = super::expand(
            quote! { GET, "/orders/{id}", timeout = "2s", idempotent, claims(scope = "orders:read") },
            quote! {
                /// Fetch one order.
                ///
                /// Not part of the summary.
                pub async fn fetch(Path(id): Path<u64>, State(db): State<Db>) -> Result<Json<Order>, OrderError> {
                    db.order(id).await.map(Json)
                }
            },
        );
        insta::assert_snapshot!(pretty(expansion));
    }

    #[test]
    fn every_mistake_is_told_and_the_function_still_stays() {
        let expansion =
            super::expand(quote! { GETT, "orders", timout = "2s", timeout = "soon" }, quote! { fn fetch<T>(x: T) {} });
        let text = pretty(expansion);
        for told in [
            "unknown method `GETT`",
            "begins with `/`",
            "unknown option `timout`",
            "`soon` is not a duration",
            "`async`",
            "generic",
        ] {
            assert!(text.contains(told), "{told} is missing from:\n{text}");
        }
        assert!(text.contains("fn fetch<T>(x: T)"), "{text}");
    }
}
