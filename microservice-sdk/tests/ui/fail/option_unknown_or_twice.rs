#![allow(unused)]

use microservice_sdk::endpoint;

#[endpoint(GET, "/a", timout = "5s", idempotent, idempotent, retries = 3)]
async fn several_at_once() {}

fn main() {}
