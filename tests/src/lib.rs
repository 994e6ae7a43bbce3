//! Scenarios over the whole road, on every transport.

pub mod reference;

/// The snippets of the documents, compiled as doctests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
