//! Where the methods of a type may stand: in the file that defines it, or in the folder below.
//!
//! Blocks `impl Trait for T` are free. Blocks that a macro writes are not seen.

use super::report::{Rule, Violation, texts};
use super::resolve::{Place, Tree};
use super::sources::{File, House};

const RULE: Rule = Rule {
    says: "`impl T` stands in the file that defines `T`, or in a file of the folder below it",
    instead: "move the methods to the type, or write a function or a trait where they are needed",
};

fn astray(house: &House) -> Vec<Violation> {
    let tree = Tree::new(house);
    let mut found = Vec::new();
    for file in house.program() {
        for kind in &file.syntax.inherent {
            let homes = tree.resolve(kind).into_iter().filter_map(|place| match place {
                Place::Item { path, module } => tree.file(&path[..module]).map(|file| &house.files[file]),
                _ => None,
            });
            let homes: Vec<&File> = homes.collect();
            if !homes.iter().any(|home| is_home(home, file)) {
                let home = homes.first().map_or("a file that no path here names", |home| &home.path);
                let text = format!("`impl {}`, which {home} defines", kind.segments.join("::"));
                found.push(Violation::new(&file.path, kind.line, text));
            }
        }
    }
    found
}

/// Whether a type's methods may stand in a file.
fn is_home(defined: &File, file: &File) -> bool {
    defined.path == file.path || file.path.starts_with(&format!("{}/", defined.folder()))
}

#[test]
fn methods_stand_with_their_type() {
    RULE.holds(astray);
}

/// What is found in a file of a room that defines `Session` in one file and `Target` in its head.
fn found(path: &str, text: &str) -> Vec<String> {
    let house = House::planted(&[
        ("src/engine/mod.rs", "pub mod aggregate;"),
        ("src/engine/aggregate/mod.rs", "pub mod session; pub use session::Session; pub struct Target;"),
        ("src/engine/aggregate/session.rs", "pub struct Session<T>(T); impl<T> Session<T> { fn open() {} }"),
        (path, text),
    ]);
    texts(&astray(&house))
}

#[test]
fn methods_in_a_file_beside_the_type_are_found() {
    for text in [
        "use super::session::Session;\nimpl Session<u8> {}",
        "use super::Session as Other;\nimpl<T> Other<T> {}",
        "\nimpl crate::engine::aggregate::session::Session<u8> {}",
        "use super::*;\nimpl<T> Session<T> {}",
        "\nfn f() { impl super::Session<u8> {} }",
    ] {
        let found = found("src/engine/aggregate/publish.rs", text);
        assert_eq!(found.len(), 1, "{text}");
        assert!(found[0].contains("publish.rs:2: `impl"), "{found:?}");
        assert!(found[0].contains("src/engine/aggregate/session.rs defines"), "{found:?}");
    }
}

#[test]
fn methods_below_the_type_traits_and_tests_are_free() {
    for (path, text) in [
        ("src/engine/aggregate/session/open.rs", "use super::Session; impl<T> Session<T> {}"),
        ("src/engine/aggregate/run.rs", "use super::Target; impl Target {}"),
        ("src/engine/aggregate/publish.rs", "use super::Session; impl<T> Drop for Session<T> {}"),
        ("src/engine/aggregate/publish.rs", "use super::Session; #[cfg(test)] impl Session<u8> {}"),
        ("src/gpu/ring.rs", "mod inner { pub struct A; impl A {} } enum B {} impl B {}"),
        ("src/gpu/ring.rs", "trait A {} impl dyn A + '_ {}"),
        ("src/engine/aggregate/session.rs", "pub struct Session; pub mod Session {} impl Session {}"),
    ] {
        assert_eq!(found(path, text), [""; 0], "{text}");
    }
}
