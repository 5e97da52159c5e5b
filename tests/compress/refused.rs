//! Updates that cannot be compressed, and files that cannot be decompressed.

use super::{compress, decompress, update, values};
use crate::harness::{Dir, Model, Update, fedmill};

/// Writes an update with a broken value in an encoded tensor (0) or a raw one (1).
fn broken(dir: &Dir, tensor: usize, value: f32) {
    let mut large = values(1, 300);
    let mut small = values(2, 8);
    if tensor == 0 {
        large[17] = value
    } else {
        small[3] = value
    }
    Update::new("a").f32("large", &[300], &large).f32("small", &[8], &small).write(dir);
}

#[test]
fn values_that_are_not_finite() {
    let dir = Dir::new();
    for (tensor, name, index) in [(0, "large", 17), (1, "small", 3)] {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            broken(&dir, tensor, value);
            let before = dir.contents();
            let args = ["compress", "--codec", "u8", "a.safetensors", "-o", "packed.safetensors"];
            let expected = format!("a.safetensors: tensor `{name}` holds {value} at flat index {index}");
            let expected = [expected.as_str(), "hint: --nonfinite zero"];
            fedmill(&dir, &args).assert_fails(2, &expected);
            dir.assert_unchanged_since(&before);
            compress(&dir, &["--codec", "u8", "--nonfinite", "zero", "a.safetensors"], "packed.safetensors");
            let after = decompress(&dir, "packed.safetensors", "back.safetensors");
            let found = after.f32(name)[index];
            assert!(found.abs() < 2e-3, "{name} has {found}");
            std::fs::remove_file(dir.path("packed.safetensors")).unwrap();
        }
    }
}

#[test]
fn what_cannot_be_compressed() {
    let dir = Dir::new();
    update("a", 1).write(&dir);
    update("delta", 1).meta("kind", "delta").write(&dir);
    update("odd", 1).meta("round", "first").write(&dir);
    Update::new("narrow").f32("layer.weight", &[40, 49], &values(1, 1960)).write(&dir);
    Update::new("small").raw("mask", "BOOL", &[1], &[0]).write(&dir);
    Update::new("large").raw("mask", "BOOL", &[1], &[1]).write(&dir);
    compress(&dir, &["--codec", "u8", "a.safetensors"], "packed.safetensors");
    std::fs::hard_link(dir.path("a.safetensors"), dir.path("link.safetensors")).unwrap();
    let before = dir.contents();
    let base = |base| ["--base", base];
    let cases: [(&str, &[&str], &str, &[&str]); 10] = [
        ("missing.safetensors", &[], "out.safetensors", &["missing.safetensors: cannot be read"]),
        (
            "packed.safetensors",
            &[],
            "out.safetensors",
            &["packed.safetensors: is encoded already", "hint: run `fedmill decompress` on it first"],
        ),
        (
            "a.safetensors",
            &base("packed.safetensors"),
            "out.safetensors",
            &["packed.safetensors: is encoded already", "hint: run `fedmill decompress` on it first"],
        ),
        (
            "delta.safetensors",
            &base("a.safetensors"),
            "out.safetensors",
            &["holds a delta", "hint: leave --base out"],
        ),
        ("a.safetensors", &[], "a.safetensors", &["a.safetensors: is also an input"]),
        ("a.safetensors", &[], "link.safetensors", &["link.safetensors: is also an input"]),
        ("a.safetensors", &[], "no/folder.safetensors", &["directory does not exist"]),
        ("odd.safetensors", &[], "out.safetensors", &["`round` is `first`, expected a whole number"]),
        ("a.safetensors", &base("narrow.safetensors"), "out.safetensors", &["tensor `", "as in the base"]),
        (
            "small.safetensors",
            &base("large.safetensors"),
            "out.safetensors",
            &["tensor `mask`: the delta -1 at flat index 0 does not fit BOOL"],
        ),
    ];
    for (input, more, output, parts) in cases {
        let args = [&["compress", "--codec", "u8", input, "-o", output], more].concat();
        fedmill(&dir, &args).assert_fails(2, parts);
        dir.assert_unchanged_since(&before);
    }
    let args = ["compress", "--codec", "u9", "a.safetensors", "-o", "out.safetensors"];
    fedmill(&dir, &args).assert_fails(2, &["found codec `u9`, expected one of"]);
    let args = ["compress", "--backend", "gpu", "--codec", "sign", "a.safetensors", "-o", "out.safetensors"];
    fedmill(&dir, &args).assert_fails(2, &["--backend gpu"]);
}

