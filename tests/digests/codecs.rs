//! Updates compressed by every codec, decompressed, merged while encoded, and with a residual.

use super::inputs::{f32s, value};
use super::{Digests, done, merge};
use crate::harness::{Dir, Update};
use half::{bf16, f16};

const CODECS: [&str; 62] = [
    "f16",
    "bf16",
    "ecsq:bits=0.32",
    "ecsq:bits=1",
    "ecsq:bits=2.5",
    "ecsq:bits=4",
    "lowrank",
    "lowrank:rank=2",
    "randk:fraction=0.01",
    "randk:fraction=0.1,scale=inverse",
    "randk:k=64,values=f16",
    "sign",
    "sketch",
    "sketch:rows=3,columns=500,k=50",
    "topk:fraction=0.01",
    "topk:fraction=0.1",
    "topk:k=100,values=ternary",
    "topk:fraction=0.05,values=u4",
    "u1",
    "u2",
    "u3",
    "u4",
    "u5",
    "u6",
    "u7",
    "u8",
    "u8:block=0",
    "u4:block=128",
    "u3:per=channel",
    "u4:rounding=stochastic",
    "i2",
    "i3",
    "i4",
    "i5",
    "i6",
    "i7",
    "i8",
    "i4:block=0",
    "i5:per=channel",
    "i2:rounding=stochastic",
    "e4m3",
    "e4m3:block=0",
    "mxfp8",
    "mxfp8:scale=floor",
    "eden1",
    "eden2",
    "eden3",
    "eden4",
    "eden5",
    "eden6",
    "eden7",
    "eden8",
    "eden1:scale=min-error",
    "eden4:scale=min-error,block=1024",
    "eden2:scale=norm",
    "target=8",
    "target=40",
    "max-bytes=30kB",
    "max-bytes=9000B",
    "max-nmse=0.1",
    "max-nmse=1e-3",
    "max-nmse=1e-6",
];

/// Sums of three random numbers, whose distribution resembles that of a layer.
fn layer(seed: usize, len: usize) -> Vec<f64> {
    (0..len).map(|i| (value(seed, 3 * i) + value(seed, 3 * i + 1) + value(seed, 3 * i + 2)) * 0.125).collect()
}

/// Every float dtype, and tensors that codecs leave raw. Its variances and counters have any sign, which is no fault of
/// encoded updates.
fn update(name: &str, seed: usize) -> Update {
    signed(name, seed, |x| x, -2)
}

/// As [`update`], with the variances by `variance` and this counter.
fn signed(name: &str, seed: usize, variance: impl Fn(f32) -> f32, counter: i64) -> Update {
    let narrow = |seed, len| layer(seed, len).into_iter().map(|x| x as f32).collect::<Vec<f32>>();
    let halves =
        |seed| layer(seed, 512).into_iter().map(|x| f16::from_f64(x).to_bits()).collect::<Vec<u16>>();
    let bfloats =
        |seed| layer(seed, 600).into_iter().map(|x| bf16::from_f64(x).to_bits()).collect::<Vec<u16>>();
    let variances: Vec<f32> = narrow(seed + 6, 300).into_iter().map(variance).collect();
    Update::new(name)
        // Two chunks and a part of a chunk.
        .f32("large", &[700, 200], &narrow(seed, 140_000))
        .f32("layer.weight", &[40, 50], &narrow(seed + 1, 2000))
        .f64("double", &[300], &layer(seed + 2, 300))
        .half("f16", "F16", &[16, 32], &halves(seed + 3))
        .half("bf16", "BF16", &[600], &bfloats(seed + 4))
        .f32("all.equal", &[512], &[0.25; 512])
        .f32("zeros", &[20, 20], &[0.0; 400])
        .f32("layer.bias", &[10], &narrow(seed + 5, 10))
        .f32("bn.running_var", &[300], &variances)
        .f32("empty", &[0, 7], &[])
        .f32("scalar", &[], &[1.5])
        .i64("bn.num_batches_tracked", &[3], &[1, counter, 1 << 60])
        .raw("mask", "BOOL", &[5], &[1, 0, 0, 1, 1])
        .raw("bytes", "U8", &[300], &[7; 300])
}

