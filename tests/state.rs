//! The state of centred clipping: the centre in its file, against the oracle over several rounds.

use crate::harness::{Dir, Model, Update, fedmill};
use crate::reference::robust;

const CLIENTS: usize = 7;
const RULE: &str = "centered-clipping:tau=1.5,iterations=2";

/// The deltas of one round; one client is far away.
fn deltas(round: usize) -> Vec<Vec<f64>> {
    let value = |i: usize, j: usize| ((i * 5 + j * 3 + round * 7) % 13) as f64 / 16.0 + j as f64 / 8.0;
    let scale = |i: usize| if i == 3 { -40.0 } else { 1.0 };
    (0..CLIENTS).map(|i| (0..6).map(|j| value(i, j) * scale(i)).collect()).collect()
}

fn first_base() -> Vec<f32> {
    (0..6).map(|j| j as f32 / 4.0).collect()
}

/// Writes a round as weights on its base, or as deltas.
fn write_round(dir: &Dir, round: usize, as_deltas: bool, base: &[f32]) {
    if round == 0 {
        Update::new("base").f32("w", &[6], base).write(dir);
    }
    for (i, delta) in deltas(round).iter().enumerate() {
        let update = Update::new(&format!("in/client-{i}"));
        if as_deltas {
            update.f64("w", &[6], delta).meta("kind", "delta").write(dir);
        } else {
            let weights: Vec<f32> = delta.iter().zip(base).map(|(d, b)| *d as f32 + b).collect();
            update.f32("w", &[6], &weights).write(dir);
        }
    }
}

const ARGS: [&str; 9] =
    ["aggregate", "-q", "--rule", RULE, "--base", "base.safetensors", "in", "-o", "m.safetensors"];

fn merge(dir: &Dir, more: &[&str]) -> Vec<f32> {
    fedmill(dir, &[&ARGS, more].concat()).assert_merged("m.safetensors");
    Model::read(dir, "m.safetensors").f32("w")
}

#[test]
fn the_centre_goes_on_from_round_to_round() {
    for as_deltas in [false, true] {
        let dir = Dir::new();
        let (mut centre, mut base) = (vec![0.0; 6], first_base());
        for round in 0..4 {
            write_round(&dir, round, as_deltas, &base);
            let merged = merge(&dir, &["--state", "centre.safetensors"]);
            centre = robust::centered_clipping(&deltas(round), &centre, Some(1.5), 2);
            for ((got, want), base) in merged.iter().zip(&centre).zip(&base) {
                let want = want + f64::from(*base);
                assert!((f64::from(*got) - want).abs() < 1e-5, "round {round}: {got} is not {want}");
            }
            let kept = Model::read(&dir, "centre.safetensors").f32("centre.w");
            assert!(kept.iter().zip(&centre).all(|(got, want)| (f64::from(*got) - want).abs() < 1e-5));
            std::fs::rename(dir.path("m.safetensors"), dir.path("base.safetensors")).unwrap();
            base = merged;
        }
    }
}

#[test]
fn without_a_state_every_round_starts_at_zero() {
    let dir = Dir::new();
    write_round(&dir, 0, false, &first_base());
    let first = merge(&dir, &["--state", "centre.safetensors"]);
    assert_eq!(merge(&dir, &[]), first, "a first round starts at zero too");
    assert_eq!(
        merge(&dir, &["--state", "centre.safetensors"]),
        first,
        "a round that is run again starts there again"
    );
    std::fs::rename(dir.path("m.safetensors"), dir.path("base.safetensors")).unwrap();
    let second = merge(&dir, &["--state", "centre.safetensors"]);
    let lost = dir.read("centre.safetensors");
    std::fs::remove_file(dir.path("centre.safetensors")).unwrap();
    let run = fedmill(&dir, &[&ARGS[..], &["--state", "centre.safetensors"]].concat());
    run.assert_fails(2, &["hint: copy centre.safetensors.previous to centre.safetensors"]);
    dir.write("centre.safetensors", &lost);
    assert_ne!(merge(&dir, &["--state-init"]), second, "the second starts at the first's centre");
    assert_eq!(
        merge(&dir, &["--state", "centre.safetensors"]),
        second,
        "again, from what stayed beside the state"
    );
}

