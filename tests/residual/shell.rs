//! The rounds of `just compressed-rounds`: a shell script and compressed updates.

use crate::harness::{Dir, Model};
use std::fs;

/// The script of `just compressed-rounds`: a robust merge of compressed updates moves as a merge of plain ones does.
#[test]
fn compressed_rounds_from_the_shell() {
    let Some(root) = crate::harness::source_tree() else { return };
    let dir = Dir::new();
    let script = root.join("data/mnist-round/compressed_rounds.sh");
    let output = std::process::Command::new("bash")
        .arg(script)
        .arg(crate::harness::program())
        .arg(dir.path(""))
        .output();
    let output = output.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let bytes: Vec<u64> =
        said.lines().next().unwrap().split(' ').filter_map(|word| word.parse().ok()).collect();
    let [5, 20, plain, compressed] = bytes[..] else { panic!("{said}") };
    assert!(plain > 100 * compressed, "{said}");
    let went = |path: &str| {
        let base = fs::read(root.join("data/mnist-round/base.safetensors")).unwrap();
        dir.write("base.safetensors", base);
        let (model, base) = (Model::read(&dir, path), Model::read(&dir, "base.safetensors"));
        model
            .f32("fc1.weight")
            .iter()
            .zip(base.f32("fc1.weight"))
            .map(|(x, b)| f64::from(x - b))
            .collect::<Vec<_>>()
    };
    let (plain, compressed) = (went("plain.safetensors"), went("compressed.safetensors"));
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let cosine =
        product(&plain, &compressed) / (product(&plain, &plain) * product(&compressed, &compressed)).sqrt();
    // The cosine of a random direction would be about 0.01.
    assert!(cosine > 0.75, "{cosine}");
}
