//! Personal layers: neither merged nor measured; the model keeps those of the base.

use crate::harness::{Contents, Dir, Model, Update, aggregate, merge};
use fedmill::engine::intake::admit;
use fedmill::engine::intake::opening;
use fedmill::engine::intake::personal::Personal;
use fedmill::engine::intake::policy::{Policy, TensorPolicy};
use fedmill::io::model_file::TablePool;
use fedmill::io::source::OpenFiles;
use fedmill::updates::metadata::SCAFFOLD_CONTROL;

/// The tensors that clients share, before, between and after the personal ones.
fn shared(name: &str, seed: f32) -> Update {
    Update::new(name)
        .f32("conv.weight", &[2, 2], &[seed, -seed, 0.5 * seed, 1.0])
        .f32("mid.weight", &[3], &[1.0, seed * seed, 2.0])
        .i64("steps", &[1], &[seed as i64])
        .f32("tail.bias", &[1], &[seed - 1.0])
}

/// The shared tensors, batch normalisation and a head. The values of the last two differ widely between clients.
fn whole(name: &str, seed: f32) -> Update {
    Update::new(name)
        .f32("conv.weight", &[2, 2], &[seed, -seed, 0.5 * seed, 1.0])
        .half("bn.weight", "BF16", &[2], &[0x3f80 + seed as u16, 0x4000])
        .f32("mid.weight", &[3], &[1.0, seed * seed, 2.0])
        .f32("bn.running_mean", &[2], &[1e6 * seed, -1e6])
        .i64("bn.num_batches_tracked", &[], &[100 * seed as i64])
        .i64("steps", &[1], &[seed as i64])
        .f32("head.weight", &[2], &[1e5 * seed, f32::NAN])
        .f32("tail.bias", &[1], &[seed - 1.0])
}

const SHARED: [&str; 4] = ["conv.weight", "mid.weight", "steps", "tail.bias"];
const PERSONAL: [&str; 4] = ["bn.weight", "bn.running_mean", "bn.num_batches_tracked", "head.weight"];
const LAYERS: [&str; 4] = ["--personal", "fedbn", "--personal", "head.*"];
const WITH_BASE: [&str; 2] = ["--base", "base.safetensors"];

/// Five clients and a base. `make` makes each.
fn round_of(make: impl Fn(&str, f32) -> Update) -> Dir {
    let dir = Dir::new();
    for client in 1..=5u8 {
        make(&format!("updates/c{client}"), f32::from(client)).meta("num_examples", "3").write(&dir);
    }
    make("base", 2.5).meta("format", "pt").write(&dir);
    dir
}

fn report_of(dir: &Dir, args: &[&str]) -> (Model, serde_json::Value) {
    let model = merge(dir, &[args, &["--report", "report.json"]].concat());
    (model, dir.json("report.json"))
}

/// The model has the base's personal layers. Its other tensors are those of a merge of updates without such layers.
#[test]
fn personal_layers_stay_out_of_merges_and_distances() {
    let (with, without) = (round_of(whole), round_of(shared));
    for rule in [
        &["--rule", "mean"][..],
        &["--rule", "median"],
        &["--rule", "krum", "--byzantine", "1"],
        &["--rule", "geometric-median", "--pre", "nnm", "--byzantine", "1"],
    ] {
        let (model, report) = report_of(&with, &[rule, &WITH_BASE, &LAYERS].concat());
        let (expected, plain) = report_of(&without, &[rule, &WITH_BASE].concat());
        let base = Model::read(&with, "base.safetensors");
        assert_eq!(model.tensors.len(), 8);
        for name in SHARED {
            assert_eq!(model.tensors[name], expected.tensors[name], "{rule:?} {name}");
        }
        for name in PERSONAL {
            assert_eq!(model.tensors[name], base.tensors[name], "{rule:?} {name}");
        }
        for client in 0..5 {
            for key in ["norm", "score", "weight", "kept"] {
                assert_eq!(report["clients"][client][key], plain["clients"][client][key], "{rule:?} {key}");
            }
        }
        assert_eq!(report["output"]["tensors"], 8);
        assert_eq!(report["settings"]["personal"], serde_json::json!(["fedbn", "head.*"]));
        assert_eq!(model.metadata["fedmill.personal"], "fedbn head.*");
        assert_eq!(plain["settings"]["personal"], serde_json::json!([]));
        assert!(!expected.metadata.contains_key("fedmill.personal"));
    }
}

