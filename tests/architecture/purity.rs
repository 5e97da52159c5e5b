//! Which rooms may use files, clocks, threads and unsafe code.

use super::arrows::names;
use super::report::{Rule, Violation, texts};
use super::resolve::{Place, Tree};
use super::rooms::PURE;
use super::sources::{File, House};

/// Rooms that may say `unsafe`.
const UNSAFE: &[&str] = &["kernels", "gpu"];

/// Paths outside the crate that open files. `glob` itself is free: its patterns match names without a disk.
const FILE_PATHS: &[&str] = &["std::fs", "std::os::unix::fs", "rustix::fs", "glob::glob", "glob::glob_with"];

/// Methods of `std::path::Path` that ask the disk, and that no type of the crate has.
const FILE_CALLS: &[&str] = &[
    "exists",
    "try_exists",
    "is_file",
    "is_dir",
    "is_symlink",
    "read_dir",
    "read_link",
    "canonicalize",
    "symlink_metadata",
];

/// Paths outside the crate that make a result depend on the clock, the threads, a device or another process.
const MACHINE_PATHS: &[&str] = &[
    "rayon",
    "wgpu",
    "std::thread",
    "std::env",
    "std::io::stdin",
    "std::net",
    "std::process",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::time::UNIX_EPOCH",
    "std::fs",
];

const FILES: Rule =
    Rule { says: "only `io` touches the file system", instead: "add what is missing to `io`, and call that" };

const PURE_ROOMS: Rule = Rule {
    says: "decide, rules, strategies, privacy, record and attacks use no files, threads, clock, device or other process",
    instead: "take the value as an argument from the room above, or run the loop there",
};

const UNSAFE_CODE: Rule = Rule {
    says: "only `kernels` and `gpu` hold unsafe code, in tests too",
    instead: "call a safe function of `kernels` or `gpu`, or write one there with its SAFETY reason",
};

/// Paths of a file that lead out of the crate to one of the listed places, to something inside it, or to all of a module
/// around it.
fn outside(tree: &Tree, file: &File, listed: &[&str]) -> Vec<Violation> {
    let mut found = Vec::new();
    for name in names(file) {
        for place in tree.resolve(name) {
            let Place::Outside(segments) = place else { continue };
            let path = segments.join("::");
            let path = path.trim_start_matches("::").replacen("core::", "std::", 1);
            let is_in = |inner: &str, outer: &str| inner == outer || inner.starts_with(&format!("{outer}::"));
            if listed.iter().any(|place| is_in(&path, place) || name.glob && is_in(place, &path)) {
                found.push(Violation::new(&file.path, name.line, format!("names `{path}`")));
            }
        }
    }
    found
}

fn file_access(house: &House) -> Vec<Violation> {
    let tree = Tree::new(house);
    let mut found = Vec::new();
    for file in house.program().filter(|file| file.room() != Some("io")) {
        found.extend(outside(&tree, file, FILE_PATHS));
        let calls = file.syntax.calls.iter().map(|(method, line)| (method, *line));
        let paths = names(file).filter_map(|name| match &name.segments[..] {
            [.., kind, method] if ["Path", "PathBuf"].contains(&kind.as_str()) => Some((method, name.line)),
            _ => None,
        });
        let asks = calls.chain(paths).filter(|(method, _)| FILE_CALLS.contains(&method.as_str()));
        found
            .extend(asks.map(|(method, line)| Violation::new(&file.path, line, format!("calls `{method}`"))));
    }
    found
}

fn machine_in_pure_rooms(house: &House) -> Vec<Violation> {
    let tree = Tree::new(house);
    let pure = house.program().filter(|file| file.room().is_some_and(|room| PURE.contains(&room)));
    pure.flat_map(|file| outside(&tree, file, MACHINE_PATHS)).collect()
}

fn unsafe_code(house: &House) -> Vec<Violation> {
    let free = |file: &&File| file.room().is_some_and(|room| UNSAFE.contains(&room));
    let files = house.files.iter().filter(|file| !free(file));
    let lines = files.flat_map(|file| file.syntax.unsafe_lines.iter().map(move |line| (file, *line)));
    lines.map(|(file, line)| Violation::new(&file.path, line, "says `unsafe`")).collect()
}

#[test]
fn only_io_touches_the_file_system() {
    FILES.holds(file_access);
}

