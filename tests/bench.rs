//! `fedmill bench`: its results, output and pictures. No test compares times.

use crate::harness::{Dir, Run, fedmill, fedmill_after};
use serde_json::Value;

/// The options for a few small cases, which take a moment.
const SMALL: [&str; 10] =
    ["--clients", "3,5", "--parameters", "2k", "--samples", "4", "--warm-up", "1", "--dir", "."];

fn bench(dir: &Dir, args: &[&str]) -> Run {
    fedmill(dir, &[&["bench"], &SMALL[..], args].concat())
}

#[test]
fn a_missing_gpu_that_was_asked_for_is_an_error() {
    let dir = Dir::new();
    let hidden = "export VK_DRIVER_FILES=/nonexistent.json VK_ICD_FILENAMES=/nonexistent.json";
    let run = fedmill_after(&dir, hidden, &[&["bench", "--backend", "gpu"], &SMALL[..]].concat());
    run.assert_fails(2, &["no GPU was found"]);
}

/// The results of a run that succeeds and leaves only `files`.
#[track_caller]
fn results(dir: &Dir, args: &[&str], files: &[&str]) -> Value {
    let run = bench(dir, &[args, &["--json"]].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(dir.names(), files);
    serde_json::from_str(&run.stdout).unwrap()
}

/// Fails unless the figures of a row agree with each other. Returns the row's backend.
fn checked(row: &Value) -> String {
    for part in ["total", "transfer", "compute"] {
        let latency = &row["latency"][part];
        if part != "total" && latency.is_null() {
            continue;
        }
        let at = |name: &str| latency[name].as_u64().unwrap();
        let times = ["min_ns", "p50_ns", "p90_ns", "p99_ns", "max_ns"].map(at);
        assert!(times[0] > 0 && times.is_sorted(), "{row:#}");
        assert_eq!(at("samples"), 4);
    }
    let number = |name: &str| row[name].as_f64().unwrap();
    let seconds = row["latency"]["total"]["p50_ns"].as_f64().unwrap() / 1e9;
    let bytes = number("clients") * number("parameters") * if row["dtype"] == "F32" { 4.0 } else { 2.0 };
    assert!((number("bytes") - bytes).abs() < 0.5);
    assert!((number("bytes_per_s") * seconds / bytes - 1.0).abs() < 1e-9);
    let limit = row["limit"]["seconds"].as_f64().unwrap();
    assert!((number("share_of_limit") * seconds / limit - 1.0).abs() < 1e-9 && limit > 0.0, "{row:#}");
    row["backend"].as_str().unwrap().to_owned()
}

fn rows(results: &Value) -> &[Value] {
    results["rows"].as_array().unwrap()
}

#[test]
fn every_kernel_and_rule_has_a_row_at_every_size() {
    let args = [
        "--backend",
        "cpu",
        "--kernels",
        "all",
        "--rules",
        "mean,private-mean,krum",
        "--dtype",
        "f32,bf16,f16",
    ];
    let found = results(&Dir::new(), &args, &[]);
    // A fifth of 3 clients is no hostile client, so krum is measured at 5 alone.
    assert_eq!(rows(&found).len(), (11 + 2) * 2 * 3 + 3);
    assert!(rows(&found).iter().all(|row| checked(row) == "cpu"));
    for (work, name, dtype, clients) in [
        ("kernel", "mixing-median", "F16", 5),
        ("aggregate", "krum", "BF16", 5),
        ("kernel", "pairs", "F32", 3),
        ("kernel", "integers", "F16", 3),
        ("kernel", "noise", "F32", 5),
        ("kernel", "masks", "BF16", 3),
        ("kernel", "elements", "F16", 5),
        ("aggregate", "private-mean", "BF16", 5),
    ] {
        let is_it = |row: &&Value| {
            row["work"] == work && row["name"] == name && row["dtype"] == dtype && row["clients"] == clients
        };
        assert_eq!(rows(&found).iter().filter(is_it).count(), 1, "{work} {name} {dtype} {clients}");
    }
}

#[test]
fn commands_on_files_have_rows_with_their_codecs() {
    let args = ["--backend", "cpu", "--kernels", "none", "--rules", "none", "--commands"];
    let dir = Dir::new();
    let found = results(&dir, &[&args[..], &["all", "--plot", "p.svg"]].concat(), &["p.svg"]);
    assert!(rows(&found).iter().all(|row| checked(row) == "cpu" && row["work"] == "command"));
    let of = |name: &str| rows(&found).iter().filter(|row| row["name"] == name).count();
    let eden = "eden4:block=4096,scale=unbiased";
    let names = ["u4:block=64", eden, "topk:fraction=0.01"];
    let names = names.map(|codec| [format!("compress:{codec}"), format!("decompress:{codec}")]);
    assert!(names.as_flattened().iter().all(|name| of(name) == 2), "{found:#}");
    assert_eq!((of("inspect"), rows(&found).len()), (2, 7 * 2));
    assert_eq!(found["settings"]["commands"].as_array().unwrap().len(), 7);
    let svg = String::from_utf8(dir.read("p.svg")).unwrap();
    assert!(svg.contains("limit: host memory") && svg.contains("limit: read floor"));
    let few = bench(&Dir::new(), &[&args[..], &["compress:u4:block=8,rounding=stochastic,inspect"]].concat());
    assert_eq!(few.code, Some(0), "{few:#?}");
    assert!(few.stdout.contains("other commands, files to files"), "{}", few.stdout);
    assert!(few.stdout.contains("compress:u4:block=8,rounding=stochastic "), "{}", few.stdout);
    bench(&Dir::new(), &[&args[..], &["merge"]].concat())
        .assert_fails(2, &["found `merge`, expected all, none, inspect, compress:CODEC or decompress:CODEC"]);
}

#[test]
fn results_have_the_settings_and_the_machine() {
    let found = results(
        &Dir::new(),
        &["--backend", "cpu", "--kernels", "median", "--rules", "none", "--threads", "2"],
        &[],
    );
    assert_eq!(found["schema"], "fedmill.bench/1");
    assert_eq!(found["tool"]["version"], env!("CARGO_PKG_VERSION"));
    let settings = &found["settings"];
    assert_eq!(settings["clients"], serde_json::json!([3, 5]));
    assert_eq!(settings["parameters"], serde_json::json!([2000]));
    assert_eq!((&settings["samples"], &settings["warm_up"]), (&Value::from(4), &Value::from(1)));
    assert_eq!(settings["kernels"], serde_json::json!(["median"]));
    let machine = &found["machine"];
    assert_eq!(machine["threads"], 2);
    for name in ["processor", "instruction_set", "operating_system"] {
        assert!(!machine[name].as_str().unwrap().is_empty(), "{name}");
    }
    assert!(found["limits"]["host"]["memory_bytes_per_s"].as_f64().unwrap() > 0.0);
    assert!(found["limits"]["host"]["multiply_adds_per_s"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_table_has_a_line_for_each_row() {
    let run = bench(&Dir::new(), &["--backend", "cpu", "--kernels", "median", "--rules", "mean"]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:#?}");
    let lines = |start: &str| run.stdout.lines().filter(|line| line.trim_start().starts_with(start)).count();
    assert_eq!((lines("median "), lines("mean ")), (2 + 1, 2), "{}", run.stdout);
    assert!(run.stdout.contains("limits of the host: memory"));
}

#[test]
fn plots_have_series_limits_and_names() {
    let dir = Dir::new();
    let args = ["--backend", "cpu", "--kernels", "median", "--rules", "mean"];
    results(&dir, &[&args[..], &["--plot", "p.svg"]].concat(), &["p.svg"]);
    let svg = String::from_utf8(dir.read("p.svg")).unwrap();
    for text in [
        "<svg",
        "kernel median, 2k F32",
        "aggregate mean",
        "clients",
        "cpu",
        "limit of cpu",
        "limit: read floor",
    ] {
        assert!(svg.contains(text), "no `{text}` in the plot");
    }
    results(&dir, &[&args[..], &["--plot", "p.png"]].concat(), &["p.png", "p.svg"]);
    let png = dir.read("p.png");
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"));
    assert!(png.len() > 10_000, "a picture of {} bytes is empty", png.len());
}

#[test]
fn bad_options_are_errors_and_nothing_is_measured() {
    for (args, said) in [
        (["--kernels", "mode"], "expected all, none, or some of weighted-sum"),
        (["--rules", "average"], "average"),
        (["--clients", "0"], "expected a count above zero"),
        (["--parameters", "1G"], "expected a count above zero"),
        (["--dtype", "f64"], "expected f32, bf16 or f16"),
        (["--samples", "0"], "expected a count from 1"),
        (["--plot", "p.pdf"], "expected a file that ends in .svg or .png"),
        (["--plot", "p"], "expected a file that ends in .svg or .png"),
    ] {
        let dir = Dir::new();
        fedmill(&dir, &[&["bench"], &args[..]].concat()).assert_fails(2, &[said]);
        assert!(dir.names().is_empty());
    }
}

#[test]
fn places_that_cannot_be_written_are_errors() {
    let quick = ["--backend", "cpu", "--kernels", "none", "--rules", "mean"];
    let dir = Dir::new();
    let run = fedmill(
        &dir,
        &[&["bench", "--clients", "2", "--parameters", "10", "--dir", "no/such"], &quick[..]].concat(),
    );
    run.assert_fails(2, &["synthetic updates could not be written"]);
    let run = bench(&dir, &[&quick[..], &["--plot", "no/such/p.svg"]].concat());
    run.assert_fails(2, &["no/such: directory does not exist"]);
}

#[cfg(feature = "gpu")]
mod on_devices {
    use super::*;
    use fedmill::gpu::adapters;

    /// The name of an adapter. Without an adapter, `None` and a line that says so.
    fn adapter() -> Option<String> {
        let found = adapters().into_iter().next().map(|adapter| adapter.name);
        if found.is_none() {
            let required = std::env::var_os("FEDMILL_REQUIRE_GPU").is_some();
            assert!(!required, "no adapter was found, and one is required");
            crate::harness::skip("no adapter was found; `fedmill doctor` says what is missing");
        }
        found
    }

    #[test]
    fn both_sides_and_their_crossover_are_in_one_run() {
        let Some(name) = adapter() else { return };
        let dir = Dir::new();
        let args = [
            "--adapter",
            &name,
            "--kernels",
            "median,pairs",
            "--rules",
            "none",
            "--plot",
            "p.svg",
            "--dtype",
            "bf16",
        ];
        let found = results(&dir, &args, &["p.svg"]);
        let mut backends: Vec<String> = rows(&found).iter().map(checked).collect();
        assert_eq!(backends.len(), 2 * 3 * 2);
        backends.sort();
        backends.dedup();
        assert_eq!(backends, ["cpu", "gpu", "gpu-resident"]);
        assert_eq!(found["machine"]["adapters"][0]["name"], name.as_str());
        let limits = &found["limits"]["devices"][&name];
        for limit in ["memory_bytes_per_s", "multiply_adds_per_s", "latency_s"] {
            assert!(limits[limit].as_f64().unwrap() > 0.0, "{limit}");
        }
        let crossovers = found["crossovers"].as_array().unwrap();
        assert_eq!(crossovers.len(), 2 * 2);
        assert!(
            crossovers
                .iter()
                .all(|crossover| crossover["up_to"] == 5 && crossover["adapter"] == name.as_str())
        );
        let svg = String::from_utf8(dir.read("p.svg")).unwrap();
        for text in ["\ncpu\n", "\ngpu\n", "\ngpu resident\n", "limit of cpu", "limit of gpu resident"] {
            assert!(svg.contains(text), "no `{text}` in the plot");
        }
    }

    #[test]
    fn commands_run_on_both_sides_where_a_device_has_a_part() {
        let Some(name) = adapter() else { return };
        let args = ["--adapter", &name, "--kernels", "none", "--rules", "none", "--commands", "all"];
        let found = results(&Dir::new(), &args, &[]);
        // A device decodes no topk.
        let backends: Vec<String> = rows(&found).iter().map(checked).collect();
        let count = |backend: &str| backends.iter().filter(|found| *found == backend).count();
        assert_eq!((count("cpu"), count("gpu"), backends.len()), (7 * 2, 6 * 2, 13 * 2));
        let left_out = found["left_out"].as_array().unwrap();
        let is_topk = |row: &Value| row["case"].as_str().unwrap().contains("decompress:topk");
        assert!(left_out.len() == 2 && left_out.iter().all(is_topk), "{left_out:#?}");
    }

    #[test]
    fn an_adapter_that_is_not_there_is_an_error() {
        let run = bench(&Dir::new(), &["--adapter", "no such adapter"]);
        run.assert_fails(2, &["no adapter is called `no such adapter`"]);
    }

    #[test]
    fn software_adapters_take_part_only_when_asked_to() {
        let args = ["--kernels", "median", "--rules", "none"];
        let software: Vec<String> = adapters()
            .into_iter()
            .filter(|adapter| adapter.is_software())
            .map(|adapter| adapter.name)
            .collect();
        let names = |found: &Value| -> Vec<String> {
            let adapters = found["machine"]["adapters"].as_array().unwrap();
            adapters.iter().map(|adapter| adapter["name"].as_str().unwrap().to_owned()).collect()
        };
        let without = names(&results(&Dir::new(), &args, &[]));
        assert!(software.iter().all(|name| !without.contains(name)));
        let with = names(&results(&Dir::new(), &[&args[..], &["--software"]].concat(), &[]));
        assert!(software.iter().all(|name| with.contains(name)));
    }
}
