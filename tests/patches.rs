//! Exact patches: one model to another bit for bit, refusals, and damaged or hostile patches.

use crate::harness::{Dir, Update, fedmill, le};
use crate::hostile_updates::{Random, mutated};
use fedmill::compress::patch::{PatchError, apply, make};
use half::{bf16, f16};

/// Makes a patch from `old` to `new`, and checks that it brings back all bytes of `new`. Returns its bytes.
#[track_caller]
fn check(old: &Update, new: &Update) -> usize {
    let dir = Dir::new();
    dir.write("old.safetensors", old.bytes());
    dir.write("new.safetensors", new.bytes());
    let [old, new, patch, back] =
        ["old", "new", "patch", "back"].map(|name| dir.path(&format!("{name}.safetensors")));
    assert!(make(&old, &new, &patch).unwrap(), "no patch");
    apply(&patch, &old, &back).unwrap();
    assert!(dir.read("back.safetensors") == dir.read("new.safetensors"), "other bytes");
    let bytes = dir.read("patch.safetensors").len();
    assert!(bytes < dir.read("new.safetensors").len());
    bytes
}

/// A large tensor that a patch leaves out, so that any change beside it is worth a patch.
fn ballast(name: &str) -> Update {
    Update::new(name).f32("ballast", &[5000], &[0.25; 5000]).meta("round", "4")
}

/// The bit patterns of floats that comparisons and arithmetic treat in their own way.
fn odd_floats() -> Vec<u32> {
    let nan = [0x7fc0_0000, 0x7f80_0001, 0xffc0_1234, 0xffff_ffff, 0x7fff_ffff];
    let zero = [0, 0x8000_0000, 1, 0x8000_0001, 0x0040_0000, 0x807f_ffff];
    let large = [0x7f80_0000, 0xff80_0000, 0x7f7f_ffff, 0xff7f_ffff, 0x3f80_0000, 0xbf80_0000];
    [&nan[..], &zero, &large].concat()
}

#[test]
fn odd_floats_come_back_from_each_other() {
    let all = odd_floats();
    let pairs = || all.iter().flat_map(|old| all.iter().map(move |new| (*old, *new)));
    let bits = |values: Vec<u32>| le(values.into_iter().map(u32::to_le_bytes));
    let len = [all.len() * all.len()];
    let old = ballast("old").raw("w", "F32", &len, &bits(pairs().map(|pair| pair.0).collect()));
    let new = ballast("new").raw("w", "F32", &len, &bits(pairs().map(|pair| pair.1).collect()));
    check(&old, &new);
    let halves =
        |pick: fn((u32, u32)) -> u32| le(pairs().map(|pair| ((pick(pair) >> 16) as u16).to_le_bytes()));
    for dtype in ["BF16", "F16"] {
        let old = ballast("old").raw("w", dtype, &len, &halves(|pair| pair.0));
        check(&old, &ballast("new").raw("w", dtype, &len, &halves(|pair| pair.1)));
    }
}

