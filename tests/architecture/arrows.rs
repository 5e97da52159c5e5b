//! The arrows between rooms, read off every path of the program.
//!
//! Paths stand in `use` trees, types, expressions, macros and attributes.
//!
//! A path names the room that it writes out and the room that holds what it means behind re-exports. Documentation
//! names no room. A value whose type another room defines can be used without its name; no
//! check here sees that.

use super::report::{Rule, Violation};
use super::resolve::{Place, Tree, as_written};
use super::rooms::{ARROWS, allowed, below, is_mode, room_of, rooms_of_table};
use super::sources::{File, House};
use super::syntax::Name;
use std::collections::BTreeSet;

const RULE: Rule = Rule {
    says: "a room names only the rooms that the table of arrows allows (ARROWS in tests/architecture/rooms.rs)",
    instead: "move the code to the room that may use both, or pass the value in from the room above",
};

/// All paths of a file, those of `use` trees too.
pub(crate) fn names(file: &File) -> impl Iterator<Item = &Name> {
    file.syntax.names.iter().chain(file.syntax.imports.iter().map(|import| &import.target))
}

/// Paths of the program that go against the table.
fn forbidden(house: &House) -> Vec<Violation> {
    let tree = Tree::new(house);
    let known = rooms_of_table(ARROWS);
    let mut found = Vec::new();
    for file in house.program() {
        let Some(room) = file.room() else { continue };
        let may_use = allowed(ARROWS, room);
        for name in names(file) {
            for used in rooms_named(&tree, name) {
                if used != room && !may_use.contains(used.as_str()) {
                    let why = if known.contains(used.as_str()) {
                        reason(room, &used)
                    } else {
                        "is no room of the table"
                    };
                    let text = format!("`{room}` names `{used}` in `{}`: {why}", name.segments.join("::"));
                    found.push(Violation::new(&file.path, name.line, text));
                }
            }
        }
    }
    found
}

/// The rooms that a path names: as it is written, and where it leads.
fn rooms_named(tree: &Tree, name: &Name) -> BTreeSet<String> {
    let places = tree.resolve(name);
    let led = places.iter().filter_map(Place::path).filter_map(room_of);
    let written = as_written(name);
    let written = written.as_deref().and_then(room_of);
    led.chain(written).map(str::to_owned).collect()
}

fn reason(room: &str, used: &str) -> &'static str {
    if is_mode(room) && is_mode(used) {
        return "no mode knows another";
    }
    if is_mode(used) && below(ARROWS, "aggregate").contains(room) || room == "aggregate" && is_mode(used) {
        return "nothing in or below `aggregate` knows a mode";
    }
    "the table has no such arrow"
}

#[test]
fn every_arrow_is_in_the_table() {
    RULE.holds(forbidden(super::house()));
}

#[cfg(test)]
mod planted {
    use super::super::sources::House;
    use super::forbidden;

    /// What is found in one file of a room, with another file in most rooms that it might name.
    fn found(path: &str, text: &str) -> Vec<String> {
        let house = House::planted(&[
            (path, text),
            ("src/lib.rs", "pub mod engine; pub mod io;"),
            ("src/engine/mod.rs", "pub mod passes;"),
            ("src/engine/passes/mod.rs", "pub mod plan;"),
            ("src/engine/passes/plan.rs", "pub struct Plan;"),
            ("src/io/mod.rs", "pub mod text;"),
            ("src/io/text.rs", "pub struct Text;"),
            ("src/kernels/mod.rs", "pub mod gram;"),
            ("src/settings/mod.rs", ""),
        ]);
        forbidden(&house).into_iter().map(|violation| violation.to_string()).collect()
    }

    #[track_caller]
    fn is_forbidden(path: &str, text: &str, expected: &str) {
        let found = found(path, text);
        assert!(found.iter().any(|line| line.contains(expected)), "{found:?}");
    }

    #[track_caller]
    fn is_allowed(path: &str, text: &str) {
        assert_eq!(found(path, text), [""; 0]);
    }

    #[test]
    fn the_hole_behind_the_first_cfg_test_is_closed() {
        let text = "//! Codecs.\n#[cfg(test)]\nmod trial;\nuse crate::round::fault::Fault;\n";
        is_forbidden("src/codecs/mod.rs", text, "src/codecs/mod.rs:4: `codecs` names `round`");
    }

    #[test]
    fn the_hole_of_one_word_behind_crate_is_closed() {
        let text = "use crate::{round::fault::Fault, io::text};";
        is_forbidden("src/codecs/half.rs", text, "`codecs` names `round`");
        is_forbidden("src/codecs/half.rs", text, "`codecs` names `io`");
        is_forbidden("src/codecs/half.rs", "use crate::{kernels::gram, model::{a, b::{self}}, io};", "`io`");
        is_allowed("src/codecs/half.rs", "use crate::{kernels::{gram, self}, model::dtype as kind};");
    }

    #[test]
    fn super_self_and_the_name_of_the_crate_lead_out_of_a_room() {
        is_forbidden("src/codecs/ecsq/mod.rs", "use super::super::io::text;", "`codecs` names `io`");
        is_forbidden("src/codecs/half.rs", "use fedmill::io;", "`codecs` names `io`");
        is_forbidden("src/codecs/half.rs", "use ::fedmill::io;", "`codecs` names `io`");
        is_forbidden(
            "src/codecs/half.rs",
            "mod inner { use super::super::super::io::text; }",
            "`codecs` names `io`",
        );
        is_allowed("src/codecs/half.rs", "mod inner { use super::super::super::codecs::text; }");
        is_allowed("src/codecs/half.rs", "use self::io::text; mod io {}");
    }

