//! `fedmill compress` and `decompress`, files to files: round trips, reports, refusals, merges.

mod refused;
mod tables;
mod targets;

use crate::harness::{Dir, Model, Run, Update, fedmill, le};
use safetensors::SafeTensors;
use sha2::Digest as _;

const LAYOUTS: [&str; 2] = ["plain", "bundle"];

/// Values with the distribution of a trained layer, the same in every run.
fn values(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1u32 << 24) - 0.5
    };
    (0..len).map(|_| ((next() + next() + next()) * 0.1) as f32).collect()
}

/// An update with every float dtype, and with tensors that no codec encodes.
fn update(name: &str, seed: u32) -> Update {
    let doubles: Vec<f64> = values(seed + 1, 300).iter().map(|x| f64::from(*x)).collect();
    let f16: Vec<u16> = values(seed + 2, 512).iter().map(|x| half::f16::from_f32(*x).to_bits()).collect();
    let bf16: Vec<u16> = values(seed + 3, 600).iter().map(|x| half::bf16::from_f32(*x).to_bits()).collect();
    let variances: Vec<f32> = values(seed + 5, 300).iter().map(|x| x.abs()).collect();
    Update::new(name)
        .f32("layer.weight", &[40, 50], &values(seed, 2000))
        .f64("double", &[300], &doubles)
        .half("f16", "F16", &[16, 32], &f16)
        .half("bf16", "BF16", &[600], &bf16)
        .f32("all.equal", &[512], &[0.25; 512])
        .f32("layer.bias", &[10], &values(seed + 4, 10))
        .f32("bn.running_var", &[300], &variances)
        .f32("empty", &[0, 7], &[])
        .f32("scalar", &[], &[1.5])
        .i64("bn.num_batches_tracked", &[3], &[1, 2, 1 << 60])
        .raw("mask", "BOOL", &[5], &[1, 0, 0, 1, 1])
        .raw("bytes", "U8", &[300], &[7; 300])
}

/// The tensors of [`update`] that a codec changes.
const ENCODED: [&str; 4] = ["layer.weight", "double", "f16", "bf16"];

#[track_caller]
fn compress(dir: &Dir, args: &[&str], output: &str) -> Run {
    let run = fedmill(dir, &[&["compress", "--quiet", "--as-is", "-o", output], args].concat());
    assert_eq!((run.code, run.stdout.trim_end()), (Some(0), output), "{run:#?}");
    run
}

#[track_caller]
fn decompress(dir: &Dir, input: &str, output: &str) -> Model {
    let run = fedmill(dir, &["decompress", input, "-o", output]);
    assert_eq!((run.code, run.stdout.trim_end()), (Some(0), output), "{run:#?}");
    Model::read(dir, output)
}

/// The values of a float tensor.
fn floats(model: &Model, tensor: &str) -> Vec<f64> {
    let (dtype, _, bytes) = &model.tensors[tensor];
    let half = |x: &[u8]| u16::from_le_bytes([x[0], x[1]]);
    match dtype.as_str() {
        "F64" => model.f64(tensor),
        "F32" => model.f32(tensor).into_iter().map(f64::from).collect(),
        "F16" => bytes.chunks_exact(2).map(|x| half::f16::from_bits(half(x)).to_f64()).collect(),
        "BF16" => bytes.chunks_exact(2).map(|x| half::bf16::from_bits(half(x)).to_f64()).collect(),
        other => panic!("{tensor} is {other}"),
    }
}

fn nmse(sent: &[f64], decoded: &[f64]) -> f64 {
    assert_eq!(sent.len(), decoded.len());
    let squares: f64 = sent.iter().map(|x| x * x).sum();
    sent.iter().zip(decoded).map(|(x, y)| (x - y) * (x - y)).sum::<f64>() / squares
}

