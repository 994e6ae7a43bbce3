#![allow(unused)]

use microservice_sdk::{Json, Path, endpoint};

struct Order;

#[endpoint(GET, "/a/{id}")]
async fn not_the_last(order: Order, Path(id): Path<u64>) {}

#[endpoint(GET, "/b")]
async fn the_last(order: Order) {}

#[endpoint(POST, "/c/{id}")]
async fn body_before_the_end(Json(text): Json<String>, Path(id): Path<u64>) {}

#[endpoint(POST, "/d")]
async fn json_of_what_serde_does_not_know(Json(order): Json<Order>) {}

fn main() {}
