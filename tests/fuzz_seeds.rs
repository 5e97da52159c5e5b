//! The fuzz target's seeds, as a test: good ones are accepted, bad ones refused, none panics.

#[path = "fuzz/check_header.rs"]
mod check_header;

use crate::harness::source_tree;
use std::fs;

#[test]
fn header_seeds_are_judged_right() {
    let Some(root) = source_tree() else { return };
    let seeds = root.join("tests/fuzz/corpus/header");
    let mut seen = 0;
    for seed in fs::read_dir(seeds).unwrap().map(|entry| entry.unwrap().path()) {
        let name = seed.file_name().unwrap().to_string_lossy().into_owned();
        let accepted = check_header::check(&fs::read(&seed).unwrap());
        // Seeds that a fuzzer found have other names; they only must not panic.
        if name.starts_with("good_") || name.starts_with("bad_") {
            assert_eq!(accepted, name.starts_with("good_"), "{name}");
            seen += 1;
        }
    }
    assert!(seen >= 23, "seeds are missing");
}

/// Every seed with every byte changed in a few ways, and cut off everywhere: no panic, no disagreement.
#[test]
fn header_reader_survives_damage_to_its_seeds() {
    let Some(root) = source_tree() else { return };
    let seeds = root.join("tests/fuzz/corpus/header");
    for seed in fs::read_dir(seeds).unwrap().map(|entry| entry.unwrap().path()) {
        let file = fs::read(&seed).unwrap();
        for at in 0..file.len() {
            check_header::check(&file[..at]);
            for change in [0x01, 0x10, 0x80, 0xff] {
                let mut damaged = file.clone();
                damaged[at] ^= change;
                check_header::check(&damaged);
            }
        }
    }
}
