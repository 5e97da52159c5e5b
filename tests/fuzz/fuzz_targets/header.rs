//! The header reader on any bytes.

#![no_main]

#[path = "../check_header.rs"]
mod check_header;

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    check_header::check(file);
});
