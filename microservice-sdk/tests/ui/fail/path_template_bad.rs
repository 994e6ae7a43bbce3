#![allow(unused)]

use microservice_sdk::endpoint;

#[endpoint(GET, "orders")]
async fn no_slash() {}

#[endpoint(GET, "/orders/{id")]
async fn unclosed() {}

#[endpoint(GET, "/{a}/{a}")]
async fn twice() {}

#[endpoint(GET, "/{*rest}/more")]
async fn catch_all_not_last() {}

#[endpoint(GET)]
async fn missing() {}

fn main() {}
