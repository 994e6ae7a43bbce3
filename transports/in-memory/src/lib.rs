//! Frames as values between peers of one process.
