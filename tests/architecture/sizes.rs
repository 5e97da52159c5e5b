//! How large files, functions, structs, folders and rooms may be.

use super::report::{Exception, Rule, Violation, without_exceptions};
use super::sources::House;
use std::collections::BTreeMap;

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 60;
const STRUCT_FIELDS: usize = 12;
const FOLDER_FILES: usize = 25;
const ROOM_LINES: usize = 8000;

/// Share of the largest room in all lines, in percent.
const ROOM_PERCENT: usize = 10;

/// Derives that read or write every field of a struct by name, so that a long struct is a long table.
const TABLES: &[&str] = &["Args", "Parser", "Serialize"];

/// What may be larger. Each list may only shrink.
const FILES: &[Exception] = &[];
const FUNCTIONS: &[Exception] = &[];
const STRUCTS: &[Exception] = &[];
const FOLDERS: &[Exception] = &[Exception { what: "src/kernels", why: "one file a kernel" }];
const ROOMS: &[Exception] = &[
    Exception { what: "codecs", why: "one file a codec, and the coders that they share; under 8000 lines" },
    Exception { what: "kernels", why: "one file a kernel, each for every instruction set; under 8000 lines" },
];

const LIST: &str = "tests/architecture/sizes.rs";

const RULE: Rule = Rule {
    says: "a file has at most 500 lines, a function 60, a struct 12 fields, a folder 25 files; a room has at most 8000 \
           lines and under 10 % of all (lines of tests count nowhere)",
    instead: "split by concern into files below, functions with a name, structs that each hold one thing",
};

fn long_files(house: &House, exceptions: &[Exception]) -> Vec<Violation> {
    let long = house.program().filter(|file| file.code_lines() > FILE_LINES).map(|file| {
        let text = format!("{} lines without tests, at most {FILE_LINES}", file.code_lines());
        (file.path.clone(), Violation::new(&file.path, 1, text))
    });
    without_exceptions(long.collect(), exceptions, LIST)
}

fn long_functions(house: &House, exceptions: &[Exception]) -> Vec<Violation> {
    let functions =
        house.program().flat_map(|file| file.syntax.functions.iter().map(move |function| (file, function)));
    let long = functions.filter(|(_, function)| function.lines > FUNCTION_LINES).map(|(file, function)| {
        let text = format!("`{}` has {} lines, at most {FUNCTION_LINES}", function.name, function.lines);
        (format!("{}:{}", file.path, function.name), Violation::new(&file.path, function.line, text))
    });
    without_exceptions(long.collect(), exceptions, LIST)
}

fn wide_structs(house: &House, exceptions: &[Exception]) -> Vec<Violation> {
    let structs = house.program().flat_map(|file| file.syntax.structs.iter().map(move |item| (file, item)));
    let is_table = |derives: &[String]| derives.iter().any(|name| TABLES.contains(&name.as_str()));
    let wide = structs.filter(|(_, item)| item.fields > STRUCT_FIELDS && !is_table(&item.derives));
    let wide = wide.map(|(file, item)| {
        let text = format!("`{}` has {} fields, at most {STRUCT_FIELDS}", item.name, item.fields);
        (format!("{}:{}", file.path, item.name), Violation::new(&file.path, item.line, text))
    });
    without_exceptions(wide.collect(), exceptions, LIST)
}

fn full_folders(house: &House, exceptions: &[Exception]) -> Vec<Violation> {
    let mut files: BTreeMap<&str, usize> = BTreeMap::new();
    for file in &house.files {
        *files.entry(file.path.rsplit_once('/').unwrap().0).or_default() += 1;
    }
    let full = files.into_iter().filter(|(_, count)| *count > FOLDER_FILES).map(|(folder, count)| {
        (folder.to_owned(), Violation::new(folder, 1, format!("{count} files, at most {FOLDER_FILES}")))
    });
    without_exceptions(full.collect(), exceptions, LIST)
}

fn large_rooms(rooms: &[Room], exceptions: &[Exception]) -> Vec<Violation> {
    let all: usize = rooms.iter().map(|room| room.code).sum();
    let large = rooms.iter().filter(|room| room.code > ROOM_LINES || room.code * 100 >= all * ROOM_PERCENT);
    let large = large.map(|room| {
        let share = room.code as f64 * 100.0 / all as f64;
        let text = format!("{} lines, {share:.1} % of {all}", room.code);
        (room.name.clone(), Violation { place: format!("room `{}`", room.name), found: text })
    });
    without_exceptions(large.collect(), exceptions, LIST)
}

/// A room in numbers.
#[derive(Debug)]
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
            let empty = || Self { name: name.to_owned(), files: 0, lines: 0, code: 0 };
            let room = rooms.entry(name).or_insert_with(empty);
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
fn table(house: &House) -> String {
    let rooms = Room::all(house);
    let sum = |count: fn(&Room) -> usize| rooms.iter().map(count).sum::<usize>();
    let all = Room {
        name: "all".to_owned(),
        files: sum(|room| room.files),
        lines: sum(|room| room.lines),
        code: sum(|room| room.code),
    };
    let row = |room: &Room| {
        let share = room.code as f64 * 100.0 / all.code as f64;
        format!("| {} | {} | {} | {} | {share:.1} % |\n", room.name, room.files, room.lines, room.code)
    };
    let head = "| room | files | lines | lines without tests | share |\n|---|---:|---:|---:|---:|\n";
    let rows: String = rooms.iter().chain([&all]).map(row).collect();
    format!("{head}{rows}")
}

#[test]
fn files_are_short() {
    RULE.holds(long_files(super::house(), FILES));
}