#[test]
fn what_was_compressed_comes_back() {
    let dir = Dir::new();
    update("a", 1)
        .meta("kind", "weights")
        .meta("num_examples", "120")
        .meta("note", "kept")
        .meta("round", "4")
        .write(&dir);
    let before = Model::read(&dir, "a.safetensors");
    for (codec, most) in [("f16", 1e-6), ("bf16", 1e-5), ("u8", 1e-4), ("u4", 2e-2)] {
        let mut plain = Vec::new();
        for layout in LAYOUTS {
            compress(&dir, &["--codec", codec, "--layout", layout, "a.safetensors"], "a.packed.safetensors");
            let after = decompress(&dir, "a.packed.safetensors", "back.safetensors");
            for (name, (dtype, shape, bytes)) in &before.tensors {
                let (found, extents, decoded) = &after.tensors[name];
                assert_eq!((found, extents), (dtype, shape), "{codec} {layout} {name}");
                if !ENCODED.contains(&name.as_str()) {
                    assert_eq!(decoded, bytes, "{codec} {layout} {name}");
                }
            }
            assert_eq!(after.tensors.len(), before.tensors.len());
            for name in ENCODED {
                // bf16 has eight significant bits.
                let most = if name == "bf16" { 1e-5f64.max(most) } else { most };
                let nmse = nmse(&floats(&before, name), &floats(&after, name));
                assert!(nmse <= most, "{codec} {layout} {name}: {nmse}");
            }
            let mut expected = before.metadata.clone();
            expected.insert("client_id".to_owned(), "a".to_owned());
            expected.retain(|key, _| key != "format");
            let mut found = after.metadata.clone();
            found.retain(|key, _| key != "format");
            assert_eq!(found, expected, "{codec} {layout}");
            plain.push(dir.read("back.safetensors"));
        }
        assert!(plain[0] == plain[1], "{codec}: the layouts decode to different bytes");
    }
}

/// Any safetensors reader can open a compressed file. In the plain layout, streams have the names of their tensors.
#[test]
fn compressed_files_are_safetensors() {
    let dir = Dir::new();
    update("a", 1).write(&dir);
    for layout in LAYOUTS {
        compress(&dir, &["--codec", "f16", "--layout", layout, "a.safetensors"], "packed.safetensors");
        let bytes = dir.read("packed.safetensors");
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        if layout == "plain" {
            let weight = tensors.tensor("layer.weight").unwrap();
            assert_eq!((weight.dtype(), weight.shape()), (safetensors::Dtype::F16, &[40, 50][..]));
        } else {
            assert_eq!(tensors.names(), ["fedmill.bundle"]);
        }
        let model = Model::read(&dir, "packed.safetensors");
        assert_eq!(model.metadata["fedmill.format"], "fedmill-update/1");
    }
}

#[test]
fn a_single_value_nothing_and_chunks_to_spare() {
    let dir = Dir::new();
    Update::new("none").write(&dir);
    Update::new("empty").f32("w", &[0], &[]).write(&dir);
    Update::new("one").f32("w", &[1], &[-3.5]).write(&dir);
    for len in [255, 256, 257, 65_535, 65_536, 65_537, 200_003] {
        Update::new(&len.to_string()).f32("w", &[len], &values(len as u32, len)).write(&dir);
    }
    for name in ["none", "empty", "one", "255", "256", "257", "65535", "65536", "65537", "200003"] {
        let input = format!("{name}.safetensors");
        let before = Model::read(&dir, &input);
        for layout in LAYOUTS {
            compress(&dir, &["--codec", "u8", "--layout", layout, &input], "packed.safetensors");
            let after = decompress(&dir, "packed.safetensors", "back.safetensors");
            assert_eq!(after.tensors.keys().collect::<Vec<_>>(), before.tensors.keys().collect::<Vec<_>>());
            match name.parse::<usize>() {
                Ok(256..) => {
                    assert!(nmse(&floats(&before, "w"), &floats(&after, "w")) < 1e-4, "{name} {layout}");
                }
                _ => assert_eq!(after.tensors, before.tensors, "{name} {layout}"),
            }
        }
    }
}

