//! Targets that no file can meet, and variances, which must not become negative.

use super::{floats, update, values};
use crate::harness::{Dir, Model, Update, fedmill};

/// A target below one byte is refused.
#[test]
fn a_target_above_the_bytes_there_are() {
    let dir = Dir::new();
    update("a", 1).write(&dir);
    let bytes = dir.read("a.safetensors").len();
    let before = dir.contents();
    let run = |target: &str, more: &[&str]| {
        let args =
            ["compress", "-q", "--as-is", "--target", target, "a.safetensors", "-o", "out.safetensors"];
        fedmill(&dir, &[&args, more].concat())
    };
    let above = (bytes + 1).to_string();
    let says = format!("a.safetensors: has {bytes} bytes, expected at least {above} for a file");
    run(&above, &[]).assert_fails(2, &[&says, "hint: ask for a lower --target"]);
    dir.assert_unchanged_since(&before);
    // A target of one byte is accepted, and missed.
    run(&bytes.to_string(), &[]).assert_fails(1, &["expected at most 1"]);
    dir.assert_unchanged_since(&before);
    assert_eq!(run(&above, &["--best-effort"]).code, Some(0));
}

/// Targets from almost nothing to most of the update.
const SIZES: [u32; 4] = [400, 600, 800, 1200];

/// If rounding would make a variance negative, variances are stored without loss.
#[test]
fn variances_stay_variances() {
    let dir = Dir::new();
    let base: Vec<f32> = (0..64).map(|i| 0.001 * (1.0 + i as f32 / 8.0)).collect();
    let fallen: Vec<f32> =
        base.iter().enumerate().map(|(i, x)| if i == 0 { 0.0005 } else { x * 0.02 }).collect();
    let write = |name: &str, seed: u32, variances: &[f32]| {
        Update::new(name)
            .f32("w", &[400], &values(seed, 400))
            .f32("bn.running_var", &[64], variances)
            .write(&dir);
    };
    write("base", 1, &base);
    write("a", 2, &fallen);
    let mut as_they_are = 0;
    for bytes in SIZES {
        let bytes = format!("{bytes}B");
        let args = ["--base", "base.safetensors", "a.safetensors", "-o", "out.safetensors"];
        let run =
            fedmill(&dir, &[&["compress", "-q", "--best-effort", "--max-bytes", &bytes], &args[..]].concat());
        assert_eq!(run.code, Some(0), "{run:#?}");
        let args = ["decompress", "out.safetensors", "--base", "base.safetensors", "-o", "back.safetensors"];
        assert_eq!(fedmill(&dir, &args).code, Some(0));
        let sent = floats(&Model::read(&dir, "back.safetensors"), "bn.running_var");
        let after: Vec<f64> = base.iter().zip(&sent).map(|(base, sent)| f64::from(*base) + sent).collect();
        assert!(after.iter().all(|x| *x >= 0.0), "{bytes}: {after:?}");
        let exact = after.iter().zip(&fallen).all(|(x, y)| (x - f64::from(*y)).abs() < 1e-9);
        as_they_are += usize::from(exact);
    }
    // The test shows something only if the sizes give files of both kinds.
    assert!((1..SIZES.len()).contains(&as_they_are), "{as_they_are}");
}
