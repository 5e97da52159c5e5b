//! The model of one client, personal layers or a mixture, against values computed by hand.

use crate::harness::{Dir, Model, Run, Update, fedmill};
use std::collections::BTreeMap;

fn personalize(dir: &Dir, args: &[&str]) -> Run {
    let run = [
        "personalize",
        "--global",
        "global.safetensors",
        "--personal",
        "c7.safetensors",
        "-o",
        "out.safetensors",
    ];
    fedmill(dir, &[&run, args].concat())
}

#[track_caller]
fn personalized(dir: &Dir, args: &[&str]) -> Model {
    personalize(dir, args).assert_merged("out.safetensors");
    Model::read(dir, "out.safetensors")
}

/// A global model and a client's: body, batch normalisation, and a head of another shape.
fn models() -> Dir {
    let dir = Dir::new();
    let global = Update::new("global").f32("body.w", &[2], &[1.0, f32::NAN]);
    let global = global.half("bn.running_var", "BF16", &[2], &[1, 2]).f32("head.w", &[2], &[3.0, 4.0]);
    let global = global.i64("steps", &[], &[9]).f32("tail", &[1], &[5.0]);
    global.meta("format", "pt").meta("fedmill.rule", "median").write(&dir);
    let client = Update::new("c7").f32("tail", &[1], &[-5.0]).f32("body.w", &[2], &[10.0, 20.0]);
    let client = client.half("bn.running_var", "BF16", &[2], &[0x7fc1, 0x8000]);
    let client = client.f64("head.w", &[3, 1], &[0.1, 0.2, 0.3]).i64("steps", &[], &[11]);
    client.meta("num_examples", "many").write(&dir);
    dir
}

/// The names of the tensors, in the order of their data.
fn order(dir: &Dir, name: &str) -> Vec<String> {
    let bytes = dir.read(name);
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let offset = |value: &serde_json::Value| value["data_offsets"][0].as_u64();
    let mut names: Vec<_> = header.iter().filter_map(|(name, value)| Some((offset(value)?, name))).collect();
    names.sort();
    names.into_iter().map(|(_, name)| name.clone()).collect()
}

#[test]
fn personal_layers_come_from_the_client_and_the_others_from_the_global_model() {
    let dir = models();
    let (global, client) = (Model::read(&dir, "global.safetensors"), Model::read(&dir, "c7.safetensors"));
    let model = personalized(&dir, &["--layers", "fedbn", "--layers", "head.*"]);
    for (name, tensor) in &model.tensors {
        let from = if name.starts_with("bn.") || name.starts_with("head.") { &client } else { &global };
        assert_eq!(tensor, &from.tensors[name], "{name}");
    }
    assert_eq!(order(&dir, "out.safetensors"), order(&dir, "global.safetensors"));
    let metadata = [
        ("client_id", "c7"),
        ("fedmill.personal", "fedbn head.*"),
        ("fedmill.rule", "median"),
        ("format", "pt"),
    ];
    assert_eq!(model.metadata, metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
}

/// The output of a merge without a base, and a client that keeps its personal layers in a file.
#[test]
fn personal_layers_that_the_global_model_lacks_come_behind() {
    let dir = models();
    Update::new("global").f32("body.w", &[1], &[1.0]).f32("tail", &[1], &[5.0]).write(&dir);
    let own = Update::new("c7").f32("head.w", &[2], &[1.0, 2.0]).f32("head.b", &[1], &[3.0]);
    own.meta("client_id", "seven").write(&dir);
    let model = personalized(&dir, &["--layers", "head.*"]);
    assert_eq!(order(&dir, "out.safetensors"), ["body.w", "tail", "head.w", "head.b"]);
    assert_eq!(model.f32("head.w"), [1.0, 2.0]);
    assert_eq!(model.metadata["client_id"], "seven");
}

/// Two models of one float dtype, by the bits of their values, and an integer.
fn pair(dtype: &str, width: usize, global: &[u64], client: &[u64]) -> Dir {
    let dir = Dir::new();
    for (name, bits, steps) in [("global", global, 3), ("c7", client, 8)] {
        let bytes: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()[..width].to_vec()).collect();
        Update::new(name).raw("w", dtype, &[bits.len()], &bytes).i64("n", &[1], &[steps]).write(&dir);
    }
    dir
}

