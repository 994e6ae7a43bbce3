#![allow(unused)]

use microservice_sdk::{Microservice, State, endpoint, endpoints};

#[derive(Clone)]
struct Db;

#[endpoint(GET, "/a")]
async fn takes_a_db(State(db): State<Db>) {}

fn main() {
    let _ = Microservice::new("a", "1.0.0").endpoints(endpoints![takes_a_db]);
}
