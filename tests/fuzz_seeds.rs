//! The seeds of the fuzz targets as tests: good ones are accepted, bad ones refused, none panics.

#[path = "fuzz/check_condition.rs"]
pub(crate) mod check_condition;
#[path = "fuzz/check_header.rs"]
mod check_header;
#[path = "fuzz/check_lanes.rs"]
mod check_lanes;
#[path = "fuzz/check_manifest.rs"]
mod check_manifest;
#[path = "fuzz/check_plan.rs"]
pub(crate) mod check_plan;
#[path = "fuzz/check_update.rs"]
mod check_update;

use crate::harness::source_tree;
use std::fs;

/// Checks one seed. Returns whether it is good.
type Check = fn(&[u8]) -> bool;

/// Judges the seeds of a target. Returns how many have a name that says whether they are good.
fn judge(target: &str, check: Check) -> usize {
    let Some(root) = source_tree() else { return usize::MAX };
    let mut seen = 0;
    for seed in fs::read_dir(root.join("tests/fuzz/corpus").join(target)).unwrap() {
        let seed = seed.unwrap().path();
        let name = seed.file_name().unwrap().to_string_lossy().into_owned();
        let accepted = check(&fs::read(&seed).unwrap());
        // Seeds from a fuzzer have other names. They must not panic.
        if name.starts_with("good_") || name.starts_with("bad_") {
            assert_eq!(accepted, name.starts_with("good_"), "{name}");
            seen += 1;
        }
    }
    seen
}

#[test]
fn header_seeds_are_judged_right() {
    assert!(judge("header", check_header::check) >= 23, "seeds are missing");
}

#[test]
fn plan_and_condition_seeds_are_judged_right() {
    assert!(judge("plan", check_plan::check) >= 9, "seeds are missing");
    assert!(judge("condition", check_condition::check) >= 7, "seeds are missing");
}

#[test]
fn update_seeds_are_judged_right() {
    assert!(judge("update", check_update::check) >= 10, "seeds are missing");
}

#[test]
fn seeds_of_secure_aggregation_are_judged_right() {
    assert!(judge("manifest", check_manifest::check) >= 12, "seeds are missing");
    assert!(judge("lanes", check_lanes::check) >= 9, "seeds are missing");
}

/// A sound manifest or file of lanes with any byte changed, or cut off at any length, is refused.
#[test]
fn signatures_cover_every_byte_of_the_seeds() {
    let Some(root) = source_tree() else { return };
    let targets: [(&str, Check); 2] =
        [("manifest/good_small", check_manifest::check), ("lanes/good_answer", check_lanes::check)];
    for (seed, check) in targets {
        let file = fs::read(root.join("tests/fuzz/corpus").join(seed)).unwrap();
        for at in 0..file.len() {
            assert!(!check(&file[..at]), "{seed}, cut at {at}");
            let mut damaged = file.clone();
            damaged[at] ^= 1 << (at % 8);
            assert!(!check(&damaged), "{seed}, byte {at}");
        }
    }
}

/// Every seed with every byte changed in a few ways, and cut off at every length: no panic, no disagreement.
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