/// Bit patterns that survive a copy but not a computation: zeros of both signs, the smallest numbers, NaN with a
/// payload.
fn odd_bits(width: usize) -> Vec<u64> {
    let top = 1u64 << (8 * width - 1);
    vec![0, top, 1, top | 1, top - 1, !0 >> (64 - 8 * width)]
}

const FLOATS: [(&str, usize); 6] =
    [("F64", 8), ("F32", 4), ("F16", 2), ("BF16", 2), ("F8_E4M3", 1), ("F8_E5M2", 1)];

#[test]
fn ends_of_mixtures_are_the_models_themselves() {
    for (dtype, width) in FLOATS {
        let odd = odd_bits(width);
        let reversed: Vec<u64> = odd.iter().rev().copied().collect();
        let dir = pair(dtype, width, &odd, &reversed);
        for (alpha, name) in [("0", "global.safetensors"), ("1", "c7.safetensors")] {
            let (model, end) = (personalized(&dir, &["--mix", alpha]), Model::read(&dir, name));
            assert_eq!(model.tensors["w"], end.tensors["w"], "{dtype} {alpha}");
            assert_eq!(model.bytes("n"), 3i64.to_le_bytes());
            assert_eq!(model.metadata["fedmill.personal"], format!("mix={alpha}"));
        }
    }
}

/// Only `--mix 0` and `--mix 1` copy a model. Every other mixture is computed, even close to 0 or 1: it refuses NaN,
/// and both models contribute to it.
#[test]
fn mixtures_next_to_the_ends_are_mixtures() {
    let (low, high) = (f64::MIN_POSITIVE.to_string(), 1.0f64.next_down().to_string());
    for (dtype, width) in FLOATS {
        let odd = odd_bits(width);
        let reversed: Vec<u64> = odd.iter().rev().copied().collect();
        let dir = pair(dtype, width, &odd, &reversed);
        for alpha in [low.as_str(), "0.01", "0.99", "0.9999", &high] {
            let run = personalize(&dir, &["--mix", alpha]);
            run.assert_fails(2, &["tensor `w` holds NaN at flat index", "expected a finite number"]);
        }
    }
    // The client's values are zeros, so the rest is a fraction of huge values.
    let dir = pair("F64", 8, &[1e300f64.to_bits()], &[0]);
    for alpha in [0.0, 0.99, 0.9999, 1.0f64.next_down(), 1.0] {
        let model = personalized(&dir, &["--mix", &alpha.to_string()]);
        assert_eq!(model.f64("w"), [1e300 * (1.0 - alpha)], "{alpha}");
    }
}

/// Codes of 1, 2, -1 and -2, and of the values a quarter of the way from 1 to 2 and from -2 to -1.
const QUARTERS: [(&str, usize, [u64; 4], [u64; 2]); 6] = [
    ("F64", 8, [0x3ff0 << 48, 0x4000 << 48, 0xbff0 << 48, 0xc000 << 48], [0x3ff4 << 48, 0xbffc << 48]),
    ("F32", 4, [0x3f80_0000, 0x4000_0000, 0xbf80_0000, 0xc000_0000], [0x3fa0_0000, 0xbfe0_0000]),
    ("F16", 2, [0x3c00, 0x4000, 0xbc00, 0xc000], [0x3d00, 0xbf00]),
    ("BF16", 2, [0x3f80, 0x4000, 0xbf80, 0xc000], [0x3fa0, 0xbfe0]),
    ("F8_E4M3", 1, [0x38, 0x40, 0xb8, 0xc0], [0x3a, 0xbe]),
    ("F8_E5M2", 1, [0x3c, 0x40, 0xbc, 0xc0], [0x3d, 0xbf]),
];