#[test]
fn all_dtypes_shapes_and_layouts_come_back() {
    let model = |seed: u64| {
        let mut random = Random(seed);
        let mut model = ballast("m");
        let dtypes = [
            "F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "I32", "I16", "I8", "U64", "U32",
            "U16", "U8",
        ];
        for (number, dtype) in dtypes.into_iter().enumerate() {
            let size = dtype.trim_start_matches(char::is_alphabetic).chars().take_while(char::is_ascii_digit);
            let size: String = if dtype.starts_with("F8") { "8".to_owned() } else { size.collect() };
            let size = size.parse::<usize>().unwrap_or(16) / 8;
            for (axes, shape) in
                [vec![], vec![0], vec![3, 0, 2], vec![1], vec![7, 9], vec![1000]].into_iter().enumerate()
            {
                let bytes: usize = size * shape.iter().product::<usize>();
                let bytes: Vec<u8> = (0..bytes).map(|_| random.below(256) as u8).collect();
                model = model.raw(&format!("{number}.{axes}"), dtype, &shape, &bytes);
            }
        }
        model.raw("flags", "BOOL", &[5], &[0, 1, 1, 0, (seed % 2) as u8])
    };
    check(&model(1), &model(1));
    check(&model(1), &model(2));
    let small = ballast("m").f32("w", &[2, 3], &[0.5; 6]).i64("n", &[], &[9]);
    for new in [
        ballast("m"),
        ballast("m").f32("w", &[3, 2], &[0.5; 6]).i64("n", &[], &[9]),
        ballast("m").f64("w", &[2, 3], &[0.5; 6]).i64("n", &[], &[-1]),
        ballast("m").i64("n", &[], &[9]).f32("w", &[2, 3], &[0.5; 6]),
        ballast("m").f32("w", &[2, 3], &[0.5; 6]).i64("n", &[], &[9]).f32("more", &[40], &[1.5; 40]),
        ballast("m").meta("round", "5").meta("note", "ä \"quoted\"").f32("w", &[2, 3], &[0.25; 6]),
        Update::new("m").f32("other", &[4], &[1.0; 4]).f32("ballast", &[5000], &[0.25; 5000]),
        // A header with spaces at the end, as other writers align it.
        small_with_spaces(),
    ] {
        check(&small, &new);
        check(&new, &small);
    }
}

fn small_with_spaces() -> Update {
    let header = r#"{"ballast":{"shape":[5000], "dtype":"F32","data_offsets":[0,20000]}}      "#;
    ballast("m").header(header)
}

/// Weights of a layer, and a step of training.
fn trained(seed: u64, steps: u32) -> Vec<f32> {
    let mut random = Random(seed);
    let mut noise = Random(seed + u64::from(steps) * 977);
    let uniform = |random: &mut Random| random.below(1 << 20) as f32 / (1 << 20) as f32 - 0.5;
    let weights: Vec<f32> = (0..150_000).map(|_| uniform(&mut random) * 0.2).collect();
    weights.into_iter().map(|x| x + if steps > 0 { uniform(&mut noise) * 1e-3 } else { 0.0 }).collect()
}

#[test]
fn steps_of_training_take_fewer_bytes() {
    let f32s = |steps| {
        ballast("m").f32("w", &[150_000], &trained(3, steps)).f32("frozen", &[150_000], &trained(4, 0))
    };
    let frozen = check(&f32s(0), &f32s(1)) - 600;
    // A step of 1e-3 in weights of 0.1 changes about 17 of 32 bits.
    assert!(frozen < 150_000 * 21 / 8, "{frozen} bytes");
    let half = |steps, dtype: &str| {
        let bits =
            |x: &f32| if dtype == "F16" { f16::from_f32(*x).to_bits() } else { bf16::from_f32(*x).to_bits() };
        ballast("m").half("w", dtype, &[150_000], &trained(3, steps).iter().map(bits).collect::<Vec<u16>>())
    };
    assert!(check(&half(0, "BF16"), &half(1, "BF16")) < 150_000 * 3 / 8);
    assert!(check(&half(0, "F16"), &half(1, "F16")) < 150_000 * 7 / 8);
    assert!(check(&f32s(0), &f32s(0)) < 2000, "a model that does not change takes a header");
}

#[test]
fn a_patch_that_is_not_smaller_is_not_written() {
    let dir = Dir::new();
    let random = |name: &str, seed| {
        let mut random = Random(seed);
        let bytes: Vec<u8> = (0..40_000).map(|_| random.below(256) as u8).collect();
        Update::new(name).raw("w", "F32", &[10_000], &bytes).write(&dir);
    };
    random("old", 1);
    random("new", 2);
    Update::new("tiny").f32("w", &[1], &[1.0]).write(&dir);
    for new in ["new", "tiny"] {
        let new = dir.path(&format!("{new}.safetensors"));
        assert!(!make(&dir.path("old.safetensors"), &new, &dir.path("p.safetensors")).unwrap());
    }
    let args = ["compress", "--exact", "new.safetensors", "--base", "old.safetensors", "-o", "p.safetensors"];
    fedmill(&dir, &args).assert_fails(1, &["refused: new.safetensors: a patch would not be smaller"]);
    assert_eq!(dir.names(), ["new.safetensors", "old.safetensors", "tiny.safetensors"]);
}

