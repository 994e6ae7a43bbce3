#![allow(unused)]

use microservice_sdk::EndpointError;

#[derive(Debug, thiserror::Error, EndpointError)]
enum OrderError {
    #[error("a")]
    NoProblem,
    #[error("b")]
    #[problem(200)]
    Success,
    #[error("c")]
    #[problem(404, cod = "order_not_found")]
    Misspelt,
    #[error("d")]
    #[problem(404, code = "Order-Not-Found")]
    BadCode,
    #[error("e")]
    #[problem(transparent)]
    TransparentOfTwo(u8, u8),
    #[error("f")]
    #[problem(code = "x")]
    NoStatus,
}

fn main() {}
