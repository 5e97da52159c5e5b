//! The maps of the code: rooms in `lib.rs`, files in the head of a room, tests in `tests/main.rs`.
//!
//! A map is a list of bullets in the documentation of a module. In that of `lib.rs` every path in backticks is a room or
//! a group of rooms. A bullet of `tests/main.rs` names its modules before the colon: ``- `rules`: every rule``.

use super::report::{Rule, Violation, texts};
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
    says: "the mod.rs of a room names each of its files: in its documentation, or as a row of a registry below",
    instead: "add the file's name in backticks or as a link, with what it is for",
};

const HEADS: Rule = Rule {
    says: "lib.rs and the heads of groups only declare modules",
    instead: "move the item to a room; a path names its room, so nothing is re-exported here",
};

const TREE: Rule = Rule {
    says: "every file below src/ is declared by one `mod`, without `#[path]`, `#[macro_use]` and `include!`",
    instead: "declare the module in the file above it, name the file as the module",
};

const TESTS: Rule = Rule {
    says: "tests/main.rs names every test module once in its list, and declares each",
    instead: "add or delete a line ``- `module`: what it tests`` and its `mod`",
};

/// The texts between backticks.
fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// What the bullets of a list of test modules name, in order.
fn modules_listed(head: &str) -> Vec<String> {
    let bullets = head.lines().filter_map(|line| line.strip_prefix("- "));
    bullets.flat_map(|line| code_spans(line.split(": ").next().unwrap())).map(str::to_owned).collect()
}

/// The rooms and groups that the first list of a map names, in order: the last parts of paths in backticks.
fn rooms_listed(head: &str) -> Vec<String> {
    let list = head.lines().skip_while(|line| !line.starts_with("- ")).take_while(|line| !line.is_empty());
    let is_path = |span: &&str| span.chars().all(|c| c.is_ascii_lowercase() || "_:@".contains(c));
    let paths = list.flat_map(code_spans).filter(is_path);
    paths.map(|path| path.rsplit([':', '@']).next().unwrap().to_owned()).collect()
}

/// Differences between what a map names and what exists.
fn differences<'n>(place: &str, named: &[String], existing: impl Iterator<Item = &'n str>) -> Vec<Violation> {
    let mut counts: BTreeMap<&str, (usize, bool)> = BTreeMap::new();
    named.iter().for_each(|name| counts.entry(name).or_default().0 += 1);
    existing.for_each(|name| counts.entry(name).or_default().1 = true);
    let wrong = counts.into_iter().filter_map(|(name, (times, exists))| match (times, exists) {
        (1, true) => None,
        (0, _) => Some(format!("`{name}` is missing")),
        (_, false) => Some(format!("`{name}` does not exist")),
        (times, true) => Some(format!("`{name}` is named {times} times")),
    });
    wrong.map(|text| Violation::new(place, 1, text)).collect()
}

fn faults_of_rooms(house: &House) -> Vec<Violation> {
    let root = house.files.iter().find(|file| file.path == "src/lib.rs").expect("src/lib.rs is there");
    let named: Vec<String> = rooms_listed(&root.head).into_iter().filter(|name| !is_group(name)).collect();
    differences(&root.path, &named, house.rooms().into_iter().filter(|room| *room != "main"))
}

