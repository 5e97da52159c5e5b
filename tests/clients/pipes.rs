//! Tables that another program reads: each row is one line unless the width is known.

use crate::harness::{Dir, fedmill, fedmill_after};
use serde_json::json;

#[test]
fn a_row_is_one_line_in_a_pipe_and_wraps_within_the_columns_that_are_stated() {
    let dir = Dir::new();
    let long = "client-".repeat(17);
    let row =
        json!({"node_id": long, "compute_capability": 1.0, "data_size": 1.0, "connection_quality": 0.5});
    dir.write("rows.jsonl", row.to_string());
    assert_eq!(fedmill(&dir, &["clients", "import", "fed", "rows.jsonl"]).code, Some(0));
    let list = |setup: &str| {
        let run = fedmill_after(&dir, setup, &["clients", "list", "fed"]);
        assert_eq!(run.code, Some(0), "{run:#?}");
        run.stdout
    };
    let text = list("unset COLUMNS");
    assert!(text.lines().count() == 2 && text.contains(&long), "{text}");
    assert_eq!(list("export COLUMNS=wide"), text);
    let text = list("export COLUMNS=90");
    assert!(text.lines().count() > 2 && text.lines().all(|line| line.chars().count() <= 90), "{text}");
    assert_eq!(list("export COLUMNS=300").lines().count(), 2);
}