/// The option that names a codec or a target.
fn how(text: &str) -> String {
    let is_target = ["target=", "max-bytes=", "max-nmse="].iter().any(|target| text.starts_with(target));
    if is_target { format!("--{text}") } else { format!("--codec={text}") }
}

/// Compresses and decompresses. Adds both files and the measured errors.
fn there_and_back(digests: &mut Digests, case: &str, dir: &Dir, args: &[&str]) {
    let fixed = ["compress", "--best-effort", "--as-is", "--json", "-o", "packed.safetensors"];
    let fixed = if args.iter().any(|arg| arg.starts_with("--codec")) {
        [fixed[0], "", fixed[2], fixed[3], fixed[4], fixed[5]]
    } else {
        fixed
    };
    let fixed: Vec<&str> = fixed.into_iter().filter(|arg| !arg.is_empty()).collect();
    let run = done(dir, &[&fixed, args].concat());
    digests.add_file(&format!("{case}/packed"), dir, "packed.safetensors");
    digests.add_printed(&format!("{case}/measured"), &run);
    done(dir, &["decompress", "packed.safetensors", "-o", "back.safetensors"]);
    digests.add_file(&format!("{case}/back"), dir, "back.safetensors");
}

#[test]
fn codecs() {
    let mut digests = Digests::new("codecs");
    let dir = Dir::new();
    update("a", 1).meta("num_examples", "120").meta("note", "kept").meta("round", "4").write(&dir);
    for (place, text) in CODECS.into_iter().enumerate() {
        let seed = format!("--seed={place}");
        there_and_back(&mut digests, text, &dir, &["a.safetensors", &how(text), &seed]);
    }
    for layout in ["plain", "bundle"] {
        for text in ["f16", "u4", "ecsq:bits=2.5", "topk:fraction=0.1", "eden4", "i4"] {
            let layout = format!("--layout={layout}");
            let case = format!("{layout}/{text}");
            there_and_back(&mut digests, &case, &dir, &["a.safetensors", &how(text), &layout]);
        }
    }
    let mut holed = f32s(3, 2000);
    [holed[7], holed[1000]] = [f32::NAN, f32::NEG_INFINITY];
    Update::new("holed").f32("w", &[2000], &holed).write(&dir);
    there_and_back(&mut digests, "nonfinite", &dir, &["holed.safetensors", "--codec=u4", "--nonfinite=zero"]);
    // Files for the library compressed-tensors.
    Update::new("matrix")
        .f32("layer.weight", &[6, 64], &f32s(7, 384))
        .f32("bias", &[6], &f32s(8, 6))
        .write(&dir);
    for text in ["i4:per=channel", "i4:block=32", "i8:block=64"] {
        let fixed = ["compress", "matrix.safetensors", "--emit-config=c.json", "-o", "packed.safetensors"];
        done(&dir, &[&fixed[..], &[&how(text)]].concat());
        digests.add_file(&format!("matrix/{text}/packed"), &dir, "packed.safetensors");
        digests.add_file(&format!("matrix/{text}/config"), &dir, "c.json");
    }
    // Compares all codecs, without speeds.
    let table = ["compress", "matrix.safetensors", "--dry-run", "--table", "--json", "--plot=p.svg"];
    let printed = done(&dir, &table).stdout;
    let row = |line: &str| {
        let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
        for speed in ["encode_mb_per_s", "decode_mb_per_s"] {
            assert!(row.as_object_mut().unwrap().remove(speed).is_some(), "{line}");
        }
        format!("{row}\n")
    };
    digests.add("table/rows", printed.lines().map(row).collect::<String>().as_bytes());
    digests.add_file("table/plot", &dir, "p.svg");
    digests.check(include_str!("recorded/codecs.txt"));
}

