//! Mistakes in macros are compile errors at the right place, with help: one file a reason under `ui/fail`, beside what
//! the compiler must say. `TRYBUILD=overwrite cargo test -p microservice-sdk --test ui` writes it anew.

#[test]
fn macros_accept_what_is_right_and_say_what_is_wrong() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}