#[test]
fn without_a_base_the_model_does_not_hold_them() {
    let (model, expected) = (merge(&round_of(whole), &LAYERS), merge(&round_of(shared), &[]));
    assert_eq!(model.tensors, expected.tensors);
    assert_eq!(model.metadata["fedmill.personal"], "fedbn head.*");
}

/// The tensors of a model in the order of their data, from one file or from the files of a sharded model.
fn published(contents: &Contents) -> Vec<(String, Model)> {
    let dir = Dir::new();
    let is_model = |name: &&String| name.starts_with("merged") && name.ends_with(".safetensors");
    contents
        .keys()
        .filter(is_model)
        .map(|name| {
            dir.write(name, &contents[name]);
            (name.clone(), Model::read(&dir, name))
        })
        .collect()
}

#[test]
fn shards_hold_personal_layers_in_their_places() {
    let dir = round_of(whole);
    let whole = merge(&dir, &[&WITH_BASE[..], &LAYERS].concat());
    let args = [&WITH_BASE[..], &LAYERS, &["--max-shard-size", "20B"]].concat();
    aggregate(&dir, &args).assert_merged("merged.safetensors.index.json");
    let shards = published(&dir.contents());
    assert!(shards.len() > 3, "{shards:?}");
    let mut tensors = std::collections::BTreeMap::new();
    shards.into_iter().for_each(|(_, shard)| tensors.extend(shard.tensors));
    assert_eq!(tensors, whole.tensors);
}

#[test]
fn updates_hold_personal_layers_or_not_in_any_shape() {
    let dir = round_of(whole);
    let expected = merge(&dir, &[&WITH_BASE[..], &LAYERS].concat());
    shared("updates/c2", 2.0).meta("num_examples", "3").write(&dir);
    let odd = shared("updates/c3", 3.0).f64("head.weight", &[2, 3], &[0.0; 6]).i64("bn.weight", &[1], &[1]);
    let odd = odd.f32("bn.running_mean", &[0], &[]).f32("head.more", &[1], &[0.0]);
    odd.meta("num_examples", "3").write(&dir);
    let model = merge(&dir, &[&WITH_BASE[..], &LAYERS].concat());
    assert_eq!(model.tensors, expected.tensors);
    // Without a base, personal layers have no vote on the expected layout.
    assert_eq!(merge(&dir, &LAYERS).tensors.keys().collect::<Vec<_>>(), SHARED);
}

/// A base without personal layers: the output of a round without a base.
#[test]
fn base_may_lack_personal_layers() {
    let dir = round_of(whole);
    shared("base", 2.5).write(&dir);
    let model = merge(&dir, &[&WITH_BASE[..], &LAYERS].concat());
    assert_eq!(model.tensors.keys().collect::<Vec<_>>(), SHARED);
    // A single client that still sends them.
    for client in 2..=5u8 {
        shared(&format!("updates/c{client}"), f32::from(client)).meta("num_examples", "3").write(&dir);
    }
    let one = merge(&dir, &[&WITH_BASE[..], &LAYERS].concat());
    assert_eq!(one.tensors, model.tensors);
}

