#![allow(unused)]

use microservice_sdk::endpoint;

#[endpoint(GET, "/a", timeout = "5")]
async fn no_unit() {}

#[endpoint(GET, "/b", timeout = 5)]
async fn a_number() {}

#[endpoint(GET, "/c", max_request_bytes = "16MB")]
async fn decimal_unit() {}

#[endpoint(GET, "/d", idempotent = true)]
async fn flag_with_a_value() {}

#[endpoint(GET, "/e", claims(scope = []), tags = [1], streaming(both))]
async fn several_at_once() {}

#[endpoint(POST, "/f", one_way, streaming)]
async fn contradiction() {}

fn main() {}
