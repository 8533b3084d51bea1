//! libFuzzer harness of the target `compressed_payload`.
#![no_main]

#[path = "../../tests/targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::compressed_payload(bytes));
