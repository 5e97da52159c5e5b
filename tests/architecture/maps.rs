//! The maps of the code: rooms in `lib.rs`, files in the head of a room, tests in `tests/main.rs`.
//!
//! A map is a list of bullets in the documentation of a module. In that of `lib.rs` every word in backticks is a room or
//! a group of rooms. A bullet of `tests/main.rs` names its modules before the colon: ``- `rules`: every rule``.

use super::report::{Rule, Violation};
use super::rooms::is_group;
use super::sources::{File, House, root};
use super::syntax::Module;
use std::collections::BTreeMap;
use std::fs;

const ROOMS: Rule = Rule {
    says: "the map in src/lib.rs names every room once, and only rooms that exist",
    instead: "add the room in backticks with what it does, or delete it; the list names nothing else in backticks",
};

const FILES: Rule = Rule {
    says: "the documentation of a module names every file that the module declares",
    instead: "add the file's name in backticks or as a link, with what it is for",
};

const HEADS: Rule = Rule {
    says: "lib.rs and the heads of groups only declare modules",
    instead: "move the item to a room; a path names its room, so nothing is re-exported here",
};

const TREE: Rule = Rule {
    says: "every file below src/ is declared by one `mod`, without `#[path]`, and starts with `//!` lines",
    instead: "declare the module in the file above it, name the file as the module, say what it is for",
};

const TESTS: Rule = Rule {
    says: "tests/main.rs names every test module once in its list, and declares each",
    instead: "add or delete a line ``- `module`: what it tests`` and its `mod`",
};

/// What the bullets of a list of test modules name, in order.
fn modules_listed(head: &str) -> Vec<String> {
    let bullets = head.lines().filter_map(|line| line.trim_start().strip_prefix("- "));
    let named = bullets.flat_map(|line| code_spans(line.split(": ").next().unwrap_or(line)));
    named.map(str::to_owned).collect()
}

/// The rooms and groups that a map names, in order: the last parts of paths in backticks.
///
/// Spans that are no paths (`name:key=value`) do not count, and neither does what stands outside the bullets.
fn rooms_listed(head: &str) -> Vec<String> {
    let first = head.lines().skip_while(|line| !line.trim_start().starts_with("- "));
    let list: Vec<&str> = first.take_while(|line| !line.trim().is_empty()).collect();
    let is_path = |span: &&str| span.chars().all(|c| c.is_ascii_lowercase() || "_:@".contains(c));
    let paths = list.iter().flat_map(|line| code_spans(line)).filter(is_path);
    paths.map(|path| path.rsplit([':', '@']).next().unwrap_or(path).to_owned()).collect()
}

/// The texts between backticks.
fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Differences between what a map names and what exists.
fn differences<'n>(place: &str, named: &[String], existing: impl Iterator<Item = &'n str>) -> Vec<Violation> {
    let mut counts: BTreeMap<&str, (usize, bool)> = BTreeMap::new();
    named.iter().for_each(|name| counts.entry(name).or_default().0 += 1);
    existing.for_each(|name| counts.entry(name).or_default().1 = true);
    let mut found = Vec::new();
    for (name, (times, exists)) in counts {
        let text = match (times, exists) {
            (1, true) => continue,
            (0, _) => format!("`{name}` is missing"),
            (_, false) => format!("`{name}` does not exist"),
            (times, true) => format!("`{name}` is named {times} times"),
        };
        found.push(Violation::new(place, 1, text));
    }
    found
}

fn faults_of_rooms(house: &House) -> Vec<Violation> {
    let Some(root) = house.files.iter().find(|file| file.path == "src/lib.rs") else { return Vec::new() };
    let named: Vec<String> = rooms_listed(&root.head).into_iter().filter(|name| !is_group(name)).collect();
    differences(&root.path, &named, house.rooms().into_iter().filter(|room| *room != "main"))
}

/// Modules of other files that are part of the program.
fn children(file: &File) -> impl Iterator<Item = &Module> {
    file.syntax.modules.iter().filter(|module| !module.inline && !module.test)
}

