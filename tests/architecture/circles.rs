//! Circles of files that name each other.
//!
//! A file has an arrow to each file of the program that defines what it names, behind re-exports as far as
//! `resolve` follows them. A path that ends at a module names nothing in it: `use crate::rules;` counts by what is
//! then named through it, a glob counts as the module. A `mod` declaration is no arrow. Neither is a re-export: it is
//! followed from the files that use it, and counts where its file uses the name too. No circle crosses rooms, since the
//! table of arrows has none (`rooms`).

use super::graph::circles;
use super::report::{Exception, Rule, Violation, without_exceptions};
use super::resolve::{Place, Tree};
use super::sources::{File, House};
use super::syntax::Name;
use std::collections::BTreeMap;

/// Files that one circle inside a room may have.
const LIMIT: usize = 4;

/// Files that list the others of their room, which name them back. Circles are looked for without them. The list may
/// only shrink.
const REGISTRIES: &[Exception] = &[
    Exception { what: "src/cli/mod.rs", why: "lists the subcommands, which name the common options" },
    Exception { what: "src/rules/mod.rs", why: "lists every rule; rules name the trait and the statistics" },
    Exception { what: "src/rules/pre/mod.rs", why: "lists every step before a rule; steps name the trait" },
    Exception { what: "src/strategies/mod.rs", why: "lists every strategy; strategies name the trait" },
    Exception {
        what: "src/codecs/coding.rs",
        why: "lists how values are packed, for codecs that pack values",
    },
    Exception {
        what: "src/kernels/lanes.rs",
        why: "lists the vector operations; kernels name and extend them",
    },
];

const RULE: Rule = Rule {
    says: "no circle of files that name each other has more than 4 files, registries left out",
    instead: "move what both sides need to a file below both, or turn one arrow into an argument or a trait",
};

/// The arrows of a house: for each pair of files the line of the first path that makes it.
type Arrows = BTreeMap<(usize, usize), usize>;

fn arrows(house: &House) -> Arrows {
    let tree = Tree::new(house);
    let mut found = Arrows::new();
    for (from, file) in house.files.iter().enumerate().filter(|(_, file)| !file.is_test) {
        let imports = file.syntax.imports.iter().filter(|import| !import.re_export);
        for name in file.syntax.names.iter().chain(imports.map(|import| &import.target)) {
            for to in files_named(&tree, name).into_iter().filter(|to| *to != from) {
                let first = found.entry((from, to)).or_insert(name.line);
                *first = name.line.min(*first);
            }
        }
    }
    found
}

/// The files that define what a path names.
fn files_named(tree: &Tree, name: &Name) -> Vec<usize> {
    let modules = tree.resolve(name).into_iter().filter_map(|place| match place {
        Place::Outside(_) => None,
        Place::Module(path) => name.glob.then_some(path),
        Place::Item { path, module } => Some(path[..module].to_vec()),
    });
    modules.filter_map(|module| tree.file(&module)).collect()
}

/// Circles of at least two files, without the files that `left_out` names.
fn circles_without(house: &House, arrows: &Arrows, left_out: &dyn Fn(&File) -> bool) -> Vec<Vec<usize>> {
    let mut behind = vec![Vec::new(); house.files.len()];
    for (from, to) in
        arrows.keys().filter(|(from, to)| ![from, to].iter().any(|at| left_out(&house.files[**at])))
    {
        behind[*from].push(*to);
    }
    circles(&behind)
}

/// A circle as a violation, with all its arrows.
fn describe(house: &House, arrows: &Arrows, circle: &[usize], what: &str) -> Violation {
    let inside = arrows.iter().filter(|((from, to), _)| circle.contains(from) && circle.contains(to));
    let lines: String = inside
        .map(|((from, to), line)| {
            format!("\n      {}:{line} names {}", house.files[*from].path, house.files[*to].path)
        })
        .collect();
    Violation::new(&house.files[circle[0]].path, 1, format!("{what} of {} files:{lines}", circle.len()))
}

