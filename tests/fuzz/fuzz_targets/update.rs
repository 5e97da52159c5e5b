//! The reader and the decoders of updates on any bytes.

#![no_main]

#[path = "../check_update.rs"]
mod check_update;

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    check_update::check(file);
});
