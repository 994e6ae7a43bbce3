#![allow(unused)]

use microservice_sdk::{Path, endpoint};

#[endpoint(GET, "/orders/{id}/items/{item}")]
async fn one_of_two(Path(id): Path<u64>) {}

#[endpoint(GET, "/orders/{id}")]
async fn two_of_one(Path((id, item)): Path<(u64, String)>) {}

#[endpoint(GET, "/orders")]
async fn none_at_all(Path(id): Path<u64>) {}

fn main() {}
