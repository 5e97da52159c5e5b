//! The clients of a run, and the expected model: file names, ids, layout.

use crate::bad_input::{aggregate, round_of, sound};
use crate::harness::{Dir, Model, Update, fedmill_after};
use fedmill::engine::intake::admit;
use fedmill::engine::intake::policy::{Policy, TensorPolicy};
use fedmill::engine::intake::{opening, update};
use fedmill::io::model_file::TablePool;
use fedmill::io::source::OpenFiles;
use fedmill::updates::metadata::SCAFFOLD_CONTROL;
use fedmill::updates::set::UpdateSet;
use fedmill::updates::source::Place;
use std::sync::Arc;

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
fn the_lowest_client_id_decides_between_equally_shared_layouts() {
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

/// A run that starts again without an update repeats nothing about the others.
#[test]
fn faults_are_reported_once_when_a_round_starts_again() {
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

/// The clients that take part, and the faults of the others with their ids, with or without a base of one tensor.
fn admit(updates: &[Update], base: Option<Update>, expected: &Policy) -> (UpdateSet, Vec<String>) {
    let dir = Dir::new();
    let write = |update: &Update, name: String| {
        dir.write(&name, update.bytes());
        dir.path(&name)
    };
    let paths: Vec<_> =
        updates.iter().enumerate().map(|(i, update)| write(update, format!("{i}.safetensors"))).collect();
    let (files, tables) = (OpenFiles::raise_limit(), TablePool::default());
    let base = base.map(|base| write(&base, "base.safetensors".to_owned()));
    let base = base.map(|path| Arc::new(update::open_base(&path, &files, &tables).unwrap()));
    let (set, rejected) =
        admit::admit(opening::open(&paths, &files, &tables, base.as_deref(), expected), base, expected)
            .unwrap();
    let fault = |update: &update::Update| format!("{}: {}", update.id, update.faults.first().unwrap());
    (set, rejected.iter().map(fault).collect())
}

fn ids(set: &UpdateSet) -> Vec<&str> {
    set.clients.iter().map(|client| client.id.as_str()).collect()
}

#[test]
fn stale_updates_take_part_as_deltas_alone() {
    let update = |round: &str, kind: &str| {
        Update::new("u").f32("w", &[1], &[1.0]).meta("round", round).meta("kind", kind).meta("base", "0ld")
    };
    let updates = [update("3", "delta"), update("3", "weights"), update("4", "delta")];
    let base = || Some(Update::new("b").f32("w", &[1], &[0.0]));
    let stale = Policy { round: Some(4), takes_stale: true, ..Policy::default() };
    let (set, faults) = admit(&updates, base(), &stale);
    assert_eq!(ids(&set), ["0"]);
    assert!(faults[0].contains("1: update of round 3 holds weights, expected `kind` `delta`"), "{faults:?}");
    assert!(faults[1].contains("2: update started from base 0ld"), "{faults:?}");

    let (set, faults) = admit(&updates, base(), &Policy { takes_stale: false, ..stale });
    assert_eq!(ids(&set), [""; 0]);
    assert!(faults[0].contains("0: update is of round 3, expected round 4"), "{faults:?}");
    // A run without `--round` takes no stale updates.
    let (set, _) = admit(&updates, base(), &Policy { takes_stale: true, ..Policy::default() });
    assert_eq!(ids(&set), [""; 0]);
}

/// A model of a float, an integer and another float, and the control tensors of its floats, in another order.
fn with_control(control: &[&str]) -> Update {
    let model = Update::new("u").f32("a", &[2], &[1.0; 2]).i64("n", &[1], &[7]).f32("z", &[1], &[2.0]);
    control.iter().fold(model, |update, name| {
        let len = if name.ends_with("z") { 1 } else { 2 };
        update.f32(&format!("{SCAFFOLD_CONTROL}{name}"), &[len], &vec![0.5; len])
    })
}

#[test]
fn control_tensors_have_places_in_the_layouts_order() {
    let tensors = TensorPolicy { control_prefix: Some(SCAFFOLD_CONTROL), ..TensorPolicy::default() };
    let expected = Policy { tensors, ..Policy::default() };
    for base in [None, Some(with_control(&[]))] {
        let (set, faults) = admit(&[with_control(&["z", "a"]), with_control(&["a", "z"])], base, &expected);
        assert_eq!(faults, [""; 0]);
        let names: Vec<&str> = set.layout.tensors().iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names, ["a", "n", "z"]);
        for client in &set.clients {
            let control = client.control.as_ref().unwrap();
            for (tensor, place) in control.iter().enumerate() {
                let name = format!("{SCAFFOLD_CONTROL}{}", names[tensor]);
                let held = client.model.table.iter().find(|held| held.spec.name == name).map(Place::from);
                let expected = held.unwrap_or(Place::NONE);
                assert_eq!((place.file, place.offset), (expected.file, expected.offset), "{name}");
            }
        }
    }
}

#[test]
fn control_tensors_have_to_be_those_of_the_parameters() {
    let tensors = TensorPolicy { control_prefix: Some(SCAFFOLD_CONTROL), ..TensorPolicy::default() };
    let expected = Policy { tensors, ..Policy::default() };
    let sound = || with_control(&["a", "z"]);
    for (odd, fault) in [
        (with_control(&["a"]), "tensor `scaffold.delta_c.z` is missing, expected F32 [1]"),
        (with_control(&["z"]).f32("scaffold.delta_c.a", &[3], &[0.0; 3]), "has shape [3], expected [2]"),
        (
            with_control(&["z"]).i64("scaffold.delta_c.a", &[2], &[0; 2]),
            "has dtype I64, which does not convert",
        ),
    ] {
        let (set, faults) = admit(&[sound(), odd, sound()], None, &expected);
        assert_eq!(ids(&set), ["0", "2"]);
        assert!(faults[0].starts_with("1: ") && faults[0].contains(fault), "{faults:?}");
    }
    let (set, faults) = admit(&[sound(), with_control(&["a", "z", "n"]), sound()], None, &expected);
    assert_eq!((ids(&set).len(), faults.len()), (3, 0), "that of the statistic `n` is not used");
}

#[test]
fn control_tensors_are_extra_tensors_to_other_strategies() {
    let dir = round_of(sound);
    sound(0).f32("scaffold.delta_c.fc.bias", &[2], &[0.0; 2]).write(&dir);
    let run = aggregate(&dir, &[], &[]);
    run.assert_fails(
        2,
        &["tensor `scaffold.delta_c.fc.bias` is not expected", "hint: pass --strategy scaffold"],
    );
}
