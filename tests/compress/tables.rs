//! Dry runs, and tables of what every codec makes of an update.

use super::{compress, update, values};
use crate::harness::{Dir, Update, fedmill};

/// A dry run reports the same figures as a run that writes.
#[test]
fn a_dry_run_leaves_nothing() {
    let dir = Dir::new();
    update("a", 1).write(&dir);
    Update::new("large").f32("w", &[1500, 1000], &values(2, 1_500_000)).write(&dir);
    let figures = |args: &[&str], more: &[&str]| -> serde_json::Value {
        let run = fedmill(&dir, &[&["compress", "-q", "--json"], args, more].concat());
        assert_eq!(run.code, Some(0), "{run:#?}");
        let mut figures: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        figures["output"].take();
        figures
    };
    // The last file is too large to be built in memory.
    for args in [&["--codec", "u8", "a.safetensors"][..], &["--codec", "f16", "large.safetensors"]] {
        let before = dir.contents();
        let dry = figures(args, &["--dry-run"]);
        dir.assert_unchanged_since(&before);
        assert_eq!(dry, figures(args, &["-o", "packed.safetensors"]));
        assert_eq!(dry["output_bytes"], dir.read("packed.safetensors").len() as u64);
        std::fs::remove_file(dir.path("packed.safetensors")).unwrap();
    }
    let before = dir.contents();
    let run = fedmill(&dir, &["compress", "--codec", "u8", "--dry-run", "a.safetensors"]);
    assert_eq!((run.code, run.stdout.starts_with("a.safetensors: ")), (Some(0), true), "{run:#?}");
    let residual = ["--residual", "e.safetensors", "-o", "out.safetensors"];
    figures(&["--codec", "u2", "a.safetensors", "--dry-run"], &residual);
    dir.assert_unchanged_since(&before);
}

#[test]
fn a_table_of_what_every_codec_makes_of_an_update() {
    let dir = Dir::new();
    Update::new("a")
        .f32("w", &[40, 100], &values(2, 4000))
        .f32("b", &[10], &values(3, 10))
        .meta("kind", "weights")
        .write(&dir);
    let before = dir.contents();
    let run = fedmill(&dir, &["compress", "--dry-run", "--table", "--json", "a.safetensors"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    dir.assert_unchanged_since(&before);
    let rows: Vec<serde_json::Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let bits = |row: &serde_json::Value| row["bits_per_parameter"].as_f64().unwrap();
    assert!(rows.windows(2).all(|pair| bits(&pair[0]) >= bits(&pair[1])), "rows are in order");
    for text in fedmill::codecs::tried() {
        let codec = fedmill::codecs::parse(&text).unwrap().to_string();
        let row = rows.iter().find(|row| row["codec"] == codec.as_str());
        let row = row.unwrap_or_else(|| panic!("no row of {codec}"));
        compress(&dir, &["--codec", &text, "a.safetensors"], "packed.safetensors");
        assert_eq!(row["bytes"], dir.read("packed.safetensors").len() as u64, "{codec}");
        for speed in ["encode_mb_per_s", "decode_mb_per_s"] {
            assert!(row[speed].as_f64().unwrap() > 0.0, "{codec}");
        }
    }
    let args = ["compress", "--dry-run", "--table", "--plot", "plot.svg", "a.safetensors"];
    let run = fedmill(&dir, &args);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let head: Vec<&str> = run.stdout.lines().next().unwrap().split_whitespace().take(4).collect();
    assert_eq!(head, ["codec", "bytes", "ratio", "bits"]);
    assert_eq!(run.stdout.lines().count(), rows.len() + 1);
    let svg = String::from_utf8(dir.read("plot.svg")).unwrap();
    for text in ["<svg", "bits per parameter", "NMSE", "least NMSE of white data", "f16"] {
        assert!(svg.contains(text), "{text}");
    }
    let args = ["compress", "--dry-run", "--table", "--plot", "plot.png", "a.safetensors"];
    assert_eq!(fedmill(&dir, &args).code, Some(0));
    assert!(dir.read("plot.png").starts_with(b"\x89PNG"));
}

#[test]
fn tables_that_make_no_sense() {
    let dir = Dir::new();
    Update::new("a").f32("w", &[400], &values(2, 400)).write(&dir);
    let before = dir.contents();
    for args in [
        &["--table", "-o", "out.safetensors"][..],
        &["--dry-run", "--table", "--codec", "u8"],
        &["--dry-run", "--codec", "u8", "--plot", "plot.svg"],
        &["--dry-run", "--table", "--plot", "plot.gif"],
        &["--dry-run"],
        &["--codec", "u8"],
    ] {
        let run = fedmill(&dir, &[&["compress", "a.safetensors"], args].concat());
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{args:?}");
        dir.assert_unchanged_since(&before);
    }
}
