//! The registry of kernels against the files of its room: none is missing, and each has tests.

use crate::harness::source_tree;
use fedmill::kernels::KERNELS;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Files of the room that are not kernels: kernels use them, or they measure.
const NO_KERNELS: [&str; 7] = ["columns", "element", "exact_sum", "lanes", "mod", "network", "peak"];

/// The stems of the Rust files in a folder.
fn stems(folder: &Path) -> BTreeSet<String> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = paths.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// The text of a file, and of all Rust files in the folder with its stem.
fn text_of(folder: &Path, stem: &str) -> String {
    let below = folder.join(stem);
    let below = if below.is_dir() {
        stems(&below).into_iter().map(|file| below.join(file)).collect()
    } else {
        vec![]
    };
    let paths = [folder.join(stem)].into_iter().chain(below);
    paths.map(|path| fs::read_to_string(path.with_extension("rs")).unwrap()).collect()
}

/// Whether the unit tests in a kernel's text run on every instruction set.
fn has_unit_tests(text: &str) -> bool {
    text.split_once("#[cfg(test)]").is_some_and(|(_, tests)| tests.contains("Isa::available()"))
}

#[test]
fn every_file_of_the_room_is_a_row_or_below_the_kernels() {
    let Some(root) = source_tree() else { return };
    let mut rows: BTreeSet<String> = KERNELS.iter().map(|kernel| kernel.name.to_owned()).collect();
    assert_eq!(rows.len(), KERNELS.len(), "two rows have one name");
    assert!(NO_KERNELS.iter().all(|stem| rows.insert((*stem).to_owned())), "a row is no kernel");
    assert_eq!(stems(&root.join("src/kernels")), rows);
}

#[test]
fn every_kernel_is_tested_on_every_instruction_set() {
    let Some(root) = source_tree() else { return };
    let suite = text_of(&root.join("tests"), "kernels");
    for kernel in KERNELS {
        let is_in_suite = suite.contains(&format!("use fedmill::kernels::{}::", kernel.name));
        let text = text_of(&root.join("src/kernels"), kernel.name);
        assert!(is_in_suite || has_unit_tests(&text), "{} has no test", kernel.name);
    }
}

/// The negative control: neither tests on one instruction set, nor code that names all sets, count as tests on all.
#[test]
fn a_kernel_without_tests_is_noticed() {
    assert!(has_unit_tests("fn x() {}\n#[cfg(test)]\nmod tests { for isa in Isa::available() {} }"));
    assert!(!has_unit_tests("fn x() {}\n#[cfg(test)]\nmod tests { let isa = Isa::detect(); }"));
    assert!(!has_unit_tests("fn x() { for isa in Isa::available() {} }"));
}
