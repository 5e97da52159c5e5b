//! The source files of the crate, from the disk or planted by a test.

use super::rooms::room_of;
use super::syntax::Syntax;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// One source file below `src/`.
#[derive(Debug)]
pub(crate) struct File {
    /// The path from the root of the repository: `src/engine/passes/plan.rs`.
    pub path: String,
    /// The module: `engine`, `passes`, `plan`. Empty for `lib.rs`.
    pub module: Vec<String>,
    /// Lines, with blank ones, comments and tests.
    pub lines: usize,
    /// The documentation of the module.
    pub head: String,
    /// Whether the whole file is compiled for tests alone.
    pub is_test: bool,
    pub syntax: Syntax,
}

impl File {
    fn read(path: &str, text: &str) -> Self {
        let module = module_of(path);
        let syntax = Syntax::read(text, &module);
        Self {
            path: path.to_owned(),
            lines: text.lines().count(),
            head: head(text),
            is_test: false,
            syntax: syntax.unwrap_or_else(|error| panic!("{path}: {error} at {:?}", error.span().start())),
            module,
        }
    }

    /// The room: the first part of the module, or the second inside a group. The roots and heads of groups have none.
    pub(crate) fn room(&self) -> Option<&str> {
        room_of(&self.module)
    }

    /// Whether it is the file of a whole room or group, or `lib.rs`.
    pub(crate) fn is_head(&self) -> bool {
        self.module.len() <= 1 + usize::from(self.room().is_some_and(|room| self.module[0] != room))
    }

    /// Lines without those that are compiled for tests alone.
    pub(crate) fn code_lines(&self) -> usize {
        if self.is_test { 0 } else { self.lines - self.syntax.test_lines() }
    }

    /// Folder of the files of this module's children: `src/rules` for `src/rules/mod.rs`, `src/gpu/vector` for
    /// `src/gpu/vector.rs`.
    pub(crate) fn folder(&self) -> String {
        [&["src".to_owned()], &self.module[..]].concat().join("/")
    }
}

/// The module that a file holds. `main.rs` is the root of another crate and stands as the module `main`.
fn module_of(path: &str) -> Vec<String> {
    let below = path.strip_prefix("src/").unwrap_or(path).trim_end_matches(".rs");
    let parts: Vec<String> = below.split('/').map(str::to_owned).collect();
    match parts.last().map(String::as_str) {
        Some("mod" | "lib") => parts[..parts.len() - 1].to_vec(),
        _ => parts,
    }
}

/// The documentation at the head of a module: its leading `//!` lines, without the marks.
fn head(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    lines.map(str::trim).collect::<Vec<_>>().join("\n")
}

/// All source files, in order of path.
#[derive(Debug)]
pub(crate) struct House {
    pub files: Vec<File>,
}

impl House {
    /// The files below `src/`.
    pub(crate) fn from_disk() -> Self {
        let texts = files_below("src", "rs");
        assert!(texts.len() > 100, "the sources were not found");
        Self::of(texts)
    }

    /// Files that a test writes, by path and text.
    pub(crate) fn planted(files: &[(&str, &str)]) -> Self {
        Self::of(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
    }

    fn of(texts: BTreeMap<String, String>) -> Self {
        let mut files: Vec<File> = texts.iter().map(|(path, text)| File::read(path, text)).collect();
        let tests = modules_for_tests(&files);
        for file in &mut files {
            file.is_test = (1..=file.module.len()).any(|length| tests.contains(&file.module[..length]));
        }
        Self { files }
    }

    /// Files that are part of the program, not only of its tests.
    pub(crate) fn program(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| !file.is_test)
    }

    /// The rooms that have files.
    pub(crate) fn rooms(&self) -> BTreeSet<&str> {
        self.files.iter().filter_map(File::room).collect()
    }
}

/// Modules whose declarations, or those of a module around them, stand under `#[cfg(test)]`.
fn modules_for_tests(files: &[File]) -> BTreeSet<Vec<String>> {
    let declared = files.iter().flat_map(|file| &file.syntax.modules);
    declared.filter(|module| module.test).map(|module| module.path.clone()).collect()
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The texts of all files of a kind below a folder of the repository, by path from its root.
pub(crate) fn files_below(folder: &str, extension: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|end| end == extension) {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn a_file_named_under_cfg_test_is_no_program_nor_are_those_below_it() {
    let house = House::planted(&[
        ("src/codecs/mod.rs", "#[cfg(test)]\nmod trial;\nmod half;\n"),
        ("src/codecs/trial.rs", "mod inner;\n"),
        ("src/codecs/trial/inner.rs", ""),
        ("src/codecs/half.rs", ""),
    ]);
    let paths: Vec<&str> = house.program().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["src/codecs/half.rs", "src/codecs/mod.rs"]);
}
