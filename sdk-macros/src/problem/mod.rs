//! `#[derive(EndpointError)]`: parse (syntax) -> model (meaning) -> expand (tokens).

mod expand;
mod model;

use proc_macro2::TokenStream;
use syn::DeriveInput;

use crate::sink::Sink;

pub(crate) fn expand(item: TokenStream) -> TokenStream {
    let input: DeriveInput = match syn::parse2(item) {
        Ok(input) => input,
        Err(error) => return error.to_compile_error(),
    };
    let mut sink = Sink::default();
    let arms = model::arms(&input, &mut sink);
    expand::expand(&input, &arms, sink)
}

#[cfg(test)]
mod tests {
    use quote::quote;

    #[test]
    fn each_variant_becomes_a_problem() {
        let expansion = super::expand(quote! {
            enum OrderError {
                #[problem(404, code = "order_not_found", title = "No such order")]
                NotFound(u64),
                #[problem(transparent)]
                Store(StoreError),
                #[problem(503, retry_after = "5s")]
                Busy { queue: usize },
            }
        });
        insta::assert_snapshot!(prettyplease::unparse(&syn::parse2(expansion).expect("a file")));
    }

    #[test]
    fn every_mistake_is_told() {
        let expansion = super::expand(quote! {
            enum OrderError {
                NotFound(u64),
                #[problem(200)]
                Fine,
                #[problem(404, cod = "x")]
                Misspelt,
                #[problem(transparent)]
                Empty,
                #[problem(code = "Bad Code")]
                NoStatus,
            }
        })
        .to_string();
        for told in
            ["`NotFound` has no", "200 is not", "unknown option `cod`", "exactly one field", "begins with a status"]
        {
            assert!(expansion.contains(told), "{told} is missing from:\n{expansion}");
        }
    }
}
