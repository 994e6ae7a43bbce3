#![allow(unused)]

use microservice_sdk::endpoint;

#[endpoint(GET, "/a")]
fn plain() -> &'static str {
    "a"
}

#[endpoint(GET, "/b")]
struct NotAFunction;

fn main() {}