#[test]
fn what_cannot_be_decompressed() {
    let dir = Dir::new();
    update("a", 1).write(&dir);
    compress(&dir, &["--codec", "u8", "a.safetensors"], "packed.safetensors");
    let cut = dir.read("packed.safetensors").len() - 9;
    dir.write("cut.safetensors", &dir.read("packed.safetensors")[..cut]);
    let before = dir.contents();
    for (input, output, part) in [
        ("a.safetensors", "out.safetensors", "a.safetensors: is not encoded"),
        ("cut.safetensors", "out.safetensors", "cut.safetensors: "),
        ("packed.safetensors", "packed.safetensors", "packed.safetensors: is also an input"),
    ] {
        fedmill(&dir, &["decompress", input, "-o", output]).assert_fails(2, &[part]);
        dir.assert_unchanged_since(&before);
    }
}

/// A finite value that F32 does not hold is named as it is.
#[test]
fn values_beyond_f32_are_named() {
    let dir = Dir::new();
    Update::new("a").f64("w", &[300], &[1e60; 300]).meta("kind", "delta").write(&dir);
    let args = ["compress", "--codec", "u8", "a.safetensors", "-o", "o.safetensors"];
    fedmill(&dir, &args).assert_fails(2, &["tensor `w` sends 1e60 at flat index 0, expected at most 3.4"]);
}

/// A codec that leaves values out makes another model of plain weights.
#[test]
fn weights_are_not_sent_by_codecs_that_shrink_them() {
    let dir = Dir::new();
    Update::new("a").f32("w", &[400], &values(2, 400)).write(&dir);
    Update::new("d").f32("w", &[400], &values(2, 400)).meta("kind", "delta").write(&dir);
    let run = |update: &str, how: &[&str]| {
        fedmill(
            &dir,
            &[&["compress", "-q", "--layout", "plain", update, "-o", "o.safetensors"], how].concat(),
        )
    };
    for how in [
        ["--codec", "topk"],
        ["--codec", "sign"],
        ["--codec", "lowrank"],
        ["--codec", "randk"],
        ["--target", "4"],
    ] {
        let says = ["a.safetensors: holds weights, expected a delta", "hint: --base BASE", "--as-is"];
        run("a.safetensors", &how).assert_fails(2, &says);
        assert!(!dir.exists("o.safetensors"));
    }
    for (update, how, kind) in [
        ("a.safetensors", &["--codec", "topk", "--as-is"][..], Some("weights")),
        ("d.safetensors", &["--codec", "topk"], Some("delta")),
        ("d.safetensors", &["--codec", "topk", "--as-is"], Some("delta")),
        ("a.safetensors", &["--codec", "u8"], None),
    ] {
        assert_eq!(run(update, how).code, Some(0), "{how:?}");
        let found = Model::read(&dir, "o.safetensors").metadata.get("kind").cloned();
        assert_eq!(found.as_deref(), kind, "{how:?}");
    }
}

#[test]
fn a_misspelt_codec_gets_the_one_that_was_meant() {
    let dir = Dir::new();
    for (found, meant) in [("u44", "u4"), ("edn4:block=64", "eden4"), ("topq", "topk")] {
        let run = fedmill(&dir, &["compress", "a.safetensors", "--codec", found, "-o", "o.safetensors"]);
        run.assert_fails(2, &["--codec", &format!("did you mean `{meant}`?")]);
    }
    let run = fedmill(&dir, &["compress", "a.safetensors", "--codec", "u4:blok=64", "-o", "o.safetensors"]);
    run.assert_fails(2, &["u4 has no setting `blok`", "did you mean `block`?"]);
}
