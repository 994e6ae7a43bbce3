//! Scenarios over the whole road, on every transport.