#[test]
fn mixtures_lie_between_the_models() {
    for (dtype, width, [one, two, minus_one, minus_two], expected) in QUARTERS {
        let dir = pair(dtype, width, &[one, minus_two], &[two, minus_one]);
        let model = personalized(&dir, &["--mix", "0.25"]);
        let expected: Vec<u8> =
            expected.iter().flat_map(|bits| bits.to_le_bytes()[..width].to_vec()).collect();
        assert_eq!(model.tensors["w"], (model.dtype("w").to_owned(), vec![2], expected), "{dtype}");
        assert_eq!(model.bytes("n"), 3i64.to_le_bytes());
    }
}

/// Against the formula in f64, over more values than one step mixes, with another dtype in the client's model.
#[test]
fn mixtures_are_rounded_once_from_f64() {
    let len = (1 << 16) + 37;
    let value = |i: usize, seed: usize| ((i * seed) % 1009) as f64 / 7.0 - 60.0;
    let global: Vec<f32> = (0..len).map(|i| value(i, 31) as f32).collect();
    let client: Vec<f64> = (0..len).map(|i| value(i, 57)).collect();
    let dir = Dir::new();
    Update::new("global").f32("w", &[len], &global).f32("s", &[], &[1.0]).f32("empty", &[0], &[]).write(&dir);
    Update::new("c7").f64("w", &[len], &client).f64("s", &[], &[2.0]).f64("empty", &[0], &[]).write(&dir);
    for (text, alpha) in [("0.3", 0.3), ("1", 1.0), ("0", 0.0)] {
        let model = personalized(&dir, &["--mix", text]);
        let expected: Vec<f32> = global
            .iter()
            .zip(&client)
            .map(|(g, c)| ((1.0 - alpha) * f64::from(*g) + alpha * c) as f32)
            .collect();
        assert_eq!(model.f32("w"), expected, "{text}");
        assert_eq!(model.f32("s"), [(1.0 + alpha) as f32]);
    }
}

#[test]
fn sharded_models_are_read_and_written() {
    let dir = models();
    let whole = personalized(&dir, &["--layers", "head.*"]);
    let run = personalize(&dir, &["--layers", "head.*", "--max-shard-size", "10B"]);
    run.assert_merged("out.safetensors.index.json");
    let names = dir.names();
    let shards: Vec<&String> = names.iter().filter(|name| name.starts_with("out-")).collect();
    assert_eq!(shards.len(), 5, "{names:?}");
    let shards = shards.into_iter().flat_map(|name| Model::read(&dir, name).tensors);
    assert_eq!(shards.collect::<BTreeMap<_, _>>(), whole.tensors);
    let args =
        ["--global", "out.safetensors.index.json", "--personal", "c7.safetensors", "--layers", "head.*"];
    let run = fedmill(&dir, &[&["personalize", "-o", "again.safetensors"], &args[..]].concat());
    run.assert_merged("again.safetensors");
    assert_eq!(Model::read(&dir, "again.safetensors").tensors, whole.tensors);
}

