//! The script behind `just private-rounds`: ten rounds with real noise, and one that is refused.

use crate::harness::{Dir, fedmill, program, source_tree};
use std::process::Command;

#[test]
fn private_rounds_from_the_shell() {
    let Some(root) = source_tree() else { return };
    let dir = Dir::new();
    let script = root.join("data/mnist-round/private_rounds.sh");
    let output = Command::new("bash").arg(script).arg(program()).arg(dir.path("rounds")).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let complained = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}{complained}");
    assert_eq!(complained.matches("refused: over the privacy budget").count(), 1, "{complained}");
    let spent: Vec<f64> =
        said.lines().filter_map(|line| line.trim().strip_prefix("spent ")?.trim().parse().ok()).collect();
    assert_eq!(spent.len(), 10, "{said}");
    assert!(spent.windows(2).all(|pair| pair[0] < pair[1]), "{spent:?}");
    assert!(spent[9] <= 8.0 && spent[9] > 7.9, "{spent:?}: the rest does not hold another round");
    assert!(said.contains("10 charged, 0 left; 10 were planned"), "{said}");
    assert!(said.contains("round 11 was refused: the budget is spent"), "{said}");
    assert!(!said.contains("FAULT") && !said.contains("NOT PRIVATE"), "{said}");
    assert_eq!(said.matches("matches the release of charge").count(), 10, "{said}");
    assert!(!dir.exists("rounds/round-11.safetensors"));
    let status = fedmill(&dir, &["privacy", "status", "rounds/dp", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert!(status["epsilon_spent"].as_f64().unwrap() <= status["epsilon_budget"].as_f64().unwrap());
    assert_eq!(status["private"], true);
}