/// The report has the figures of the files: the sizes on disk, the errors of the decoded values.
#[test]
fn figures_are_those_of_the_files() {
    let dir = Dir::new();
    update("a", 9).write(&dir);
    let args =
        ["compress", "--quiet", "--json", "--codec", "u4", "a.safetensors", "-o", "packed.safetensors"];
    let run = fedmill(&dir, &args);
    let figures: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let bytes = |name: &str| dir.read(name).len() as u64;
    let (input, output) = (bytes("a.safetensors"), bytes("packed.safetensors"));
    assert_eq!((&figures["input_bytes"], &figures["output_bytes"]), (&input.into(), &output.into()));
    assert!((figures["ratio"].as_f64().unwrap() - input as f64 / output as f64).abs() < 1e-12);
    let before = Model::read(&dir, "a.safetensors");
    let after = decompress(&dir, "packed.safetensors", "back.safetensors");
    let names: Vec<&String> = before.tensors.keys().collect();
    let is_float = |name: &&&String| before.dtype(name).starts_with('F') || before.dtype(name) == "BF16";
    let all = |model: &Model| -> Vec<f64> {
        names.iter().filter(is_float).flat_map(|name| floats(model, name)).collect()
    };
    let (sent, decoded) = (all(&before), all(&after));
    let expected = nmse(&sent, &decoded);
    let found = figures["nmse"].as_f64().unwrap();
    assert!((found - expected).abs() <= 1e-6 * expected, "reported {found}, found {expected}");
    assert_eq!(figures["parameters"], sent.len() as u64);
}

#[test]
fn the_same_bytes_every_time() {
    let dir = Dir::new();
    Update::new("a").f32("w", &[3, 70_000], &values(5, 210_000)).write(&dir);
    for codec in &fedmill::codecs::tried().collect::<Vec<_>>() {
        let mut first: Option<Vec<u8>> = None;
        for more in [&["--threads", "1"][..], &["--threads", "4"], &["--isa", "portable"]] {
            let args = [
                &["compress", "-q", "--as-is", "--codec", codec, "a.safetensors", "-o", "out.safetensors"],
                more,
            ];
            let run = fedmill(&dir, &args.concat());
            assert_eq!(run.code, Some(0), "{codec}: {run:#?}");
            let bytes = dir.read("out.safetensors");
            assert!(*first.get_or_insert_with(|| bytes.clone()) == bytes, "{codec} {more:?}");
        }
    }
}

/// Weights with a base travel as a delta that names the base.
#[test]
fn weights_are_sent_as_what_they_changed() {
    let dir = Dir::new();
    let base = values(1, 1000);
    let delta = values(2, 1000);
    let weights: Vec<f32> = base.iter().zip(&delta).map(|(x, d)| x + d).collect();
    Update::new("base").f32("w", &[1000], &base).i64("n", &[1], &[40]).write(&dir);
    Update::new("a").f32("w", &[1000], &weights).i64("n", &[1], &[42]).write(&dir);
    let delta: Vec<f64> = weights.iter().zip(&base).map(|(x, b)| f64::from(*x) - f64::from(*b)).collect();
    let bytes = dir.read("base.safetensors");
    let sha256: String = sha2::Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let blake3 = blake3::hash(&bytes).to_hex();
    let whole = format!("sha256:{sha256}");
    // A file made for a target has the start of the base's digest, and takes the names of its tensors from the base.
    let start = format!("blake3:{}", &blake3[..32]);
    for (layout, how, digest) in [
        ("plain", ["--codec", "u8"], &whole),
        ("bundle", ["--codec", "u8"], &whole),
        ("bundle", ["--max-nmse", "1e-4"], &start),
    ] {
        let args = ["--layout", layout, "--base", "base.safetensors", how[0], how[1], "a.safetensors"];
        compress(&dir, &args, "packed.safetensors");
        let args =
            ["decompress", "packed.safetensors", "--base", "base.safetensors", "-o", "back.safetensors"];
        assert_eq!(fedmill(&dir, &args).code, Some(0));
        let after = Model::read(&dir, "back.safetensors");
        let found = nmse(&delta, &floats(&after, "w"));
        assert!(found <= 1e-4, "{layout} {how:?}: {found}");
        assert_eq!(after.bytes("n"), 2i64.to_le_bytes());
        assert_eq!((&after.metadata["base"], after.metadata["kind"].as_str()), (digest, "delta"));
    }
    // A file made for a target takes the names of its tensors from the base.
    compress(
        &dir,
        &["--max-bytes", "300B", "--best-effort", "--base", "base.safetensors", "a.safetensors"],
        "small.safetensors",
    );
    let args = ["decompress", "small.safetensors", "-o", "out.safetensors"];
    fedmill(&dir, &args).assert_fails(2, &["small.safetensors: ", "expected --base"]);

    let merge = |base: &str| {
        let args = ["aggregate", "-q", "packed.safetensors", "--base", base, "-o", "merged.safetensors"];
        fedmill(&dir, &args)
    };
    merge("base.safetensors").assert_merged("merged.safetensors");
    let merged = Model::read(&dir, "merged.safetensors");
    let near = floats(&merged, "w").iter().zip(&weights).all(|(x, y)| (x - f64::from(*y)).abs() < 2e-3);
    assert!(near);
    assert_eq!(merged.bytes("n"), 42i64.to_le_bytes());

    Update::new("other").f32("w", &[1000], &weights).i64("n", &[1], &[40]).write(&dir);
    merge("other.safetensors").assert_fails(2, &["packed.safetensors", "base"]);
}

