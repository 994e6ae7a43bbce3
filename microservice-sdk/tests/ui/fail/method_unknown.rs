#![allow(unused)]

use microservice_sdk::endpoint;

#[endpoint(get, "/orders")]
async fn lower_case() {}

#[endpoint(CONNECT, "/orders")]
async fn not_served() {}

#[endpoint("/orders")]
async fn missing() {}

fn main() {}
