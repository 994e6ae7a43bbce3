#![allow(unused)]

use microservice_sdk::{Microservice, Path, State, endpoint, service};

struct Orders;

#[service]
impl Orders {
    #[endpoint(GET, "/a/{id}")]
    async fn exclusive(&mut self, Path(id): Path<u64>) {}

    #[endpoint(GET, "/b")]
    async fn without_self() {}

    #[endpoint(GET, "/c", timout = "5s")]
    fn several_at_once(&self) {}
}

struct Empty;

#[service]
impl Empty {
    async fn plain(&self) {}
}

struct NotAService;

struct Takes;

#[service]
impl Takes {
    #[endpoint(GET, "/d")]
    async fn no_extractor(&self, number: u64) {}
}

fn main() {
    let _ = Microservice::new("a", "1.0.0").service(NotAService);
}
