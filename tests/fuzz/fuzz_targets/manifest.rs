//! The readers of signed texts and manifests on any bytes.

#![no_main]

#[path = "../check_manifest.rs"]
mod check_manifest;

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    check_manifest::check(file);
});
