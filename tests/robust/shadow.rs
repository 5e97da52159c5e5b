//! Shadow rules: the report has the clients that they would keep, and the merge does not change.

use super::{Merged, Round, merge_against, write_round};
use serde_json::Value;

fn round() -> Round {
    let value = |i: usize, j: usize| (i as f32 * 1.7 + j as f32 * 0.9).sin();
    (0..11).map(|i| (0..9).map(|j| value(i, j) * if i == 4 { 1e3 } else { 1.0 }).collect()).collect()
}

fn shadow<'a>(merged: &'a Merged, rule: &str) -> &'a Value {
    let all = merged.report["shadow"].as_array().unwrap();
    all.iter().find(|shadow| shadow["rule"] == rule).unwrap_or_else(|| panic!("no {rule} in {all:?}"))
}

#[test]
fn a_shadow_keeps_whom_the_rule_keeps() {
    let dir = write_round(&round());
    let rules = ["krum", "multi-krum", "bulyan", "mda", "smea", "monna:trusted=client-01", "median"];
    let plain = merge_against(&dir, "median", 2, &[]);
    let model = dir.read("merged.safetensors");
    let shaded = merge_against(&dir, "median", 2, &["--shadow-rules", &rules.join(",")]);
    assert!(dir.read("merged.safetensors") == model, "asking other rules shows");
    assert_eq!(shaded.kept(), plain.kept());
    for rule in rules {
        let shadowed = shadow(&shaded, rule);
        let kept: Vec<&str> =
            shadowed["kept"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
        assert_eq!(kept, merge_against(&dir, rule, 2, &[]).kept_ids(), "{rule}");
        assert!(shadowed["error"].is_null(), "{shadowed}");
    }
}

/// A rule that cannot run gives a reason, and the merge goes on.
#[test]
fn a_shadow_that_cannot_decide_says_why() {
    let dir = write_round(&round());
    let merged = merge_against(&dir, "median", 5, &["--shadow-rules", "krum,median,bulyan"]);
    for (rule, most) in [("krum", 4), ("bulyan", 2)] {
        let error = shadow(&merged, rule)["error"].as_str().unwrap();
        assert!(error.contains(&format!("tolerates at most {most}")), "{error}");
    }
    assert!(shadow(&merged, "median")["error"].is_null());
    let order: Vec<&str> =
        merged.report["shadow"].as_array().unwrap().iter().map(|s| s["rule"].as_str().unwrap()).collect();
    assert_eq!(order, ["krum", "median", "bulyan"]);
}