#[test]
fn a_sound_state_is_used_beside_state_init() {
    let dir = Dir::new();
    write_round(&dir, 0, false, &first_base());
    merge(&dir, &["--state", "centre.safetensors"]);
    std::fs::rename(dir.path("m.safetensors"), dir.path("base.safetensors")).unwrap();
    let loud: Vec<&str> = ARGS.into_iter().filter(|arg| *arg != "-q").collect();
    let run = fedmill(&dir, &[&loud[..], &["--state", "centre.safetensors", "--state-init"]].concat());
    run.assert_merged("m.safetensors");
    let warning = "centre.safetensors: belongs to the base and is used; --state-init changes nothing";
    assert_eq!(run.stderr.matches(warning).count(), 1, "{run:#?}");
}

#[test]
fn integers_and_doubles_keep_their_digits() {
    let dir = Dir::new();
    for (i, value) in [10i64, 11, 12].into_iter().enumerate() {
        Update::new(&format!("in/c{i}"))
            .i64("n", &[1], &[value])
            .f64("d", &[1], &[1.0 / 3.0 + value as f64])
            .meta("kind", "delta")
            .write(&dir);
    }
    let args = ["aggregate", "--rule", "centered-clipping:tau=100", "in", "-o", "m.safetensors"];
    fedmill(&dir, &[&args[..], &["--state", "s.safetensors"]].concat()).assert_merged("m.safetensors");
    let state = Model::read(&dir, "s.safetensors");
    assert_eq!((state.dtype("centre.n"), state.dtype("centre.d")), ("F64", "F64"));
    assert!((state.f64("centre.n")[0] - 11.0).abs() < 1e-12);
    assert!((state.f64("centre.d")[0] - 34.0 / 3.0).abs() < 1e-12);
}

#[track_caller]
fn assert_refused(dir: &Dir, args: &[&str], part: &str) {
    let before = dir.contents();
    let run = fedmill(dir, args);
    assert_eq!(run.code, Some(2), "{run:#?}");
    assert!(run.stderr.contains(part), "{}", run.stderr);
    dir.assert_unchanged_since(&before);
}

#[test]
fn what_is_no_state_is_refused() {
    let dir = Dir::new();
    write_round(&dir, 0, false, &first_base());
    let with = |state: &'static str| [&ARGS[..], &["--state", state]].concat();
    assert_refused(&dir, &with("base.safetensors"), "base.safetensors: is also an input");
    assert_refused(&dir, &with("m.safetensors"), "is also another output");
    Update::new("other").f32("w", &[6], &[0.0; 6]).write(&dir);
    assert_refused(&dir, &with("other.safetensors"), "`fedmill.state` is missing");
    let state = |name: &str| Update::new(name).meta("fedmill.state", "centered-clipping");
    state("steps").f32("centre.w", &[6], &[0.0; 6]).write(&dir);
    assert_refused(&dir, &with("steps.safetensors"), "metadata `fedmill.steps` is ``, expected a count");
    state("shape").f32("centre.w", &[5], &[0.0; 5]).meta("fedmill.steps", "1").write(&dir);
    assert_refused(&dir, &with("shape.safetensors"), "tensor `centre.w` has shape [5], expected [6]");
    state("stranger").f32("centre.w", &[6], &[0.0; 6]).meta("fedmill.steps", "2").write(&dir);
    assert_refused(&dir, &with("stranger.safetensors"), "stranger.safetensors: belongs to the model blake3:");
    dir.write("junk.safetensors", b"junk");
    assert_refused(&dir, &with("junk.safetensors"), "junk.safetensors: the state cannot be used");
    let krum = ["aggregate", "--rule", "krum", "in", "-o", "m.safetensors", "--state", "s.safetensors"];
    assert_refused(&dir, &krum, "--state: krum and fedavg keep nothing between rounds");
}
