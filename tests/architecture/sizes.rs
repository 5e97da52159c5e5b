//! How large files, functions, structs, folders and rooms may be. Lines of tests count nowhere.

use super::report::{Exception, Rule, Violation, without_exceptions};
use super::sources::House;
use std::collections::BTreeMap;

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 60;
const STRUCT_FIELDS: usize = 12;
const FOLDER_FILES: usize = 25;
const ROOM_LINES: usize = 8000;

/// A room has less of all lines, in percent.
const ROOM_PERCENT: usize = 10;

/// Derives that read or write every field of a struct by name, so that a long struct is a long table.
const TABLES: &[&str] = &["Args", "Parser", "Serialize"];

/// What may be larger. The list may only shrink.
const EXCEPTIONS: &[Exception] =
    &[Exception { what: "src/kernels", why: "one file a kernel; callers name a kernel without a group" }];

const RULE: Rule = Rule {
    says: "a file has at most 500 lines, a function 60, a struct 12 fields, a folder 25 files; a room has at most 8000 \
           lines and under 10 % of all",
    instead: "split by concern into files below, functions with a name, structs that each hold one thing",
};

/// A subject that is too large, by the name that an exception has for it.
type TooLarge = (String, Violation);

fn check(subject: String, place: &str, size: usize, most: usize, unit: &str) -> Option<TooLarge> {
    let name = subject.rsplit(['/', ':']).next().unwrap();
    let found = format!("{name}: {size} {unit}, at most {most}");
    (size > most).then(|| (subject, Violation { place: place.to_owned(), found }))
}

fn large_items(house: &House) -> Vec<TooLarge> {
    let mut found = Vec::new();
    let mut folders: BTreeMap<&str, usize> = BTreeMap::new();
    for file in &house.files {
        *folders.entry(file.path.rsplit_once('/').unwrap().0).or_default() += 1;
    }
    for file in house.program() {
        let of_file = |name: &str| format!("{}:{name}", file.path);
        let place = |line: usize| format!("{}:{line}", file.path);
        found.extend(check(file.path.clone(), &place(1), file.code_lines(), FILE_LINES, "lines"));
        for item in &file.syntax.functions {
            found.extend(check(of_file(&item.name), &place(item.line), item.lines, FUNCTION_LINES, "lines"));
        }
        let is_table = |derives: &[String]| derives.iter().any(|name| TABLES.contains(&name.as_str()));
        for item in file.syntax.structs.iter().filter(|item| !is_table(&item.derives)) {
            found.extend(check(of_file(&item.name), &place(item.line), item.fields, STRUCT_FIELDS, "fields"));
        }
    }
    found.extend(
        folders.into_iter().filter_map(|(f, count)| check(f.to_owned(), f, count, FOLDER_FILES, "files")),
    );
    found
}

/// Rooms of too many lines, and those with too large a share of all lines.
fn large_rooms(rooms: &[Room]) -> Vec<TooLarge> {
    let all: usize = rooms.iter().map(|room| room.code).sum();
    let share = (all * ROOM_PERCENT).div_ceil(100).saturating_sub(1);
    let check = |name: String, code: usize, most: usize| check(name, "src", code, most, "lines");
    let long =
        rooms.iter().filter_map(|room| check(format!("lines of {}", room.name), room.code, ROOM_LINES));
    let shares = rooms.iter().filter_map(|room| check(format!("share of {}", room.name), room.code, share));
    long.chain(shares).collect()
}

/// A room in numbers.
#[derive(Default, Debug)]
struct Room {
    name: String,
    files: usize,
    /// Lines with tests.
    lines: usize,
    /// Lines without tests.
    code: usize,
}

impl Room {
    /// All rooms, the longest first. Roots and heads of groups stand together as `(roots)`.
    fn all(house: &House) -> Vec<Self> {
        let mut rooms: BTreeMap<&str, Self> = BTreeMap::new();
        for file in &house.files {
            let name = file.room().unwrap_or("(roots)");
            let room = rooms.entry(name).or_default();
            name.clone_into(&mut room.name);
            room.files += 1;
            room.lines += file.lines;
            room.code += file.code_lines();
        }
        let mut rooms: Vec<Self> = rooms.into_values().collect();
        rooms.sort_by_key(|room| std::cmp::Reverse(room.code));
        rooms
    }
}

/// The table of rooms in Markdown.
fn table(rooms: &[Room]) -> String {
    let all: usize = rooms.iter().map(|room| room.code).sum();
    let row = |room: &Room| {
        let share = room.code as f64 * 100.0 / all as f64;
        format!("| {} | {} | {} | {} | {share:.1} % |\n", room.name, room.files, room.lines, room.code)
    };
    let head = "| room | files | lines | lines without tests | share |\n|---|---:|---:|---:|---:|\n";
    format!("{head}{}", rooms.iter().map(row).collect::<String>())
}

