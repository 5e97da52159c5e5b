//! The properties of the reader of plans for every input.
//!
//! The fuzz target, the test of its seeds and that of changed plans share them.

use fedmill::language::graph::Graph;
use fedmill::plan::read;
use fedmill::review::lint::lint;
use fedmill::review::show::{commands, picture::Picture, tree};
use std::path::Path;

/// Reads, checks and draws a text. Returns whether it is a plan.
pub(crate) fn check(file: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(file) else { return false };
    let plan = read::parse(text, Path::new("p.json"));
    let is_plan = plan.is_ok();
    match plan {
        Ok(plan) => {
            drop(lint(&plan));
            drop(commands::list(&plan));
            assert_eq!(
                Graph::of(&plan).is_ok(),
                Picture::of(&plan, None).map(|picture| tree::draw(&picture)).is_ok()
            );
            // What is written is read again as the same plan.
            let again = read::parse(&serde_json::to_string(&plan).unwrap(), Path::new("p.json")).unwrap();
            assert_eq!(read::digest(&again), read::digest(&plan), "{text}");
        }
        Err(why) => assert!(why.to_string().starts_with("p.json:"), "{why} in {text}"),
    }
    is_plan
}
