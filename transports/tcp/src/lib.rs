//! Frames as a byte stream over TCP.