#[test]
fn files_functions_structs_folders_and_rooms_are_small() {
    RULE.holds(|house| {
        let rooms = Room::all(house);
        println!("{}", table(&rooms));
        let found = [large_items(house), large_rooms(&rooms)].concat();
        without_exceptions(found, EXCEPTIONS, "tests/architecture/sizes.rs")
    });
}

/// What is too large in one file.
fn found(text: &str) -> Vec<String> {
    let found = large_items(&House::planted(&[("src/a.rs", text)]));
    found.into_iter().map(|(_, violation)| violation.to_string()).collect()
}

#[test]
fn a_file_may_have_500_lines_and_any_number_of_lines_of_tests() {
    let code = "const A: u8 = 1;\n".repeat(FILE_LINES);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "fn f() {}\n".repeat(100));
    assert_eq!(found(&format!("{code}{tests}")), [""; 0]);
    // The lines behind the tests count.
    assert_eq!(found(&format!("{tests}{code}fn g() {{}}\n")), ["src/a.rs:1: a.rs: 501 lines, at most 500"]);
}

#[test]
fn a_function_may_have_60_lines_from_signature_to_brace() {
    let function =
        |lines: usize| format!("/// Doc.\n#[inline]\nfn f() {{\n{}}}\n", "a();\n".repeat(lines - 2));
    for (before, behind) in
        [("", ""), ("impl X {", "}"), ("trait X {", "}"), ("macro_rules! m { () => {", "} }")]
    {
        assert_eq!(found(&format!("{before}{}{behind}", function(60))), [""; 0]);
        let long = found(&format!("{before}{}{behind}", function(61)));
        assert_eq!(long, ["src/a.rs:3: f: 61 lines, at most 60"], "{before}");
    }
}

#[test]
fn a_struct_may_have_12_fields_and_more_if_it_is_a_table() {
    let with = |count: usize| (0..count).map(|n| format!("f{n}: u8, ")).collect::<String>();
    assert_eq!(found(&format!("struct A {{ {} }}", with(12))), [""; 0]);
    assert_eq!(found(&format!("struct A {{ {} }}", with(13))), ["src/a.rs:1: A: 13 fields, at most 12"]);
    assert_eq!(found(&format!("#[derive(Clone, Debug)] struct A {{ {} }}", with(13))).len(), 1);
    for name in ["Debug, clap::Args", "Parser", "serde::Serialize"] {
        assert_eq!(found(&format!("#[derive({name})] struct A {{ {} }}", with(13))), [""; 0], "{name}");
    }
}

#[test]
fn a_folder_may_have_25_files() {
    let paths: Vec<String> = (0..26).map(|n| format!("src/rules/r{n}.rs")).collect();
    let mut files: Vec<(&str, &str)> = paths.iter().map(|path| (path.as_str(), "")).collect();
    files.push(("src/rules/pre/clip.rs", ""));
    let found = large_items(&House::planted(&files));
    assert_eq!(found[0].1.to_string(), "src/rules: rules: 26 files, at most 25");
    assert!(large_items(&House::planted(&files[1..])).is_empty());
}

#[test]
fn a_room_has_under_a_tenth_of_all_lines_and_at_most_8000() {
    let rooms = |sizes: &[usize]| {
        let room = |code: &usize| Room { name: code.to_string(), code: *code, ..Room::default() };
        let found = large_rooms(&sizes.iter().map(room).collect::<Vec<_>>());
        found.into_iter().map(|(room, _)| room).collect::<Vec<_>>()
    };
    assert_eq!(rooms(&[41, 40, 10, 9]), ["share of 41", "share of 40", "share of 10"]);
    assert_eq!(rooms(&[8001, 8000].repeat(10)), ["lines of 8001"; 10]);
}

#[test]
fn the_table_counts_lines_with_and_without_tests() {
    let house = House::planted(&[
        ("src/lib.rs", "mod rules;\n"),
        ("src/rules/mod.rs", "mod mean;\n\n#[cfg(test)]\nmod tests {\n}\n"),
        ("src/rules/mean.rs", "fn f() {}\n"),
    ]);
    let expected = "| rules | 2 | 6 | 3 | 75.0 % |\n| (roots) | 1 | 1 | 1 | 25.0 % |\n";
    assert!(table(&Room::all(&house)).ends_with(expected), "{}", table(&Room::all(&house)));
}
