//! Criterion benches of the codec, session, routing and in-memory round trip.
