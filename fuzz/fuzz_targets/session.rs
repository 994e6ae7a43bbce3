//! Operations and a lawless peer's frames, against one session. It only carries bytes: what must hold is written in `router_common::testing::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| router_common::testing::fuzz::fuzz_session(data));