/// A rule sees the same values in an encoded update as in the decompressed one.
#[test]
fn a_merge_of_mixed_encodings_is_that_of_the_plain_files() {
    let dir = Dir::new();
    update("base", 50).write(&dir);
    for (client, codec) in [("a", None), ("b", Some("u8")), ("c", Some("f16")), ("d", Some("u4"))] {
        let seed = u32::from(client.as_bytes()[0]);
        update(&format!("trained/{client}"), seed)
            .meta("num_examples", "7")
            .meta("client_id", client)
            .write(&dir);
        let trained = format!("trained/{client}.safetensors");
        let (encoded, plain) =
            (format!("encoded/{client}.safetensors"), format!("plain/{client}.safetensors"));
        dir.write(&encoded, b"");
        dir.write(&plain, b"");
        match codec {
            Some(codec) => {
                let layout = if client == "c" { "bundle" } else { "plain" };
                compress(&dir, &["--codec", codec, "--layout", layout, &trained], &encoded);
                decompress(&dir, &encoded, &plain);
            }
            None => [encoded, plain].iter().for_each(|path| dir.write(path, dir.read(&trained))),
        }
    }
    for rule in ["mean", "median", "trimmed-mean:cut=1", "krum"] {
        let mut merged = ["encoded", "plain"].map(|updates| {
            let output = format!("{updates}.safetensors");
            let args =
                ["aggregate", "-q", updates, "--rule", rule, "--base", "base.safetensors", "-o", &output];
            fedmill(&dir, &args).assert_merged(&output);
            dir.read(&output)
        });
        assert!(merged[0] == merged[1], "{rule}");
        merged[0].clear();
    }
}

/// A base and a state are models, and an encoded update is not a model.
#[test]
fn encoded_files_are_no_models() {
    let dir = Dir::new();
    update("a", 1).write(&dir);
    compress(&dir, &["--codec", "u8", "a.safetensors"], "packed.safetensors");
    let says = ["packed.safetensors: ", "is an encoded update", "hint: run `fedmill decompress` on it first"];
    let out = ["a.safetensors", "-o", "out.safetensors"];
    let merge = |more: &[&str]| fedmill(&dir, &[&["aggregate"], &out[..], more].concat());
    let before = dir.contents();
    merge(&["--base", "packed.safetensors"]).assert_fails(2, &says);
    let state = ["--base", "a.safetensors", "--strategy", "fedadam", "--state", "packed.safetensors"];
    merge(&state).assert_fails(2, &says);
    for (global, client) in [("a", "packed"), ("packed", "a")] {
        let [global, client] = [global, client].map(|name| format!("{name}.safetensors"));
        let both = ["--global", &global, "--personal", &client, "--mix", "0.5", "-o", "out.safetensors"];
        fedmill(&dir, &[&["personalize"], &both[..]].concat()).assert_fails(2, &says);
    }
    dir.assert_unchanged_since(&before);
}

