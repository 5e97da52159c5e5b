//! The architecture of the source: each rule is a test, which prints everything that breaks it.
//!
//! - `rooms`: the rooms, the groups they stand in, the table of arrows between them, and what holds for the table.
//! - `arrows`: every path of the program against that table.
//! - `purity`: who may use files, threads, clocks and unsafe code.
//! - `circles`: files of a room that name each other.
//! - `impls`: methods stand with their type.
//! - `sizes`: lines, fields and files; prints the table of rooms.
//! - `names`: each type of the engine and the modes has a name that no other has.
//! - `maps`: what `lib.rs`, the heads of rooms and `tests/main.rs` name.
//! - `prose`: the first line of a file, and words to avoid.
//!
//! What they share: `sources` reads files, `syntax` and `tokens` what stands in one; `resolve` follows paths to files,
//! `graph` finds circles, `report` says how failures read.
//!
//! Every check also runs on sources that a test plants: some break the rule, some keep it.
//!
//! `cargo test --test integration architecture` runs all. The table of rooms is printed by
//! `cargo test --test integration rooms_are_small -- --nocapture`.

mod arrows;
mod circles;
mod graph;
mod impls;
mod maps;
mod names;
mod prose;
mod purity;
mod report;
mod resolve;
mod rooms;
mod sizes;
mod sources;
mod syntax;
mod tokens;

use sources::House;
use std::sync::LazyLock;

/// The sources of the crate, read once for all tests.
fn house() -> &'static House {
    static HOUSE: LazyLock<House> = LazyLock::new(House::from_disk);
    &HOUSE
}
