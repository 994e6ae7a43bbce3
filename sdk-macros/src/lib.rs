//! The attribute and derive macros of microservice-sdk.
