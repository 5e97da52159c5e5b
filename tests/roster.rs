//! Who takes part and what updates are held against: file names, client ids, the layout that most share.

use crate::bad_input::{aggregate, round_of, sound};
use crate::harness::{Dir, Model, Update, fedmill_after};

#[test]
fn layout_of_an_odd_client_is_not_the_reference() {
    let dir = round_of(sound);
    sound(1).write(&dir);
    let odd = Update::new("updates/client-0").f32("fc.bias", &[3], &[0.0; 3]).meta("num_examples", "10");
    odd.write(&dir);
    let run = aggregate(&dir, &[], &[]);
    run.assert_fails(2, &["updates/client-0.safetensors: tensor `fc.bias` has shape [3], expected [2]"]);
    for sound in ["client-1", "client-2", "client-3"] {
        assert!(!run.stderr.contains(sound), "{}", run.stderr);
    }
}

#[test]
fn layouts_equally_shared_go_by_the_lowest_client_id() {
    for (first, expected) in [("a", vec![1.0f32, 1.0]), ("z", vec![3.0])] {
        let dir = Dir::new();
        let two = |id: &str| Update::new(&format!("updates/{id}")).f32("w", &[2], &[1.0, 1.0]);
        let one = |id: &str| Update::new(&format!("updates/{id}")).f32("w", &[1], &[3.0]);
        // Files in one order, ids in another: the ids decide.
        two("1").meta("client_id", first).write(&dir);
        one("2").meta("client_id", "b").write(&dir);
        one("3").meta("client_id", "c").write(&dir);
        two("4").meta("client_id", "d").write(&dir);
        aggregate(&dir, &[], &["--on-bad-update", "skip"]).assert_merged("merged.safetensors");
        assert_eq!(Model::read(&dir, "merged.safetensors").f32("w"), expected, "client 1 is {first}");
    }
}

#[test]
fn reference_is_not_a_client_that_is_rejected_for_its_values() {
    let of = |name: &str, value: f32, format: &str| {
        Update::new(&format!("updates/{name}")).f32("w", &[1], &[value]).meta("format", format)
    };
    let dir = Dir::new();
    of("b", 1.0, "pt").write(&dir);
    of("c", 3.0, "pt").write(&dir);
    aggregate(&dir, &[], &[]).assert_merged("merged.safetensors");
    let alone = dir.read("merged.safetensors");
    of("a", f32::NAN, "evil").write(&dir);
    aggregate(&dir, &[], &["--on-bad-update", "skip"]).assert_merged("merged.safetensors");
    assert!(dir.read("merged.safetensors") == alone);
}

#[test]
fn client_id_claimed_by_a_broken_update_stays_with_the_sound_one() {
    let dir = round_of(sound);
    let claim = Update::new("updates/a").f32("fc.bias", &[3], &[0.0; 3]).meta("client_id", "client-0");
    claim.write(&dir);
    let skip = ["--on-bad-update", "skip", "--report", "report.json"];
    aggregate(&dir, &[], &skip).assert_merged("merged.safetensors");
    let report = dir.json("report.json");
    assert_eq!(report["clients"][0]["file"], "updates/client-0.safetensors", "{:#}", report["rejected"]);
}

/// Makes `updates/client-<byte 255>.safetensors`.
const MAKE_A_NAME_THAT_IS_NO_TEXT: &str =
    r#"name=$(printf 'updates/client-\377.safetensors') && cp updates/client-0.safetensors "$name""#;

#[test]
fn name_that_is_no_text_is_reported() {
    let dir = round_of(sound);
    let setup = format!("{MAKE_A_NAME_THAT_IS_NO_TEXT} && set -- \"$@\" \"$name\"");
    let args = ["aggregate", "-o", "merged.safetensors", "--report", "report.json"];
    fedmill_after(&dir, &setup, &args).assert_merged("merged.safetensors");
    assert_eq!(dir.json("report.json")["clients"].as_array().unwrap().len(), 1);
}

#[test]
fn name_that_is_no_text_is_not_lost() {
    let dir = round_of(sound);
    let args = ["aggregate", "updates", "-o", "merged.safetensors"];
    fedmill_after(&dir, MAKE_A_NAME_THAT_IS_NO_TEXT, &args).assert_merged("merged.safetensors");
    assert_eq!(Model::read(&dir, "merged.safetensors").metadata["fedmill.clients"], "4");
}

/// A round that starts again without an update keeps what is known of the others, once.
#[test]
fn faults_are_told_once_when_a_round_starts_again() {
    let dir = round_of(sound);
    Update::new("updates/stale").f32("fc.bias", &[2], &[0.0; 2]).meta("round", "3").write(&dir);
    let nan = Update::new("updates/nan").f32("fc.bias", &[2], &[f32::NAN, 0.0]);
    nan.f32("fc.weight", &[2, 3], &[0.0; 6]).meta("num_examples", "10").write(&dir);
    let run = aggregate(&dir, &[], &["--round", "4", "--on-bad-update", "skip", "--report", "report.json"]);
    run.assert_merged("merged.safetensors");
    assert_eq!(run.stderr.matches("update is of round 3, expected round 4").count(), 1, "{}", run.stderr);
    let rejected = dir.json("report.json")["rejected"].clone();
    let faults = |i: usize| rejected[i]["errors"].as_array().unwrap().len();
    assert_eq!((faults(0), faults(1)), (1, 2), "{rejected:#}");
}
