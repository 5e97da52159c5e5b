//! `fedmill privacy selftest`: its checks, and its output.

use crate::harness::{Dir, fedmill, fedmill_after};
use serde_json::Value;

#[test]
fn the_mechanism_is_checked_on_the_cpu_and_every_adapter() {
    let run = fedmill(&Dir::new(), &["privacy", "selftest", "--coordinates", "20000", "--json"]);
    assert_eq!((run.code, run.stdout.lines().count()), (Some(0), 1), "{run:#?}");
    let found: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&found["schema"], &found["ok"]), (&"fedmill.privacy-selftest/1".into(), &true.into()));
    let tests = found["self_test"].as_array().unwrap();
    let is_there = |case: &str| tests.iter().any(|test| test["case"].as_str().unwrap().starts_with(case));
    for case in ["RFC 8439", "updates that try", "moments of 20000, L2", "moments of 20000, L3"] {
        assert!(is_there(case), "{case} is not tested: {run:#?}");
    }
    for adapter in fedmill::gpu::adapters() {
        for level in ["L2", "L3"] {
            assert!(is_there(&format!("as on {}, {level}", adapter.name)), "{run:#?}");
        }
    }
    for test in tests {
        assert!(test["ok"] == true && test["difference"].is_null(), "{test}");
    }
}

#[test]
fn instruction_sets_are_compared() {
    use fedmill::kernels::lanes::Isa;
    let hidden = "export VK_DRIVER_FILES=/no/such/manifest.json";
    for isa in Isa::available() {
        let args = ["privacy", "selftest", "--coordinates", "1000", "--isa", &isa.to_string()];
        let run = fedmill_after(&Dir::new(), hidden, &args);
        assert_eq!(run.code, Some(0), "{run:#?}");
        for other in Isa::available() {
            let is_there = run.stdout.contains(&format!("as on {other}, L3"));
            assert_eq!(is_there, other != isa, "{run:#?}");
        }
        assert!(!run.stdout.contains("FAILED") && run.stdout.contains("ok"), "{run:#?}");
    }
}

#[test]
fn an_unknown_adapter_is_an_error() {
    let run = fedmill(&Dir::new(), &["privacy", "selftest", "--adapter", "no such adapter"]);
    run.assert_fails(2, &["no adapter is called `no such adapter`"]);
}