/// Files that the head of their room or group neither documents nor registers.
fn files_without_a_name(house: &House) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in house.program().filter(|file| file.is_head() && !file.module.is_empty()) {
        let documented: Vec<&str> = code_spans(&file.head)
            .flat_map(|span| span.split(|c: char| !c.is_alphanumeric() && c != '_'))
            .collect();
        for child in file.syntax.modules.iter().filter(|module| !module.inline && !module.test) {
            let name = child.path.last().unwrap();
            let is_own = child.path.len() == file.module.len() + 1;
            if is_own && !documented.contains(&name.as_str()) && !file.syntax.registered.contains(name) {
                found.push(Violation::new(&file.path, child.line, format!("`{name}` is not named")));
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
        let moved = file.syntax.moved_code.iter().map(|line| (*line, "code or macros that no path names"));
        let is_root = ["src/lib.rs", "src/main.rs"].contains(&file.path.as_str());
        let times = declared.iter().filter(|module| !module.inline && module.path == file.module).count();
        let lost = (!is_root && times != 1).then_some((1, "not declared by one `mod`"));
        found.extend(moved.chain(lost).map(|(line, text)| Violation::new(&file.path, line, text)));
    }
    found
}

/// Differences between the list of `tests/main.rs`, its declarations, and the files beside it.
fn faults_of_tests(main: &File, files: &[String]) -> Vec<Violation> {
    let declared: Vec<String> =
        main.syntax.modules.iter().filter_map(|module| module.path.last().cloned()).collect();
    let list = differences(
        "list of tests/main.rs",
        &modules_listed(&main.head),
        declared.iter().map(String::as_str),
    );
    let files = differences("`mod` lines of tests/main.rs", &declared, files.iter().map(String::as_str));
    [list, files].concat()
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
    ROOMS.holds(faults_of_rooms);
}

#[test]
fn every_room_names_its_files() {
    FILES.holds(files_without_a_name);
}

#[test]
fn heads_hold_only_modules() {
    HEADS.holds(heads_with_items);
}

#[test]
fn every_file_is_a_module() {
    TREE.holds(faults_of_tree);
}

#[test]
fn tests_main_names_every_module() {
    TESTS.holds(|_| {
        let text = fs::read_to_string(root().join("tests/main.rs")).unwrap();
        let main = House::planted(&[("tests/main.rs", &text)]);
        faults_of_tests(&main.files[0], &test_files())
    });
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
    let expected = ["`gone` does not exist", "`io` is named 2 times", "`rules` is missing"];
    assert_eq!(texts(&faults_of_rooms(&house)), expected.map(|text| format!("src/lib.rs:1: {text}")));
}

#[test]
fn a_file_that_its_room_does_not_name_is_found() {
    let head =
        "//! Rules: [`mean`], `median`, [`third`](mod@third), `pre/clip.rs`; not bulyan.\nuse bulyan::B;\n";
    let modules =
        ["bulyan", "clip", "third", "mean", "median", "monna", "rows"].map(|name| format!("mod {name};\n"));
    let code =
        "#[cfg(test)]\nmod trial;\nmod a { mod b; }\nconst RULES: &[R] = &[monna::E];\nrows! { \"rows\" }";
    let house = House::planted(&[
        ("src/rules/mod.rs", &format!("{head}{}{code}", modules.concat())),
        ("src/rules/mean/mod.rs", "mod below;"),
    ]);
    assert_eq!(texts(&files_without_a_name(&house)), ["src/rules/mod.rs:3: `bulyan` is not named"]);
}

#[test]
fn an_item_in_the_head_of_a_group_is_found() {
    let head = "//! Engine.\npub mod passes;\n";
    let house = |text: &str| House::planted(&[("src/engine/mod.rs", text), ("src/rules/mod.rs", "use a;")]);
    assert_eq!(heads_with_items(&house(head)), []);
    let found = texts(&heads_with_items(&house(&format!("{head}pub use passes::Plan;"))));
    assert_eq!(found, ["src/engine/mod.rs:3: an item that is no module"]);
}

#[test]
fn files_without_a_declaration_and_code_from_elsewhere_are_found() {
    let house = House::planted(&[
        ("src/lib.rs", "//! Lib.\nmod rules;"),
        (
            "src/rules/mod.rs",
            "//! Rules.\nmod mean;\n#[path = \"other.rs\"]\nmod median;\ninclude!(\"x.rs\");\n#[cfg_attr(unix, path = \"y.rs\")] mod y;\n#[macro_use] mod z;",
        ),
        (
            "src/rules/mean.rs",
            "fn f() { std::include!(\"y\"); include_str!(\"y\"); }\ninclude!(concat!(env!(\"OUT_DIR\")));",
        ),
        ("src/rules/other.rs", "//! Other."),
    ]);
    let expected = [
        "src/rules/mean.rs:1: code or macros that no path names",
        "src/rules/mod.rs:3: code or macros that no path names",
        "src/rules/mod.rs:5: code or macros that no path names",
        "src/rules/mod.rs:6: code or macros that no path names",
        "src/rules/mod.rs:7: code or macros that no path names",
        "src/rules/other.rs:1: not declared by one `mod`",
    ];
    let mut found = texts(&faults_of_tree(&house));
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_test_module_that_the_list_or_the_code_lacks_is_found() {
    let text = "//! Tests:\n//!\n//! - `a`: one, not `b`.\n//! - `c`: three.\nmod a;\nmod b;\n";
    let house = House::planted(&[("tests/main.rs", text)]);
    let found = faults_of_tests(&house.files[0], &["a".to_owned(), "b".to_owned(), "d".to_owned()]);
    let expected = [
        "list of tests/main.rs:1: `b` is missing",
        "list of tests/main.rs:1: `c` does not exist",
        "`mod` lines of tests/main.rs:1: `d` is missing",
    ];
    assert_eq!(texts(&found), expected);
}
