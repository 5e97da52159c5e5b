//! `fedmill doctor`: its list of adapters, tests and advice.

use crate::harness::{Dir, Run, fedmill, fedmill_after};
use fedmill::gpu::selftest::device_kernels;
use serde_json::Value;

/// Hides every driver.
const NO_DRIVER: &str = "export VK_DRIVER_FILES=/no/such/manifest.json";

#[track_caller]
fn json(run: &Run) -> Value {
    assert_eq!(run.stdout.lines().count(), 1, "{run:#?}");
    serde_json::from_str(&run.stdout).unwrap()
}

#[test]
fn doctor_shows_the_processor_and_every_adapter() {
    let run = fedmill(&Dir::new(), &["doctor", "--threads", "2"]);
    for part in ["processor\n", "  threads          2\n", "  instruction set  "] {
        assert!(run.stdout.contains(part), "no `{part}` in: {}", run.stdout);
    }
    for adapter in fedmill::gpu::adapters() {
        let heading = format!("adapter {}\n  kind             {}\n", adapter.name, adapter.kind);
        assert!(run.stdout.contains(&heading) && run.stdout.contains("  coordinate_median"), "{run:#?}");
        assert!(adapter.driver.lines().all(|line| run.stdout.contains(line)), "{run:#?}");
    }
    assert_eq!(run.code, Some(i32::from(run.stdout.contains("FAILED"))), "{run:#?}");
}

#[test]
fn doctor_tests_every_kernel_of_every_adapter() {
    let run = fedmill(&Dir::new(), &["doctor", "--json"]);
    let found = json(&run);
    assert_eq!(found["schema"], "fedmill.doctor/1");
    let adapters = found["adapters"].as_array().unwrap();
    assert_eq!(adapters.len(), fedmill::gpu::adapters().len());
    for adapter in adapters {
        assert!(adapter["limits"]["max_buffer_size"].as_u64().unwrap() > 0);
        assert!(adapter["kind"].is_string() && adapter["subgroup_sizes"].is_array());
        let tests = adapter["self_test"].as_array().unwrap();
        let tests_of = |kernel| tests.iter().filter(move |test| test["kernel"] == kernel);
        for row in device_kernels() {
            assert_eq!(tests_of(row.kernel).count(), row.cases.len(), "{} is not tested", row.kernel);
        }
        for kernel in ["weighted_sum", "coordinate_median", "trimmed_mean", "mean_near_median", "server_step"]
        {
            assert!(tests_of(kernel).count() > 0, "{kernel} is not tested");
        }
        let mixes = |test: &Value| test["case"].as_str().unwrap().contains("mixtures");
        assert!(tests_of("weighted_sum").any(mixes), "mixtures are not tested");
        for test in tests {
            assert_eq!(test["ok"] == true, test["difference"].is_null(), "{test}");
            assert!(test["milliseconds"].as_f64().unwrap() > 0.0);
        }
    }
    assert_eq!(run.code, Some(if found["ok"] == true { 0 } else { 1 }), "{run:#?}");
}

#[test]
fn doctor_without_an_adapter_says_what_is_missing() {
    let run = fedmill_after(&Dir::new(), NO_DRIVER, &["doctor"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.stdout.contains("no adapter was found: everything runs on the CPU\n"), "{run:#?}");
    let advice =
        if cfg!(feature = "gpu") { "VK_DRIVER_FILES names no existing file" } else { "`gpu` feature" };
    assert!(run.stdout.contains(advice), "{run:#?}");

    let found = json(&fedmill_after(&Dir::new(), NO_DRIVER, &["doctor", "--json"]));
    assert_eq!((&found["ok"], found["adapters"].as_array().unwrap().len()), (&Value::Bool(true), 0));
    assert!(!found["advice"].as_array().unwrap().is_empty());
}

#[test]
fn doctor_of_an_adapter_that_is_not_there_is_an_error() {
    let run = fedmill(&Dir::new(), &["doctor", "--adapter", "no such adapter"]);
    run.assert_fails(2, &["no adapter is called `no such adapter`"]);
    assert!(fedmill::gpu::adapters().iter().all(|one| run.stderr.contains(&one.name)), "{run:#?}");
}

#[test]
fn doctor_looks_at_the_adapter_that_is_named() {
    for adapter in fedmill::gpu::adapters() {
        let found = json(&fedmill(&Dir::new(), &["doctor", "--json", "--adapter", &adapter.name]));
        assert_eq!(found["adapters"][0]["name"], adapter.name.as_str());
    }
}
