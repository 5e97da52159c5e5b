//! Tables for people fit a terminal, whatever clients state of themselves.

use crate::harness::{COLUMNS, Dir, fedmill};

#[test]
fn no_row_is_wider_than_a_terminal() {
    let dir = Dir::new();
    let rows = [
        ("site-1".to_owned(), "high".to_owned(), 2.5, 12000.0),
        (
            "hospital-of-the-northern-region-with-a-long-name-0001".to_owned(),
            "n".repeat(60),
            1.123456789,
            1e15,
        ),
        ("x".repeat(200), "workstations-of-the-laboratory".to_owned(), 1e-300, 1e300),
    ];
    let row = |(id, tier, speed, data): &(String, String, f64, f64)| {
        format!(
            "{{\"node_id\":\"{id}\",\"tier\":\"{tier}\",\"compute_capability\":{speed:e},\"memory\":{data:e},\
             \"data_size\":{data:e},\"connection_quality\":0.123456789,\"last_update\":1700000000,\
             \"retired_at\":null}}\n"
        )
    };
    dir.write("rows.jsonl", rows.iter().map(row).collect::<String>());
    let import = fedmill(&dir, &["clients", "import", "fed", "rows.jsonl"]);
    assert_eq!(import.code, Some(0), "{import:#?}");
    let select = |strategy: &'static str| {
        ["clients", "select", "fed", "--count", "3", "--round", "1", "--seed", "1", "--strategy", strategy]
            .to_vec()
    };
    let mut commands = vec![vec!["clients", "list", "fed"]];
    commands.extend(["weighted", "uniform", "oort", "power-of-choice", "poisson:rate=1"].map(select));
    for command in commands {
        let run = fedmill(&dir, &command);
        assert_eq!(run.code, Some(0), "{command:?}: {run:#?}");
        assert!(run.stdout.lines().count() > 3, "{command:?}: {}", run.stdout);
        for line in run.stdout.lines() {
            assert!(line.chars().count() <= COLUMNS, "{command:?}: {line}");
        }
    }
}