/// Two models and a patch between them.
fn round() -> Dir {
    let dir = Dir::new();
    let model = |name: &str, value: f32| {
        let values: Vec<f32> = (0..600).map(|i| i as f32 / 600.0 + value).collect();
        Update::new(name)
            .f32("w", &[20, 30], &values)
            .i64("n", &[2], &[value as i64, 3])
            .meta("round", name)
            .write(&dir);
    };
    model("1", 0.0);
    model("2", 1.0 / 1024.0);
    model("3", 2.0);
    let made = make(&dir.path("1.safetensors"), &dir.path("2.safetensors"), &dir.path("patch.safetensors"));
    assert!(made.unwrap());
    dir
}

#[test]
fn the_command_line_makes_and_applies_patches() {
    let dir = round();
    let old = ["--base", "1.safetensors"];
    let make = [&["compress", "--exact", "2.safetensors", "-o", "p.safetensors"][..], &old].concat();
    fedmill(&dir, &make).assert_merged("p.safetensors");
    assert!(dir.read("p.safetensors") == dir.read("patch.safetensors"), "the same bytes each time");
    let apply = ["decompress", "p.safetensors", "-o", "back.safetensors"];
    fedmill(&dir, &[&apply[..], &old].concat()).assert_merged("back.safetensors");
    assert!(dir.read("back.safetensors") == dir.read("2.safetensors"));
    std::fs::remove_file(dir.path("back.safetensors")).unwrap();

    fedmill(&dir, &apply)
        .assert_fails(2, &["p.safetensors: is a patch, and --base is missing", "--base takes"]);
    let other = [&apply[..], &["--base", "3.safetensors"]].concat();
    fedmill(&dir, &other).assert_fails(2, &["3.safetensors: has digest ", "as p.safetensors names it"]);
    let small = [&apply[..], &old, &["--max-size", "1kB"]].concat();
    fedmill(&dir, &small).assert_fails(2, &["expected at most 1000", "--max-size allows more"]);
    let over = ["decompress", "p.safetensors", "-o", "1.safetensors", "--base", "1.safetensors"];
    fedmill(&dir, &over).assert_fails(2, &["1.safetensors: is also an input"]);
    fedmill(&dir, &["inspect", "p.safetensors"]);
    assert!(!dir.exists("back.safetensors"));
}

#[test]
fn a_patch_is_not_taken_for_an_update() {
    let dir = round();
    let run =
        fedmill(&dir, &["aggregate", "patch.safetensors", "--base", "1.safetensors", "-o", "m.safetensors"]);
    assert_eq!((run.code, dir.exists("m.safetensors")), (Some(2), false), "{}", run.stderr);
}

#[test]
fn every_change_of_a_patch_is_found() {
    let dir = round();
    let patch = dir.read("patch.safetensors");
    let [old, evil, back] = ["1", "evil", "back"].map(|name| dir.path(&format!("{name}.safetensors")));
    let refused = |bytes: &[u8], what: &str| {
        dir.write("evil.safetensors", bytes);
        assert!(apply(&evil, &old, &back).is_err() && !dir.exists("back.safetensors"), "{what}");
    };
    for at in 0..patch.len() {
        let mut changed = patch.clone();
        changed[at] ^= 1 << (at % 8);
        refused(&changed, &format!("byte {at}"));
    }
    for len in (0..patch.len()).step_by(7) {
        refused(&patch[..len], &format!("{len} bytes"));
    }
    refused(&[&patch[..], b" "].concat(), "a byte more");
    dir.write("evil.safetensors", &patch);
    apply(&evil, &old, &back).unwrap();
}