/// Weights sent as deltas, and merges of updates with different encodings.
#[test]
fn encoded_updates() {
    let mut digests = Digests::new("encoded");
    let dir = Dir::new();
    update("base", 50).write(&dir);
    std::fs::create_dir(dir.path("in")).unwrap();
    for (place, text) in ["u8", "f16", "u4", "eden4", "ecsq:bits=2.5", "mxfp8", "i8"].into_iter().enumerate()
    {
        let seed = 100 * (place + 1);
        update(&format!("c{place}"), seed).meta("num_examples", &(place + 2).to_string()).write(&dir);
        let (input, output) = (format!("c{place}.safetensors"), format!("in/c{place}.safetensors"));
        done(&dir, &["compress", &input, &how(text), "--base=base.safetensors", "-o", &output]);
        digests.add_file(&format!("sent/{text}"), &dir, &output);
    }
    signed("in/plain", 900, f32::abs, 2).meta("num_examples", "5").write(&dir);
    let ways: [(&str, &[&str]); 4] = [
        ("mean", &["--rule=mean"]),
        ("median", &["--rule=median"]),
        ("krum", &["--rule=krum", "--byzantine=1", "--metrics=signs"]),
        ("nnm-trimmed-mean", &["--pre=nnm", "--rule=trimmed-mean", "--byzantine=1"]),
    ];
    for (name, way) in ways {
        merge(&mut digests, name, &dir, &[&["in", "--base=base.safetensors"], way].concat());
    }
    // Each client sends few values.
    std::fs::create_dir(dir.path("few")).unwrap();
    for (place, text) in
        ["topk:fraction=0.1", "randk:fraction=0.1", "topk:k=200,values=u8"].into_iter().enumerate()
    {
        let (input, output) = (format!("c{place}.safetensors"), format!("few/c{place}.safetensors"));
        done(&dir, &["compress", &input, &how(text), "--base=base.safetensors", "-o", &output]);
        digests.add_file(&format!("sent/{text}"), &dir, &output);
    }
    merge(&mut digests, "few-mean", &dir, &["few", "--base=base.safetensors"]);
    let robust = ["few", "--base=base.safetensors", "--rule=median", "--allow-sparse-robust"];
    merge(&mut digests, "few-median", &dir, &robust);
    digests.check(include_str!("recorded/encoded.txt"));
}

#[test]
fn residuals() {
    let mut digests = Digests::new("residuals");
    for (name, text, more) in [
        ("u2", "u2", &[][..]),
        ("topk-decay-bf16", "topk:fraction=0.05", &["--decay=0.5", "--residual-dtype=bf16"]),
        ("lowrank", "lowrank:rank=2", &[]),
        ("eden1", "eden1:scale=min-error", &[]),
    ] {
        let dir = Dir::new();
        for round in 1..=3 {
            let update =
                Update::new("in").f32("w", &[70, 10], &f32s(round, 700)).f32("small", &[4], &f32s(round, 4));
            let update =
                update.i64("n", &[1], &[round as i64]).meta("kind", "delta").meta("client_id", "ada");
            let lr = (0.5 / (1 << round) as f64).to_string();
            update.meta("round", &round.to_string()).meta("local_lr", &lr).write(&dir);
            let output = format!("out-{round}.safetensors");
            let fixed = ["compress", "in.safetensors", "--residual=e.safetensors", "-o", &output, &how(text)];
            done(&dir, &[&fixed, more].concat());
            digests.add_file(&format!("{name}/{round}/sent"), &dir, &output);
            digests.add_file(&format!("{name}/{round}/residual"), &dir, "e.safetensors");
        }
        digests.add_file(&format!("{name}/previous"), &dir, "e.safetensors.previous");
    }
    digests.check(include_str!("recorded/residuals.txt"));
}
