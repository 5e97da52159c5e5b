//! The reader of signed lanes on any bytes.

#![no_main]

#[path = "../check_lanes.rs"]
mod check_lanes;

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    check_lanes::check(file);
});
