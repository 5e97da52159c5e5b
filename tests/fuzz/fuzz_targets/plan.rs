//! The reader of plans on any bytes.

#![no_main]

#[path = "../check_plan.rs"]
mod check_plan;

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    check_plan::check(file);
});
