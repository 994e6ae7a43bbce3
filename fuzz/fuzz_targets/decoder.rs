//! Bytes as a peer would send them, into the frame decoder. It only carries bytes: what must hold is written in `router_common::testing::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| router_common::testing::fuzz::fuzz_decoder(data));
