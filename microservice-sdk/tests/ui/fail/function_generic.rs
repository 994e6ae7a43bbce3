#![allow(unused)]

use microservice_sdk::{Json, endpoint};

#[endpoint(POST, "/a")]
async fn generic<T>(body: Json<T>) {}

#[endpoint(POST, "/b")]
async fn generic_in_disguise(body: impl Sized) {}

struct Service;

impl Service {
    #[endpoint(GET, "/c")]
    async fn method(&self) {}
}

fn main() {}
