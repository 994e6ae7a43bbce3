#![allow(unused)]

use std::rc::Rc;

use microservice_sdk::endpoint;

#[endpoint(GET, "/a")]
async fn holds_an_rc() -> String {
    let text = Rc::new(String::new());
    std::future::ready(()).await;
    text.to_string()
}

fn main() {}