fn inside_rooms(house: &House, registries: &[Exception]) -> Vec<Violation> {
    let arrows = arrows(house);
    let large = |circle: &Vec<usize>| circle.len() > LIMIT;
    let is_registry = |file: &File| registries.iter().any(|registry| registry.what == file.path);
    let rest = circles_without(house, &arrows, &is_registry).into_iter().filter(large);
    let mut found: Vec<Violation> =
        rest.map(|circle| describe(house, &arrows, &circle, "a circle")).collect();
    // A registry stays listed while it stands in a circle that is too large without its entry.
    let needed: Vec<(String, Violation)> = registries
        .iter()
        .filter(|registry| {
            let others = |file: &File| is_registry(file) && file.path != registry.what;
            let with_it = circles_without(house, &arrows, &others).into_iter().filter(large);
            with_it.flatten().any(|at| house.files[at].path == registry.what)
        })
        .map(|registry| (registry.what.to_owned(), Violation::new(registry.what, 1, registry.why)))
        .collect();
    found.extend(without_exceptions(needed, registries, "REGISTRIES in tests/architecture/circles.rs"));
    found
}

#[test]
fn circles_inside_rooms_are_small() {
    RULE.holds(|house| inside_rooms(house, REGISTRIES));
}

/// A ring of files in one room, each of which names the next.
fn ring(files: usize) -> House {
    let paths: Vec<String> = (0..files).map(|n| format!("src/rules/f{n}.rs")).collect();
    let text = |n: usize| format!("use super::f{}::X; pub struct X;", (n + 1) % files);
    let texts: Vec<String> = (0..files).map(text).collect();
    let planted = paths.iter().map(String::as_str).zip(texts.iter().map(String::as_str));
    House::planted(&planted.collect::<Vec<_>>())
}

#[test]
fn a_use_of_a_module_alone_is_no_arrow_and_a_glob_is() {
    let arrows_of = |text: &str| {
        let files = [("src/rules/mean.rs", text), ("src/rules/rank.rs", "pub fn f() {}")];
        arrows(&House::planted(&files)).into_iter().collect::<Vec<_>>()
    };
    assert_eq!(arrows_of("use super::rank;"), []);
    assert_eq!(arrows_of("use super::rank;\nfn g() { rank::f(); }"), [((0, 1), 2)]);
    assert_eq!(arrows_of("\nuse super::rank::*;"), [((0, 1), 2)]);
}

#[test]
fn a_circle_of_five_files_is_found_unless_a_registry_opens_it() {
    assert_eq!(inside_rooms(&ring(4), &[]), []);
    assert_eq!(inside_rooms(&ring(5), &[]).len(), 1);
    let registry = [Exception { what: "src/rules/f0.rs", why: "lists the rules" }];
    assert_eq!(inside_rooms(&ring(5), &registry), []);
    let stale = inside_rooms(&ring(4), &registry);
    assert!(stale[0].found.contains("delete its exception"), "{}", stale[0]);
}

#[test]
fn a_re_export_is_followed_and_closes_no_circle_by_itself() {
    let found = |head: &str| {
        let child = "use super::Rule; pub struct X;";
        let children = ["a", "b", "c", "d"].map(|name| (format!("src/rules/{name}.rs"), child));
        let children = children.iter().map(|(path, text)| (path.as_str(), *text));
        let files: Vec<_> = [("src/rules/mod.rs", head)].into_iter().chain(children).collect();
        inside_rooms(&House::planted(&files), &[]).len()
    };
    let head =
        "mod a; mod b; mod c; mod d; pub use {a::X, b::X as B, c::X as C, d::X as D}; pub trait Rule {}";
    assert_eq!(found(head), 0);
    assert_eq!(found(&format!("{head} fn all(_: X, _: B, _: C, _: D) {{}}")), 1);
}
