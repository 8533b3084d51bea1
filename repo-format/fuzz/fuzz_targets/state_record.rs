//! libFuzzer harness of the target `state_record`.
#![no_main]

#[path = "../../tests/targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::state_record(bytes));