#[test]
fn one_client_cannot_make_a_layer_personal() {
    let dir = round_of(whole);
    let odd = whole("updates/c3", 3.0).f32("conv.running_mean", &[1], &[0.0]).meta("num_examples", "3");
    let expected = merge(&dir, &[&WITH_BASE[..], &LAYERS].concat());
    odd.write(&dir);
    assert_eq!(merge(&dir, &[&WITH_BASE[..], &LAYERS].concat()).tensors, expected.tensors);
    assert!(merge(&dir, &LAYERS).tensors.contains_key("conv.weight"));
}

#[test]
fn what_is_not_personal_is_held_against_the_reference() {
    let dir = round_of(whole);
    let run = aggregate(&dir, &["--personal", "head.*", "--base", "base.safetensors"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    shared("updates/c2", 2.0).meta("num_examples", "3").write(&dir);
    let run = aggregate(&dir, &["--personal", "head.*", "--base", "base.safetensors"]);
    run.assert_fails(2, &["c2.safetensors: tensor `bn.weight` is missing"]);
    shared("updates/c2", 2.0).f32("new", &[1], &[0.0]).meta("num_examples", "3").write(&dir);
    let run = aggregate(&dir, &[&WITH_BASE[..], &LAYERS].concat());
    run.assert_fails(2, &["c2.safetensors: tensor `new` is not expected"]);
}

#[test]
fn patterns_that_cannot_be_meant_are_errors() {
    let dir = round_of(whole);
    for (layers, parts) in [
        (
            &["--personal", "heads.*"][..],
            &["personal layers `heads.*`: no tensor matches", "`bn.weight`"][..],
        ),
        (&["--personal", "fedper", "--personal", "x"], &["personal layers `x`: no tensor"]),
        (&["--personal", "*"], &["personal layers `*`: all 8 tensors are personal"]),
        (&["--personal", "head["], &["invalid value 'head[' for '--personal <LAYERS>'"]),
    ] {
        for base in [&[][..], &WITH_BASE] {
            let before = dir.contents();
            aggregate(&dir, &[layers, base].concat()).assert_fails(2, parts);
            dir.assert_unchanged_since(&before);
        }
    }
    let run = aggregate(&round_of(shared), &["--personal", "fedbn"]);
    run.assert_fails(2, &["personal layers `fedbn`: no tensor matches"]);
}

#[test]
fn state_holds_what_is_shared_alone() {
    let dir = round_of(whole);
    let clipping = ["--rule", "centered-clipping", "--state", "state.safetensors"];
    merge(&dir, &[&WITH_BASE[..], &LAYERS, &clipping].concat());
    let state = Model::read(&dir, "state.safetensors");
    let names: Vec<&str> = state.tensors.keys().map(|name| name.trim_start_matches("centre.")).collect();
    assert_eq!(names, SHARED);
}

#[test]
fn control_variates_are_of_what_is_shared() {
    let dir = Dir::new();
    let control = |name: &str| format!("{SCAFFOLD_CONTROL}{name}");
    let update = |personal: bool| {
        let update = Update::new("u").f32("w", &[1], &[1.0]).f32("head.w", &[2], &[0.0; 2]);
        let update = update.f32(&control("w"), &[1], &[0.5]);
        if personal { update.f32(&control("head.w"), &[3], &[0.0; 3]) } else { update }
    };
    let names = ["a.safetensors", "b.safetensors"];
    dir.write(names[0], update(false).bytes());
    dir.write(names[1], update(true).bytes());
    let paths = names.map(|name| dir.path(name));
    let opened =
        opening::open(&paths, &OpenFiles::raise_limit(), &TablePool::default(), None, &Policy::default());
    let personal = Personal { layers: vec!["head.*".parse().unwrap()] };
    let tensors =
        TensorPolicy { control_prefix: Some(SCAFFOLD_CONTROL), personal, ..TensorPolicy::default() };
    let expected = Policy { tensors, ..Policy::default() };
    let (set, rejected) = admit::admit(opened, None, &expected).unwrap();
    assert_eq!((set.clients.len(), rejected.len()), (2, 0), "{rejected:?}");
    assert_eq!(set.layout.tensors().len(), 1);
}