/// The words that a text marks as code or links to.
fn marked(head: &str) -> Vec<&str> {
    let links = head.split("](").skip(1).filter_map(|link| link.split_once(')')).map(|(target, _)| target);
    let separator = |c: char| !c.is_alphanumeric() && c != '_';
    code_spans(head).chain(links).flat_map(|text| text.split(separator)).collect()
}

fn files_without_a_name(house: &House) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in house.program().filter(|file| file.path != "src/lib.rs") {
        let words = marked(&file.head);
        for child in children(file) {
            let name = child.path.last().unwrap();
            if !words.contains(&name.as_str()) {
                found.push(Violation::new(
                    &file.path,
                    child.line,
                    format!("the head does not name `{name}`"),
                ));
            }
        }
    }
    found
}

fn heads_with_items(house: &House) -> Vec<Violation> {
    let heads = house.files.iter().filter(|file| file.room().is_none());
    let items = heads.filter_map(|file| file.syntax.first_item.map(|line| (file, line)));
    items.map(|(file, line)| Violation::new(&file.path, line, "an item that is no module")).collect()
}

fn faults_of_tree(house: &House) -> Vec<Violation> {
    let declared: Vec<&Module> = house.files.iter().flat_map(|file| &file.syntax.modules).collect();
    let mut found = Vec::new();
    for file in &house.files {
        let renamed = file.syntax.modules.iter().filter(|module| module.renamed);
        found.extend(
            renamed.map(|module| Violation::new(&file.path, module.line, "`#[path]` names a module's file")),
        );
        let is_root = ["src/lib.rs", "src/main.rs"].contains(&file.path.as_str());
        let named = |module: &&&Module| !module.inline && module.path == file.module;
        if !is_root && declared.iter().filter(named).count() != 1 {
            found.push(Violation::new(&file.path, 1, "not declared by one `mod`"));
        }
        if !file.first_line.starts_with("//! ") {
            found.push(Violation::new(&file.path, 1, "no module documentation in the first line"));
        }
    }
    found
}

/// Differences between the list of `tests/main.rs`, its declarations, and the files beside it.
fn faults_of_tests(main: &File, files: &[String]) -> Vec<Violation> {
    let modules: Vec<&str> =
        main.syntax.modules.iter().filter_map(|module| module.path.last()).map(String::as_str).collect();
    let declared: Vec<String> = modules.iter().map(|name| (*name).to_owned()).collect();
    let list = differences(&main.path, &modules_listed(&main.head), modules.into_iter());
    let files = differences(&main.path, &declared, files.iter().map(String::as_str));
    let with = |found: Vec<Violation>, what: &'static str| {
        found
            .into_iter()
            .map(move |Violation { place, found }| Violation { place, found: format!("{what}: {found}") })
    };
    with(list, "in the list").chain(with(files, "among the `mod` lines")).collect()
}