#[test]
fn pure_rooms_use_no_files_no_threads_and_no_clock() {
    PURE_ROOMS.holds(machine_in_pure_rooms);
}

#[test]
fn only_kernels_and_device_glue_are_unsafe() {
    UNSAFE_CODE.holds(unsafe_code);
}

fn found(check: fn(&House) -> Vec<Violation>, path: &str, text: &str) -> Vec<String> {
    texts(&check(&House::planted(&[(path, text)])))
}

#[test]
fn every_way_to_the_file_system_is_found() {
    for text in [
        "use std::fs;",
        "use std::{fs::File, path::Path};",
        "use std::*; fn f() { fs::read(1); }",
        "use std as s; fn f() { s::fs::read(1); }",
        "extern crate std as s; fn f() { s::fs::read(1); }",
        "fn f() { std::fs::read(1); }",
        "fn f() { vec![::std::fs::read(1)]; }",
        "#[cfg(test)]\nmod tests {}\nfn f() { std::fs::read(1); }",
        "use rustix::fs::fsync;",
        "fn f(p: &Path) -> bool { p.exists() }",
        "fn f(p: &Path) -> bool { Path::exists(p) }",
        "fn f(p: &Path) { assert!(p.is_file()); }",
    ] {
        assert_eq!(found(file_access, "src/codecs/half.rs", text).len(), 1, "{text}");
        assert_eq!(found(file_access, "src/io/text.rs", text), [""; 0], "{text}");
    }
}

#[test]
fn a_glob_of_a_module_that_opens_files_hides_nothing() {
    let text = "mod up {\nuse std::fs;\npub mod low {\nuse super::*;\nfn f() { fs::read(1); } } }";
    let mut found = found(file_access, "src/codecs/half.rs", text);
    found.sort();
    assert_eq!(
        found,
        ["src/codecs/half.rs:2: names `std::fs`", "src/codecs/half.rs:5: names `std::fs::read`"]
    );
}

#[test]
fn patterns_tests_and_modules_named_fs_are_no_file_access() {
    for text in [
        "use glob::Pattern;",
        "use std::{path::Path, io};",
        "#[cfg(test)]\nmod tests { use std::fs; }",
        "mod fs {} use fs::read;",
        "use crate::io::journal; fn f() { journal::exists(1); }",
    ] {
        assert_eq!(found(file_access, "src/codecs/half.rs", text), [""; 0], "{text}");
    }
}

#[test]
fn clocks_and_threads_in_pure_rooms_are_found() {
    for text in [
        "use std::time::{Duration, Instant};",
        "use rayon::prelude::*;",
        "extern crate rayon as r;",
        "fn f() { std::process::Command::new(g); }",
        "use wgpu::Device;",
        "use std::time; fn f() { time::SystemTime::now(); }",
        "use std::time::*; fn f() { Instant::now(); }",
        "fn f() { std::thread::spawn(g); }",
        "fn f() { std::env::var(g); }",
    ] {
        assert_eq!(found(machine_in_pure_rooms, "src/rules/mean.rs", text).len(), 1, "{text}");
        assert_eq!(found(machine_in_pure_rooms, "src/engine/decide/judge.rs", text).len(), 1, "{text}");
        assert_eq!(found(machine_in_pure_rooms, "src/engine/passes/drive.rs", text), [""; 0], "{text}");
    }
    assert_eq!(found(machine_in_pure_rooms, "src/rules/mean.rs", "use std::time::Duration;"), [""; 0]);
}

#[test]
fn unsafe_code_is_found_in_tests_and_macros_too() {
    for text in [
        "fn f() { unsafe { g() } }",
        "#[cfg(test)]\nmod tests { unsafe fn f() {} }",
        "macro_rules! m { () => { unsafe { g() } } }",
        "#[unsafe(no_mangle)] fn f() {}",
    ] {
        assert_eq!(found(unsafe_code, "src/codecs/half.rs", text).len(), 1, "{text}");
        assert_eq!(found(unsafe_code, "src/kernels/gram.rs", text), [""; 0], "{text}");
    }
    let free = "//! No unsafe.\nconst A: &str = \"unsafe\";";
    assert_eq!(found(unsafe_code, "src/codecs/half.rs", free), [""; 0]);
}
