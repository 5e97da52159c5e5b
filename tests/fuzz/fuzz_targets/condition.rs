//! The parser of conditions on any bytes.

#![no_main]

#[path = "../check_condition.rs"]
mod check_condition;

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    check_condition::check(file);
});
