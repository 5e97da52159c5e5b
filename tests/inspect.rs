//! The output of `fedmill inspect`.

use crate::harness::{Dir, Run, Update, fedmill};
use serde_json::{Value, json};

fn inspect(dir: &Dir, args: &[&str]) -> Run {
    fedmill(dir, &[&["inspect", "updates"], args].concat())
}

/// Each file has one row, in the order of the files.
#[track_caller]
fn rows(dir: &Dir, args: &[&str]) -> Vec<Value> {
    let run = inspect(dir, &[args, &["--json"]].concat());
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:#?}");
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn update(name: &str, w: [f32; 2]) -> Update {
    Update::new(&format!("updates/{name}")).f32("w", &[2], &w).i64("steps", &[1], &[1_000_000])
}

/// Three sound clients: the deltas to the base are (3, 4), (0, 2) and (-6, 8).
fn round() -> Dir {
    let dir = Dir::new();
    update("a", [4.0, 5.0]).meta("num_examples", "12").meta("round", "7").write(&dir);
    update("b", [1.0, 3.0]).meta("client_id", "bee").write(&dir);
    update("c", [-5.0, 9.0]).write(&dir);
    Update::new("base").f32("w", &[2], &[1.0, 1.0]).i64("steps", &[1], &[0]).write(&dir);
    dir
}

const WITH_BASE: [&str; 2] = ["--base", "base.safetensors"];

#[test]
fn row_of_a_sound_update() {
    let dir = round();
    let file = "updates/a.safetensors";
    let mut rows = rows(&dir, &[]);
    let cosine = rows[0].as_object_mut().unwrap().remove("cosine_to_median").unwrap().as_f64().unwrap();
    let expected = json!({
        "id": "a", "file": file, "tensors": 2, "parameters": 3, "dtype": "F32+I64", "bytes": dir.read(file).len(),
        "examples": 12.0, "round": 7, "kind": "weights", "norm": 41f64.sqrt(), "max_abs": 5.0, "non_finite": 0,
        "faults": [],
    });
    assert_eq!(rows[0], expected);
    // The median is (1, 5).
    assert_close(cosine, 29.0 / (41f64 * 26.0).sqrt());
    assert_eq!((&rows[1]["id"], &rows[1]["examples"]), (&json!("bee"), &Value::Null));
}

#[test]
fn every_update_may_have_a_fault() {
    let dir = round();
    let rows = rows(&dir, &[&WITH_BASE[..], &["--round", "9", "-q"]].concat());
    let faults: Vec<usize> = rows.iter().map(|row| row["faults"].as_array().unwrap().len()).collect();
    assert_eq!(faults, [1, 0, 0]);
    for (name, value) in [("a", 1.0), ("b", 2.0), ("c", 3.0)] {
        update(name, [value, 2.0]).meta("round", "8").write(&dir);
    }
    let rows = self::rows(&dir, &[&WITH_BASE[..], &["--round", "9"]].concat());
    assert!(rows.iter().all(|row| row["faults"].as_array().unwrap().len() == 1), "{rows:#?}");
}

#[track_caller]
fn assert_close(got: f64, expected: f64) {
    assert!((got - expected).abs() < 1e-12, "got {got}, expected {expected}");
}

#[test]
fn norm_and_angle_are_of_deltas_with_a_base() {
    let rows = rows(&round(), &WITH_BASE);
    let column = |key: &str| rows.iter().map(|row| row[key].as_f64().unwrap()).collect::<Vec<_>>();
    assert_eq!(column("norm"), [5.0, 2.0, 10.0]);
    // The median delta is (0, 4).
    let cosines = column("cosine_to_median");
    for (got, expected) in cosines.into_iter().zip([0.8, 1.0, 0.8]) {
        assert_close(got, expected);
    }
    assert_eq!(column("max_abs"), [5.0, 3.0, 9.0]);
}

#[test]
fn the_values_of_an_encoded_update_are_measured() {
    let dir = Dir::new();
    // Exact in f16.
    let values: Vec<f32> = (0..300).map(|k| (k % 5) as f32 - 2.0).collect();
    Update::new("a").f32("w", &[300], &values).meta("kind", "delta").write(&dir);
    dir.write("updates/.keep", "");
    let args = ["compress", "-q", "a.safetensors", "-o", "updates/a.safetensors", "--codec", "f16"];
    assert_eq!(fedmill(&dir, &args).code, Some(0));
    let rows = rows(&dir, &[]);
    // 60 times 4 + 1 + 0 + 1 + 4.
    assert_close(rows[0]["norm"].as_f64().unwrap(), 600f64.sqrt());
    assert_eq!((&rows[0]["max_abs"], &rows[0]["faults"]), (&json!(2.0), &json!([])));
}

#[test]
fn row_is_the_same_whatever_the_others_are() {
    let dir = round();
    let before = rows(&dir, &WITH_BASE);
    update("d", [0.5, 0.25]).meta("kind", "delta").write(&dir);
    let after = rows(&dir, &WITH_BASE);
    assert_eq!((&after[3]["kind"], &after[3]["max_abs"]), (&json!("delta"), &json!(0.5)));
    for (before, after) in before.iter().zip(&after) {
        for key in ["norm", "max_abs", "non_finite", "faults"] {
            assert_eq!(before[key], after[key], "{key} of {}", before["id"]);
        }
    }
}

#[test]
fn angle_of_a_zero_vector_is_none() {
    let dir = Dir::new();
    for (name, zero) in [("a", 0.0), ("b", -0.0)] {
        update(name, [zero, 0.0]).write(&dir);
    }
    let rows = rows(&dir, &[]);
    assert_eq!((&rows[0]["norm"], &rows[0]["cosine_to_median"]), (&json!(0.0), &Value::Null));
}

#[test]
fn every_fault_of_an_update_is_listed() {
    let dir = round();
    Update::new("updates/d")
        .f32("extra", &[3], &[f32::NAN, 1.0, f32::INFINITY])
        .f32("w", &[1], &[-7.0])
        .meta("num_examples", "-1")
        .meta("round", "soon")
        .meta("kind", "gradient")
        .meta("base", "00ff")
        .write(&dir);
    let rows = rows(&dir, &WITH_BASE);
    let row = &rows[3];
    let faults: Vec<&str> = row["faults"].as_array().unwrap().iter().map(|x| x.as_str().unwrap()).collect();
    for part in [
        "metadata `num_examples` is `-1`",
        "metadata `round` is `soon`",
        "metadata `kind` is `gradient`",
        "update started from base 00ff",
        "tensor `w` has shape [1], expected [2]",
        "tensor `steps` is missing",
        "tensor `extra` is not expected",
        "tensor `extra` holds NaN at flat index 0, expected a finite number (2 such values in the update)",
    ] {
        assert_eq!(faults.iter().filter(|fault| fault.contains(part)).count(), 1, "{part} in {faults:#?}");
    }
    assert_eq!(faults.len(), 8, "{faults:#?}");
    let seen = ["tensors", "parameters", "non_finite", "max_abs", "norm"].map(|key| &row[key]);
    assert_eq!(seen, [&json!(2), &json!(4), &json!(2), &json!(7.0), &Value::Null]);
}

#[test]
fn faults_of_a_file_that_cannot_be_opened() {
    let dir = round();
    Update::new("updates/d").cut_to(4).write(&dir);
    let entry = r#"{"dtype":"F4","shape":[1],"data_offsets":[0,1]}"#;
    let header = format!(r#"{{"x":{entry},"x":1,"y":{{"dtype":"U8","shape":[2],"data_offsets":[0,1]}}}}"#);
    Update::new("updates/e").header(&header).write(&dir);
    let rows = rows(&dir, &[]);
    let nothing =
        ["tensors", "parameters", "dtype", "bytes", "norm", "max_abs", "cosine_to_median", "non_finite"];
    for key in nothing {
        assert_eq!(rows[3][key], Value::Null, "{key}");
    }
    assert_eq!(rows[3]["id"], "d");
    assert_eq!(
        rows[3]["faults"],
        json!(["file has 4 bytes, expected at least the 8 of the header's length"])
    );
    assert_eq!(rows[4]["faults"].as_array().unwrap().len(), 4, "{:#}", rows[4]);
}

#[test]
fn update_not_finite_does_not_move_the_median_of_the_others() {
    let dir = round();
    let before = rows(&dir, &WITH_BASE);
    update("d", [f32::INFINITY, -8.0]).write(&dir);
    let after = rows(&dir, &WITH_BASE);
    assert_eq!(after[..3], before[..]);
    let row = &after[3];
    let seen = ["norm", "cosine_to_median", "max_abs", "non_finite"].map(|key| &row[key]);
    assert_eq!(seen, [&Value::Null, &Value::Null, &json!(8.0), &json!(1)]);
}

#[test]
fn file_named_twice_has_one_row() {
    let dir = round();
    let twice = "updates/a.safetensors";
    let run = fedmill(&dir, &["inspect", "--json", twice, twice]);
    let rows: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((rows.len(), &rows[0]["faults"]), (1, &json!([])));
    assert!(run.stderr.contains("is the same file as updates/a.safetensors"), "{}", run.stderr);
}

/// Of two updates of one client, the server cannot tell which is genuine: both have a fault, and no angle.
#[test]
fn two_updates_of_one_client_have_a_fault() {
    let dir = round();
    update("d", [1.0, 2.0]).meta("client_id", "a").write(&dir);
    let rows = rows(&dir, &[]);
    for (row, is_fine) in rows.iter().zip([false, true, true, false]) {
        assert_eq!(row["faults"] == json!([]), is_fine, "{row:#}");
        assert_eq!(row["cosine_to_median"] != Value::Null, is_fine, "{row:#}");
    }
}

#[test]
fn round_of_another_is_a_fault() {
    let dir = round();
    let faults = |round: &str| rows(&dir, &["--round", round, "-q"])[0]["faults"].clone();
    assert_eq!(faults("7"), json!([]));
    assert_eq!(faults("8"), json!(["update is of round 7, expected round 8"]));
}

/// As `aggregate` finds it.
#[test]
fn a_delta_that_does_not_say_so_has_a_fault() {
    let dir = Dir::new();
    Update::new("base").f32("w", &[2], &[10.0, 10.0]).i64("steps", &[1], &[0]).write(&dir);
    for (name, value) in [("a", 9.5), ("b", 0.01), ("c", 10.5)] {
        update(name, [value; 2]).write(&dir);
    }
    update("d", [0.02; 2]).meta("kind", "delta").write(&dir);
    let rows = rows(&dir, &["--base", "base.safetensors"]);
    // What looks like a delta would move the median so far that the others' angles change.
    let has_angle: Vec<bool> = rows.iter().map(|row| !row["cosine_to_median"].is_null()).collect();
    assert_eq!(has_angle, [true, false, true, true]);
    let faults: Vec<String> = rows.iter().map(|row| row["faults"].to_string()).collect();
    assert_eq!((&*faults[0], &*faults[2], &*faults[3]), ("[]", "[]", "[]"));
    assert!(faults[1].contains("states no `kind` and looks like a delta"), "{faults:?}");
}

#[test]
fn table_for_people() {
    let dir = round();
    Update::new("updates/d").cut_to(4).write(&dir);
    let run = inspect(&dir, &WITH_BASE);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    insta::assert_snapshot!(run.stdout);
}

#[test]
fn small_norms_are_no_zeros() {
    let dir = Dir::new();
    Update::new("updates/a").f32("w", &[2], &[3e-6, 4e-6]).write(&dir);
    Update::new("updates/b").f32("w", &[2], &[0.0, 0.0]).write(&dir);
    let run = inspect(&dir, &[]);
    let rows: Vec<&str> = run.stdout.lines().collect();
    assert!(rows[1].contains(" 5.0000e-6 ") && rows[1].contains(" 4.0000e-6 "), "{}", run.stdout);
    assert!(rows[2].contains(" 0.0000 ") && !rows[2].contains('e'), "{}", run.stdout);
}

#[test]
fn check_fails_if_there_is_a_fault() {
    let dir = round();
    assert_eq!(inspect(&dir, &["--check"]).code, Some(0));
    Update::new("updates/d").cut_to(4).write(&dir);
    assert_eq!(inspect(&dir, &[]).code, Some(0));
    let run = inspect(&dir, &["--check", "--json"]);
    assert_eq!((run.code, run.stdout.lines().count()), (Some(1), 4));
    assert_eq!(run.stderr, "error: refused: 1 of 4 updates have faults\n");
}

#[test]
fn update_of_every_float_dtype_is_measured() {
    let dir = Dir::new();
    let codes: [(&str, &[u8]); 6] = [
        ("F64", &[0, 0, 0, 0, 0, 0, 0x08, 0xc0]),
        ("F32", &[0, 0, 0x40, 0xc0]),
        ("F16", &[0, 0xc2]),
        ("BF16", &[0x40, 0xc0]),
        ("F8_E4M3", &[0xc4]),
        ("F8_E5M2", &[0xc2]),
    ];
    for (dtype, minus_three) in codes {
        Update::new(&format!("updates/{dtype}")).raw("w", dtype, &[1], minus_three).write(&dir);
    }
    for row in rows(&dir, &[]) {
        let seen = ["norm", "max_abs", "cosine_to_median"].map(|key| &row[key]);
        assert_eq!(seen, [&json!(3.0), &json!(3.0), &json!(1.0)], "{row:#}");
        assert_eq!(row["dtype"], row["id"]);
    }
}
