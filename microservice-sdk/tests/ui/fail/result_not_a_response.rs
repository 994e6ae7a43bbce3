#![allow(unused)]

use microservice_sdk::endpoint;

struct Order;

#[derive(Debug)]
struct PlainError;

#[endpoint(GET, "/a")]
async fn order() -> Order {
    Order
}

#[endpoint(GET, "/b")]
async fn fallible() -> Result<String, PlainError> {
    Err(PlainError)
}

fn main() {}
