//! Rounds with personal layers, and the models of single clients.

use super::inputs::{f32s, value};
use super::{Digests, done, merge};
use crate::harness::{Dir, Update};
use half::bf16;

/// A body, batch normalisation, and a head.
fn model(name: &str, seed: usize) -> Update {
    let halves: Vec<u16> = (0..40).map(|i| bf16::from_f64(value(seed + 300, i)).to_bits()).collect();
    Update::new(name)
        .f32("conv.weight", &[20, 10], &f32s(seed, 200))
        .half("bn.weight", "BF16", &[40], &halves)
        .f32("mid.weight", &[30], &f32s(seed + 100, 30))
        .f32("bn.running_mean", &[40], &f32s(seed + 200, 40))
        .i64("bn.num_batches_tracked", &[], &[seed as i64 * 7])
        .f64("double", &[50], &(0..50).map(|i| value(seed + 400, i)).collect::<Vec<f64>>())
        .i64("steps", &[1], &[seed as i64])
        .f32("head.weight", &[12], &f32s(seed + 500, 12))
        .f32("tail.bias", &[1], &f32s(seed + 600, 1))
}

fn round() -> Dir {
    let dir = Dir::new();
    for client in 1..=6 {
        model(&format!("in/c{client}"), client).meta("num_examples", &client.to_string()).write(&dir);
    }
    model("base", 50).meta("format", "pt").write(&dir);
    dir
}

#[test]
fn personal() {
    let mut digests = Digests::new("personal");
    let dir = round();
    let layers = ["in", "--personal=fedbn", "--personal=head.*"];
    for (name, rule) in [
        ("mean", &["--rule=mean"][..]),
        ("krum", &["--rule=krum", "--byzantine=1"]),
        ("nnm-geometric-median", &["--rule=geometric-median", "--pre=nnm", "--byzantine=1"]),
    ] {
        let more = [&layers, rule].concat();
        merge(
            &mut digests,
            &format!("with-base/{name}"),
            &dir,
            &[&more[..], &["--base=base.safetensors"]].concat(),
        );
        merge(&mut digests, &format!("without-base/{name}"), &dir, &more);
    }
    let adam = [&layers[..], &["--base=base.safetensors", "--strategy=fedadam", "--state=s"]].concat();
    merge(&mut digests, "fedadam", &dir, &adam);
    digests.add_file("fedadam/state", &dir, "s");

    dir.write("global.safetensors", dir.read("m.safetensors"));
    let made =
        ["personalize", "--global=global.safetensors", "--personal=in/c4.safetensors", "-o", "p.safetensors"];
    let hows: [(&str, &[&str]); 5] = [
        ("layers", &["--layers=fedbn", "--layers=head.*"]),
        ("mix-0", &["--mix=0"]),
        ("mix-0.3", &["--mix=0.3"]),
        ("mix-0.995", &["--mix=0.995"]),
        ("mix-1", &["--mix=1"]),
    ];
    for (name, how) in hows {
        done(&dir, &[&made, how].concat());
        digests.add_file(&format!("personalize/{name}"), &dir, "p.safetensors");
    }
    digests.check(include_str!("recorded/personal.txt"));
}
