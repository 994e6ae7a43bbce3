#![allow(unused)]

use microservice_sdk::version;

fn main() {
    let _ = version!("1.2");
    let _ = version!(1.2);
}