#[test]
fn functions_are_short() {
    RULE.holds(long_functions(super::house(), FUNCTIONS));
}

#[test]
fn structs_are_narrow() {
    RULE.holds(wide_structs(super::house(), STRUCTS));
}

#[test]
fn folders_fit_a_screen() {
    RULE.holds(full_folders(super::house(), FOLDERS));
}

#[test]
fn rooms_are_small() {
    let house = super::house();
    println!("{}", table(house));
    RULE.holds(large_rooms(&Room::all(house), ROOMS));
}

#[cfg(test)]
mod planted {
    use super::super::report::Exception;
    use super::super::sources::House;
    use super::{
        FILE_LINES, FUNCTION_LINES, Room, full_folders, large_rooms, long_files, long_functions, table,
        wide_structs,
    };

    const PATH: &str = "src/rules/mean.rs";

    #[test]
    fn a_file_may_have_500_lines_and_any_number_of_lines_of_tests() {
        let code = "const A: u8 = 1;\n".repeat(FILE_LINES);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "fn f() {}\n".repeat(100));
        let fits = House::planted(&[(PATH, &format!("{code}{tests}"))]);
        assert_eq!(long_files(&fits, &[]), []);
        // The lines behind the tests count.
        let long = House::planted(&[(PATH, &format!("{tests}{code}fn g() {{}}\n"))]);
        assert_eq!(
            long_files(&long, &[])[0].to_string(),
            "src/rules/mean.rs:1: 501 lines without tests, at most 500"
        );
        let excused = [Exception { what: PATH, why: "a table" }];
        assert_eq!(long_files(&long, &excused), []);
        assert_eq!(long_files(&fits, &excused).len(), 1);
    }

    #[test]
    fn a_function_may_have_60_lines_from_signature_to_brace() {
        let function =
            |lines: usize| format!("/// Doc.\n#[inline]\nfn f() {{\n{}}}\n", "a();\n".repeat(lines - 2));
        let text = |lines| [function(lines), format!("impl X {{ {} }}", function(lines))].concat();
        let in_macro = |lines| format!("macro_rules! m {{ () => {{ {} }} }}", function(lines));
        let fits =
            House::planted(&[(PATH, &text(FUNCTION_LINES)), ("src/rules/m.rs", &in_macro(FUNCTION_LINES))]);
        assert_eq!(long_functions(&fits, &[]), []);
        let long = House::planted(&[(PATH, &text(61)), ("src/rules/m.rs", &in_macro(61))]);
        let found = long_functions(&long, &[]);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found.iter().all(|violation| violation.found == "`f` has 61 lines, at most 60"), "{found:?}");
    }

    #[test]
    fn a_struct_may_have_12_fields_and_more_if_it_is_a_table() {
        let fields = |count: usize| (0..count).map(|n| format!("f{n}: u8, ")).collect::<String>();
        let found = |text: String| wide_structs(&House::planted(&[(PATH, &text)]), &[]);
        assert_eq!(found(format!("struct A {{ {} }}", fields(12))), []);
        assert_eq!(found(format!("struct A {{ {} }}", fields(13)))[0].found, "`A` has 13 fields, at most 12");
        assert_eq!(found(format!("#[derive(Clone, Debug)] struct A {{ {} }}", fields(13))).len(), 1);
        for name in ["Debug, clap::Args", "Parser", "serde::Serialize"] {
            assert_eq!(found(format!("#[derive({name})] struct A {{ {} }}", fields(13))), [], "{name}");
        }
    }

    #[test]
    fn a_folder_may_have_25_files() {
        let paths: Vec<String> = (0..26).map(|n| format!("src/rules/r{n}.rs")).collect();
        let mut files: Vec<(&str, &str)> = paths.iter().map(|path| (path.as_str(), "")).collect();
        files.push(("src/rules/pre/clip.rs", ""));
        assert_eq!(
            full_folders(&House::planted(&files), &[])[0].to_string(),
            "src/rules:1: 26 files, at most 25"
        );
        assert_eq!(full_folders(&House::planted(&files[1..]), &[]), []);
    }

    fn room(name: &str, code: usize) -> Room {
        Room { name: name.to_owned(), files: 1, lines: code, code }
    }

    #[test]
    fn a_room_has_under_a_tenth_of_all_lines() {
        let rooms = [room("dp", 41), room("passes", 40), room("gpu", 10), room("io", 9)];
        let found = large_rooms(&rooms, &[]);
        let places: Vec<&str> = found.iter().map(|violation| violation.place.as_str()).collect();
        assert_eq!(places, ["room `dp`", "room `passes`", "room `gpu`"]);
        assert_eq!(found[2].found, "10 lines, 10.0 % of 100");
    }

    #[test]
    fn a_room_has_at_most_8000_lines() {
        let mut rooms: Vec<Room> = (0..12).map(|n| room(&format!("room{n}"), 8000)).collect();
        assert_eq!(large_rooms(&rooms, &[]), []);
        rooms[0].code = 8001;
        assert_eq!(large_rooms(&rooms, &[]).len(), 1);
    }

    #[test]
    fn the_table_counts_lines_with_and_without_tests() {
        let house = House::planted(&[
            ("src/lib.rs", "mod rules;\n"),
            ("src/rules/mod.rs", "mod mean;\n\n#[cfg(test)]\nmod tests {\n}\n"),
            ("src/rules/mean.rs", "fn f() {}\n"),
        ]);
        let expected = "| rules | 2 | 6 | 3 | 75.0 % |\n| (roots) | 1 | 1 | 1 | 25.0 % |\n| all | 3 | 7 | 4 | 100.0 % |\n";
        assert!(table(&house).ends_with(expected), "{}", table(&house));
    }
}