    #[test]
    fn renames_and_globs_hide_nothing() {
        is_forbidden("src/codecs/half.rs", "use crate::io as disk;", "`codecs` names `io`");
        is_forbidden("src/codecs/half.rs", "use crate::io::*;", "`codecs` names `io`");
        is_forbidden(
            "src/rules/mean.rs",
            "use crate::engine as e; fn f(_: e::passes::plan::Plan) {}",
            "`passes`",
        );
        is_forbidden(
            "src/rules/mean.rs",
            "extern crate self as f; fn g() { f::io::text::h(); }",
            "`rules` names `io`",
        );
        is_forbidden("src/rules/mean.rs", "use crate::*; fn g() { io::text::h(); }", "`rules` names `io`");
        is_forbidden(
            "src/rules/mean.rs",
            "use crate::engine::*; fn g() { passes::h(); }",
            "`rules` names `passes`",
        );
        is_allowed("src/rules/mean.rs", "use crate::settings as io; fn f(_: io::Share) {}");
    }

    #[test]
    fn a_re_export_does_not_launder_a_room() {
        let house = House::planted(&[
            ("src/kernels/mod.rs", "pub use crate::io::text::Text;"),
            ("src/io/mod.rs", "pub mod text;"),
            ("src/io/text.rs", "pub struct Text;"),
            ("src/rules/mean.rs", "fn f(_: crate::settings::Disk) {}"),
            ("src/settings/mod.rs", "pub use crate::io::text::Text as Disk;"),
        ]);
        let found: Vec<String> =
            forbidden(&house).into_iter().map(|violation| violation.to_string()).collect();
        assert!(
            found.iter().any(|line| line.starts_with("src/rules/mean.rs:1: `rules` names `io`")),
            "{found:?}"
        );
    }

    #[test]
    fn paths_inside_code_count() {
        is_forbidden(
            "src/codecs/half.rs",
            "fn f() { let x = 1;\n crate::io::text::read(x); }",
            "half.rs:2: ",
        );
        is_forbidden("src/codecs/half.rs", "fn f<T: crate::io::Read>() {}", "`codecs` names `io`");
        is_forbidden("src/codecs/half.rs", "impl crate::io::Read for X {}", "`codecs` names `io`");
        is_forbidden(
            "src/codecs/half.rs",
            "struct X { a: Vec<Option<crate::io::Text>> }",
            "`codecs` names `io`",
        );
        is_forbidden("src/codecs/half.rs", "#[derive(crate::io::Text)] struct X;", "`codecs` names `io`");
        is_forbidden(
            "src/codecs/half.rs",
            "#[serde(with = \"crate::io::text\")] struct X;",
            "`codecs` names `io`",
        );
        is_forbidden("src/codecs/half.rs", "pub(in crate::io) struct X;", "`codecs` names `io`");
    }

    #[test]
    fn tokens_of_macros_count() {
        is_forbidden("src/codecs/half.rs", "fn f() { println!(\"{}\", crate::io::text::NAME); }", "`io`");
        is_forbidden(
            "src/codecs/half.rs",
            "macro_rules! m { () => { use $crate::{model, io::text}; } }",
            "`io`",
        );
        is_allowed("src/codecs/half.rs", "fn f() { println!(\"crate::io::text {}\", crate::model::NAME); }");
    }

    #[test]
    fn tests_and_documentation_do_not_count() {
        let text = "//! See [`crate::io`].\n/// As [text](crate::io::text).\n// crate::io\nfn f() {}\n\
                    #[cfg(test)]\nmod tests { use crate::io::text; }\n#[cfg(all(test, unix))]\nuse crate::io;";
        is_allowed("src/codecs/half.rs", text);
        is_forbidden("src/codecs/half.rs", "#[cfg(not(test))]\nuse crate::io;", "`codecs` names `io`");
        is_forbidden("src/codecs/half.rs", "#[cfg(any(test, unix))]\nuse crate::io;", "`codecs` names `io`");
    }

    #[test]
    fn parts_under_cfg_test_are_skipped_and_what_follows_is_not() {
        let text = "fn f() {\n #[cfg(test)]\n crate::io::count();\n crate::model::a();\n}\n\
                    impl X { #[cfg(test)] fn g() { crate::io::h(); } }\n\
                    struct S { #[cfg(test)] field: crate::io::Text }";
        is_allowed("src/codecs/half.rs", text);
        is_forbidden("src/codecs/half.rs", &format!("{text}\nuse crate::io;"), "half.rs:8: ");
    }

    #[test]
    fn modes_know_no_mode_and_nothing_below_knows_one() {
        is_forbidden("src/modes/tiers/mode.rs", "use crate::modes::tree::X;", "no mode knows another");
        is_forbidden("src/modes/tiers/mode.rs", "use super::super::tree::X;", "no mode knows another");
        is_forbidden(
            "src/engine/intake/admit.rs",
            "use crate::modes::dp::Options;",
            "nothing in or below `aggregate`",
        );
        is_forbidden(
            "src/engine/aggregate/run.rs",
            "use crate::modes::dp::Options;",
            "nothing in or below `aggregate`",
        );
        is_allowed(
            "src/modes/tiers/mode.rs",
            "use crate::engine::passes::plan::Plan; use super::file::Tiers;",
        );
        is_allowed("src/round/run.rs", "use crate::modes::dp::Options;");
    }

    #[test]
    fn a_room_that_the_table_lacks_is_found() {
        is_forbidden(
            "src/codecs/half.rs",
            "use crate::gone::X;",
            "`gone` in `crate::gone::X`: is no room of the table",
        );
    }
}
