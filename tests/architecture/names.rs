//! Names of types in the engine and the modes: each stands for one thing.

use super::report::{Rule, Violation, texts};
use super::rooms::rooms_in_group;
use super::sources::House;
use std::collections::BTreeMap;

const RULE: Rule = Rule {
    says: "no two types of the engine and the modes share a name",
    instead: "give one of them the name of what it holds (`ShardFile`, `TierMembers`)",
};

fn shared(house: &House) -> Vec<Violation> {
    let rooms: Vec<&str> = ["engine", "modes"].into_iter().flat_map(rooms_in_group).collect();
    let files = house.program().filter(|file| file.room().is_some_and(|room| rooms.contains(&room)));
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for file in files {
        for kind in file.syntax.definitions.iter().filter(|item| item.is_type) {
            places.entry(&kind.name).or_default().push(format!("{}:{}", file.path, kind.line));
        }
    }
    let shared = places.into_iter().filter(|(_, places)| places.len() > 1);
    let violation = |(name, places): (&str, Vec<String>)| Violation {
        found: format!("`{name}`, also at {}", places[1..].join(", ")),
        place: places[0].clone(),
    };
    shared.map(violation).collect()
}

#[test]
fn no_two_types_of_engine_and_modes_share_a_name() {
    RULE.holds(shared);
}

/// The places of shared names in three files.
fn found(passes: &str, dp: &str, gpu: &str) -> Vec<String> {
    let files =
        [("src/engine/passes/plan.rs", passes), ("src/modes/dp/noise.rs", dp), ("src/gpu/slot.rs", gpu)];
    texts(&shared(&House::planted(&files)))
}

#[test]
fn a_shared_name_is_found_with_its_places() {
    let expected = ["src/engine/passes/plan.rs:2: `Slot`, also at src/modes/dp/noise.rs:1"];
    assert_eq!(found("\nstruct Slot;", "mod inner { pub enum Slot {} }", ""), expected);
    assert_eq!(found("trait Rows {}", "type Rows = u8;", "").len(), 1);
}

#[test]
fn other_rooms_tests_functions_and_associated_types_are_free() {
    let dp = "fn slots() {} impl B for C { type Part = u8; } #[cfg(test)] struct Slot;";
    let free = found("struct Slot; fn slots() {} trait A { type Part; }", dp, "struct Slot;");
    assert_eq!(free, [""; 0]);
}
