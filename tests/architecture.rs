//! The rooms of `src/lib.rs` and the arrows between them, read off the code.

use std::fs;
use std::path::{Path, PathBuf};

/// Which rooms each room may use. Arrows go one way: no room is listed behind one that uses it.
const ARROWS: [(&str, &[&str]); 15] = [
    (
        "cli",
        &[
            "bench",
            "round",
            "updates",
            "settings",
            "record",
            "codecs",
            "privacy",
            "strategies",
            "rules",
            "io",
            "telemetry",
            "gpu",
            "kernels",
            "model",
        ],
    ),
    (
        "bench",
        &[
            "round",
            "updates",
            "settings",
            "record",
            "codecs",
            "privacy",
            "strategies",
            "rules",
            "gpu",
            "kernels",
            "model",
            "io",
            "telemetry",
        ],
    ),
    (
        "round",
        &[
            "updates",
            "privacy",
            "strategies",
            "rules",
            "settings",
            "record",
            "gpu",
            "kernels",
            "model",
            "io",
            "telemetry",
        ],
    ),
    ("updates", &["codecs", "gpu", "kernels", "model", "io", "telemetry", "settings"]),
    ("privacy", &["record", "kernels", "model"]),
    ("strategies", &["rules", "settings", "kernels", "model"]),
    ("codecs", &["settings", "kernels", "model"]),
    ("rules", &["settings"]),
    ("settings", &[]),
    ("record", &[]),
    ("telemetry", &[]),
    ("io", &["model"]),
    ("gpu", &["kernels", "model"]),
    ("kernels", &["model"]),
    ("model", &[]),
];

/// Rooms that may say `unsafe`.
const UNSAFE_ROOMS: [&str; 2] = ["kernels", "gpu"];

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Room, path and text of every source file.
fn sources() -> Vec<(String, PathBuf, String)> {
    let mut found = Vec::new();
    for room in fs::read_dir(source_root()).unwrap().map(|entry| entry.unwrap().path()) {
        if room.is_dir() {
            let name = room.file_name().unwrap().to_string_lossy().into_owned();
            for file in files_below(&room) {
                let text = fs::read_to_string(&file).unwrap();
                found.push((room_of(&name).to_owned(), file, text));
            }
        }
    }
    assert!(found.len() > 20, "the sources were not found");
    found
}

/// The folders of what was one room stand apart; the arrows between them are not held yet.
fn room_of(folder: &str) -> &str {
    match folder {
        "engine" | "modes" | "budget" | "inspect" | "personalize" => "round",
        "compress" => "updates",
        other => other,
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// The code of a file, without its unit tests and comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let code = text.split("#[cfg(test)]\n").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// The rooms that a line of code names.
fn rooms_named(line: &str) -> Vec<String> {
    line.split("crate::")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>())
        .map(|folder| room_of(&folder).to_owned())
        .collect()
}

#[test]
fn arrows_go_one_way() {
    for (room, path, text) in sources() {
        let (_, allowed) = ARROWS.iter().find(|(name, _)| *name == room).expect("every room is in the list");
        for line in code(&text) {
            for used in rooms_named(line) {
                let is_room = ARROWS.iter().any(|(name, _)| *name == used);
                let fine = !is_room || used == room || allowed.contains(&used.as_str());
                assert!(fine, "{}: `{room}` must not use `{used}`: {line}", path.display());
            }
        }
    }
}

#[test]
fn the_list_of_arrows_has_no_circle() {
    for (place, (room, uses)) in ARROWS.iter().enumerate() {
        for used in *uses {
            let other = ARROWS.iter().position(|(name, _)| name == used).unwrap();
            assert!(other > place, "{room} is listed behind {used}, which it uses");
        }
    }
}

#[test]
fn only_io_touches_the_file_system() {
    for (room, path, text) in sources() {
        for line in code(&text).filter(|_| room != "io") {
            let touches =
                ["std::fs", " fs::", " File::", "rustix::fs"].iter().any(|word| line.contains(word));
            assert!(!touches, "{}: only io opens files: {line}", path.display());
        }
    }
}

#[test]
fn only_kernels_and_device_glue_are_unsafe() {
    for (room, path, text) in sources() {
        for line in code(&text).filter(|_| !UNSAFE_ROOMS.contains(&room.as_str())) {
            assert!(!line.contains("unsafe"), "{}: {line}", path.display());
        }
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for (_, path, text) in sources() {
        assert!(text.starts_with("//! "), "{} has no module documentation", path.display());
    }
}

#[test]
fn a_forbidden_arrow_would_be_noticed() {
    assert_eq!(rooms_named("use crate::engine::intake::fault::Fault;"), ["round"]);
    assert_eq!(rooms_named("let x = crate::io::text::read(crate::cli::path());"), ["io", "cli"]);
}