/// The names of test modules that have a file: `tests/x.rs` or `tests/x/mod.rs`.
fn test_files() -> Vec<String> {
    let entries = fs::read_dir(root().join("tests")).unwrap().map(|entry| entry.unwrap().path());
    let modules = entries.filter(|path| {
        let is_main = path.file_name().is_some_and(|name| name == "main.rs");
        path.join("mod.rs").exists() || path.extension().is_some_and(|end| end == "rs") && !is_main
    });
    modules.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn the_map_of_lib_names_every_room() {
    ROOMS.holds(faults_of_rooms(super::house()));
}

#[test]
fn every_module_names_its_files() {
    FILES.holds(files_without_a_name(super::house()));
}

#[test]
fn heads_hold_only_modules() {
    HEADS.holds(heads_with_items(super::house()));
}

#[test]
fn every_file_is_a_module_that_says_what_it_is_for() {
    TREE.holds(faults_of_tree(super::house()));
}

#[test]
fn tests_main_names_every_module() {
    let text = fs::read_to_string(root().join("tests/main.rs")).unwrap();
    let main = House::planted(&[("tests/main.rs", &text)]);
    TESTS.holds(faults_of_tests(&main.files[0], &test_files()));
}

#[cfg(test)]
mod planted {
    use super::super::report::Violation;
    use super::super::sources::House;
    use super::{faults_of_rooms, faults_of_tests, faults_of_tree, files_without_a_name, heads_with_items};

    fn texts(found: &[Violation]) -> Vec<String> {
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_room_that_the_map_lacks_repeats_or_invents_is_found() {
        let map = "//! Rooms, as in `x`:\n//!\n//! - [`engine`]: a run: `passes` streams tiles\n//!   from [`io`], as\n\
                   //!   `name:key=value` or `UpdateSet`. [`mod@io`]: again.\n//! - [`gone`], [`gpu`]: the device.\n\
                   //!\n//! Not `y`.\n";
        let house = House::planted(&[
            ("src/lib.rs", map),
            ("src/engine/passes/mod.rs", ""),
            ("src/io/text.rs", ""),
            ("src/gpu/mod.rs", ""),
            ("src/rules/mean.rs", ""),
            ("src/main.rs", ""),
        ]);
        let expected = [
            "src/lib.rs:1: `gone` does not exist",
            "src/lib.rs:1: `io` is named 2 times",
            "src/lib.rs:1: `rules` is missing",
        ];
        assert_eq!(texts(&faults_of_rooms(&house)), expected);
    }

    #[test]
    fn a_file_that_its_head_does_not_name_is_found() {
        let head = "//! Rules: [`mean`], `median`, [the third](mod@krum), `pre/clip.rs`; not bulyan.\n";
        let code = "mod bulyan;\nmod clip;\nmod krum;\npub mod mean;\nmod median;\n#[cfg(test)]\nmod trial;\nmod a {}";
        let house = House::planted(&[("src/rules/mod.rs", &format!("{head}{code}"))]);
        let expected = ["src/rules/mod.rs:2: the head does not name `bulyan`"];
        assert_eq!(texts(&files_without_a_name(&house)), expected);
    }

    #[test]
    fn an_item_in_the_head_of_a_group_is_found() {
        let head = "//! Engine.\npub mod passes;\n";
        let house =
            |text: &str| House::planted(&[("src/engine/mod.rs", text), ("src/rules/mod.rs", "use a;")]);
        assert_eq!(texts(&heads_with_items(&house(head))), [""; 0]);
        let found = texts(&heads_with_items(&house(&format!("{head}pub use passes::Plan;"))));
        assert_eq!(found, ["src/engine/mod.rs:3: an item that is no module"]);
    }

    #[test]
    fn files_without_a_declaration_or_a_head_are_found() {
        let house = House::planted(&[
            ("src/lib.rs", "//! Lib.\nmod rules;"),
            ("src/rules/mod.rs", "//! Rules.\nmod mean;\n#[path = \"other.rs\"]\nmod median;"),
            ("src/rules/mean.rs", "use a;"),
            ("src/rules/other.rs", "//! Other."),
        ]);
        let expected = [
            "src/rules/mean.rs:1: no module documentation in the first line",
            "src/rules/mod.rs:4: `#[path]` names a module's file",
            "src/rules/other.rs:1: not declared by one `mod`",
        ];
        assert_eq!(texts(&faults_of_tree(&house)), expected);
    }

    #[test]
    fn a_test_module_that_the_list_or_the_code_lacks_is_found() {
        let text = "//! Tests:\n//!\n//! - `a`: one, not `b`.\n//! - `c`: three.\nmod a;\nmod b;\n";
        let house = House::planted(&[("tests/main.rs", text)]);
        let found = faults_of_tests(&house.files[0], &["a".to_owned(), "b".to_owned(), "d".to_owned()]);
        let expected = [
            "tests/main.rs:1: in the list: `b` is missing",
            "tests/main.rs:1: in the list: `c` does not exist",
            "tests/main.rs:1: among the `mod` lines: `d` is missing",
        ];
        assert_eq!(texts(&found), expected);
    }
}