/// A broken encoding makes one bad update; the others merge.
#[test]
fn a_broken_encoding_is_a_bad_update() {
    let dir = Dir::new();
    ["a", "b", "c"].iter().for_each(|name| update(&format!("in/{name}"), 3).write(&dir));
    dir.write("in/z.safetensors", b"");
    compress(&dir, &["--codec", "u8", "in/a.safetensors"], "in/z.safetensors");
    let metadata = |text: &str| {
        let header =
            format!(r#"{{"__metadata__":{{"fedmill.format":"fedmill-update/1","fedmill.codec":{text}}}}}"#);
        [&le([(header.len() as u64).to_le_bytes()])[..], header.as_bytes()].concat()
    };
    for broken in [r#""{}""#, r#""no json""#, r#""{\"tensors\":{\"here\":[]},\"parts\":[],\"metadata\":{}}""#]
    {
        dir.write("in/z.safetensors", metadata(broken));
        let run = fedmill(&dir, &["aggregate", "in", "-o", "merged.safetensors"]);
        run.assert_fails(2, &["in/z.safetensors: "]);
        let run =
            fedmill(&dir, &["aggregate", "in", "--on-bad-update", "skip", "-q", "-o", "merged.safetensors"]);
        run.assert_merged("merged.safetensors");
        std::fs::remove_file(dir.path("merged.safetensors")).unwrap();
    }
}

/// Values beyond the range of a codec are counted, in a warning and in the measurements.
#[test]
fn values_that_are_cut_or_lost_are_counted() {
    let large: Vec<f32> = (0..400).map(|i| if i < 300 { 1e6 } else { i as f32 }).collect();
    let tiny: Vec<f64> = (0..400).map(|i| 1e-60 * f64::from(i)).collect();
    let minute: Vec<f64> = (0..400).map(|i| 1e-200 * f64::from(i)).collect();
    let small: Vec<f32> = (0..400).map(|i| 1e-9 * i as f32).collect();
    let cases = [
        ("f16", Update::new("a").f32("w", &[400], &large), 300, 0, None),
        ("topk:fraction=1,values=f16", Update::new("a").f32("w", &[400], &large), 300, 0, None),
        ("bf16", Update::new("a").f32("w", &[400], &large), 0, 0, None),
        ("u8", Update::new("a").f64("w", &[400], &tiny), 0, 399, Some(1.0)),
        ("u8", Update::new("a").f64("w", &[400], &minute), 0, 399, Some(1.0)),
        ("f16", Update::new("a").f32("w", &[400], &small), 0, 29, None),
    ];
    for (codec, update, cut, lost, nmse) in cases {
        let dir = Dir::new();
        update.meta("kind", "delta").write(&dir);
        let run =
            fedmill(&dir, &["compress", "--json", "--codec", codec, "a.safetensors", "-o", "o.safetensors"]);
        assert_eq!(run.code, Some(0), "{codec}: {run:#?}");
        let found: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(
            (&found["values_cut"], &found["values_lost"]),
            (&cut.into(), &lost.into()),
            "{codec}: {found}"
        );
        assert_eq!(
            run.stderr.contains(&format!("{cut} of 400 values are beyond the range")),
            cut > 0,
            "{run:#?}"
        );
        assert_eq!(run.stderr.contains(&format!("{lost} of 400 values are lost")), lost > 0, "{run:#?}");
        assert!(nmse.is_none_or(|nmse| found["nmse"] == nmse), "{codec}: {found}");
    }
}