#[test]
fn hostile_patches_with_a_right_digest_make_no_wrong_model() {
    let dir = round();
    let patch = dir.read("patch.safetensors");
    let expected = dir.read("2.safetensors");
    let [old, evil, back] = ["1", "evil", "back"].map(|name| dir.path(&format!("{name}.safetensors")));
    let mut reached = 0;
    for seed in 0..1500 {
        let mut random = Random(seed);
        let mut changed = if seed % 3 == 0 { mutated(&patch, &mut random) } else { patch.clone() };
        if seed % 3 > 0 {
            let start = changed.len() - random.below(changed.len() / 2);
            (0..=random.below(3)).for_each(|_| {
                let at = if start < changed.len() {
                    start + random.below(changed.len() - start)
                } else {
                    start - 1
                };
                changed[at] = random.below(256) as u8;
            });
        }
        dir.write("evil.safetensors", sealed(changed));
        match apply(&evil, &old, &back) {
            Ok(()) => assert!(dir.read("back.safetensors") == expected, "mutation {seed}"),
            Err(PatchError::OtherModel { .. } | PatchError::Invalid { .. }) => reached += 1,
            Err(_) => {}
        }
        let _ = std::fs::remove_file(&back);
    }
    assert!(reached > 300, "{reached} changed patches were decoded: nothing is tested");
}

/// The bytes with the digest that they should carry, if they have room for one.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let key = b"\"fedmill.digest\":\"blake3:";
    let Some(at) = bytes.windows(key.len()).position(|window| window == key) else { return bytes };
    let digits = at + key.len()..at + key.len() + 64;
    if digits.end <= bytes.len() {
        bytes[digits.clone()].fill(b'0');
        let digest = blake3::hash(&bytes).to_hex();
        bytes[digits].copy_from_slice(digest.as_bytes());
    }
    bytes
}

#[test]
fn claims_of_a_patch_allocate_nothing() {
    let dir = round();
    let patch = String::from_utf8_lossy(&dir.read("patch.safetensors")).into_owned();
    let bytes = dir.read("2.safetensors").len();
    assert!(patch.contains(&format!("\"fedmill.patch.model_bytes\":\"{bytes}\"")));
    for (claim, why) in [
        (
            format!("\"fedmill.patch.model_bytes\":\"{}\"", "9".repeat(bytes.to_string().len())),
            "header of the new model",
        ),
        ("\"fedmill.patch\":\"fedmill.patch/2\"".to_owned(), "fedmill.patch/2, expected fedmill.patch/1"),
    ] {
        let (key, _) = claim.split_once(':').unwrap();
        let mut changed = dir.read("patch.safetensors");
        let at = changed.windows(key.len() + 1).position(|w| w == format!("{key}:").as_bytes()).unwrap();
        changed[at..at + claim.len()].copy_from_slice(claim.as_bytes());
        dir.write("evil.safetensors", sealed(changed));
        let args = ["decompress", "evil.safetensors", "--base", "1.safetensors", "-o", "back.safetensors"];
        fedmill(&dir, &args).assert_fails(2, &[why]);
    }
}

#[test]
fn shards_are_patched_one_by_one() {
    let dir = Dir::new();
    for name in ["old", "new"] {
        let value = if name == "old" { 0.5 } else { 0.5001 };
        let model =
            Update::new(&format!("{name}/m")).f32("a", &[600], &[value; 600]).f32("b", &[600], &[value; 600]);
        model.write(&dir);
        let base = format!("{name}/m.safetensors");
        let args = ["aggregate", &base, "-o", &format!("{name}/s.safetensors"), "--max-shard-size", "3kB"];
        assert_eq!(fedmill(&dir, &args).code, Some(0));
    }
    let name = "s-00002-of-00002.safetensors";
    let [old, new] = ["old", "new"].map(|side| dir.path(&format!("{side}/{name}")));
    assert!(make(&old, &new, &dir.path("p.safetensors")).unwrap());
    apply(&dir.path("p.safetensors"), &old, &dir.path(name)).unwrap();
    assert!(dir.read(name) == dir.read(&format!("new/{name}")));
    let index = "old/s.safetensors.index.json";
    let args = ["compress", "--exact", index, "--base", &format!("old/{name}"), "-o", "q.safetensors"];
    fedmill(&dir, &args).assert_fails(2, &["is an index of shards", "make a patch for each shard"]);
}
