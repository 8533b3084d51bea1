//! libFuzzer harness of the target `pack_trailer`.
#![no_main]

#[path = "../../tests/targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::pack_trailer(bytes));