#[test]
fn what_does_not_fit_is_named_and_nothing_is_published() {
    let head = |update: Update| update.f32("head.w", &[2], &[0.0; 2]);
    let global = || head(Update::new("global").f32("w", &[2], &[1.0, 2.0]));
    let client = || Update::new("c7").f32("w", &[2], &[1.0, 2.0]);
    let heads = ["--layers", "head.*"];
    let mix = ["--mix", "0.5"];
    for (global, client, args, parts) in [
        (global(), client(), heads, &["c7.safetensors: tensor `head.w` is missing, expected F32 [2]"][..]),
        (
            global(),
            head(client()).f32("x", &[1], &[0.0]),
            heads,
            &["tensor `x` is not expected: the global model"],
        ),
        (
            global(),
            head(Update::new("c7").f32("w", &[1], &[0.0])),
            heads,
            &["`w` has shape [1], expected [2]"],
        ),
        (global(), head(Update::new("c7").i64("w", &[2], &[0; 2])), heads, &["`w` has dtype I64"]),
        (global(), client(), mix, &["tensor `head.w` is missing"]),
        (global(), client().f32("head.w", &[3], &[0.0; 3]), mix, &["`head.w` has shape [3], expected [2]"]),
        (
            global(),
            client().f32("head.w", &[2], &[0.0, f32::NAN]),
            mix,
            &["c7.safetensors: tensor `head.w` holds NaN at flat index 1, expected a finite number"],
        ),
        (
            global(),
            client().f64("head.w", &[2], &[1e300, 0.0]),
            mix,
            &["tensor `head.w`: the mixed value", "does not fit F32"],
        ),
        (
            global(),
            head(client()).meta("kind", "delta"),
            mix,
            &[
                "c7.safetensors: metadata `kind` is delta, expected weights",
                "hint: add it to the model it started from: fedmill aggregate --base BASE c7.safetensors",
            ],
        ),
        (
            global().meta("kind", "delta"),
            head(client()),
            mix,
            &["global.safetensors: metadata `kind` is delta"],
        ),
        (global(), head(client()).meta("kind", "gradient"), mix, &["metadata `kind` is `gradient`"]),
        (global(), head(client()), ["--layers", "tail.*"], &["personal layers `tail.*`: no tensor matches"]),
        (global(), head(client()), ["--mix", "1.5"], &["expected a number from 0 to 1"]),
        (global(), head(client()), ["--mix", "NaN"], &["expected a number from 0 to 1"]),
        (global(), head(client()), ["--backend", "gpu"], &["required arguments were not provided"]),
        (global(), client().cut_to(30), mix, &["c7.safetensors: "]),
    ] {
        let dir = Dir::new();
        global.write(&dir);
        client.write(&dir);
        let before = dir.contents();
        personalize(&dir, &args).assert_fails(2, parts);
        dir.assert_unchanged_since(&before);
    }
}

#[test]
fn outputs_are_not_inputs() {
    let dir = models();
    let before = dir.contents();
    for (output, part) in [
        ("c7.safetensors", "c7.safetensors: is also an input"),
        ("global.safetensors", "global.safetensors: is also an input"),
        ("no/out.safetensors", "hint: mkdir -p no"),
    ] {
        let args =
            ["--global", "global.safetensors", "--personal", "c7.safetensors", "--mix", "0", "-o", output];
        fedmill(&dir, &[&["personalize"], &args[..]].concat()).assert_fails(2, &[part]);
        dir.assert_unchanged_since(&before);
    }
    let run = personalize(&dir, &["--mix", "0.5", "--layers", "head.*"]);
    run.assert_fails(2, &["cannot be used with"]);
}

/// The operator may choose what names the client; a claim that differs is then a fault.
#[test]
fn the_operator_chooses_what_names_the_client() {
    let dir = models();
    let named = |args: &[&str]| {
        personalized(&dir, &[&["--layers", "head.*"], args].concat()).metadata["client_id"].clone()
    };
    assert_eq!(named(&[]), "c7");
    assert_eq!(named(&["--client-id-from", "stem"]), "c7");
    assert_eq!(named(&["--client-id-from", "path"]), "c7.safetensors");
    let run = personalize(&dir, &["--layers", "head.*", "--client-id-from", "metadata"]);
    run.assert_fails(2, &["c7.safetensors: metadata `client_id` is missing"]);
    Update::new("c7").f32("tail", &[1], &[-5.0]).meta("client_id", "c8").write(&dir);
    let run = personalize(&dir, &["--layers", "tail", "--client-id-from", "stem"]);
    run.assert_fails(2, &["metadata `client_id` is `c8`, expected `c7` by --client-id-from stem"]);
}
