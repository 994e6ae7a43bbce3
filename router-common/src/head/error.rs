//! Why a head or trailers are refused, by their writer or by their reader.

use crate::limits;

/// Why a head or trailers could not be encoded or decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    #[error("{what} of {size} bytes is over the limit of {limit}")]
    TooLarge { what: &'static str, size: usize, limit: usize },
    #[error("more than {} header fields", limits::HEAD_FIELDS)]
    TooManyFields,
    #[error("cut short in {0}")]
    Truncated(&'static str),
    #[error("{0} bytes follow the end")]
    TrailingBytes(usize),
    #[error("malformed {0}")]
    Malformed(&'static str),
    #[error("the field name `{0}` is not a lower-case token")]
    FieldName(String),
    #[error("the value of `{0}` has a control character")]
    FieldValue(String),
    #[error("the hop-by-hop field `{0}` may not cross")]
    HopByHop(String),
    #[error("content-length is not one decimal number")]
    ContentLength,
    #[error("the status {0} is not one of 200 to 599")]
    Status(u16),
}
