//! The arrows between rooms, read off every path of the program.
//!
//! Paths stand in `use` trees, types, expressions, macros and attributes.
//!
//! A path names the room that it writes out and the room that holds what it means behind re-exports. Documentation
//! names no room. A value whose type another room defines can be used without its name, and a type alias counts as its
//! room's. No check here sees behind these.

use super::report::{Rule, Violation, texts};
use super::resolve::{Place, Tree, as_written};
use super::rooms::{ARROWS, allowed, room_of};
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
    let mut found = Vec::new();
    for file in house.program() {
        let Some(room) = file.room() else { continue };
        let may_use = allowed(ARROWS, room);
        for name in names(file) {
            for used in rooms_named(&tree, name) {
                if used != room && !may_use.contains(used.as_str()) {
                    let text = format!("`{room}` names `{used}` in `{}`", name.segments.join("::"));
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

#[test]
fn every_arrow_is_in_the_table() {
    RULE.holds(forbidden);
}

/// What is found in a file of a room, below `src/`. Other files are there that it may name.
fn found(path: &str, text: &str) -> Vec<String> {
    let path = format!("src/{path}");
    let house = House::planted(&[
        (&path, text),
        ("src/lib.rs", "pub mod engine; pub mod io; pub mod settings;"),
        ("src/engine/mod.rs", "pub mod passes;"),
        ("src/engine/passes/mod.rs", "pub mod plan;"),
        ("src/engine/passes/plan.rs", "pub struct Plan;"),
        ("src/io/mod.rs", "pub mod text;"),
        ("src/io/text.rs", "pub struct Text;"),
        ("src/settings/mod.rs", "pub use crate::io::text::Text as Disk; pub struct Share;"),
    ]);
    texts(&forbidden(&house)).into_iter().filter(|line| line.starts_with(&path)).collect()
}

/// Files that break the rule: the path below `src/`, the text, and what the violation says.
const FORBIDDEN: &str = r#"
    What stands behind a test item counts.
codecs/mod.rs: #[cfg(test)] mod trial; use crate::round::fault::Fault; => `codecs` names `round`
codecs/half.rs: #[cfg(test)] mod tests { } fn f() { crate::io::g(); } => `codecs` names `io`
codecs/half.rs: fn f() { #[cfg(test)] a(); crate::io::g(); } => `codecs` names `io`
codecs/half.rs: #[cfg(not(test))] use crate::io; => `codecs` names `io`
codecs/half.rs: #[cfg(any(test, unix))] use crate::io; => `codecs` names `io`
codecs/half.rs: #[cfg(feature = "test")] use crate::io; => `codecs` names `io`
    A `use` tree has many leaves.
codecs/half.rs: use crate::{round::fault::Fault, io::text}; => `codecs` names `round`
codecs/half.rs: use crate::{round::fault::Fault, io::text}; => `codecs` names `io`
codecs/half.rs: use crate::{kernels::gram, model::{a, b::{self}}, io}; => `codecs` names `io`
codecs/half.rs: use {crate::model, {crate::io::text}}; => `codecs` names `io`
    `super`, `self`, the name of the crate and raw names lead out of a room.
codecs/ecsq/mod.rs: use super::super::io::text; => `codecs` names `io`
codecs/half.rs: mod inner { use super::super::super::io::text; } => `codecs` names `io`
codecs/half.rs: use self::super::super::io::text; => `codecs` names `io`
codecs/half.rs: use fedmill::io; => `codecs` names `io`
codecs/half.rs: use ::fedmill::io; => `codecs` names `io`
codecs/half.rs: use crate::r#io::text; => `codecs` names `io`
    Renames, globs and re-exports hide nothing.
codecs/half.rs: use crate::io as disk; => `codecs` names `io`
codecs/half.rs: use crate::io::*; => `codecs` names `io`
codecs/half.rs: use crate::io::Read as _; => `codecs` names `io`
rules/mean.rs: use crate::engine as e; fn f(_: e::passes::plan::Plan) {} => `rules` names `passes`
rules/mean.rs: extern crate self as f; fn g() { f::io::text::h(); } => `rules` names `io`
rules/mean.rs: use crate::*; fn g() { io::text::h(); } => `rules` names `io`
rules/mean.rs: use super::super::*; fn g() { io::text::h(); } => `rules` names `io`
rules/mean.rs: use crate::engine::*; fn g() { passes::h(); } => `rules` names `passes`
rules/mean.rs: fn f(_: crate::settings::Disk) {} => `rules` names `io`
rules/mean.rs: use crate::settings::*; fn f(_: Disk) {} => `rules` names `io`
    Paths stand in code, types, attributes and macros.
codecs/half.rs: fn f() { let x = 1; crate::io::text::read(x); } => `codecs` names `io`
codecs/half.rs: fn f<T: crate::io::Read>() {} => `codecs` names `io`
codecs/half.rs: fn f() { <T as crate::io::Read>::g(); } => `codecs` names `io`
codecs/half.rs: impl crate::io::Read for X {} => `codecs` names `io`
codecs/half.rs: struct X { a: Vec<Option<crate::io::Text>> } => `codecs` names `io`
codecs/half.rs: #[derive(crate::io::Text)] struct X; => `codecs` names `io`
codecs/half.rs: #[serde(with = "crate::io::text")] struct X; => `codecs` names `io`
codecs/half.rs: pub(in crate::io) struct X; => `codecs` names `io`
codecs/half.rs: fn f() { println!("{}", crate::io::text::NAME); } => `codecs` names `io`
codecs/half.rs: macro_rules! m { () => { use $crate::{model, io::text}; } } => `codecs` names `io`
codecs/half.rs: m! { use crate::io::{self as disk, text}; } => `codecs` names `io`
codecs/half.rs: m! { x => [crate::model::A, vec![f::<u8>(&super::super::io::B)]] } => `codecs` names `io`
codecs/half.rs: m! { use crate::{a as b, *, io::*}; } => `codecs` names `io`
    Modes know no mode, and nothing below knows one.
modes/tiers/mode.rs: use crate::modes::tree::X; => `tiers` names `tree`
modes/tiers/mode.rs: use super::super::tree::X; => `tiers` names `tree`
engine/intake/admit.rs: use crate::modes::dp::Options; => `intake` names `dp`
engine/aggregate/run.rs: use crate::modes::dp::Options; => `aggregate` names `dp`
codecs/half.rs: use crate::gone::X; => `codecs` names `gone`
"#;

/// Files that keep the rule.
const ALLOWED: &str = r#"
codecs/half.rs: use crate::{kernels::{gram, self}, model::dtype as kind};
codecs/half.rs: mod inner { use super::super::super::codecs::text; }
codecs/half.rs: use half; use super::X; pub use self::Y; fn f(_: half::f16, _: X, _: Y) {}
codecs/half.rs: m! { a::<crate::model::D>(b : : io, ::io::text()) }
codecs/half.rs: use self::io::text; mod io {}
codecs/half.rs: fn f() { println!("io: {}", crate::model::NAME); } // crate::io::g()
codecs/half.rs: #[doc = "See crate::io."] fn f() {} #[cfg(all(test, unix))] use crate::io;
codecs/half.rs: impl X { #[cfg(test)] fn g() { crate::io::h(); } }
codecs/half.rs: fn f() { #[cfg(test)] use crate::io; }
rules/mean.rs: use crate::settings as io; fn f(_: io::Share) {}
modes/tiers/mode.rs: use crate::engine::passes::plan::Plan; use super::file::Tiers;
round/run.rs: use crate::modes::dp::Options;
"#;

#[test]
fn every_way_to_name_a_room_is_found() {
    for case in FORBIDDEN.lines().filter(|line| line.contains(" => ")) {
        let (file, says) = case.rsplit_once(" => ").unwrap();
        let (path, text) = file.split_once(": ").unwrap();
        let found = found(path, text);
        assert!(found.iter().any(|line| line.contains(says)), "{case}: {found:?}");
    }
}

#[test]
fn what_the_table_allows_is_free() {
    for case in ALLOWED.lines().filter(|line| !line.is_empty()) {
        let (path, text) = case.split_once(": ").unwrap();
        assert_eq!(found(path, text), [""; 0], "{case}");
    }
}

#[test]
fn a_violation_has_its_line() {
    let text = "//! Half.\n#[cfg(test)]\nmod tests {\n}\n\nuse crate::io;\n";
    let expected = "src/codecs/half.rs:6: `codecs` names `io` in `crate::io`";
    assert_eq!(found("codecs/half.rs", text), [expected]);
}
