#![allow(unused)]

use microservice_sdk::{Microservice, endpoints};

async fn plain() {}

fn main() {
    let _ = Microservice::new("a", "1.0.0").endpoints(endpoints![plain]);
    let _ = Microservice::new("a", "1.0.0").endpoints(endpoints!["plain"]);
}
